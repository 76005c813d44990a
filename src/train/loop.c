/*
 * The training loop: read samples, one step, say what happened, and at step boundaries whatever was
 * asked for: evaluation, checkpoint, stop. All ranks take the same decisions because everything
 * they depend on was agreed inside the step.
 */
#include "train/run.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/signals.h"
#include "train/metrics.h"
#include "train/progress.h"

/* What a rank asks for, sent with the gradient norm; the maximum over ranks is what everybody does.
 * SCHEDULED: a checkpoint too, by the clock. */
enum { WISH_STOP, WISH_CHECKPOINT, WISH_REASON, WISH_SCHEDULED };
enum { REASON_NONE, REASON_SIGNAL, REASON_STOP_FILE, REASON_MAX_HOURS };
enum { STOP_WITH_CHECKPOINT = 1, STOP_AT_ONCE = 2 };

struct loop {
    struct zinf_run *run;
    double step_began_s, last_checkpoint_s;
    double pause_s;     /* the longest between two steps: evaluation, checkpoint */
    int64_t first_step; /* of this start */
    int checkpoint_signals_seen;
    struct zinf_metrics metrics; /* of the last step */
    bool unwritten; /* their line waits for the update that goes on under the next step */
    struct zinf_evaluation evaluation;
    bool evaluated, saved; /* at the current step */
};

/* Would one more step, with what may follow it, end too late? Asked near the end of a step, so
 * twice its time from its beginning is when the next one ends; a checkpoint is taken to last as
 * long as a step until one has shown more. */
static bool time_is_up(const struct loop *loop, double now)
{
    double limit_s = loop->run->config->limits.max_hours * 3600;
    double step_s = fmax(now - loop->step_began_s, loop->metrics.step_s);
    double end_s = loop->step_began_s + 2 * step_s + fmax(loop->pause_s, step_s);
    return limit_s > 0 && end_s - loop->run->activities.began_s > limit_s;
}

/* Called by the step when the ranks are about to agree. */
static void read_wishes(void *context, double wishes[4])
{
    struct loop *loop = context;
    struct zinf_run *run = loop->run;
    struct zinf_signals signals = zinf_signals_state();
    const struct zinf_config *config = run->config;
    double now = zinf_clock_s();
    wishes[WISH_STOP] = zinf_signals_stop_level(&signals);
    wishes[WISH_REASON] = wishes[WISH_STOP] > 0 ? REASON_SIGNAL : REASON_NONE;
    if (signals.checkpoint_count > loop->checkpoint_signals_seen) {
        loop->checkpoint_signals_seen = signals.checkpoint_count;
        wishes[WISH_CHECKPOINT] = 1;
    }
    if (run->comm->rank != 0)
        return;
    if (zinf_run_folder_take_stop(run->folder)) {
        wishes[WISH_STOP] = fmax(wishes[WISH_STOP], STOP_WITH_CHECKPOINT);
        wishes[WISH_REASON] = REASON_STOP_FILE;
    }
    if (time_is_up(loop, now)) {
        wishes[WISH_STOP] = fmax(wishes[WISH_STOP], STOP_WITH_CHECKPOINT);
        wishes[WISH_REASON] = REASON_MAX_HOURS;
    }
    if (config->checkpoint.every_minutes > 0 &&
        now - loop->last_checkpoint_s > config->checkpoint.every_minutes * 60)
        wishes[WISH_SCHEDULED] = 1;
}

/* The next B samples of the epoch; behind the last whole batch the next epoch begins. */
static int read_batch(struct zinf_run *run, struct zinf_error *error)
{
    const struct zinf_config *config = run->config;
    struct zinf_run_state *state = &run->state;
    int64_t m = config->batch.micro, tokens = m * config->data.sequence_length;
    int status = ZINF_OK;
    if (state->cursor + config->batch.global > zinf_batches_sample_count(run->train)) {
        state->epoch++;
        state->cursor = 0;
    }
    for (int64_t j = 0; !status && j < config->batch.accumulation; j++) {
        const struct zinf_batch batch = {
            state->epoch, state->cursor + (j * run->comm->size + run->comm->rank) * m, m,
            run->inputs + j * tokens, run->targets + j * tokens};
        status = zinf_batches_read(run->train, &batch, error);
    }
    return status;
}

static void fill_update(const struct zinf_run *run, struct zinf_step_input *input)
{
    const struct zinf_config_optimizer *optimizer = &run->config->optimizer;
    struct zinf_schedule_values now = zinf_schedule_next(&run->schedule);
    input->update = (struct zinf_update){.optimizer = optimizer->kind,
                                         .learning_rate = now.lr,
                                         .beta1 = now.beta1,
                                         .beta2 = now.beta2,
                                         .epsilon = optimizer->epsilon,
                                         .weight_decay = optimizer->weight_decay,
                                         .momentum = optimizer->momentum,
                                         .dampening = optimizer->dampening,
                                         .decoupled_decay = optimizer->decoupled_decay,
                                         .bias_correction = optimizer->bias_correction,
                                         .nesterov = optimizer->nesterov,
                                         .step = run->state.optimizer_steps + 1};
}

/* An error that all ranks have alike. */
static void tell_once(const struct zinf_run *run, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void tell_once(const struct zinf_run *run, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (run->comm->rank == 0)
        zinf_error_log("%s", text);
}

/* Which parameter on which rank: every rank tells what its trace found; the earliest operation is
 * the cause. */
static void name_nonfinite(struct zinf_run *run, const struct zinf_step_result *result)
{
    struct zinf_nonfinite all[run->comm->size];
    char block[96];
    int first = -1;
    zinf_comm_gather_small(run->comm, &result->nonfinite, sizeof *all, all);
    for (int i = 0; i < run->comm->size; i++)
        if (all[i].order && (first < 0 || all[i].order < all[first].order))
            first = i;
    if (first < 0) {
        zinf_warn("step %lld: not finite, but not in a parameter: the loss of a batch or a sum "
                  "over micro-batches overflowed",
                  (long long)run->state.step + 1);
        return;
    }
    const struct zinf_nonfinite *found = &all[first];
    zinf_plan_block_name(run->model, found->block, block, sizeof block);
    if (found->kind == ZINF_NONFINITE_OUTPUT)
        zinf_warn("step %lld: the output of %s on rank %d, micro-batch %d, is not finite; its "
                  "weights are",
                  (long long)run->state.step + 1, block, first, found->micro);
    else
        zinf_warn("step %lld: the %s %s (%s) on rank %d, micro-batch %d, is not finite",
                  (long long)run->state.step + 1,
                  found->kind == ZINF_NONFINITE_GRADIENT ? "gradient of" : "parameter",
                  run->model->params[found->param].name, block, first, found->micro);
}

/* A step that was skipped. @return 0 to go on, ZINF_E_NUMERIC when it was one too many */
static int skipped_step(struct zinf_run *run, const struct zinf_step_input *input)
{
    struct zinf_run_state *state = &run->state;
    bool fp16 = run->config->precision.dtype == ZINF_FP16;
    bool dynamic = fp16 && run->config->precision.loss_scale.loss_scale == 0;
    struct zinf_error error = {0};
    int status = ZINF_OK;
    if (!dynamic || zinf_loss_scale_is_last(&run->loss_scale)) {
        struct zinf_step_input again = *input;
        struct zinf_step_result traced;
        again.trace = true;
        again.wish = NULL; /* they are read once: a STOP file is gone by now */
        zinf_step_run(&run->step, &again, &traced);
        name_nonfinite(run, &traced);
    }
    state->skipped++;
    state->nonfinite_in_a_row++;
    if (fp16)
        status = zinf_loss_scale_update(&run->loss_scale, true, &error);
    if (status)
        tell_once(run, "step %lld: %s", (long long)state->step + 1, error.text);
    else if (dynamic)
        zinf_info("step %lld skipped: overflow in fp16; loss scale %g -> %g (%lld skipped in all)",
                  (long long)state->step + 1, input->loss_scale, run->loss_scale.scale,
                  (long long)state->skipped);
    else
        zinf_warn("step %lld skipped: loss or gradient norm not finite (%lld skipped in all)",
                  (long long)state->step + 1, (long long)state->skipped);
    if (!status && state->nonfinite_in_a_row >= run->config->train.max_nonfinite) {
        tell_once(run,
                  "%lld steps in a row were not finite (zinf.train.max_nonfinite): lower the "
                  "learning rate, clip gradients, or look at the data",
                  (long long)state->nonfinite_in_a_row);
        status = ZINF_E_NUMERIC;
    }
    return status;
}

static int applied_step(struct zinf_run *run)
{
    run->state.nonfinite_in_a_row = 0;
    run->state.optimizer_steps++;
    zinf_schedule_advance(&run->schedule);
    if (run->config->precision.dtype == ZINF_FP16)
        return zinf_loss_scale_update(&run->loss_scale, false, NULL);
    return ZINF_OK;
}

static void fill_metrics(struct loop *loop, const struct zinf_step_input *input,
                         const struct zinf_step_result *result, double seconds)
{
    const struct zinf_run *run = loop->run;
    const struct zinf_run_state *state = &run->state;
    double tokens_per_s = (double)input->counted / seconds;
    double flop = tokens_per_s *
                  zinf_model_flop_per_token(run->model, run->config->data.sequence_length) /
                  run->comm->size;
    loop->metrics = (struct zinf_metrics){.step = state->step,
                                          .epoch = zinf_run_epochs(run),
                                          .samples = state->samples,
                                          .tokens = state->tokens,
                                          .loss = result->loss,
                                          .lr = input->update.learning_rate,
                                          .grad_norm = result->skipped ? NAN : result->grad_norm,
                                          .loss_scale = input->loss_scale,
                                          .skipped = state->skipped,
                                          .step_s = seconds,
                                          .tokens_per_s = tokens_per_s,
                                          .tflops = flop / 1e12,
                                          .mfu = flop / run->peak_flops_per_rank,
                                          .nvme_read_bytes = (int64_t)result->nvme_read_bytes,
                                          .nvme_write_bytes = (int64_t)result->nvme_write_bytes,
                                          .comm_bytes = result->comm_bytes,
                                          .wait_nvme_s = result->wait_nvme_s,
                                          .wait_comm_s = result->wait_comm_s,
                                          .wait_data_s = result->wait_data_s,
                                          .rss_bytes = (int64_t)result->rss_bytes,
                                          .device_bytes = (int64_t)zinf_run_device_bytes(run),
                                          .pinned_bytes = (int64_t)result->pinned_bytes,
                                          .wait_update_s = result->wait_update_s,
                                          .early_records = (int64_t)result->early_records,
                                          .refused_records = (int64_t)result->refused_records};
}

/* A line that could not be written is a warning: the run's state is in its checkpoints. */
static void add_line(struct zinf_run *run, const char *line)
{
    struct zinf_error error = {0};
    if (run->config->log_jsonl && zinf_run_folder_add_metrics(run->folder, line, &error))
        zinf_warn("%s", error.text);
}

/* The last step's update has moved so many bytes: its line is complete. */
static void write_line(struct loop *loop, double read_bytes, double write_bytes)
{
    struct zinf_run *run = loop->run;
    char line[ZINF_METRICS_LINE_BYTES];
    if (!loop->unwritten)
        return;
    loop->unwritten = false;
    loop->metrics.nvme_read_bytes += (int64_t)read_bytes;
    loop->metrics.nvme_write_bytes += (int64_t)write_bytes;
    if (run->comm->rank != 0)
        return;
    zinf_activity_add_bytes(&run->activities, ZINF_ACTIVITY_WAIT_NVME, /* of all ranks */
                            loop->metrics.nvme_read_bytes + loop->metrics.nvme_write_bytes);
    zinf_metrics_print(&loop->metrics, line);
    add_line(run, line);
    run->results.metrics = loop->metrics;
}

/* Before anything that is not a step: the last one's update has ended, and its line is written. */
static void settle(struct loop *loop)
{
    double read_bytes = 0, write_bytes = 0;
    if (!loop->unwritten && !loop->run->zero.updates)
        return;
    zinf_activity_start(&loop->run->activities, ZINF_ACTIVITY_OPTIMIZER);
    if (loop->run->zero.updates)
        zinf_step_settle(&loop->run->step, &read_bytes, &write_bytes);
    zinf_activity_stop(&loop->run->activities, ZINF_ACTIVITY_OPTIMIZER);
    write_line(loop, read_bytes, write_bytes);
}

static int one_step(struct loop *loop, struct zinf_step_result *result)
{
    struct zinf_run *run = loop->run;
    struct zinf_run_state *state = &run->state;
    const struct zinf_config *config = run->config;
    double begin = zinf_clock_s();
    struct zinf_error error = {0};
    struct zinf_step_input input = {
        .inputs = run->inputs,
        .targets = run->targets,
        .step = (uint32_t)state->step,
        .counted = config->batch.global * config->data.sequence_length,
        .loss_scale = config->precision.dtype == ZINF_FP16 ? run->loss_scale.scale : 1,
        .gradient_clipping = config->gradient_clipping,
        .wish = read_wishes,
        .wish_context = loop,
        .pinned_bytes = (double)run->pinned_bytes};
    loop->step_began_s = begin;
    zinf_activity_start(&run->activities, ZINF_ACTIVITY_DATA);
    int status = read_batch(run, &error);
    zinf_activity_stop(&run->activities, ZINF_ACTIVITY_DATA);
    if (status) /* The peers are in the step already: no agreement is possible any more. */
        zinf_fatal(status, "%s", error.text);
    input.waited_data_s = zinf_clock_s() - begin;
    fill_update(run, &input);
    zinf_step_run(&run->step, &input, result);
    write_line(loop, result->before_read_bytes, result->before_write_bytes);
    status = result->skipped ? skipped_step(run, &input) : applied_step(run);
    state->step++;
    state->samples += config->batch.global;
    state->tokens += input.counted;
    state->cursor += config->batch.global;
    state->lr = input.update.learning_rate;
    fill_metrics(loop, &input, result, zinf_clock_s() - begin);
    loop->unwritten = true;
    return status;
}

static void log_step(struct loop *loop)
{
    struct zinf_run *run = loop->run;
    const struct zinf_config *config = run->config;
    char line[ZINF_PROGRESS_LINE_BYTES];
    if (!run->zero.updates)
        settle(loop);
    else if (run->zero.update_length == 0) /* the update moves nothing that a line tells */
        write_line(loop, 0, 0);
    if (run->comm->rank != 0)
        return;
    zinf_activity_start(&run->activities, ZINF_ACTIVITY_LOGGING);
    if (config->steps_per_print > 0 && (run->state.step % config->steps_per_print == 0 ||
                                        run->state.step == loop->first_step + 1)) {
        zinf_progress_line(&loop->metrics, run->total_steps, config->precision.dtype != ZINF_FP32,
                           line);
        zinf_info("%s", line);
    }
    zinf_progress_step(&loop->metrics);
    zinf_activity_stop(&run->activities, ZINF_ACTIVITY_LOGGING);
}

static int evaluate(struct loop *loop)
{
    struct zinf_run *run = loop->run;
    char line[ZINF_METRICS_LINE_BYTES];
    double loss;
    int64_t tokens;
    if (loop->evaluated || !run->eval)
        return ZINF_OK;
    settle(loop);
    int status = zinf_run_evaluate(run, &loss, &tokens);
    if (status)
        return status;
    loop->evaluated = true;
    loop->evaluation =
        (struct zinf_evaluation){.step = run->state.step, .loss = loss, .perplexity = exp(loss)};
    zinf_info("step %6lld | eval loss %.4f | perplexity %.3f | %lld tokens",
              (long long)run->state.step, loss, exp(loss), (long long)tokens);
    run->results.evaluation = loop->evaluation;
    if (run->comm->rank == 0) {
        zinf_evaluation_print(&loop->evaluation, line);
        add_line(run, line);
    }
    return ZINF_OK;
}

/* This step's value of checkpoint.score_attribute; NAN when it has none. */
static double score(const struct loop *loop)
{
    const char *name = loop->run->config->checkpoint.score_attribute;
    if (!name)
        return NAN;
    if (strcmp(name, "loss") == 0)
        return loop->metrics.loss;
    if (!loop->evaluated)
        return NAN;
    return strcmp(name, "eval_perplexity") == 0 ? loop->evaluation.perplexity
                                                : loop->evaluation.loss;
}

/* A checkpoint of this step. A scheduled one is evaluated before, so that it can become the best,
 * whatever eval_every says. @return as zinf_run_save() */
static int checkpoint(struct loop *loop, bool scheduled)
{
    struct zinf_run *run = loop->run;
    int status = ZINF_OK;
    if (loop->saved)
        return ZINF_OK;
    if (scheduled &&
        (run->config->checkpoint.score_attribute || run->config->train.eval_every == 0))
        status = evaluate(loop);
    if (status)
        return status;
    loop->last_checkpoint_s = zinf_clock_s();
    settle(loop);
    status = zinf_run_save(run, score(loop));
    loop->saved = status == ZINF_OK;
    return status;
}

static bool finished(const struct zinf_run *run)
{
    if (run->config->train.steps > 0)
        return run->state.step >= run->config->train.steps;
    return zinf_run_epochs(run) >= run->config->train.epochs - 1e-12;
}

static bool checkpoint_is_due(const struct loop *loop)
{
    const struct zinf_run *run = loop->run;
    int64_t every = run->config->checkpoint.every_steps;
    bool epoch_ended =
        run->state.cursor + run->config->batch.global > zinf_batches_sample_count(run->train);
    return (every > 0 && run->state.step % every == 0) ||
           (run->config->checkpoint.every_epoch && epoch_ended);
}

/* What the steps' end asks for. *stop: leave the loop with this status. */
static int after_step(struct loop *loop, const struct zinf_step_result *result, bool *stop)
{
    static const char *const reasons[] = {"", "a signal", "the STOP file", "--max-hours"};
    struct zinf_run *run = loop->run;
    int64_t every = run->config->train.eval_every;
    bool wanted = result->signals[WISH_CHECKPOINT] > 0,
         due = checkpoint_is_due(loop) || result->signals[WISH_SCHEDULED] > 0;
    bool last = finished(run), stopping = result->signals[WISH_STOP] > 0;
    bool limit = run->config->limits.max_steps > 0 &&
                 run->state.step >= run->config->limits.max_steps && !last;
    int status = ZINF_OK;
    loop->evaluated = loop->saved = false;
    if (run->eval && every > 0 && (run->state.step % every == 0 || last))
        status = evaluate(loop);
    if (status)
        return status;
    if (result->signals[WISH_STOP] >= STOP_AT_ONCE && !last) {
        zinf_warn("stopped at once by a second signal, without a checkpoint of step %lld",
                  (long long)run->state.step);
        *stop = true;
        return run->has_checkpoint ? ZINF_E_STOPPED : ZINF_E_RUNTIME;
    }
    if (due || wanted || last || stopping || limit)
        status = checkpoint(loop, due || last);
    *stop = last || stopping || limit;
    if (status == ZINF_E_NO_SPACE || status == ZINF_E_RUNTIME) {
        if (*stop) {
            tell_once(run, "the last checkpoint could not be written; the run folder's newest one "
                           "is what is left of this run");
            return ZINF_E_RUNTIME;
        }
        zinf_warn("training goes on without this checkpoint (%d failed so far)",
                  run->checkpoints_failed);
        return ZINF_OK;
    }
    if (status || last || !*stop)
        return status;
    zinf_info("stopped after step %lld by %s: run the same command again to go on",
              (long long)run->state.step,
              limit && !stopping ? "--max-steps" : reasons[(int)result->signals[WISH_REASON]]);
    return ZINF_E_STOPPED;
}

int zinf_run_train(struct zinf_run *run)
{
    double now = zinf_clock_s();
    struct loop loop = {.run = run, .last_checkpoint_s = now, .first_step = run->state.step};
    bool stop = finished(run);
    int status = ZINF_OK;
    if (stop) {
        zinf_info("this run is complete: %lld steps are done", (long long)run->state.step);
    } else if (run->config->limits.max_steps > 0 &&
               run->state.step >= run->config->limits.max_steps) {
        zinf_info("--max-steps %lld: step %lld is done already",
                  (long long)run->config->limits.max_steps, (long long)run->state.step);
        status = ZINF_E_STOPPED;
    }
    /* A run that dies, by the watchdog or with its machine, cannot write that it failed. */
    if (!status && !stop)
        status = zinf_comm_agree(run->comm, zinf_run_write_results(run, ZINF_E_RUNTIME));
    if (run->comm->rank == 0)
        zinf_progress_open(stderr, run->total_steps);
    while (!status && !stop) {
        struct zinf_step_result result;
        status = one_step(&loop, &result);
        log_step(&loop);
        double begin = zinf_clock_s();
        if (!status)
            status = after_step(&loop, &result, &stop);
        loop.pause_s = fmax(loop.pause_s, zinf_clock_s() - begin);
    }
    settle(&loop);
    zinf_progress_close();
    return status;
}
