/*
 * metrics.jsonl: what stands in one line a step, how it is written, how it is read again.
 *
 * Keys, order and units are the contract's (section 3) and never change; what it does not have stands behind. Numbers of the mathematics (loss, lr, grad_norm ...) are
 * written in the shortest form that reads back to the same double; measured times and rates with six digits, more would be noise.
 */
#ifndef ZINF_TRAIN_METRICS_H
#define ZINF_TRAIN_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One step. A double that is not finite becomes null. */
struct zinf_metrics {
    int64_t step; /* steps done, skipped ones included: the first line has 1 */
    double epoch; /* epochs done, a fraction */
    int64_t samples, tokens; /* totals of the run */
    double loss, lr, grad_norm, loss_scale;
    int64_t skipped; /* total of the run */
    double step_s, tokens_per_s, tflops, mfu;
    int64_t nvme_read_bytes, nvme_write_bytes, comm_bytes;
    double wait_nvme_s, wait_comm_s, wait_data_s;
    int64_t rss_bytes, device_bytes, pinned_bytes;
    double wait_update_s; /* for new weights that the update lane has not made yet; maximum over ranks */
    int64_t early_records, refused_records; /* sub-groups whose new weights stood before the norm was known; were made in vain. Sum over ranks */
};

/* What an evaluation found; perplexity for causal-lm, accuracy and f1 for classification. */
struct zinf_evaluation {
    int64_t step;
    double loss, perplexity;
    bool is_classification;
    double accuracy, f1;
};

enum { ZINF_METRICS_LINE_BYTES = 1024, ZINF_NUMBER_BYTES = 32 };

/** One JSON object with its newline. */
void zinf_metrics_print(const struct zinf_metrics *metrics, char line[ZINF_METRICS_LINE_BYTES]);
void zinf_evaluation_print(const struct zinf_evaluation *evaluation,
                           char line[ZINF_METRICS_LINE_BYTES]);

/** The shortest decimal that reads back to the same double, "null" when `value` is not finite. */
void zinf_number_print(double value, char text[ZINF_NUMBER_BYTES]);

/* Columns of a read line: the contract's in the order of the file, then an evaluation's four, then what the contract does not have. */
enum zinf_metric {
    ZINF_METRIC_STEP,
    ZINF_METRIC_EPOCH,
    ZINF_METRIC_SAMPLES,
    ZINF_METRIC_TOKENS,
    ZINF_METRIC_LOSS,
    ZINF_METRIC_LR,
    ZINF_METRIC_GRAD_NORM,
    ZINF_METRIC_LOSS_SCALE,
    ZINF_METRIC_SKIPPED,
    ZINF_METRIC_STEP_S,
    ZINF_METRIC_TOKENS_PER_S,
    ZINF_METRIC_TFLOPS,
    ZINF_METRIC_MFU,
    ZINF_METRIC_NVME_READ_BYTES,
    ZINF_METRIC_NVME_WRITE_BYTES,
    ZINF_METRIC_COMM_BYTES,
    ZINF_METRIC_WAIT_NVME_S,
    ZINF_METRIC_WAIT_COMM_S,
    ZINF_METRIC_WAIT_DATA_S,
    ZINF_METRIC_RSS_BYTES,
    ZINF_METRIC_DEVICE_BYTES,
    ZINF_METRIC_PINNED_BYTES,
    ZINF_METRIC_EVAL_LOSS,
    ZINF_METRIC_EVAL_PERPLEXITY,
    ZINF_METRIC_EVAL_ACCURACY,
    ZINF_METRIC_EVAL_F1,
    ZINF_METRIC_WAIT_UPDATE_S,
    ZINF_METRIC_EARLY_RECORDS,
    ZINF_METRIC_REFUSED_RECORDS,
    ZINF_METRIC_COUNT
};

const char *zinf_metric_name(enum zinf_metric metric);

/**
 * Read one line; keys it does not know are passed over.
 * @param values  out; NAN for what is absent or null
 * @return false: no whole JSON object of plain values, as a crash in the middle of a write leaves it
 */
bool zinf_metrics_parse(const char *line, double values[ZINF_METRIC_COUNT]);

/** Peak resident set of this process (VmHWM of /proc/self/status); 0 where the system does not tell. */
int64_t zinf_peak_rss_bytes(void);

#ifdef __cplusplus
}
#endif
#endif
