// Curves, axes, and a report in all its forms.
#include "train/report.h"

#include <cmath>
#include <cstring>
#include <functional>

#include <gtest/gtest.h>

#include "cli/command.h"
#include "temporary_folder.hh"
#include "train/metrics.h"

namespace
{

struct zinf_curve curve_of(int64_t count, const std::function<double(int64_t)> &y)
{
    struct zinf_curve curve = {};
    for (int64_t i = 0; i < count; i++)
        zinf_curve_add(&curve, (double)i, y(i));
    return curve;
}

TEST(Chart, TheMovingMeanKeepsAStraightLineAndAConstantSum)
{
    struct zinf_curve line = curve_of(101, [](int64_t i) { return 3.0 * i - 7; });
    struct zinf_curve smooth = zinf_curve_smooth(&line, 11);
    ASSERT_EQ(smooth.count, 101);
    for (int64_t i = 0; i < 101;
         i++) // a window as wide on both sides, so the ends are true as well
        EXPECT_NEAR(smooth.y[i], line.y[i], 1e-9);
    struct zinf_curve saw = curve_of(101, [](int64_t i) { return i % 2 ? 1.0 : -1.0; });
    struct zinf_curve flat = zinf_curve_smooth(&saw, 11);
    for (int64_t i = 5; i < 96; i++)
        EXPECT_LE(std::fabs(flat.y[i]), 1.0 / 11 + 1e-12);
    for (struct zinf_curve *curve : {&line, &smooth, &saw, &flat})
        zinf_curve_release(curve);
}

TEST(Chart, ThinningKeepsEveryExtreme)
{
    struct zinf_curve curve = curve_of(10000, [](int64_t i) { return std::sin(0.01 * i); });
    curve.y[1234] = 50;
    curve.y[7777] = -60;
    struct zinf_curve thin = zinf_curve_thin(&curve, 100);
    EXPECT_LE(thin.count, 200);
    bool high = false, low = false;
    for (int64_t i = 0; i < thin.count; i++) {
        high |= thin.y[i] == 50;
        low |= thin.y[i] == -60;
        EXPECT_TRUE(i == 0 || thin.x[i] > thin.x[i - 1]);
    }
    EXPECT_TRUE(high && low);
    zinf_curve_release(&curve);
    zinf_curve_release(&thin);
}

void expect_axis(double min, double max, bool is_log, std::initializer_list<const char *> labels)
{
    char text[ZINF_AXIS_LABEL_BYTES];
    const struct zinf_axis axis = zinf_axis_around(min, max, 4, is_log);
    SCOPED_TRACE(testing::Message() << min << " to " << max);
    EXPECT_LE(axis.min, min);
    EXPECT_GE(axis.max, max);
    ASSERT_EQ(axis.tick_count, (int)labels.size());
    for (int i = 0; i < axis.tick_count; i++)
        EXPECT_STREQ(zinf_axis_label(&axis, axis.ticks[i], text), labels.begin()[i]);
}

TEST(Chart, AxesHaveRoundEndsAndLabels)
{
    expect_axis(2.31, 5.98, false, {"2", "3", "4", "5", "6"});
    expect_axis(0, 5e-4, false, {"0", "2e-4", "4e-4", "6e-4"});
    expect_axis(0, 1.5e-3, false, {"0", "5e-4", "1.0e-3", "1.5e-3"});
    expect_axis(0, 41234, false, {"0", "20k", "40k", "60k"});
    expect_axis(3.10, 3.19, false, {"3.10", "3.15", "3.20"});
    expect_axis(5, 5, false, {"4.5", "5.0", "5.5"});
    expect_axis(0, 0, false, {"-1.0", "-0.5", "0", "0.5", "1.0"});
    expect_axis(0.02, 40, true, {"0.1", "1", "10"});
    expect_axis(0.4, 4, true, {"0.2", "0.5", "1", "2", "5"});
    expect_axis(1e-6, 1e3, true, {"1e-6", "1e-3", "1", "1000"});
    expect_axis(1e6, 2.4e6, false, {"1.0M", "1.5M", "2.0M", "2.5M"});
}

TEST(Chart, PlacesAreLinearOrLogarithmic)
{
    const struct zinf_axis line = zinf_axis_around(0, 10, 5, false);
    EXPECT_DOUBLE_EQ(zinf_axis_place(&line, 2.5), 0.25);
    const struct zinf_axis decades = zinf_axis_around(1, 100, 5, true);
    EXPECT_DOUBLE_EQ(zinf_axis_place(&decades, 10), 0.5);
}

// A run of `steps` steps with evaluations, a skipped step, and a line that a crash cut.
std::string make_run(const TemporaryFolder &folder, const std::string &name, int steps, double last)
{
    std::string text;
    char line[ZINF_METRICS_LINE_BYTES];
    uint32_t noise = 1;
    for (int step = 1; step <= steps; step++) {
        struct zinf_metrics m = {};
        noise = noise * 1664525u + 1013904223u;
        const double wiggle = (noise >> 8) / 16777216.0 - 0.5;
        m.step = step;
        m.loss = last + (6 - last) * std::exp(-4.0 * step / steps) + 0.4 * wiggle;
        m.lr = 1e-3 * std::min(1.0, step / (0.1 * steps));
        m.grad_norm =
            step % 97 == 96 ? NAN : 0.5 + std::fabs(wiggle) + (step < 20 ? 30.0 / step : 0);
        m.tokens_per_s = 12000 + 900 * wiggle;
        m.comm_bytes = 19600000;
        zinf_metrics_print(&m, line);
        text += line;
        if (step % (steps / 8 + 1) == 0) {
            struct zinf_evaluation e = {};
            e.step = step;
            e.loss = m.loss - 0.4 * wiggle + 0.05;
            e.perplexity = std::exp(e.loss);
            zinf_evaluation_print(&e, line);
            text += line;
        }
    }
    folder.write(name + "/metrics.jsonl", text + "{\"step\": 9");
    folder.write(name + "/results.json", "{\"status\": \"complete\", \"wall_s\": 185.2}");
    return folder / name;
}

struct Report {
    struct zinf_report report = {};
    struct zinf_error error = {};
    int status;

    explicit Report(const std::vector<std::string> &paths)
    {
        std::vector<const char *> names;
        for (const std::string &path : paths)
            names.push_back(path.c_str());
        status = zinf_report_open(&report, names.data(), (int)names.size(), &error);
    }
    ~Report()
    {
        zinf_report_close(&report);
    }
    Report(const Report &) = delete;
    Report &operator=(const Report &) = delete;

    std::string written(const std::function<void(FILE *)> &write) const
    {
        char *text = nullptr;
        size_t bytes = 0;
        FILE *out = open_memstream(&text, &bytes);
        write(out);
        fclose(out);
        const std::string result(text, bytes);
        free(text);
        return result;
    }
    std::string printed(int columns, bool utf8, bool colour) const
    {
        const struct zinf_report_terminal terminal = {columns, utf8, colour};
        return written([&](FILE *out) { zinf_report_print(&report, &terminal, out); });
    }
};

std::vector<std::string> split(const std::string &text)
{
    std::vector<std::string> lines;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);)
        lines.push_back(line);
    return lines;
}

int width_of(const std::string &text)
{
    int width = 0;
    for (char byte : text)
        width += (byte & 0xc0) != 0x80;
    return width;
}

bool contains(const std::string &text, const std::string &part)
{
    return text.find(part) != std::string::npos;
}

TEST(Report, TheTerminalShowsCurvesAndTableWithinItsWidth)
{
    TemporaryFolder folder;
    Report report({make_run(folder, "demo", 400, 3)});
    ASSERT_EQ(report.status, 0) << report.error.text;
    EXPECT_EQ(report.report.runs[0].bad_lines, 1);
    for (int columns : {60, 80, 120}) {
        const std::string text = report.printed(columns, true, false);
        for (const char *word : {"loss, mean over 9 steps", "\u25cf evaluation", "learning rate",
                                 "gradient norm, mean over 9 steps", "tokens per second", "\u2514",
                                 "step", "complete", "3 min 05 s", "demo"})
            EXPECT_TRUE(contains(text, word)) << word;
        const std::vector<std::string> lines = split(text);
        for (size_t i = 0; i + 3 < lines.size(); i++) // the table may be wider than a small window
            EXPECT_LE(width_of(lines[i]), columns) << lines[i];
        EXPECT_FALSE(contains(text, "\033"));
    }
}

TEST(Report, SeveralRunsAreToldApartByColourOrByLetter)
{
    TemporaryFolder folder;
    Report report({make_run(folder, "a", 300, 3), make_run(folder, "b", 200, 4)});
    ASSERT_EQ(report.status, 0);
    const std::string colour = report.printed(80, true, true),
                      plain = report.printed(80, false, false);
    EXPECT_TRUE(contains(colour, "\033[34m") && contains(colour, "\033[33m"));
    EXPECT_TRUE(contains(plain, "  a  a\n  b  b\n"));
    EXPECT_TRUE(contains(plain, "aa") && contains(plain, "bb"));
    for (char byte : plain)
        EXPECT_GT(byte, 0); // no UTF-8 where the terminal has none
}

TEST(Report, RunsOfTheSameNameGoByTheirPaths)
{
    TemporaryFolder folder;
    const std::string a = make_run(folder, "x/demo", 10, 3), b = make_run(folder, "y/demo", 10, 3);
    Report report({a + "/", b, make_run(folder, "other", 10, 3) + "/metrics.jsonl"});
    ASSERT_EQ(report.status, 0);
    EXPECT_EQ(report.report.runs[0].name, a + "/");
    EXPECT_EQ(report.report.runs[1].name, b);
    EXPECT_STREQ(report.report.runs[2].name, "other");
}

TEST(Report, TheDrawingHasEveryCurveWithinItsFrame)
{
    TemporaryFolder folder;
    Report report({make_run(folder, "a", 3000, 3), make_run(folder, "b<&>\"", 2000, 4)});
    const std::string svg =
        report.written([&](FILE *out) { zinf_report_svg(&report.report, out); });
    EXPECT_EQ(svg.find("<svg xmlns"), 0u);
    EXPECT_TRUE(contains(svg, "b&lt;&amp;&gt;&quot;"));
    EXPECT_FALSE(contains(svg, "nan"));
    EXPECT_FALSE(contains(svg, "inf"));
    EXPECT_LT(svg.size(), 400000u); // thinned: not a point a step
    size_t raw = 0, mean = 0;
    for (const std::string &line : split(svg)) {
        raw += contains(line, "class=\"raw\"");
        mean += contains(line, "class=\"mean\"");
        const size_t path = line.find(" d=\"M");
        double x, y;
        if (path != std::string::npos &&
            sscanf(line.c_str() + path, " d=\"M%lf %lf", &x, &y) == 2) {
            EXPECT_GE(x, 0);
            EXPECT_LE(x, 960);
            EXPECT_GE(y, 0);
        }
    }
    EXPECT_EQ(raw, 6u);
    EXPECT_EQ(mean, 2u + 8u); // the legend's and four panels'
    const std::string html =
        report.written([&](FILE *out) { zinf_report_html(&report.report, out); });
    EXPECT_TRUE(contains(html, "<svg xmlns") && contains(html, "<td>complete</td>"));
    EXPECT_FALSE(contains(html, "b<&>"));
    EXPECT_FALSE(contains(html, "http://") && contains(html, "<script"));
}

TEST(Report, CsvHoldsEveryLineAndLeavesAbsentValuesEmpty)
{
    TemporaryFolder folder;
    Report report({make_run(folder, "a,b", 100, 3)});
    const std::string csv =
        report.written([&](FILE *out) { zinf_report_csv(&report.report, out); });
    const std::vector<std::string> lines = split(csv);
    EXPECT_EQ(lines.size(), 1u + 100u + 7u);
    EXPECT_EQ(lines[0].find("run,step,epoch,samples,tokens,loss,lr,grad_norm"), 0u);
    for (const std::string &line : lines)
        EXPECT_EQ(std::count(line.begin(), line.end(), ','), 29 + (&line != &lines[0]));
    EXPECT_EQ(lines[1].find("\"a,b\",1,0,0,0,"), 0u);
    EXPECT_TRUE(contains(csv, ",,0,0,")); // the skipped step's norm
    EXPECT_TRUE(contains(lines[1], ",19600000,")) << "a count in full, not 1.96e+07: " << lines[1];
}

TEST(Report, WhatIsNoRunIsRefusedByName)
{
    TemporaryFolder folder;
    folder.write("empty/metrics.jsonl", "\n{\"step\"");
    Report none({folder / "none"}), empty({folder / "empty"});
    EXPECT_EQ(none.status, ZINF_E_DATA);
    EXPECT_TRUE(contains(none.error.text, "none") && contains(none.error.text, "run folders"));
    EXPECT_EQ(empty.status, ZINF_E_DATA);
    EXPECT_TRUE(contains(empty.error.text, "no line of metrics"));
}

TEST(Report, ASingleStepIsShown)
{
    TemporaryFolder folder;
    Report report({make_run(folder, "one", 1, 3)});
    ASSERT_EQ(report.status, 0);
    EXPECT_TRUE(contains(report.printed(80, true, false), "one"));
    const std::string svg =
        report.written([&](FILE *out) { zinf_report_svg(&report.report, out); });
    EXPECT_TRUE(contains(svg, "<circle"));
    EXPECT_FALSE(contains(svg, "nan"));
}

// `zinf report ...` as the program runs it.
int run_command(std::vector<std::string> words)
{
    words.insert(words.begin(), {"zinf", "report"});
    std::vector<char *> argv;
    for (std::string &word : words)
        argv.push_back(&word[0]);
    struct zinf_options options;
    struct zinf_error error = {};
    int status = zinf_options_parse(&options, (int)argv.size(), argv.data(), &error);
    if (!status) {
        struct zinf_comm alone = {};
        const struct zinf_context context = {&options, &alone, 1};
        status = options.command->run(&context);
    }
    zinf_options_release(&options);
    return status;
}

TEST(ReportCommand, WritesWhatItIsAskedFor)
{
    TemporaryFolder folder;
    const std::string run = make_run(folder, "demo", 50, 3);
    EXPECT_EQ(run_command({run, "--svg", folder / "a.svg", "--html=" + (folder / "a.html"), "--csv",
                           folder / "a.csv"}),
              0);
    EXPECT_EQ(folder.read("a.svg").find("<svg"), 0u);
    EXPECT_EQ(folder.read("a.html").find("<!doctype html>"), 0u);
    EXPECT_EQ(folder.read("a.csv").find("run,step"), 0u);
}

TEST(ReportCommand, FailuresHaveTheirCodes)
{
    TemporaryFolder folder;
    const std::string run = make_run(folder, "demo", 5, 3);
    EXPECT_EQ(run_command({}), ZINF_E_USAGE);
    EXPECT_EQ(run_command({folder / "none"}), ZINF_E_DATA);
    EXPECT_EQ(run_command({run, "--svg", folder / "no/such/folder.svg"}), ZINF_E_USAGE);
    EXPECT_EQ(run_command({run, "--csv", "/dev/full"}), ZINF_E_NO_SPACE);
    EXPECT_EQ(run_command({run, "--pdf", folder / "a.pdf"}), ZINF_E_USAGE);
}

} // namespace
