/*
 * Lines of metrics.jsonl. See metrics.h.
 */
#include "train/metrics.h"

#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"

static const char *const names[ZINF_METRIC_COUNT] = {
    "step",         "epoch",         "samples",       "tokens",          "loss",
    "lr",           "grad_norm",     "loss_scale",    "skipped",         "step_s",
    "tokens_per_s", "tflops",        "mfu",           "nvme_read_bytes", "nvme_write_bytes",
    "comm_bytes",   "wait_nvme_s",   "wait_comm_s",   "wait_data_s",     "rss_bytes",
    "device_bytes", "pinned_bytes",  "eval_loss",     "eval_perplexity", "eval_accuracy",
    "eval_f1",      "wait_update_s", "early_records", "refused_records"};

const char *zinf_metric_name(enum zinf_metric metric)
{
    return names[metric];
}

/* The fewest digits that read back to the same double: a line is compared bit by bit, and read by
 * people. */
void zinf_number_print(double value, char text[ZINF_NUMBER_BYTES])
{
    if (!isfinite(value)) {
        strcpy(text, "null");
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, ZINF_NUMBER_BYTES, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            return;
    }
}

/* A line that grows member by member. */
struct line {
    char *text;
    size_t used;
};

static void add(struct line *line, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(struct line *line, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const int length =
        vsnprintf(line->text + line->used, ZINF_METRICS_LINE_BYTES - line->used, format, args);
    va_end(args);
    ZINF_ASSERT(length >= 0 && line->used + (size_t)length < ZINF_METRICS_LINE_BYTES);
    line->used += (size_t)length;
}

static void add_integer(struct line *line, enum zinf_metric metric, int64_t value)
{
    add(line, "%s\"%s\": %lld", line->used ? ", " : "{", names[metric], (long long)value);
}

static void add_exact(struct line *line, enum zinf_metric metric, double value)
{
    char number[ZINF_NUMBER_BYTES];
    zinf_number_print(value, number);
    add(line, "%s\"%s\": %s", line->used ? ", " : "{", names[metric], number);
}

static void add_measured(struct line *line, enum zinf_metric metric, double value)
{
    if (isfinite(value))
        add(line, ", \"%s\": %.6g", names[metric], value);
    else
        add(line, ", \"%s\": null", names[metric]);
}

void zinf_metrics_print(const struct zinf_metrics *m, char text[ZINF_METRICS_LINE_BYTES])
{
    struct line line = {text, 0};
    add_integer(&line, ZINF_METRIC_STEP, m->step);
    add_exact(&line, ZINF_METRIC_EPOCH, m->epoch);
    add_integer(&line, ZINF_METRIC_SAMPLES, m->samples);
    add_integer(&line, ZINF_METRIC_TOKENS, m->tokens);
    add_exact(&line, ZINF_METRIC_LOSS, m->loss);
    add_exact(&line, ZINF_METRIC_LR, m->lr);
    add_exact(&line, ZINF_METRIC_GRAD_NORM, m->grad_norm);
    add_exact(&line, ZINF_METRIC_LOSS_SCALE, m->loss_scale);
    add_integer(&line, ZINF_METRIC_SKIPPED, m->skipped);
    add_measured(&line, ZINF_METRIC_STEP_S, m->step_s);
    add_measured(&line, ZINF_METRIC_TOKENS_PER_S, m->tokens_per_s);
    add_measured(&line, ZINF_METRIC_TFLOPS, m->tflops);
    add_measured(&line, ZINF_METRIC_MFU, m->mfu);
    add_integer(&line, ZINF_METRIC_NVME_READ_BYTES, m->nvme_read_bytes);
    add_integer(&line, ZINF_METRIC_NVME_WRITE_BYTES, m->nvme_write_bytes);
    add_integer(&line, ZINF_METRIC_COMM_BYTES, m->comm_bytes);
    add_measured(&line, ZINF_METRIC_WAIT_NVME_S, m->wait_nvme_s);
    add_measured(&line, ZINF_METRIC_WAIT_COMM_S, m->wait_comm_s);
    add_measured(&line, ZINF_METRIC_WAIT_DATA_S, m->wait_data_s);
    add_integer(&line, ZINF_METRIC_RSS_BYTES, m->rss_bytes);
    add_integer(&line, ZINF_METRIC_DEVICE_BYTES, m->device_bytes);
    add_integer(&line, ZINF_METRIC_PINNED_BYTES, m->pinned_bytes);
    add_measured(&line, ZINF_METRIC_WAIT_UPDATE_S, m->wait_update_s);
    add_integer(&line, ZINF_METRIC_EARLY_RECORDS, m->early_records);
    add_integer(&line, ZINF_METRIC_REFUSED_RECORDS, m->refused_records);
    add(&line, "}\n");
}

void zinf_evaluation_print(const struct zinf_evaluation *e, char text[ZINF_METRICS_LINE_BYTES])
{
    struct line line = {text, 0};
    add_integer(&line, ZINF_METRIC_STEP, e->step);
    add_exact(&line, ZINF_METRIC_EVAL_LOSS, e->loss);
    if (e->is_classification) {
        add_exact(&line, ZINF_METRIC_EVAL_ACCURACY, e->accuracy);
        add_exact(&line, ZINF_METRIC_EVAL_F1, e->f1);
    } else {
        add_exact(&line, ZINF_METRIC_EVAL_PERPLEXITY, e->perplexity);
    }
    add(&line, "}\n");
}

static const char *skip_space(const char *p)
{
    while (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r')
        p++;
    return p;
}

static bool take(const char **p, char wanted)
{
    *p = skip_space(*p);
    if (**p != wanted)
        return false;
    *p = skip_space(*p + 1);
    return true;
}

/* A string in quotes; the keys and values we write have no escapes, so a backslash only guards the
 * quote behind it. */
static bool take_string(const char **p, const char **begin, size_t *length)
{
    if (**p != '"')
        return false;
    *begin = ++*p;
    while (**p && **p != '"')
        *p += **p == '\\' && (*p)[1] ? 2 : 1;
    *length = (size_t)(*p - *begin);
    return *(*p)++ == '"';
}

/* A number, a word or a string; only numbers have a value. */
static bool take_value(const char **p, double *value)
{
    const char *begin;
    char *end;
    size_t length;
    *value = NAN;
    if (**p == '"')
        return take_string(p, &begin, &length);
    if (**p == '-' || isdigit((unsigned char)**p)) {
        *value = strtod(*p, &end);
        *p = end;
        return true;
    }
    static const char *const words[] = {"null", "true", "false"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (!strncmp(*p, words[i], strlen(words[i]))) {
            *p += strlen(words[i]);
            return true;
        }
    }
    return false;
}

static void keep(const char *key, size_t length, double value, double values[ZINF_METRIC_COUNT])
{
    for (int i = 0; i < ZINF_METRIC_COUNT; i++)
        if (strlen(names[i]) == length && !memcmp(names[i], key, length))
            values[i] = value;
}

bool zinf_metrics_parse(const char *line, double values[ZINF_METRIC_COUNT])
{
    const char *p = line, *key;
    size_t length;
    double value;
    for (int i = 0; i < ZINF_METRIC_COUNT; i++)
        values[i] = NAN;
    if (!take(&p, '{'))
        return false;
    do {
        if (!take_string(&p, &key, &length) || !take(&p, ':') || !take_value(&p, &value))
            return false;
        keep(key, length, value, values);
    } while (take(&p, ','));
    return take(&p, '}') && *p == '\0';
}

int64_t zinf_peak_rss_bytes(void)
{
    char line[256];
    long long kib = 0;
    FILE *file = fopen("/proc/self/status", "re");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "VmHWM: %lld kB", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return kib * 1024;
}
