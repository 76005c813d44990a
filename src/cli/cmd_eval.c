/*
 * `zinf eval ds.json`: the loss of a checkpoint on data.eval.
 */
#include "cli/command.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/json.h"
#include "train/run.h"

static void print_result(const struct zinf_context *context, const struct zinf_run *run,
                         double loss, int64_t tokens)
{
    if (context->comm->rank != 0)
        return;
    if (!context->options->json) {
        printf("step %lld: eval loss %.6f, perplexity %.4f, %lld tokens\n",
               (long long)run->state.step, loss, exp(loss), (long long)tokens);
        return;
    }
    struct zinf_json *object = zinf_json_new(ZINF_JSON_OBJECT);
    zinf_json_set(object, "step", zinf_json_new_integer(run->state.step));
    zinf_json_set(object, "eval_loss", zinf_json_new_number(loss));
    zinf_json_set(object, "eval_perplexity", zinf_json_new_number(exp(loss)));
    zinf_json_set(object, "tokens", zinf_json_new_integer(tokens));
    char *text = zinf_json_print(object, 2);
    printf("%s\n", text);
    free(text);
    zinf_json_free(object);
}

static int run_eval(const struct zinf_context *context)
{
    struct zinf_config *config = NULL;
    struct zinf_run run = {0};
    double loss;
    int64_t tokens;
    int status = zinf_command_config(context, ZINF_CONFIG_EVAL, &config);
    if (!status)
        status = zinf_run_open_evaluation(
            &run, config, context->comm,
            zinf_options_value(context->options, "--checkpoint", "latest"));
    if (!status)
        status = zinf_run_evaluate(&run, &loss, &tokens);
    if (!status)
        print_result(context, &run, loss, tokens);
    zinf_run_close(&run);
    zinf_config_free(config);
    return status;
}

static const struct zinf_option options[] = {
    {"--checkpoint", "best|latest|PATH", "which checkpoint (latest)"}, {0}};

const struct zinf_command zinf_command_eval = {
    .name = "eval",
    .arguments = "ds.json [--checkpoint best|latest|PATH]",
    .summary = "loss and perplexity of a checkpoint on zinf.data.eval",
    .help = "Evaluates a checkpoint of the run folder (or any other) on zinf.data.eval.\n",
    .options = options,
    .min_arguments = 1,
    .max_arguments = 1,
    .parallel = true,
    .takes_json = true,
    .run = run_eval};
