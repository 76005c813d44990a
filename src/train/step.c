/*
 * One step, read from top to bottom: zinf_step_run() walks the compute lane of the plan; each kind
 * of operation has its function below. Which weights are readable when, and when a gradient leaves,
 * is the plan's affair (zero/plan.h). Its memory: step_layout.c.
 */
#include "train/step.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/trace.h"
#include "train/metrics.h"

/* What the walk through one plan carries along. */
struct walk {
    struct zinf_step *step;
    const struct zinf_step_input *input; /* NULL in an evaluation */
    const struct zinf_plan *plan;
    struct zinf_step_result *result;
    const int32_t *inputs, *targets; /* of all micro-batches, in host memory */
    const int32_t *ids[2];           /* the same where operations find them */
    double loss_sum, counted;
    double wait_s,
        nvme_wait_s; /* of the compute lane (a device's stream), for the mover; for the drive */
    double inputs_wait_s;            /* for the drive, by inputs of layers, before the step */
    int64_t read_bytes, write_bytes; /* of NVMe but for updates, before the step */
    int64_t index;                   /* of the operation being carried out */
    struct zinf_update update;
};

static const struct zinf_block *block_of(const struct walk *walk,
                                         const struct zinf_plan_operation *operation)
{
    return &walk->step->pass.model->blocks[operation->block];
}

/* Micro-batch j of rank r holds samples (j P + r) m ... of the global batch: contract, "What a
 * batch is". */
static void begin_micro_batch(struct walk *walk, int micro)
{
    struct zinf_step *step = walk->step;
    const struct zinf_step_options *o = &step->options;
    int64_t tokens = o->batch * o->sequence;
    zinf_activations_begin(&step->activations, walk->input ? micro : -1);
    if (micro == 0) {
        int64_t rows = walk->input ? o->micro_count * o->batch : o->evaluation_batch;
        walk->ids[0] = walk->inputs, walk->ids[1] = walk->targets;
        zinf_batch_copy_ids(&step->copy, &walk->ids[0], &walk->ids[1], rows * o->sequence);
    }
    step->pass.inputs = walk->ids[0] + micro * tokens;
    step->pass.targets = walk->ids[1] + micro * tokens;
    if (!walk->input)
        return;
    step->pass.first_sample = (uint32_t)((micro * o->zero->ranks + o->zero->rank) * (int)o->batch);
    zinf_batch_copy_counters(&step->copy, &step->pass, micro);
}

static void embedding_forward(struct walk *walk, const struct zinf_plan_operation *operation,
                              const void *weights)
{
    struct zinf_step *step = walk->step;
    if (operation->block == 0)
        begin_micro_batch(walk, operation->micro);
    void *x = zinf_activations_make(&step->activations, 0);
    zinf_embedding_forward(&step->pass, block_of(walk, operation), weights, x);
    if (!operation->last)
        return;
    zinf_embedding_dropout(&step->pass, x);
    zinf_activations_made(&step->activations, 0);
}

/* Until zinf_graphs_end() operations alone: they may be put into the stream in one call. */
static void begin_pass(struct walk *walk)
{
    if (walk->input)
        zinf_graphs_begin(walk->step->graphs, walk->index);
}

static void layer_forward(struct walk *walk, const struct zinf_plan_operation *operation,
                          const void *weights)
{
    struct zinf_step *step = walk->step;
    int layer = block_of(walk, operation)->layer;
    const void *x = zinf_activations_input(&step->activations, layer);
    void *y = zinf_activations_make(&step->activations, layer + 1);
    begin_pass(walk);
    zinf_layer_forward(&step->pass, layer, weights, x, y, step->saved[layer]);
    zinf_graphs_end(step->graphs);
    zinf_activations_made(&step->activations, layer + 1);
}

static const void *final_input(struct zinf_step *step)
{
    return zinf_activations_input(&step->activations, (int)step->pass.model->layers);
}

static void norm_forward(struct walk *walk, const struct zinf_plan_operation *operation,
                         const void *weights)
{
    struct zinf_step *step = walk->step;
    (void)operation;
    zinf_final_norm_forward(&step->pass, weights, final_input(step), step->normalized,
                            step->statistics);
}

static void head_forward(struct walk *walk, const struct zinf_plan_operation *operation,
                         const void *weights)
{
    struct zinf_step *step = walk->step;
    struct zinf_loss loss = step->loss;
    if (!walk->input)
        loss.logits = NULL; /* nothing comes back for them */
    if (operation->first && step->copy.device)
        zinf_batch_copy_begin_loss(&step->copy, &step->pass, &step->loss);
    else if (operation->first)
        zinf_loss_begin(&step->pass, &step->loss);
    begin_pass(walk);
    zinf_head_forward(&step->pass, block_of(walk, operation), weights, step->normalized, &loss);
    zinf_graphs_end(step->graphs);
}

static void add_loss(struct walk *walk, const struct zinf_pass *pass, const struct zinf_loss *loss)
{
    int64_t counted;
    walk->loss_sum += zinf_loss_end(pass, loss, &counted);
    walk->counted += (double)counted;
}

static void end_loss(struct walk *walk, int micro)
{
    struct zinf_step *step = walk->step;
    if (step->copy.device)
        zinf_batch_copy_take_loss(&step->copy, &step->pass, &step->loss, micro);
    else
        add_loss(walk, &step->pass, &step->loss);
}

/* The losses that have come from the device, in the order of the micro-batches. */
static void collect_losses(struct walk *walk)
{
    struct zinf_step *step = walk->step;
    struct zinf_pass pass = step->pass;
    if (!step->copy.device)
        return;
    zinf_batch_copy_wait(&step->copy);
    for (int micro = 0; micro < walk->plan->options.micro_count; micro++) {
        const struct zinf_loss loss = zinf_batch_copy_loss(&step->copy, micro);
        pass.targets = walk->targets + micro * pass.batch * pass.sequence;
        add_loss(walk, &pass, &loss);
    }
}

/* The loss is the mean over the counted tokens of all ranks. A gradient is made as P times its part
 * of that mean and divided by P when the ranks' parts are added, so that it has the size of a mean
 * on every rank (fp16 needs that). */
static void head_backward(struct walk *walk, const struct zinf_plan_operation *operation,
                          const void *weights, void *gradient)
{
    struct zinf_step *step = walk->step;
    const struct zinf_model *model = step->pass.model;
    bool first = operation->block == model->first_head_block + model->head_block_count - 1;
    double scale =
        walk->input->loss_scale * step->options.zero->ranks / (double)walk->input->counted;
    const struct zinf_head_gradients gradients = {(float)scale, first, step->dy, gradient};
    begin_pass(walk);
    zinf_head_backward(&step->pass, block_of(walk, operation), weights, step->normalized,
                       &step->loss, &gradients);
    zinf_graphs_end(step->graphs);
}

static void norm_backward(struct walk *walk, const struct zinf_plan_operation *operation,
                          const void *weights, void *gradient)
{
    struct zinf_step *step = walk->step;
    (void)operation;
    /* `normalized` is not needed any more: it takes the rounded gradient. */
    zinf_head_backward_end(&step->pass, step->dy, step->normalized);
    const struct zinf_gradients gradients = {step->normalized, step->dx, gradient};
    zinf_final_norm_backward(&step->pass, weights, final_input(step), step->statistics, &gradients);
}

static void layer_backward(struct walk *walk, const struct zinf_plan_operation *operation,
                           const void *weights, void *gradient)
{
    struct zinf_step *step = walk->step;
    int layer = block_of(walk, operation)->layer;
    const void *x = zinf_activations_input(&step->activations, layer);
    begin_pass(walk);
    if (layer < step->pass.model->layers - step->options.kept_layers)
        zinf_layer_forward(&step->pass, layer, weights, x, step->normalized, step->saved[layer]);
    const struct zinf_gradients gradients = {step->dx, step->dx, gradient};
    zinf_layer_backward(&step->pass, layer, weights, x, step->saved[layer], &gradients);
    zinf_graphs_end(step->graphs);
    zinf_activations_drop(&step->activations, layer);
}

static void embedding_backward(struct walk *walk, const struct zinf_plan_operation *operation,
                               void *gradient)
{
    struct zinf_step *step = walk->step;
    const struct zinf_model *model = step->pass.model;
    int last_table = model->embedding_block_count + model->position_block_count - 1;
    if (operation->block == last_table)
        zinf_embedding_dropout(&step->pass, step->dx);
    zinf_embedding_backward(&step->pass, block_of(walk, operation), step->dx, gradient);
}

static struct zinf_update update_of(const struct zinf_step_input *input, double clip)
{
    struct zinf_update update = input->update;
    update.gradient_scale = (float)(1 / (clip * input->loss_scale));
    return update;
}

/* All ranks see the same sums, so all decide alike. Clipping as DeepSpeed: g / max(1, (norm + 1e-6)
 * / limit). */
static void decide(struct walk *walk)
{
    struct zinf_zero *zero = walk->step->options.zero;
    struct zinf_step_result *result = walk->result;
    const struct zinf_step_input *input = walk->input;
    double square_sum = 0, loss = 0, clip = 1;
    for (int rank = 0; rank < zero->ranks; rank++) {
        const double *theirs = zero->agree_all + rank * ZINF_AGREE_COUNT;
        square_sum += theirs[0];
        loss += theirs[1];
        for (int i = 0; i < 4; i++)
            result->signals[i] = fmax(result->signals[i], theirs[3 + i]);
        zinf_graphs_hear(walk->step->graphs, rank, theirs[7]);
    }
    result->loss = loss / (double)input->counted;
    result->grad_norm = sqrt(square_sum) / input->loss_scale;
    result->skipped = !isfinite(result->loss) || !isfinite(result->grad_norm) || input->trace;
    if (input->gradient_clipping > 0)
        clip = fmax(1, (result->grad_norm + 1e-6) / input->gradient_clipping);
    walk->update = update_of(input, clip);
}

/* Of all blocks in their lane, or of one here. */
static void update(struct walk *walk, const struct zinf_plan_operation *operation)
{
    struct zinf_zero *zero = walk->step->options.zero;
    const struct zinf_update *update = walk->result->skipped ? NULL : &walk->update;
    if (operation->block < 0) {
        double waited_s = zinf_zero_hand_over(zero, update);
        walk->nvme_wait_s += zero->update_length > 0 ? waited_s : 0;
    } else if (update) {
        zinf_zero_update(zero, operation->block, update);
    }
}

/* Whoever asks while the step computes is heard in it: wishes are read here, not before it. */
static void set_agreement(struct walk *walk)
{
    struct zinf_zero *zero = walk->step->options.zero;
    double wishes[4] = {0};
    collect_losses(walk);
    if (walk->input && walk->input->wish)
        walk->input->wish(walk->input->wish_context, wishes);
    zero->agree[1] = walk->loss_sum;
    zero->agree[2] = walk->counted;
    for (int i = 0; i < 4; i++)
        zero->agree[3 + i] = wishes[i];
    zero->agree[7] = zinf_graphs_word(walk->step->graphs);
}

enum {
    REPORT_WAIT_COMM,
    REPORT_WAIT_DATA,
    REPORT_WAIT_NVME,
    REPORT_RSS,
    REPORT_PINNED,
    REPORT_NVME_READ,
    REPORT_NVME_WRITE,
    REPORT_BEFORE_READ,
    REPORT_BEFORE_WRITE,
    REPORT_WAIT_UPDATE,
    REPORT_EARLY,
    REPORT_REFUSED
};

/* From NVMe by all but the update lane, since the run began. */
static int64_t bytes_read(const struct zinf_step *step)
{
    return step->options.zero->fetch_ring.read_bytes +
           zinf_activations_store(&step->activations)->read_bytes;
}

/* Since the last report: what was decided behind it counts in the next. */
static void report_updates(struct zinf_step *step, struct zinf_zero *zero)
{
    struct zinf_updates_totals now = {0};
    if (zero->updates)
        now = zinf_updates_totals(zero->updates);
    zero->report[REPORT_EARLY] = (double)(now.early_records - step->told.early_records);
    zero->report[REPORT_REFUSED] = (double)(now.refused_records - step->told.refused_records);
    step->told = now;
}

static void set_report(struct walk *walk)
{
    struct zinf_zero *zero = walk->step->options.zero;
    const struct zinf_activations *inputs = zinf_activations_store(&walk->step->activations);
    /* A device that still has work feels nothing of what its host waits for. */
    double drive_s = fmin(walk->wait_s, zinf_lanes_delay_s(zero->lanes, ZINF_DELAY_DRIVE));
    double update_s =
        fmin(walk->wait_s - drive_s, zinf_lanes_delay_s(zero->lanes, ZINF_DELAY_UPDATE));
    int64_t before_read, before_write;
    zinf_zero_update_bytes(zero, true, &before_read, &before_write);
    zero->report[REPORT_WAIT_COMM] = walk->wait_s - drive_s - update_s;
    zero->report[REPORT_WAIT_DATA] = walk->input->waited_data_s;
    zero->report[REPORT_WAIT_NVME] =
        walk->nvme_wait_s + drive_s + inputs->waited_s - walk->inputs_wait_s;
    zero->report[REPORT_RSS] = (double)zinf_peak_rss_bytes();
    zero->report[REPORT_PINNED] = walk->input->pinned_bytes;
    zero->report[REPORT_NVME_READ] = (double)(bytes_read(walk->step) - walk->read_bytes);
    zero->report[REPORT_NVME_WRITE] = (double)(inputs->write_bytes - walk->write_bytes);
    zero->report[REPORT_BEFORE_READ] = (double)before_read;
    zero->report[REPORT_BEFORE_WRITE] = (double)before_write;
    zero->report[REPORT_WAIT_UPDATE] = update_s;
    report_updates(walk->step, zero);
}

static void read_report(struct walk *walk)
{
    const struct zinf_zero *zero = walk->step->options.zero;
    struct zinf_step_result *result = walk->result;
    double *const most[] = {&result->wait_comm_s, &result->wait_data_s, &result->wait_nvme_s,
                            &result->rss_bytes, &result->pinned_bytes};
    for (int rank = 0; rank < zero->ranks; rank++) {
        const double *theirs = zero->report_all + rank * ZINF_REPORT_COUNT;
        for (int i = 0; i <= REPORT_PINNED; i++)
            *most[i] = fmax(*most[i], theirs[i]);
        result->nvme_read_bytes += theirs[REPORT_NVME_READ];
        result->nvme_write_bytes += theirs[REPORT_NVME_WRITE];
        result->before_read_bytes += theirs[REPORT_BEFORE_READ];
        result->before_write_bytes += theirs[REPORT_BEFORE_WRITE];
        result->wait_update_s = fmax(result->wait_update_s, theirs[REPORT_WAIT_UPDATE]);
        result->early_records += theirs[REPORT_EARLY];
        result->refused_records += theirs[REPORT_REFUSED];
    }
}

/* Trace: the parameter of a block whose values at `data` are not finite, or -1. */
static int nonfinite_param(const struct walk *walk, const struct zinf_block *block,
                           const void *data)
{
    const struct zinf_pass *pass = &walk->step->pass;
    for (int i = 0; i < block->piece_count; i++) {
        const struct zinf_piece *piece = &block->pieces[i];
        const char *values =
            (const char *)data + (size_t)piece->block_offset * zinf_dtype_bytes(pass->dtype);
        const struct zinf_scan scan = {pass->dtype, piece->count};
        if (pass->ops->first_nonfinite(&scan, values) >= 0)
            return piece->param;
    }
    return -1;
}

/* Trace: what a forward operation has just made, NULL when it is not complete yet. */
static const void *output_of(const struct walk *walk, const struct zinf_plan_operation *operation)
{
    struct zinf_step *step = walk->step;
    switch (operation->kind) {
    case ZINF_PLAN_EMBEDDING_FORWARD:
        return operation->last ? zinf_activations_input(&step->activations, 0) : NULL;
    case ZINF_PLAN_LAYER_FORWARD:
        return zinf_activations_input(&step->activations, block_of(walk, operation)->layer + 1);
    case ZINF_PLAN_NORM_FORWARD:
        return step->normalized;
    default:
        return NULL;
    }
}

static void trace(struct walk *walk, const struct zinf_plan_operation *operation,
                  const void *weights, const void *gradient)
{
    struct zinf_nonfinite *found = &walk->result->nonfinite;
    const struct zinf_pass *pass = &walk->step->pass;
    const struct zinf_scan scan = {pass->dtype, pass->batch * pass->sequence * pass->model->hidden};
    enum zinf_nonfinite_kind kind = gradient ? ZINF_NONFINITE_GRADIENT : ZINF_NONFINITE_WEIGHT;
    const void *output;
    if (found->order || operation->block < 0)
        return;
    output = output_of(walk, operation);
    int param = nonfinite_param(walk, block_of(walk, operation), gradient ? gradient : weights);
    if (param < 0 && output && pass->ops->first_nonfinite(&scan, output) >= 0)
        kind = ZINF_NONFINITE_OUTPUT;
    else if (param < 0)
        return;
    *found =
        (struct zinf_nonfinite){walk->index + 1, kind, operation->micro, operation->block, param};
}

static void carry_out(struct walk *walk, const struct zinf_plan_operation *operation)
{
    struct zinf_zero *zero = walk->step->options.zero;
    const void *weights = operation->block < 0 ? NULL : zinf_zero_weights(zero, operation);
    void *gradient = NULL;
    if (operation->kind >= ZINF_PLAN_HEAD_BACKWARD &&
        operation->kind <= ZINF_PLAN_EMBEDDING_BACKWARD)
        gradient = zinf_zero_gradient(zero, operation);
    switch (operation->kind) {
    case ZINF_PLAN_EMBEDDING_FORWARD:
        embedding_forward(walk, operation, weights);
        break;
    case ZINF_PLAN_LAYER_FORWARD:
        layer_forward(walk, operation, weights);
        break;
    case ZINF_PLAN_NORM_FORWARD:
        norm_forward(walk, operation, weights);
        break;
    case ZINF_PLAN_HEAD_FORWARD:
        head_forward(walk, operation, weights);
        break;
    case ZINF_PLAN_LOSS:
        end_loss(walk, operation->micro);
        break;
    case ZINF_PLAN_HEAD_BACKWARD:
        head_backward(walk, operation, weights, gradient);
        break;
    case ZINF_PLAN_NORM_BACKWARD:
        norm_backward(walk, operation, weights, gradient);
        break;
    case ZINF_PLAN_LAYER_BACKWARD:
        layer_backward(walk, operation, weights, gradient);
        break;
    case ZINF_PLAN_EMBEDDING_BACKWARD:
        embedding_backward(walk, operation, gradient);
        break;
    case ZINF_PLAN_ACCUMULATE:
        zinf_zero_accumulate(zero, operation);
        break;
    case ZINF_PLAN_DECIDE:
        decide(walk);
        break;
    case ZINF_PLAN_UPDATE:
        update(walk, operation);
        break;
    default:
        ZINF_ASSERT(!"an operation of the communication lane in the compute lane");
    }
    if (walk->input && walk->input->trace && operation->kind < ZINF_PLAN_ACCUMULATE)
        trace(walk, operation, weights, gradient);
}

static enum zinf_activity activity_of(enum zinf_plan_kind kind)
{
    switch (kind) {
    case ZINF_PLAN_HEAD_FORWARD:
    case ZINF_PLAN_LOSS:
    case ZINF_PLAN_HEAD_BACKWARD:
        return ZINF_ACTIVITY_LOSS;
    case ZINF_PLAN_DECIDE:
        return ZINF_ACTIVITY_NORM;
    case ZINF_PLAN_UPDATE:
        return ZINF_ACTIVITY_OPTIMIZER;
    default:
        return kind < ZINF_PLAN_LOSS ? ZINF_ACTIVITY_FORWARD : ZINF_ACTIVITY_BACKWARD;
    }
}

static void wait_for_operation(struct walk *walk, enum zinf_plan_kind kind)
{
    struct zinf_activities *activities = walk->step->options.activities;
    enum zinf_activity waiting =
        kind == ZINF_PLAN_DECIDE ? ZINF_ACTIVITY_WAIT_REDUCE : ZINF_ACTIVITY_WAIT_GATHER;
    struct zinf_lanes *lanes = walk->step->options.zero->lanes;
    double drive_s = zinf_lanes_delay_s(lanes, ZINF_DELAY_DRIVE);
    double update_s = zinf_lanes_delay_s(lanes, ZINF_DELAY_UPDATE);
    zinf_activity_start(activities, waiting);
    walk->wait_s += zinf_zero_wait(walk->step->options.zero, walk->index);
    zinf_activity_stop(activities, waiting);
    zinf_activity_move(activities, waiting, ZINF_ACTIVITY_WAIT_NVME,
                       zinf_lanes_delay_s(lanes, ZINF_DELAY_DRIVE) - drive_s);
    zinf_activity_move(activities, waiting, ZINF_ACTIVITY_WAIT_UPDATE,
                       zinf_lanes_delay_s(lanes, ZINF_DELAY_UPDATE) - update_s);
}

/* What this rank tells the others must stand before the mover asks for it: behind the last
 * operation before DECIDE, and behind the last. */
static void tell(struct walk *walk)
{
    const struct zinf_plan *plan = walk->plan;
    int64_t next = walk->index + 1, count = plan->count[ZINF_LANE_COMPUTE];
    if (next == count ? !walk->input
                      : plan->operations[ZINF_LANE_COMPUTE][next].kind == ZINF_PLAN_DECIDE)
        set_agreement(walk);
    else if (next == count)
        set_report(walk);
}

/* Of the gradient's sum of squares, loss scale in it: above this it will be clipped. */
static double square_limit(const struct walk *walk)
{
    if (!walk->input || walk->input->gradient_clipping <= 0)
        return INFINITY;
    double norm = walk->input->gradient_clipping * walk->input->loss_scale;
    return norm * norm;
}

static void walk_plan(struct walk *walk)
{
    struct zinf_zero *zero = walk->step->options.zero;
    struct zinf_activities *activities = walk->step->options.activities;
    struct zinf_device_times *times = &walk->step->times;
    const struct zinf_activations *inputs = zinf_activations_store(&walk->step->activations);
    struct zinf_update early;
    if (walk->input)
        early = update_of(walk->input, 1);
    walk->read_bytes = bytes_read(walk->step);
    walk->write_bytes = inputs->write_bytes;
    walk->inputs_wait_s = inputs->waited_s;
    zinf_zero_begin(zero, walk->plan, walk->input && !walk->input->trace ? &early : NULL,
                    square_limit(walk));
    for (walk->index = 0; walk->index < walk->plan->count[ZINF_LANE_COMPUTE]; walk->index++) {
        const struct zinf_plan_operation *operation =
            &walk->plan->operations[ZINF_LANE_COMPUTE][walk->index];
        enum zinf_activity activity = activity_of(operation->kind);
        wait_for_operation(walk, operation->kind);
        if (operation->kind == ZINF_PLAN_DECIDE && times->device)
            walk->wait_s = zinf_device_times_decided(times, walk->index);
        if (walk->input)
            zinf_device_times_start(times, walk->index, activity);
        double begin_s = zinf_plan_trace_begin(walk->plan, ZINF_LANE_COMPUTE, walk->index);
        zinf_activity_start(activities, activity);
        carry_out(walk, operation);
        zinf_activity_stop(activities, activity);
        if (walk->input)
            zinf_device_times_stop(times, walk->index);
        zinf_plan_trace_end(walk->plan, ZINF_LANE_COMPUTE, walk->index, begin_s);
        tell(walk);
        zinf_zero_done(zero);
    }
    zinf_activity_start(activities, ZINF_ACTIVITY_WAIT_REDUCE);
    zinf_zero_end(zero);
    zinf_activity_stop(activities, ZINF_ACTIVITY_WAIT_REDUCE);
}

void zinf_step_run(struct zinf_step *step, const struct zinf_step_input *input,
                   struct zinf_step_result *result)
{
    struct zinf_comm *comm = step->options.zero->options.comm;
    struct walk walk = {.step = step,
                        .input = input,
                        .plan = step->options.plan,
                        .result = result,
                        .inputs = input->inputs,
                        .targets = input->targets};
    int64_t sent = comm->bytes_sent;
    memset(result, 0, sizeof *result);
    step->pass.batch = step->options.batch;
    step->pass.training = true;
    step->pass.step = input->step;
    zinf_trace_push("step");
    walk_plan(&walk);
    zinf_trace_pop();
    zinf_graphs_step_ended(step->graphs, step->times.step_s);
    read_report(&walk);
    result->comm_bytes = comm->bytes_sent - sent;
    ZINF_ASSERT(result->comm_bytes == walk.plan->comm_bytes);
}

void zinf_step_settle(struct zinf_step *step, double *read_bytes, double *write_bytes)
{
    struct zinf_zero *zero = step->options.zero;
    int64_t mine[2], all[2 * zero->ranks];
    zinf_zero_drain(zero);
    zinf_zero_update_bytes(zero, false, &mine[0], &mine[1]);
    zinf_comm_gather_small(zero->options.comm, mine, sizeof mine, all);
    *read_bytes = *write_bytes = 0;
    for (int rank = 0; rank < zero->ranks; rank++) {
        *read_bytes += (double)all[2 * rank];
        *write_bytes += (double)all[2 * rank + 1];
    }
}

void zinf_step_evaluate(struct zinf_step *step, const int32_t *inputs, const int32_t *targets,
                        double *loss_sum, double *counted)
{
    const struct zinf_zero *zero = step->options.zero;
    struct zinf_step_result ignored = {0};
    struct walk walk = {.step = step,
                        .plan = step->options.evaluation_plan,
                        .result = &ignored,
                        .inputs = inputs,
                        .targets = targets};
    step->pass.batch = step->options.evaluation_batch;
    step->pass.training = false;
    walk_plan(&walk);
    *loss_sum = *counted = 0;
    for (int rank = 0; rank < zero->ranks; rank++) {
        *loss_sum += zero->agree_all[rank * ZINF_AGREE_COUNT + 1];
        *counted += zero->agree_all[rank * ZINF_AGREE_COUNT + 2];
    }
}
