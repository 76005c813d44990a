/*
 * Checkpoints of a run: which one to go on from, and writing the next one. What has changed since
 * is changes.c's.
 */
#include "train/run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/version.h"
#include "io/safetensors.h"
#include "topology/machine.h"
#include "train/checkpoint_folder.h"
#include "train/weights.h"

static void log_error(const struct zinf_run *run, const struct zinf_error *error)
{
    char text[2200];
    zinf_error_print(error, text, sizeof text);
    if (run->comm->rank == 0)
        zinf_error_log("%s", text);
}

/* Rank 0 knows, all must: a path that is the same everywhere. */
static void share_path(struct zinf_run *run, char path[1024])
{
    zinf_comm_broadcast(run->comm, 0, path, 1024);
}

static struct zinf_snapshot snapshot_of(struct zinf_run *run, bool with_moments)
{
    struct zinf_snapshot snapshot = {.zero = &run->zero};
    if (with_moments)
        snapshot.moment_count = zinf_optimizer_state_names(
            run->config->optimizer.kind, run->config->optimizer.momentum, snapshot.moment_names);
    return snapshot;
}

static void take_over(struct zinf_run *run, const struct zinf_run_state *state)
{
    run->state = *state;
    run->schedule.iteration = state->scheduler_iteration;
    if (run->config->precision.dtype != ZINF_FP16 || run->loss_scale.options.loss_scale > 0)
        return;
    run->loss_scale.scale = state->loss_scale;
    run->loss_scale.hysteresis = state->loss_scale_hysteresis;
    run->loss_scale.iteration = state->loss_scale_iteration;
    run->loss_scale.last_overflow = state->loss_scale_last_overflow;
}

/* Everything of one checkpoint. @return 0; ZINF_E_CHECKPOINT: damaged; else it cannot be used */
static int load(struct zinf_run *run, const char *path, struct zinf_error *error)
{
    struct zinf_checkpoint_file *file = NULL;
    struct zinf_run_state state;
    struct zinf_snapshot snapshot = snapshot_of(run, true);
    int status = zinf_checkpoint_open(&file, run->comm, path, error);
    if (!status)
        status = zinf_checkpoint_verify(file, error);
    if (!status)
        status = zinf_snapshot_read_state(file, &state, error);
    if (!status)
        status = zinf_run_check_seed(run, state.seed, path, error);
    if (!status)
        status = zinf_run_check_model(run, file, path, true, error);
    if (!status)
        status = zinf_snapshot_load(&snapshot, file, error);
    if (!status) {
        zinf_run_list_changes(run, file);
        zinf_run_keep_products(run, file);
        take_over(run, &state);
        const char *source = zinf_checkpoint_text(file, "resumed_from");
        snprintf(run->branch_source, sizeof run->branch_source, "%s", source ? source : "");
        snprintf(run->resumed_from, sizeof run->resumed_from, "%s", path);
    }
    zinf_checkpoint_close(file);
    return status;
}

static void warn_of_damage(const char *path, const struct zinf_error *error)
{
    char text[2200];
    zinf_error_print(error, text, sizeof text);
    zinf_warn("%s%s%s; trying the checkpoint before", strstr(text, path) ? "" : path,
              strstr(text, path) ? "" : ": ", text);
}

/* Newest first; a damaged one is named and the one before is taken. */
static int load_newest(struct zinf_run *run, const int64_t *steps, int count)
{
    struct zinf_error error = {0};
    int status = ZINF_E_CHECKPOINT;
    for (int i = 0; i < count && status == ZINF_E_CHECKPOINT; i++) {
        char *path = zinf_checkpoint_folder_path(run->config->run_dir, steps[i]);
        status = load(run, path, &error);
        run->own_step = steps[i];
        if (status == ZINF_E_CHECKPOINT && i + 1 < count)
            warn_of_damage(path, &error);
        free(path);
    }
    if (status)
        log_error(run, &error);
    return status;
}

static int first_weights(struct zinf_run *run)
{
    const struct zinf_config_model *model = &run->config->model;
    struct zinf_error error = {0};
    int has_weights = 0, status = ZINF_OK;
    if (run->comm->rank == 0)
        status = zinf_weights_find(model, &has_weights, &error);
    if (status)
        log_error(run, &error);
    status = zinf_comm_agree(run->comm, status);
    if (status)
        return status;
    zinf_comm_broadcast(run->comm, 0, &has_weights, sizeof has_weights);
    run->model_weights_source = "random";
    if (has_weights && model->init != ZINF_CONFIG_INIT_RANDOM) {
        run->model_weights_source = "pretrained";
        status = zinf_weights_load(&run->zero, model->path, &error);
    } else {
        zinf_weights_init(&run->zero, (uint64_t)run->config->train.seed);
    }
    if (status)
        log_error(run, &error);
    return status;
}

/* Lock the folder, open its log, and read what an earlier start left in results.json. A dry run
 * only asks whether that would work. */
static int open_folder(struct zinf_run *run)
{
    struct zinf_error error = {0};
    char *results = zinf_format("%s/results.json", run->config->run_dir);
    FILE *log = NULL;
    int status = ZINF_OK;
    if (run->config->limits.dry_run && run->comm->rank == 0) {
        status = zinf_run_folder_check(run->config->run_dir, &error);
        if (status)
            log_error(run, &error);
    } else if (run->comm->rank == 0) {
        status = zinf_run_folder_open(&run->folder, run->config->run_dir, &error);
        if (!status)
            status = zinf_run_folder_open_log(run->folder, zinf_version(), &log, &error);
        if (status)
            log_error(run, &error);
        else
            zinf_results_read(&run->results, results);
        zinf_log_set_file(log);
    }
    free(results);
    return zinf_comm_agree(run->comm, status);
}

/* The list of rank 0, on all ranks; owned by the caller. */
static int shared_list(struct zinf_run *run, int64_t **steps)
{
    int count = 0, left = 0;
    *steps = NULL;
    if (run->comm->rank == 0)
        count = zinf_checkpoint_folder_branch(run->config->run_dir, steps, &left);
    if (left)
        zinf_info(
            "%s/checkpoints: %d later than \"latest\" %s of a branch that was left, not taken",
            run->config->run_dir, left, left == 1 ? "is" : "are");
    zinf_comm_broadcast(run->comm, 0, &count, sizeof count);
    if (run->comm->rank != 0)
        *steps = zinf_alloc((size_t)count * sizeof **steps);
    if (count)
        zinf_comm_broadcast(run->comm, 0, *steps, (size_t)count * sizeof **steps);
    return count;
}

/*
 * Rank 0: from here on `latest` is what was loaded, so that nothing later is ever taken again.
 * Later files stay until this branch has a checkpoint of its own; what results.json said of later
 * steps is no longer true.
 */
static int begin_branch(struct zinf_run *run, struct zinf_error *error)
{
    const char *folder = run->config->run_dir;
    struct zinf_results *results = &run->results;
    int64_t *steps;
    int left, status = ZINF_OK;
    if (results->metrics.step != run->state.step) {
        results->evaluation = (struct zinf_evaluation){0};
        results->metrics = (struct zinf_metrics){.step = run->state.step,
                                                 .epoch = zinf_run_epochs(run),
                                                 .samples = run->state.samples,
                                                 .tokens = run->state.tokens,
                                                 .skipped = run->state.skipped,
                                                 .lr = run->state.lr,
                                                 .loss = NAN,
                                                 .grad_norm = NAN};
    }
    if (run->own_step < 0)
        return ZINF_OK;
    snprintf(results->checkpoint, sizeof results->checkpoint, "%s", run->resumed_from);
    if (zinf_checkpoint_folder_linked(folder, "latest") != run->own_step)
        status = zinf_checkpoint_folder_link(folder, "latest", run->own_step, error);
    if (status)
        return status;
    zinf_checkpoint_folder_branch(folder, &steps, &left);
    free(steps);
    if (left)
        zinf_info("back to step %lld: %d later checkpoint%s of this run will be removed when the "
                  "first new one is whole",
                  (long long)run->own_step, left, left == 1 ? "" : "s");
    if (zinf_checkpoint_folder_linked(folder, "best") > run->own_step) {
        results->has_best = false;
        *results->best_checkpoint = '\0';
    }
    return ZINF_OK;
}

/* The files that are replaced or cut with this start. */
static int open_files(struct zinf_run *run)
{
    struct zinf_error error = {0};
    if (run->comm->rank != 0 || run->config->limits.dry_run)
        return ZINF_OK;
    char *config = zinf_json_print(run->config->effective, 2);
    int status = begin_branch(run, &error);
    if (!status)
        status = zinf_run_folder_replace(run->folder, "config.json", config, &error);
    if (!status)
        status = zinf_run_folder_open_metrics(run->folder, run->state.step, &error);
    if (status)
        log_error(run, &error);
    free(config);
    return status;
}

/* A run that could not keep what it computes is better told now than after its last step. */
static int check_space(struct zinf_run *run)
{
    const struct zinf_snapshot snapshot = snapshot_of(run, true);
    const char *folder = run->config->run_dir;
    struct statvfs space;
    struct zinf_error error = {0};
    int64_t bytes = 0;
    char *nearest = zinf_run_folder_nearest(folder); /* a dry run makes none */
    bool unknown = statvfs(nearest, &space) != 0;
    free(nearest);
    if (run->comm->rank != 0 || run->state.step >= run->total_steps || unknown)
        return ZINF_OK;
    for (int i = 0; i < run->model->param_count; i++)
        bytes += run->model->params[i].count * (1 + snapshot.moment_count) * (int64_t)sizeof(float);
    double available = (double)space.f_bavail * (double)space.f_frsize;
    if ((double)bytes <= available)
        return ZINF_OK;
    zinf_error_set(&error, ZINF_E_DOES_NOT_FIT,
                   "run folder %s: a checkpoint has %lld bytes (%.2f GiB), %.0f bytes (%.2f GiB) "
                   "are free there; free space, or give another folder with --run-dir",
                   folder, (long long)bytes, (double)bytes / 1073741824, available,
                   available / 1073741824);
    log_error(run, &error);
    return ZINF_E_DOES_NOT_FIT;
}

/* How a checkpoint remembers PATH: absolute, its folder's links resolved, its own not, so that the
 * same command means the same name also when the file is gone. */
static void name_source(const char *path, char name[1024])
{
    const char *slash = strrchr(path, '/');
    char *folder = slash ? zinf_format("%.*s", (int)(slash - path + 1), path) : zinf_strdup(".");
    char *whole = realpath(folder, NULL);
    char *text = whole ? zinf_format("%s/%s", whole, slash ? slash + 1 : path) : zinf_strdup(path);
    *name = '\0';
    strncat(name, text, 1023);
    free(text);
    free(whole);
    free(folder);
}

/* Did the branch whose newest checkpoints these are begin with `source`? Collective. */
static bool began_with(struct zinf_run *run, const int64_t *steps, int count, const char *source)
{
    struct zinf_error error = {0};
    for (int i = 0; i < count; i++) {
        struct zinf_checkpoint_file *file = NULL;
        char *path = zinf_checkpoint_folder_path(run->config->run_dir, steps[i]);
        const int status = zinf_checkpoint_open(&file, run->comm, path, &error);
        const char *text = status ? NULL : zinf_checkpoint_text(file, "resumed_from");
        const bool same = text && strcmp(text, source) == 0;
        zinf_checkpoint_close(file);
        free(path);
        if (!status)
            return same;
    }
    return false;
}

/* --resume PATH; `steps` are the run's own checkpoints. Said in the manual. */
static int load_asked(struct zinf_run *run, const char *path, const int64_t *steps, int count)
{
    struct zinf_error error = {0};
    char source[1024] = "";
    int status, there = 0;
    if (run->comm->rank == 0) {
        name_source(path, source);
        there = access(path, F_OK) == 0; /* else loading says why not */
        run->source_step = zinf_checkpoint_folder_step_of(run->config->run_dir, path);
    }
    share_path(run, source);
    zinf_comm_broadcast(run->comm, 0, &run->source_step, sizeof run->source_step);
    zinf_comm_broadcast(run->comm, 0, &there, sizeof there);
    if (began_with(run, steps, count, source)) {
        zinf_info("--resume %s: this run has gone on from there before; it goes on from its own "
                  "newest checkpoint",
                  path);
        return load_newest(run, steps, count);
    }
    if (run->source_step < 0 && count > 0 && there)
        status = zinf_error_set(&error, ZINF_E_USAGE,
                                "--resume %s: %s/checkpoints holds %d checkpoint%s that did not "
                                "begin with this file; go on from them with --resume auto, or "
                                "give another run folder with --run-dir",
                                path, run->config->run_dir, count, count == 1 ? "" : "s");
    else
        status = load(run, path, &error);
    run->own_step = run->source_step;
    snprintf(run->branch_source, sizeof run->branch_source, "%s", source);
    if (status)
        log_error(run, &error);
    return status;
}

int zinf_run_resume(struct zinf_run *run)
{
    const char *resume = run->config->checkpoint.resume;
    struct zinf_error error = {0};
    int64_t *steps = NULL;
    int status = open_folder(run), count = 0;
    run->own_step = run->source_step = -1;
    if (status)
        return status;
    count = shared_list(run, &steps);
    run->has_checkpoint = count > 0;
    if (strcmp(resume, "never") == 0 && count > 0) {
        zinf_error_set(&error, ZINF_E_USAGE,
                       "%s/checkpoints holds %d checkpoint%s and zinf.checkpoint.resume is "
                       "\"never\"; use another run folder (--run-dir) or --resume auto",
                       run->config->run_dir, count, count == 1 ? "" : "s");
        log_error(run, &error);
        status = ZINF_E_USAGE;
    } else if (strcmp(resume, "auto") != 0 && strcmp(resume, "never") != 0) {
        status = load_asked(run, resume, steps, count);
    } else if (count > 0) {
        status = load_newest(run, steps, count);
    } else {
        status = first_weights(run);
    }
    free(steps);
    if (!status)
        status = zinf_comm_agree(run->comm, check_space(run));
    if (!status)
        status = zinf_comm_agree(run->comm, open_files(run));
    if (!status)
        zinf_zero_publish(&run->zero);
    return status;
}

int zinf_run_load_weights(struct zinf_run *run, const char *checkpoint)
{
    struct zinf_snapshot snapshot = snapshot_of(run, false);
    struct zinf_checkpoint_file *file = NULL;
    struct zinf_error error = {0};
    char path[1024];
    if (strcmp(checkpoint, "best") == 0 || strcmp(checkpoint, "latest") == 0)
        snprintf(path, sizeof path, "%s/checkpoints/%s", run->config->run_dir, checkpoint);
    else
        snprintf(path, sizeof path, "%s", checkpoint);
    share_path(run, path);
    int status = zinf_checkpoint_open(&file, run->comm, path, &error);
    if (!status)
        status = zinf_checkpoint_verify(file, &error);
    if (!status)
        status = zinf_snapshot_read_state(file, &run->state, &error);
    if (!status)
        status = zinf_run_check_model(run, file, path, false, &error);
    if (!status)
        status = zinf_snapshot_load(&snapshot, file, &error);
    if (status)
        log_error(run, &error);
    else
        zinf_run_keep_products(run, file);
    zinf_checkpoint_close(file);
    if (!status)
        zinf_zero_publish(&run->zero);
    return status;
}

/* Host names of all ranks, each once, in order of ranks; on all ranks, owned by the caller. */
static char *host_list(struct zinf_run *run)
{
    struct zinf_machine machine;
    size_t each = sizeof machine.host;
    char *all = zinf_alloc((size_t)run->comm->size * each), *list = zinf_strdup("");
    zinf_machine_read(&machine, "");
    zinf_comm_gather_small(run->comm, machine.host, each, all);
    for (int i = 0; i < run->comm->size; i++) {
        int seen = 0;
        for (int j = 0; j < i && !seen; j++)
            seen = strcmp(all + (size_t)i * each, all + (size_t)j * each) == 0;
        if (seen)
            continue;
        char *longer = zinf_format("%s%s%s", list, *list ? " " : "", all + (size_t)i * each);
        free(list);
        list = longer;
    }
    free(all);
    return list;
}

static int write_checkpoint(struct zinf_run *run, const char *path)
{
    struct zinf_snapshot snapshot = snapshot_of(run, true);
    char *config = zinf_json_print(run->config->effective, 2);
    char *model = zinf_json_print(run->model->config, 2);
    char *hosts = host_list(run), date[64];
    struct zinf_circumstances now = {0};
    time_t seconds = time(NULL);
    struct tm utc;
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&seconds, &utc));
    zinf_run_circumstances(run, &now);
    zinf_comm_broadcast(run->comm, 0, date, sizeof date);
    zinf_comm_broadcast(run->comm, 0, &now, sizeof now); /* texts are one size on all ranks */
    char *products = run->products.count > 0 ? zinf_products_print(&run->products) : NULL;
    const struct zinf_text texts[] = {
        {"config", config},
        {"model_config", model},
        {"version", zinf_version()},
        {"build", now.build},
        {"kernels", now.kernels},
        {"world_size", now.world_size},
        {"threads", now.threads},
        {"hosts", hosts},
        {"date", date},
        {"resumed_from", *run->branch_source ? run->branch_source : NULL},
        {"products", products}};
    struct zinf_text given[sizeof texts / sizeof *texts];
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i].value)
            given[snapshot.text_count++] = texts[i];
    snapshot.texts = given;
    run->state.scheduler_iteration = run->schedule.iteration;
    run->state.loss_scale = run->config->precision.dtype == ZINF_FP16 ? run->loss_scale.scale : 1;
    run->state.loss_scale_hysteresis = run->loss_scale.hysteresis;
    run->state.loss_scale_iteration = run->loss_scale.iteration;
    run->state.loss_scale_last_overflow = run->loss_scale.last_overflow;
    int status = zinf_snapshot_save(&snapshot, &run->state, path);
    free(products);
    free(config);
    free(model);
    free(hosts);
    return status;
}

/* Rank 0: the names that point to checkpoints, and those that may go. */
static int link_and_prune(struct zinf_run *run, const char *path, double score)
{
    const struct zinf_config_checkpoint *options = &run->config->checkpoint;
    struct zinf_results *results = &run->results;
    struct zinf_error error = {0};
    bool better = isfinite(score) &&
                  (!results->has_best || (options->score_max ? score > results->best_score
                                                             : score < results->best_score));
    int status =
        zinf_checkpoint_folder_link(run->config->run_dir, "latest", run->state.step, &error);
    if (!status && better)
        status = zinf_checkpoint_folder_link(run->config->run_dir, "best", run->state.step, &error);
    if (status) {
        log_error(run, &error);
        return status;
    }
    snprintf(results->checkpoint, sizeof results->checkpoint, "%s", path);
    if (better) {
        results->has_best = true;
        results->best_score = score;
        results->best_metrics = results->metrics;
        results->best_evaluation = results->evaluation;
        snprintf(results->best_checkpoint, sizeof results->best_checkpoint, "%s", path);
    }
    zinf_checkpoint_folder_drop_later(run->config->run_dir, run->state.step);
    zinf_checkpoint_folder_prune(run->config->run_dir, (int)options->num_to_keep, run->source_step);
    /* Should the run die, this is what is known of it. That it could not be written is logged. */
    zinf_run_write_results(run, ZINF_E_RUNTIME);
    return ZINF_OK;
}

int zinf_run_save(struct zinf_run *run, double score)
{
    char *path = zinf_checkpoint_folder_path(run->config->run_dir, run->state.step);
    double begin = zinf_clock_s();
    zinf_activity_start(&run->activities, ZINF_ACTIVITY_CHECKPOINT);
    int status = write_checkpoint(run, path);
    if (!status) {
        run->has_checkpoint = true;
        if (run->comm->rank == 0)
            status = link_and_prune(run, path, score);
        status = zinf_comm_agree(run->comm, status);
    }
    zinf_activity_stop(&run->activities, ZINF_ACTIVITY_CHECKPOINT);
    if (status)
        run->results.checkpoints_failed = ++run->checkpoints_failed;
    else
        zinf_info("checkpoint %s written in %.2f s", path, zinf_clock_s() - begin);
    free(path);
    return status;
}

int zinf_run_write_results(struct zinf_run *run, int status)
{
    struct zinf_error error = {0};
    if (!run->folder)
        return ZINF_OK;
    const struct zinf_aio *io = zinf_run_io(run);
    run->results.context_bytes = run->results.link_bytes = run->results.card_bytes = -1;
    if (zinf_staged(&run->zero)) {
        run->results.context_bytes = run->card.context;
        run->results.link_bytes = run->card.link;
        run->results.card_bytes = zinf_card_used(&run->card, &run->processor, run->device_ranks);
    }
    if (run->processor.backend)
        snprintf(run->results.device, sizeof run->results.device, "%s: %s",
                 run->processor.backend->name, run->processor.properties.name);
    if (io) {
        run->results.io_engine = io->engine->name;
        run->results.io_direct = zinf_run_io_is_direct(run);
        run->results.io_registered = io->registered;
    }
    char *text = zinf_results_print(&run->results, status), *line = zinf_format("%s\n", text);
    int written = zinf_run_folder_replace(run->folder, "results.json", line, &error);
    if (written)
        log_error(run, &error);
    free(text);
    free(line);
    return written;
}
