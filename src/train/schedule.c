/*
 * DeepSpeed's schedules. See schedule.h.
 *
 * The order of every operation is Python's, because the results are compared bit by bit: a product
 * that feeds a sum goes through product(), so that a compiler with fused multiply-add does not
 * round once where Python rounds twice.
 */
#include "train/schedule.h"

#include <math.h>
#include <string.h>

static double product(double a, double b)
{
    volatile double rounded = a * b;
    return rounded;
}

void zinf_schedule_defaults(struct zinf_schedule_options *options, enum zinf_schedule_type type)
{
    memset(options, 0, sizeof *options);
    options->type = type;
    options->optimizer_lr = 1e-3;
    options->optimizer_beta1 = 0.9;
    options->optimizer_beta2 = 0.999;
    options->optimizer_has_betas = true;
    options->warmup_max_lr = type == ZINF_SCHEDULE_WARMUP_LR ? NAN : 1e-3;
    options->warmup_num_steps = 1000;
    options->cos_min_ratio = 1e-4;
    options->cycle_min_lr = options->cycle_max_lr = NAN;
    options->cycle_first_step_size = 2000;
    options->cycle_second_step_size = NAN;
    options->cycle_second_stair_count = -1;
    options->cycle_momentum = true;
    options->cycle_min_mom = 0.8;
    options->cycle_max_mom = 0.9;
    options->lr_range_test_min_lr = 1e-3;
    options->lr_range_test_step_rate = 1.0;
    options->lr_range_test_step_size = 2000;
}

static int check_warmup(const struct zinf_schedule_options *o, struct zinf_error *error)
{
    if (o->warmup_num_steps <= 0)
        return zinf_error_set(error, ZINF_E_USAGE,
                              "scheduler.params.warmup_num_steps is %lld, but must be at least 1",
                              (long long)o->warmup_num_steps);
    if (o->type != ZINF_SCHEDULE_WARMUP_LR && o->total_num_steps <= 0)
        return zinf_error_set(error, ZINF_E_USAGE,
                              "scheduler.params.total_num_steps is missing or not positive; "
                              "give the number of steps of the run");
    return 0;
}

static int check_one_cycle(const struct zinf_schedule_options *o, struct zinf_error *error)
{
    if (isnan(o->cycle_min_lr) || isnan(o->cycle_max_lr))
        return zinf_error_set(error, ZINF_E_USAGE,
                              "scheduler.params.%s is missing; OneCycle needs it",
                              isnan(o->cycle_min_lr) ? "cycle_min_lr" : "cycle_max_lr");
    if (!(o->cycle_first_step_size > 0))
        return zinf_error_set(error, ZINF_E_USAGE,
                              "scheduler.params.cycle_first_step_size is %g, but must be positive",
                              o->cycle_first_step_size);
    if (o->cycle_second_step_size < 0)
        return zinf_error_set(error, ZINF_E_USAGE,
                              "scheduler.params.cycle_second_step_size is %g, but must not be "
                              "negative",
                              o->cycle_second_step_size);
    return 0;
}

static int check(const struct zinf_schedule_options *o, struct zinf_error *error)
{
    switch (o->type) {
    case ZINF_SCHEDULE_WARMUP_LR:
    case ZINF_SCHEDULE_WARMUP_DECAY_LR:
    case ZINF_SCHEDULE_WARMUP_COSINE_LR:
        return check_warmup(o, error);
    case ZINF_SCHEDULE_ONE_CYCLE:
        return check_one_cycle(o, error);
    case ZINF_SCHEDULE_LR_RANGE_TEST:
        if (o->lr_range_test_step_size > 0)
            return 0;
        return zinf_error_set(error, ZINF_E_USAGE,
                              "scheduler.params.lr_range_test_step_size is %lld, but must be at "
                              "least 1",
                              (long long)o->lr_range_test_step_size);
    case ZINF_SCHEDULE_CONSTANT:
        break;
    }
    return 0;
}

int zinf_schedule_init(struct zinf_schedule *schedule, const struct zinf_schedule_options *options,
                       struct zinf_error *error)
{
    const int status = check(options, error);
    if (status)
        return status;
    struct zinf_schedule_options o = *options;
    if (isnan(o.warmup_max_lr))
        o.warmup_max_lr = o.optimizer_lr;
    if (o.warmup_num_steps < 2)
        o.warmup_num_steps = 2;
    if (isnan(o.cycle_second_step_size))
        o.cycle_second_step_size = o.cycle_first_step_size;
    if (o.cycle_second_stair_count < 0)
        o.cycle_second_stair_count = o.cycle_first_stair_count;
    schedule->options = o;
    schedule->iteration = -1;
    return 0;
}

void zinf_schedule_advance(struct zinf_schedule *schedule)
{
    schedule->iteration++;
}

/* Rising part of the three warm-up schedules, 0 <= i < W: i / W, or ln(i + 1) / ln W. 0 at i = 0,
 * so that the second step has the first one's lr again. */
static double warmup_gamma(const struct zinf_schedule_options *o, int64_t i)
{
    if (o->warmup_linear)
        return (double)i / (double)o->warmup_num_steps;
    return product(1.0 / log((double)o->warmup_num_steps), log((double)(i + 1)));
}

/* Behind the warm-up: 1, or (T - i) / (T - W), a line that ends at warmup_min_lr and not at 0. */
static double decay_gamma(const struct zinf_schedule_options *o, int64_t i)
{
    if (o->type == ZINF_SCHEDULE_WARMUP_LR)
        return 1.0;
    const int64_t window = o->total_num_steps - o->warmup_num_steps;
    return fmax(0.0, (double)(o->total_num_steps - i) / (double)(window > 1 ? window : 1));
}

/* lr = min + (max - min) gamma */
static double warmup_lr(const struct zinf_schedule_options *o, int64_t i)
{
    if (i < 0)
        return o->warmup_min_lr;
    const double gamma = i < o->warmup_num_steps ? warmup_gamma(o, i) : decay_gamma(o, i);
    return o->warmup_min_lr + product(o->warmup_max_lr - o->warmup_min_lr, gamma);
}

/* Of the optimizer's lr. Warm-up: m + (1 - m) gamma; then c + (1 - c)(1 + cos(pi p)) / 2, p the
 * part of the steps behind the warm-up that is done. */
static double cosine_ratio(const struct zinf_schedule_options *o, int64_t i)
{
    if (i < 0)
        return 0.0; /* whatever warmup_min_ratio says: DeepSpeed's step 0 is a no-op */
    if (i < o->warmup_num_steps)
        return o->warmup_min_ratio + product(warmup_gamma(o, i), 1.0 - o->warmup_min_ratio);
    const int64_t window = o->total_num_steps - o->warmup_num_steps;
    const double done = (double)(i - o->warmup_num_steps + 1) / (double)(window > 1 ? window : 1);
    const double wave = (1.0 + cos(product(M_PI, fmin(1.0, done)))) / 2.0;
    return fmax(0.0, o->cos_min_ratio + product(1.0 - o->cos_min_ratio, wave));
}

/* Height of the cycle at iteration i: 0 at both ends, 1 at the top. */
static double cycle_scale(const struct zinf_schedule_options *o, int64_t i)
{
    const double total = o->cycle_first_step_size + o->cycle_second_step_size;
    const double ratio = o->cycle_first_step_size / total;
    const double batch = (double)(i + 1);
    const double x = 1.0 + batch / total - floor(1.0 + batch / total);
    const bool rising = x <= ratio;
    const int64_t stairs = rising ? o->cycle_first_stair_count : o->cycle_second_stair_count;
    if (stairs <= 0)
        return rising ? x / ratio : (x - 1.0) / (ratio - 1.0);
    /* Stairs count from the whole offset: the float height just below a stair would drop a whole
     * one. */
    const double offset = fmod(batch, total);
    const double position = offset <= o->cycle_first_step_size
                                ? offset * (double)stairs / o->cycle_first_step_size
                                : (total - offset) * (double)stairs / o->cycle_second_step_size;
    return floor(position) / (double)stairs;
}

static bool cycle_is_over(const struct zinf_schedule_options *o, int64_t i)
{
    return (double)i >= o->cycle_first_step_size + o->cycle_second_step_size;
}

/* 1 + rate * (iterations since the end of the cycle) / decay_step_size; 1 when either is 0. */
static double cycle_decay(const struct zinf_schedule_options *o, int64_t i, double rate)
{
    if (rate == 0 || o->decay_step_size == 0)
        return 1.0;
    const double since = (double)i - (o->cycle_first_step_size + o->cycle_second_step_size) + 1.0;
    return 1.0 + product(rate, since / o->decay_step_size);
}

static double one_cycle_lr(const struct zinf_schedule_options *o, int64_t i)
{
    if (i < 0)
        return o->cycle_min_lr;
    if (cycle_is_over(o, i))
        return o->cycle_min_lr / cycle_decay(o, i, o->decay_lr_rate);
    return o->cycle_min_lr + product(o->cycle_max_lr - o->cycle_min_lr, cycle_scale(o, i));
}

/* Momentum runs against the lr, but starts at its lowest: the constructor sets cycle_min_mom for
 * step 0. */
static double one_cycle_beta1(const struct zinf_schedule_options *o, int64_t i)
{
    if (i < 0)
        return o->cycle_min_mom;
    if (cycle_is_over(o, i))
        return o->cycle_max_mom * cycle_decay(o, i, o->decay_mom_rate);
    return o->cycle_max_mom - product(o->cycle_max_mom - o->cycle_min_mom, cycle_scale(o, i));
}

/* min (1 + rate (i + 1) / size): Smith's test for the largest useful lr (arXiv:1506.01186, 3.3). */
static double range_test_lr(const struct zinf_schedule_options *o, int64_t i)
{
    if (i < 0)
        return o->lr_range_test_min_lr;
    double interval = (double)(i + 1) / (double)o->lr_range_test_step_size;
    if (o->lr_range_test_staircase)
        interval = floor(interval);
    return o->lr_range_test_min_lr * (1.0 + product(o->lr_range_test_step_rate, interval));
}

struct zinf_schedule_values zinf_schedule_next(const struct zinf_schedule *schedule)
{
    const struct zinf_schedule_options *o = &schedule->options;
    const int64_t i = schedule->iteration;
    struct zinf_schedule_values values = {o->optimizer_lr, o->optimizer_beta1, o->optimizer_beta2};
    switch (o->type) {
    case ZINF_SCHEDULE_CONSTANT:
        break;
    case ZINF_SCHEDULE_WARMUP_LR:
    case ZINF_SCHEDULE_WARMUP_DECAY_LR:
        values.lr = warmup_lr(o, i);
        break;
    case ZINF_SCHEDULE_WARMUP_COSINE_LR:
        values.lr = o->optimizer_lr * cosine_ratio(o, i);
        break;
    case ZINF_SCHEDULE_ONE_CYCLE:
        values.lr = one_cycle_lr(o, i);
        if (o->cycle_momentum && o->optimizer_has_betas) {
            values.beta1 = one_cycle_beta1(o, i);
            values.beta2 = 0.99;
        }
        break;
    case ZINF_SCHEDULE_LR_RANGE_TEST:
        values.lr = range_test_lr(o, i);
        break;
    }
    return values;
}
