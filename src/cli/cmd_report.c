/*
 * `zinf report RUN...`: curves and a comparison of runs on the terminal, or as SVG, HTML or CSV.
 */
#include "cli/command.h"

#include <errno.h>
#include <string.h>

#include "train/report.h"
#include "train/terminal.h"

typedef void (*write_fn)(const struct zinf_report *report, FILE *out);

static const struct {
    const char *option;
    write_fn write;
} outputs[] = {
    {"--svg", zinf_report_svg}, {"--html", zinf_report_html}, {"--csv", zinf_report_csv}};
enum { OUTPUTS = sizeof outputs / sizeof *outputs };

/* Into `path`; "-" is standard output. */
static int write_output(const struct zinf_report *report, write_fn write, const char *path)
{
    const bool is_standard = !strcmp(path, "-");
    FILE *out = is_standard ? stdout : fopen(path, "we");
    bool failed = !out;
    if (out) {
        write(report, out);
        failed = fflush(out) || ferror(out);
        if (!is_standard && fclose(out))
            failed = true;
    }
    if (!failed)
        return 0;
    zinf_error_log("cannot write \"%s\": %s", path, strerror(errno));
    return errno == ENOSPC ? ZINF_E_NO_SPACE : out ? ZINF_E_RUNTIME : ZINF_E_USAGE;
}

static int write_outputs(const struct zinf_report *report, const struct zinf_options *options)
{
    bool any = false;
    int status = 0;
    for (int i = 0; i < OUTPUTS && !status; i++) {
        const char *path = zinf_options_value(options, outputs[i].option, NULL);
        if (!path)
            continue;
        any = true;
        status = write_output(report, outputs[i].write, path);
        if (!status && strcmp(path, "-") != 0)
            zinf_info("%s written", path);
    }
    if (!any) {
        const struct zinf_report_terminal terminal = {.columns = zinf_terminal_columns(stdout),
                                                      .is_utf8 = zinf_terminal_is_utf8(),
                                                      .has_colour =
                                                          zinf_terminal_has_colour(stdout)};
        zinf_report_print(report, &terminal, stdout);
    }
    return status;
}

static int run(const struct zinf_context *context)
{
    struct zinf_report report;
    struct zinf_error error;
    char text[2200];
    int status = zinf_report_open(&report, context->options->arguments,
                                  context->options->argument_count, &error);
    if (status) {
        zinf_error_print(&error, text, sizeof text);
        zinf_error_log("%s", text);
        return status;
    }
    status = write_outputs(&report, context->options);
    zinf_report_close(&report);
    return status;
}

static const struct zinf_option own_options[] = {
    {"--svg", "FILE", "write the curves as a drawing"},
    {"--html", "FILE", "write one page with the drawing and the table"},
    {"--csv", "FILE", "write every line of the metrics as a table for other programs"},
    {0}};

const struct zinf_command zinf_command_report = {
    .name = "report",
    .arguments = "RUN_DIR...",
    .summary = "draw and compare the curves of runs",
    .help = "Reads metrics.jsonl and results.json of each run folder. Without an option the curves "
            "and a table of the\n"
            "last and best values are drawn on the terminal; with options the files are written "
            "instead. \"-\" is\n"
            "standard output. A run may still be going on.\n",
    .options = own_options,
    .min_arguments = 1,
    .max_arguments = -1,
    .run = run};
