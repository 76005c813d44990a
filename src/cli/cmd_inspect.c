/*
 * zinf inspect: what is in a checkpoint, a model folder, a weight file or a run, is it whole, and
 * how do two differ.
 */
#include "cli/command.h"
#include "cli/inspect.h"

#include <stdlib.h>

static void print_report(const struct zinf_context *context, const struct zinf_json *report)
{
    if (!context->options->json) {
        zinf_inspect_print(report);
        return;
    }
    char *text = zinf_json_print(report, 2);
    printf("%s\n", text);
    free(text);
}

static int run(const struct zinf_context *context)
{
    const struct zinf_options *options = context->options;
    struct zinf_inspect inspect = {context->comm, zinf_options_has(options, "--verify")};
    bool diff = zinf_options_has(options, "--diff");
    struct zinf_json *report = zinf_json_new(ZINF_JSON_OBJECT);
    struct zinf_error error = {0};
    int status;
    if (options->argument_count != (diff ? 2 : 1))
        status = zinf_error_set(&error, ZINF_E_USAGE,
                                diff ? "--diff compares two checkpoints or run folders: zinf "
                                       "inspect --diff A B"
                                     : "one PATH at a time (or --diff A B)");
    else if (diff)
        status = zinf_inspect_diff(&inspect, options->arguments[0], options->arguments[1], report,
                                   &error);
    else
        status = zinf_inspect_path(&inspect, options->arguments[0], report, &error);
    if (!status || zinf_json_get(report, "verified") || zinf_json_get(report, "checkpoints"))
        print_report(context, report);
    if (status) {
        char text[sizeof error];
        zinf_error_print(&error, text, sizeof text);
        zinf_error_log("%s", text);
    } else if (diff && !zinf_json_bool(report, "equal", false)) {
        status = ZINF_E_RUNTIME; /* exit 1, as diff(1) */
    }
    zinf_json_free(report);
    return status;
}

static const struct zinf_option inspect_options[] = {
    {"--verify", NULL, "read every byte of a checkpoint and check it against its checksums"},
    {"--diff", NULL, "compare two checkpoints or two run folders: exit 0 equal, 1 different"},
    {0}};

const struct zinf_command zinf_command_inspect = {
    .name = "inspect",
    .arguments = "PATH [--verify] | --diff A B",
    .summary = "what is in a checkpoint, model folder, .safetensors file or run folder",
    .help =
        "Prints names, shapes and sizes of the tensors and what is known about their origin; for a "
        "run\n"
        "folder its results and checkpoints. --verify checks every byte of checkpoints (exit 5 "
        "when one\n"
        "is damaged, with the name of the dataset). --diff gives for each dataset the number of\n"
        "elements that differ in any bit, the largest difference and the L2 norm of the difference "
        "over\n"
        "that of A's tensor; /provenance is not compared. Of two run folders it compares every "
        "number of\n"
        "the training in metrics.jsonl (losses, norms, rates of learning, evaluations; not times) "
        "and gives\n"
        "the first step at which they differ and by how much; what differs in configuration, "
        "results and\n"
        "provenance is listed and makes them no less equal.\n",
    .options = inspect_options,
    .min_arguments = 1,
    .max_arguments = 2,
    .takes_json = true,
    .run = run,
};
