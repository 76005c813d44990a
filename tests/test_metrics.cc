// Lines of metrics.jsonl, the line and the bar on the terminal, time per activity.
#include "train/metrics.h"

#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>

#include <fcntl.h>
#include <pty.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "base/clock.h"
#include "base/status.h"
#include "train/activity.h"
#include "train/progress.h"
#include "train/terminal.h"

namespace
{

struct zinf_metrics example()
{
    struct zinf_metrics m = {};
    m.step = 120;
    m.epoch = 0.52;
    m.samples = 480;
    m.tokens = 122880;
    m.loss = 4.127000331878662;
    m.lr = 1e-05;
    m.grad_norm = 1.0 / 3;
    m.loss_scale = 65536;
    m.skipped = 2;
    m.step_s = 0.6123456789;
    m.tokens_per_s = 41234.5678;
    m.tflops = 0.3123;
    m.mfu = 0.381;
    m.comm_bytes = 9007199254740993;
    m.wait_comm_s = 0.25;
    m.rss_bytes = 123456789;
    m.device_bytes = 1;
    m.pinned_bytes = 2;
    m.wait_update_s = 0.125;
    m.early_records = 3;
    m.refused_records = 4;
    return m;
}

TEST(Metrics, ALineHasTheContractsKeysInItsOrder)
{
    char line[ZINF_METRICS_LINE_BYTES];
    const struct zinf_metrics m = example();
    zinf_metrics_print(&m, line);
    EXPECT_STREQ(line,
                 "{\"step\": 120, \"epoch\": 0.52, \"samples\": 480, \"tokens\": 122880, "
                 "\"loss\": 4.127000331878662, \"lr\": 1e-05, \"grad_norm\": 0.3333333333333333, "
                 "\"loss_scale\": 65536, \"skipped\": 2, \"step_s\": 0.612346, "
                 "\"tokens_per_s\": 41234.6, \"tflops\": 0.3123, \"mfu\": 0.381, "
                 "\"nvme_read_bytes\": 0, \"nvme_write_bytes\": 0, "
                 "\"comm_bytes\": 9007199254740993, \"wait_nvme_s\": 0, \"wait_comm_s\": 0.25, "
                 "\"wait_data_s\": 0, \"rss_bytes\": 123456789, \"device_bytes\": 1, "
                 "\"pinned_bytes\": 2, \"wait_update_s\": 0.125, \"early_records\": 3, "
                 "\"refused_records\": 4}\n");
}

TEST(Metrics, TheLongestNumbersFitALine)
{
    char line[ZINF_METRICS_LINE_BYTES];
    struct zinf_metrics m = example();
    m.step = m.samples = m.tokens = m.skipped = m.nvme_read_bytes = m.nvme_write_bytes =
        m.comm_bytes = m.rss_bytes = m.device_bytes = m.pinned_bytes = m.early_records =
            m.refused_records = std::numeric_limits<int64_t>::min();
    m.epoch = m.loss = m.lr = m.grad_norm = m.loss_scale = -2.2250738585072014e-308;
    m.step_s = m.tokens_per_s = m.tflops = m.mfu = m.wait_nvme_s = m.wait_comm_s = m.wait_data_s =
        m.wait_update_s = -1.23456789e-300;
    zinf_metrics_print(&m, line);
    double values[ZINF_METRIC_COUNT];
    EXPECT_TRUE(zinf_metrics_parse(line, values));
}

TEST(Metrics, WhatIsNotFiniteIsNullAndReadsBackAsAbsent)
{
    char line[ZINF_METRICS_LINE_BYTES];
    struct zinf_metrics m = example();
    m.loss = INFINITY;
    m.grad_norm = NAN;
    m.mfu = NAN;
    zinf_metrics_print(&m, line);
    EXPECT_NE(strstr(line, "\"loss\": null, "), nullptr);
    EXPECT_NE(strstr(line, "\"grad_norm\": null, "), nullptr);
    EXPECT_NE(strstr(line, "\"mfu\": null, "), nullptr);
    double values[ZINF_METRIC_COUNT];
    ASSERT_TRUE(zinf_metrics_parse(line, values));
    EXPECT_TRUE(std::isnan(values[ZINF_METRIC_LOSS]));
    EXPECT_TRUE(std::isnan(values[ZINF_METRIC_EVAL_LOSS]));
    EXPECT_EQ(values[ZINF_METRIC_STEP], 120);
    EXPECT_EQ(values[ZINF_METRIC_LR], 1e-05);
    EXPECT_EQ(values[ZINF_METRIC_PINNED_BYTES], 2);
}

TEST(Metrics, NumbersAreShortestAndReadBackExactly)
{
    char text[ZINF_NUMBER_BYTES];
    for (auto pair : {std::pair<double, const char *>{0.1, "0.1"},
                      {1e-3, "0.001"},
                      {0, "0"},
                      {-0.0, "-0"},
                      {5e-324, "5e-324"},
                      {1.0 / 3, "0.3333333333333333"}}) {
        zinf_number_print(pair.first, text);
        EXPECT_STREQ(text, pair.second);
    }
    uint64_t bits = 1;
    for (int i = 0; i < 20000; i++) {
        bits = bits * 6364136223846793005ull + 1442695040888963407ull;
        double value;
        memcpy(&value, &bits, 8);
        zinf_number_print(value, text);
        if (std::isfinite(value))
            EXPECT_EQ(strtod(text, NULL), value) << text;
        else
            EXPECT_STREQ(text, "null");
    }
}

TEST(Metrics, EvaluationLinesCarryTheScoresOfTheirTask)
{
    char line[ZINF_METRICS_LINE_BYTES];
    struct zinf_evaluation e = {};
    e.step = 200;
    e.loss = 3.5;
    e.perplexity = 33.11545195869231;
    zinf_evaluation_print(&e, line);
    EXPECT_STREQ(line,
                 "{\"step\": 200, \"eval_loss\": 3.5, \"eval_perplexity\": 33.11545195869231}\n");
    e.is_classification = true;
    e.accuracy = 0.75;
    e.f1 = 0.5;
    zinf_evaluation_print(&e, line);
    EXPECT_STREQ(line, "{\"step\": 200, \"eval_loss\": 3.5, \"eval_accuracy\": 0.75, "
                       "\"eval_f1\": 0.5}\n");
    double values[ZINF_METRIC_COUNT];
    ASSERT_TRUE(zinf_metrics_parse(line, values));
    EXPECT_EQ(values[ZINF_METRIC_EVAL_F1], 0.5);
    EXPECT_TRUE(std::isnan(values[ZINF_METRIC_LOSS]));
}

TEST(Metrics, EveryCutOfALineIsRefusedAndUnknownKeysArePassedOver)
{
    char line[ZINF_METRICS_LINE_BYTES];
    double values[ZINF_METRIC_COUNT];
    const struct zinf_metrics m = example();
    zinf_metrics_print(&m, line);
    const std::string whole = line;
    for (size_t length = 0; length < whole.size() - 2; length++)
        EXPECT_FALSE(zinf_metrics_parse(whole.substr(0, length).c_str(), values)) << length;
    EXPECT_TRUE(zinf_metrics_parse(
        "{ \"note\":\"a \\\" b\", \"loss\" : 2.5,\"ok\":true,\"step\":7 }", values));
    EXPECT_EQ(values[ZINF_METRIC_LOSS], 2.5);
    EXPECT_EQ(values[ZINF_METRIC_STEP], 7);
    EXPECT_FALSE(zinf_metrics_parse("{\"step\": [1]}", values));
    EXPECT_FALSE(zinf_metrics_parse("{\"step\": 1} x", values));
    EXPECT_FALSE(zinf_metrics_parse("{}", values));
}

TEST(Metrics, PeakMemoryGrowsWithWhatIsTouched)
{
    const int64_t before = zinf_peak_rss_bytes();
    const size_t bytes = 32 << 20;
    char *memory = (char *)malloc(bytes);
    for (size_t i = 0; i < bytes; i += 512)
        ((volatile char *)memory)[i] = 1;
    EXPECT_GT(before, 1 << 20);
    EXPECT_GT(zinf_peak_rss_bytes(), before + (int64_t)(bytes / 2));
    free(memory);
}

TEST(Terminal, NumbersForPeopleHaveThreeDigits)
{
    char t[ZINF_SHORT_BYTES];
    EXPECT_STREQ(zinf_short_number(0.01234, t), "0.0123");
    EXPECT_STREQ(zinf_short_number(950, t), "950");
    EXPECT_STREQ(zinf_short_number(999.7, t), "1.00k");
    EXPECT_STREQ(zinf_short_number(41234, t), "41.2k");
    EXPECT_STREQ(zinf_short_number(123456789, t), "123M");
    EXPECT_STREQ(zinf_short_bytes(512, t), "512 B");
    EXPECT_STREQ(zinf_short_bytes(1.5 * (1 << 30), t), "1.50 GiB");
    EXPECT_STREQ(zinf_short_time(3.21, t), "3.2 s");
    EXPECT_STREQ(zinf_short_time(185, t), "3 min 05 s");
    EXPECT_STREQ(zinf_short_time(7800, t), "2 h 10 min");
    EXPECT_STREQ(zinf_short_time(NAN, t), "?");
}

TEST(Progress, TheLineSaysWhatHappened)
{
    char line[ZINF_PROGRESS_LINE_BYTES];
    struct zinf_metrics m = example();
    m.skipped = 0;
    zinf_progress_line(&m, 1000, false, line);
    EXPECT_STREQ(line, "step  120/1000 | epoch 0.52 | loss 4.1270 | lr 1.00e-05 | grad norm 0.333 "
                       "| 41.2k tok/s | 0.312 TFLOP/s | MFU 38.1% | 0.612 s");
    m.skipped = 2;
    m.grad_norm = NAN;
    zinf_progress_line(&m, 1000, true, line);
    EXPECT_NE(strstr(line, "step skipped"), nullptr);
    EXPECT_NE(strstr(line, "skipped 2 | loss scale 65536"), nullptr);
}

// A terminal of our own, and what was written on it.
class Screen
{
  public:
    Screen()
    {
        if (openpty(&master_, &slave_, NULL, NULL, NULL))
            return;
        fcntl(master_, F_SETFL, O_NONBLOCK);
        file = fdopen(slave_, "w");
    }
    ~Screen()
    {
        if (!file)
            return;
        fclose(file);
        close(master_);
    }
    std::string text()
    {
        char buffer[4096];
        std::string all;
        ssize_t got;
        while ((got = read(master_, buffer, sizeof buffer)) > 0)
            all.append(buffer, (size_t)got);
        return all;
    }
    FILE *file = nullptr; /* no pseudo-terminal can be had here, as in a chroot without /dev/pts */

  private:
    int master_, slave_;
};

TEST(Progress, TheBarIsDrawnOnATerminalAndWipedBeforeALineOfTheLog)
{
    Screen screen;
    if (!screen.file)
        GTEST_SKIP() << "no pseudo-terminal here: " << strerror(errno);
    setenv("TERM", "xterm", 1);
    setenv("LC_ALL", "C.UTF-8", 1);
    struct zinf_log_options options = {};
    options.terminal = screen.file;
    zinf_log_configure(&options);
    struct zinf_metrics m = example();
    zinf_progress_open(screen.file, 1000);
    zinf_progress_step(&m);
    std::string shown = screen.text();
    EXPECT_NE(shown.find("step 120/1000"), std::string::npos);
    EXPECT_NE(shown.find("\u2588"), std::string::npos);
    EXPECT_EQ(shown.find('\n'), std::string::npos);
    m.step++;
    zinf_progress_step(&m); // within a tenth of a second: not drawn
    EXPECT_EQ(screen.text(), "");
    zinf_info("a line");
    EXPECT_EQ(screen.text(), "\r\033[Ka line\r\n");
    zinf_info("another");
    EXPECT_EQ(screen.text(), "another\r\n");
    zinf_progress_step(&m); // wiped, so drawn again at once
    EXPECT_NE(screen.text().find("step 121/1000"), std::string::npos);
    zinf_progress_close();
    EXPECT_EQ(screen.text(), "\r\033[K");
    options.terminal = NULL;
    zinf_log_configure(&options);
}

TEST(Progress, WithoutATerminalNothingIsWritten)
{
    FILE *file = tmpfile();
    const struct zinf_metrics m = example();
    zinf_progress_open(file, 10);
    zinf_progress_step(&m);
    zinf_progress_close();
    EXPECT_EQ(ftell(file), 0);
    fclose(file);
}

TEST(Activity, NoMomentIsCountedTwice)
{
    struct zinf_activities a;
    zinf_activities_init(&a);
    zinf_activity_start(&a, ZINF_ACTIVITY_FORWARD);
    zinf_clock_nap(0.02);
    zinf_activity_start(&a, ZINF_ACTIVITY_WAIT_GATHER);
    zinf_clock_nap(0.03);
    zinf_activity_stop(&a, ZINF_ACTIVITY_WAIT_GATHER);
    zinf_activity_stop(&a, ZINF_ACTIVITY_FORWARD);
    zinf_activity_start(&a, ZINF_ACTIVITY_EVALUATION);
    zinf_activity_start(&a, ZINF_ACTIVITY_FORWARD);
    zinf_clock_nap(0.02);
    zinf_activity_stop(&a, ZINF_ACTIVITY_FORWARD);
    zinf_activity_stop(&a, ZINF_ACTIVITY_EVALUATION);
    zinf_clock_nap(0.01);
    const struct zinf_activity_totals t = zinf_activities_totals(&a);
    const auto &rows = t.rows;
    EXPECT_GE(rows[ZINF_ACTIVITY_FORWARD].seconds, 0.02);
    EXPECT_GE(rows[ZINF_ACTIVITY_WAIT_GATHER].seconds, 0.03);
    EXPECT_GE(rows[ZINF_ACTIVITY_EVALUATION].seconds, 0.02);
    EXPECT_EQ(rows[ZINF_ACTIVITY_FORWARD].calls, 1);
    EXPECT_EQ(rows[ZINF_ACTIVITY_EVALUATION].calls, 1);
    double sum = 0;
    for (const auto &row : rows)
        sum += row.seconds;
    EXPECT_GE(t.wall_s - sum, 0.01); // the nap that nobody counted
    EXPECT_NEAR(sum, a.since_s - a.began_s - (t.wall_s - sum), 1e-9);
}

TEST(Activity, TheTableShowsSpreadShareAndRest)
{
    struct zinf_activity_totals ranks[2] = {};
    ranks[0].wall_s = ranks[1].wall_s = 10;
    ranks[0].rows[ZINF_ACTIVITY_FORWARD] = {4, 20, 0};
    ranks[1].rows[ZINF_ACTIVITY_FORWARD] = {2, 20, 0};
    ranks[0].rows[ZINF_ACTIVITY_WAIT_GATHER] = {1, 40, 3 << 20};
    ranks[1].rows[ZINF_ACTIVITY_WAIT_GATHER] = {3, 40, 3 << 20};
    char *table = zinf_activity_table(ranks, 2);
    EXPECT_STREQ(table,
                 "activity          min s     mean s      max s   % wall     calls  bytes\n"
                 "forward           2.000      3.000      4.000     30.0        20\n"
                 "gather wait       1.000      2.000      3.000     20.0        40  6.00 MiB\n"
                 "rest              5.000      5.000      5.000     50.0\n"
                 "wall             10.000     10.000     10.000    100.0\n");
    free(table);
}

} // namespace
