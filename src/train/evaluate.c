/*
 * The loss on data.eval: forward passes over batches of the evaluation's own size, in file order,
 * the incomplete last batch included.
 */
#include "train/run.h"

#include <math.h>

#include "io/agree.h"

/* Rows of this rank in the batch that begins at sample `first`; rows behind the last sample are not
 * counted. */
static int read_rows(struct zinf_run *run, int64_t first, int64_t samples, struct zinf_error *error)
{
    const struct zinf_config *config = run->config;
    int64_t rows = config->train.eval_micro_batch, length = config->data.sequence_length;
    int64_t begin = first + run->comm->rank * rows, count = samples - begin;
    if (count > rows)
        count = rows;
    if (count < 0)
        count = 0;
    for (int64_t i = count * length; i < rows * length; i++) {
        run->inputs[i] = 0;
        run->targets[i] = -100;
    }
    if (count == 0)
        return ZINF_OK;
    const struct zinf_batch batch = {0, begin, count, run->inputs, run->targets};
    return zinf_batches_read(run->eval, &batch, error);
}

int zinf_run_evaluate(struct zinf_run *run, double *loss, int64_t *tokens)
{
    const struct zinf_config *config = run->config;
    int64_t batch = config->train.eval_micro_batch * run->comm->size;
    int64_t samples = zinf_batches_sample_count(run->eval);
    double sum = 0, counted = 0;
    int status = ZINF_OK;
    if (config->train.eval_batches > 0 && config->train.eval_batches <= (samples - 1) / batch)
        samples = config->train.eval_batches * batch;
    zinf_activity_start(&run->activities, ZINF_ACTIVITY_EVALUATION);
    for (int64_t first = 0; !status && first < samples; first += batch) {
        struct zinf_error error = {0};
        double batch_sum, batch_counted;
        int read = read_rows(run, first, samples, &error);
        status = zinf_agree_error(run->comm, read, &error);
        if (status && run->comm->rank == 0)
            zinf_error_log("%s", error.text);
        if (status)
            break;
        zinf_step_evaluate(&run->step, run->inputs, run->targets, &batch_sum, &batch_counted);
        sum += batch_sum;
        counted += batch_counted;
    }
    zinf_activity_stop(&run->activities, ZINF_ACTIVITY_EVALUATION);
    *loss = sum / counted;
    *tokens = (int64_t)counted;
    return status;
}
