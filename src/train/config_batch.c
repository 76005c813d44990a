/*
 * The arithmetic of the batch: train_batch_size B = micro-batch m x accumulation k x ranks P, two
 * of three give the third, as DeepSpeed's _set_batch_related_parameters. DeepSpeed divides with the
 * remainder dropped and fails in an assertion afterwards; here what does not divide is said at
 * once, with the nearest values that would.
 */
#include "train/config_internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char *const paths[] = {"train_micro_batch_size_per_gpu", "gradient_accumulation_steps",
                                    "train_batch_size"};
enum { MICRO, ACCUMULATION, GLOBAL };

struct batch {
    struct zinf_loader *loader;
    int64_t value[3]; /* 0 = not given */
    bool automatic[3];
    int64_t ranks;
};

static void read_values(struct batch *batch)
{
    for (int i = 0; i < 3; i++) {
        const struct zinf_json *value = zinf_json_get(batch->loader->tree, paths[i]);
        batch->automatic[i] = value && value->type == ZINF_JSON_STRING;
        batch->value[i] = value && value->type == ZINF_JSON_INTEGER ? value->integer : 0;
    }
}

static const char *ranks_text(const struct batch *batch)
{
    return batch->ranks == 1 ? "rank" : "ranks";
}

/* "A or B": the multiples of `unit` around `value`, at least one unit. */
static void around(int64_t value, int64_t unit, char *out, size_t bytes)
{
    int64_t low = value / unit * unit;
    if (low)
        snprintf(out, bytes, "%" PRId64 " or %" PRId64, low, low + unit);
    else
        snprintf(out, bytes, "%" PRId64, unit);
}

/* The divisors of `value` nearest to `near`, below and above. */
static void divisors(int64_t value, int64_t near, char *out, size_t bytes)
{
    int64_t low = near < value ? near : value, high = near;
    while (low > 1 && value % low)
        low--;
    while (high < value && value % high)
        high++;
    if (high > value || high == low)
        snprintf(out, bytes, "%" PRId64, low);
    else
        snprintf(out, bytes, "%" PRId64 " or %" PRId64, low, high);
}

static struct zinf_place place_of_first(const struct batch *batch)
{
    for (int i = GLOBAL; i >= MICRO; i--)
        if (batch->value[i])
            return zinf_loader_place(batch->loader, paths[i]);
    return zinf_loader_place(batch->loader, "");
}

static void all_three(struct batch *batch)
{
    int64_t m = batch->value[MICRO], k = batch->value[ACCUMULATION], b = batch->value[GLOBAL];
    int64_t p = batch->ranks;
    char fits[300];
    if (m * k * p == b)
        return;
    size_t used = (size_t)snprintf(fits, sizeof fits, "train_batch_size %" PRId64, m * k * p);
    if (b % (m * p) == 0)
        used += (size_t)snprintf(fits + used, sizeof fits - used,
                                 ", or gradient_accumulation_steps %" PRId64, b / (m * p));
    if (b % (k * p) == 0)
        used += (size_t)snprintf(fits + used, sizeof fits - used,
                                 ", or train_micro_batch_size_per_gpu %" PRId64, b / (k * p));
    if (b % (m * k) == 0)
        snprintf(fits + used, sizeof fits - used, ", or %" PRId64 " rank%s", b / (m * k),
                 b / (m * k) == 1 ? "" : "s");
    zinf_loader_say(batch->loader, &batch->loader->report->errors, place_of_first(batch),
                    "train_batch_size",
                    "%" PRId64 " is not micro-batch %" PRId64 " x accumulation %" PRId64
                    " x %" PRId64 " %s = %" PRId64 "; right would be %s",
                    b, m, k, p, ranks_text(batch), m * k * p, fits);
}

/* B and one of m, k (or neither: then k is 1): the missing one, exactly. */
static void divide(struct batch *batch, int known, int missing)
{
    int64_t unit = batch->value[known] * batch->ranks, b = batch->value[GLOBAL];
    char near[100], divides[100];
    if (b % unit == 0) {
        batch->value[missing] = b / unit;
        return;
    }
    around(b, unit, near, sizeof near);
    if (b % batch->ranks == 0)
        divisors(b / batch->ranks, batch->value[known], divides, sizeof divides);
    zinf_loader_say(batch->loader, &batch->loader->report->errors, place_of_first(batch),
                    "train_batch_size",
                    "%" PRId64 " cannot be divided by %s %" PRId64 " x %" PRId64
                    " %s; right would be train_batch_size %s%s%s%s%s",
                    b, paths[known], batch->value[known], batch->ranks, ranks_text(batch), near,
                    b % batch->ranks ? "" : ", or ", b % batch->ranks ? "" : paths[known],
                    b % batch->ranks ? "" : " ", b % batch->ranks ? "" : divides);
    batch->value[GLOBAL] = 0;
}

static void missing(struct batch *batch)
{
    zinf_loader_say(
        batch->loader, &batch->loader->report->errors, zinf_loader_place(batch->loader, ""),
        "train_batch_size",
        "missing; right is train_batch_size or train_micro_batch_size_per_gpu, e.g. --set "
        "train_micro_batch_size_per_gpu=8");
}

static void infer(struct batch *batch)
{
    int64_t *value = batch->value;
    bool automatic = batch->automatic[MICRO] || batch->automatic[GLOBAL];
    if (!value[GLOBAL] && !value[MICRO]) {
        if (!automatic) {
            missing(batch);
            return;
        }
        value[MICRO] = 8; /* Hugging Face's defaults, see the contract */
    }
    if (value[GLOBAL] && value[MICRO] && value[ACCUMULATION]) {
        all_three(batch);
    } else if (value[GLOBAL] && value[MICRO]) {
        divide(batch, MICRO, ACCUMULATION);
    } else if (value[GLOBAL]) {
        value[ACCUMULATION] = value[ACCUMULATION] ? value[ACCUMULATION] : 1;
        divide(batch, ACCUMULATION, MICRO);
    } else {
        value[ACCUMULATION] = value[ACCUMULATION] ? value[ACCUMULATION] : 1;
    }
    if (value[MICRO] && value[ACCUMULATION] && !value[GLOBAL])
        value[GLOBAL] = value[MICRO] * value[ACCUMULATION] * batch->ranks;
}

/* Each number for itself, and what m x k x P would be: samples of a step are counted in 31 bits. */
static bool too_large(const struct batch *batch)
{
    struct zinf_error_list *errors = &batch->loader->report->errors;
    double product = (double)batch->ranks;
    for (int i = 0; i < 3; i++)
        if (batch->value[i] > INT32_MAX) {
            zinf_loader_say(batch->loader, errors, zinf_loader_place(batch->loader, paths[i]),
                            paths[i], "%" PRId64 " is too large; right is at most %d",
                            batch->value[i], INT32_MAX);
            return true;
        }
    for (int i = MICRO; i <= ACCUMULATION; i++)
        product *= batch->value[i] ? (double)batch->value[i] : 1;
    if (!batch->value[MICRO] || product <= INT32_MAX)
        return false;
    zinf_loader_say(
        batch->loader, errors, zinf_loader_place(batch->loader, paths[MICRO]), paths[MICRO],
        "micro-batch %" PRId64 " x accumulation %" PRId64 " x %" PRId64
        " %s is too large a batch; right is at most %d samples a step",
        batch->value[MICRO], batch->value[ACCUMULATION] ? batch->value[ACCUMULATION] : 1,
        batch->ranks, ranks_text(batch), INT32_MAX);
    return true;
}

void zinf_config_check_batch(struct zinf_loader *loader)
{
    struct batch batch = {.loader = loader, .ranks = loader->options->ranks};
    size_t errors = loader->report->errors.count;
    read_values(&batch);
    if (loader->batch_wrong || too_large(&batch))
        return;
    infer(&batch);
    if (loader->report->errors.count != errors)
        return;
    for (int i = 0; i < 3; i++) {
        struct zinf_place place = zinf_loader_place(loader, paths[i]);
        struct zinf_json *value = zinf_json_new_integer(batch.value[i]);
        value->line = place.line;
        value->column = place.column;
        zinf_tree_set(loader->tree, paths[i], value);
        if (batch.automatic[i])
            zinf_loader_say(loader, &loader->report->filled, place, paths[i], "%" PRId64,
                            batch.value[i]);
    }
}
