/*
 * results.json, written and read again. See results.h.
 */
#include "train/results.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/status.h"

/* A line of metrics.jsonl as an object, so that both files hold the same keys and numbers. */
static struct zinf_json *parse_line(const char *line)
{
    const struct zinf_json_options options = {.file = "metrics", .strict = true};
    struct zinf_error_list errors = {0};
    struct zinf_json *value = NULL;
    if (zinf_json_parse(&value, line, strlen(line), &options, &errors))
        value = zinf_json_new(ZINF_JSON_OBJECT);
    zinf_error_list_release(&errors);
    return value;
}

static struct zinf_json *metrics_object(const struct zinf_metrics *metrics,
                                        const struct zinf_evaluation *evaluation)
{
    char line[ZINF_METRICS_LINE_BYTES];
    if (!metrics->step)
        return zinf_json_new(ZINF_JSON_NULL);
    zinf_metrics_print(metrics, line);
    struct zinf_json *object = parse_line(line);
    if (evaluation->step) {
        zinf_evaluation_print(evaluation, line);
        struct zinf_json *more = parse_line(line);
        for (size_t i = 0; i < more->count; i++)
            if (strcmp(more->keys[i], "step") != 0)
                zinf_json_set(object, more->keys[i], zinf_json_copy(more->members[i]));
        zinf_json_free(more);
    }
    return object;
}

static void set_bytes(struct zinf_json *object, const char *name, int64_t bytes)
{
    zinf_json_set(object, name,
                  bytes >= 0 ? zinf_json_new_integer(bytes) : zinf_json_new(ZINF_JSON_NULL));
}

static struct zinf_json *path_or_null(const char *path)
{
    return *path ? zinf_json_new_string(path) : zinf_json_new(ZINF_JSON_NULL);
}

char *zinf_results_print(const struct zinf_results *results, int status)
{
    static const struct zinf_metrics none;
    struct zinf_json *object = zinf_json_new(ZINF_JSON_OBJECT);
    const char *word = status == 0 ? "complete" : status == ZINF_E_STOPPED ? "stopped" : "failed";
    zinf_json_set(object, "status", zinf_json_new_string(word));
    zinf_json_set(object, "exit_code", zinf_json_new_integer(zinf_exit_code(status)));
    zinf_json_set(object, "ended", zinf_json_new_bool(results->ended));
    zinf_json_set(object, "step", zinf_json_new_integer(results->metrics.step));
    zinf_json_set(object, "samples", zinf_json_new_integer(results->metrics.samples));
    zinf_json_set(object, "tokens", zinf_json_new_integer(results->metrics.tokens));
    zinf_json_set(object, "wall_s", zinf_json_new_number(results->wall_s));
    zinf_json_set(object, "metrics", metrics_object(&results->metrics, &results->evaluation));
    zinf_json_set(object, "best_metrics",
                  metrics_object(results->has_best ? &results->best_metrics : &none,
                                 &results->best_evaluation));
    zinf_json_set(object, "best_score",
                  results->has_best ? zinf_json_new_number(results->best_score)
                                    : zinf_json_new(ZINF_JSON_NULL));
    zinf_json_set(object, "checkpoint", path_or_null(results->checkpoint));
    zinf_json_set(object, "best_checkpoint", path_or_null(results->best_checkpoint));
    zinf_json_set(object, "checkpoints_failed", zinf_json_new_integer(results->checkpoints_failed));
    zinf_json_set(object, "io_engine",
                  zinf_json_new_string(results->io_engine ? results->io_engine : "none"));
    zinf_json_set(object, "io_direct", zinf_json_new_bool(results->io_direct));
    zinf_json_set(object, "io_registered", zinf_json_new_bool(results->io_registered));
    zinf_json_set(object, "device", path_or_null(results->device));
    set_bytes(object, "context_bytes", results->context_bytes);
    set_bytes(object, "link_bytes", results->link_bytes);
    set_bytes(object, "card_bytes", results->card_bytes);
    char *text = zinf_json_print(object, 2);
    zinf_json_free(object);
    return text;
}

static void read_evaluation(struct zinf_evaluation *evaluation, const struct zinf_json *metrics)
{
    if (!zinf_json_get(metrics, "eval_loss"))
        return;
    evaluation->step = zinf_json_integer(metrics, "step", 0);
    evaluation->loss = zinf_json_number(metrics, "eval_loss", NAN);
    evaluation->perplexity = zinf_json_number(metrics, "eval_perplexity", NAN);
}

static void read_metrics(struct zinf_metrics *metrics, const struct zinf_json *object)
{
    metrics->step = zinf_json_integer(object, "step", 0);
    metrics->epoch = zinf_json_number(object, "epoch", 0);
    metrics->samples = zinf_json_integer(object, "samples", 0);
    metrics->tokens = zinf_json_integer(object, "tokens", 0);
    metrics->loss = zinf_json_number(object, "loss", NAN);
    metrics->lr = zinf_json_number(object, "lr", NAN);
    metrics->grad_norm = zinf_json_number(object, "grad_norm", NAN);
    metrics->loss_scale = zinf_json_number(object, "loss_scale", 1);
    metrics->skipped = zinf_json_integer(object, "skipped", 0);
    metrics->step_s = zinf_json_number(object, "step_s", NAN);
    metrics->tokens_per_s = zinf_json_number(object, "tokens_per_s", NAN);
    metrics->tflops = zinf_json_number(object, "tflops", NAN);
    metrics->mfu = zinf_json_number(object, "mfu", NAN);
    metrics->nvme_read_bytes = zinf_json_integer(object, "nvme_read_bytes", 0);
    metrics->nvme_write_bytes = zinf_json_integer(object, "nvme_write_bytes", 0);
    metrics->comm_bytes = zinf_json_integer(object, "comm_bytes", 0);
    metrics->wait_nvme_s = zinf_json_number(object, "wait_nvme_s", NAN);
    metrics->wait_comm_s = zinf_json_number(object, "wait_comm_s", NAN);
    metrics->wait_data_s = zinf_json_number(object, "wait_data_s", NAN);
    metrics->rss_bytes = zinf_json_integer(object, "rss_bytes", 0);
    metrics->device_bytes = zinf_json_integer(object, "device_bytes", 0);
    metrics->pinned_bytes = zinf_json_integer(object, "pinned_bytes", 0);
    metrics->wait_update_s = zinf_json_number(object, "wait_update_s", NAN);
    metrics->early_records = zinf_json_integer(object, "early_records", 0);
    metrics->refused_records = zinf_json_integer(object, "refused_records", 0);
}

void zinf_results_read(struct zinf_results *results, const char *path)
{
    const struct zinf_json_options options = {.file = path, .strict = true};
    struct zinf_error_list errors = {0};
    struct zinf_json *object = NULL;
    if (!zinf_json_read(&object, path, &options, &errors)) {
        const struct zinf_json *last = zinf_json_get(object, "metrics");
        const struct zinf_json *best = zinf_json_get(object, "best_metrics");
        const char *checkpoint = zinf_json_string(object, "best_checkpoint", "");
        const struct zinf_json *score = zinf_json_get(object, "best_score");
        results->wall_s = zinf_json_number(object, "wall_s", 0);
        results->checkpoints_failed = (int)zinf_json_integer(object, "checkpoints_failed", 0);
        results->has_best = score && score->type != ZINF_JSON_NULL && *checkpoint;
        results->best_score = zinf_json_number(object, "best_score", NAN);
        strncpy(results->best_checkpoint, checkpoint, sizeof results->best_checkpoint - 1);
        read_metrics(&results->metrics, last);
        read_evaluation(&results->evaluation, last);
        read_metrics(&results->best_metrics, best);
        read_evaluation(&results->best_evaluation, best);
    }
    zinf_error_list_release(&errors);
    zinf_json_free(object);
}
