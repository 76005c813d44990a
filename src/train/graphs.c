/*
 * Passes that are recorded and launched. See graphs.h.
 */
#include "train/graphs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "device/calls.h"

enum {
    PATIENCE = 3,            /* so many changes in a row: the arguments of a pass never stay */
    FEWEST_CALLS = 4,        /* of a pass: a launch takes about as long as two calls */
    WARM_UP = 2,             /* steps before a way is timed */
    TIMED = 3,               /* steps by which it is timed */
    LARGEST_PASS = 64 << 10, /* bytes of calls: some 400 */
    REMEMBERED = 4 << 20,    /* bytes of calls in all: some 1000 passes of layers */
    MOST_RECORDINGS = 1024,
    /* What a recording is given on the device. A node of a graph takes about 10 KB
       (NVIDIA/cccl#3768), a call is one to six kernels, mostly one. */
    CALL_BYTES = 32 << 10,
    PASS_CALLS = 24,
};
static const double worth_a_try = 0.1; /* of the device's time, spent in issuing */
static const double least_gain = 0.01; /* of a step's time: less is noise */

/* Where rank 0's word stands, in order. */
enum word { MEASURING, TRYING, KEPT, GIVEN_UP };
static const double failure = -1; /* the word of a rank that cannot */

/* The bytes of a pass, and what they were recorded as. */
struct recording {
    uint64_t hash;
    char *bytes;
    size_t used;
    int64_t first; /* operation of the compute lane */
    void *graph;   /* the device's; NULL: not recorded */
};

struct pass {
    uint64_t hash; /* of the last calls */
    int changes;   /* in a row */
    struct recording *recording;
};

struct zinf_graphs {
    struct zinf_graphs_options options;
    const struct zinf_device_recorder *recorder;
    struct zinf_calls calls; /* of the pass under way */
    int64_t index;           /* its operation; -1: none is under way */
    struct pass *passes;     /* by operation of the compute lane */
    struct recording recordings[MOST_RECORDINGS];
    int count;
    char *memory; /* of their bytes */
    size_t memory_used;
    size_t device_bytes, largest; /* that recordings have taken, and the largest of them */
    enum word word, wish;         /* what holds; rank 0: what is to hold */
    int steps;                    /* seen under this word */
    double least_s;               /* of a call, to issue it */
    int64_t step_calls;           /* of this step, issued though remembered */
    double best_s[2];             /* a step on the device: plain, recorded */
    char why[400];                /* it was given up */
    bool failed, told;            /* recording, on this rank; on another, and rank 0 has said so */
};

size_t zinf_graphs_bytes(const struct zinf_plan *plan)
{
    const struct zinf_model *model = plan->options.model;
    int64_t blocks = model->head_block_count + model->layers;
    int64_t variants = plan->options.micro_count > 1 ? 2 : 1; /* the first writes its gradient */
    return (size_t)(2 * blocks * variants) * PASS_CALLS * CALL_BYTES;
}

struct zinf_graphs *zinf_graphs_new(const struct zinf_graphs_options *options)
{
    size_t count = (size_t)options->plan->count[ZINF_LANE_COMPUTE];
    if (options->use == ZINF_GRAPHS_OFF)
        return NULL;
    struct zinf_graphs *graphs = zinf_alloc(sizeof *graphs);
    graphs->options = *options;
    graphs->recorder = options->device->backend->recorder;
    graphs->index = -1;
    graphs->word = graphs->wish = options->use == ZINF_GRAPHS_ON ? KEPT : MEASURING;
    graphs->least_s = graphs->best_s[0] = graphs->best_s[1] = INFINITY;
    graphs->passes = zinf_alloc(count * sizeof *graphs->passes);
    graphs->memory = zinf_alloc(REMEMBERED);
    zinf_calls_open(&graphs->calls, LARGEST_PASS);
    return graphs;
}

static void release_recordings(struct zinf_graphs *graphs)
{
    for (int i = 0; i < graphs->count; i++)
        if (graphs->recordings[i].graph)
            graphs->recorder->release(graphs->options.device, graphs->recordings[i].graph);
    memset(graphs->recordings, 0, sizeof graphs->recordings);
    graphs->count = 0;
}

void zinf_graphs_free(struct zinf_graphs *graphs)
{
    if (!graphs)
        return;
    release_recordings(graphs);
    zinf_calls_close(&graphs->calls);
    free(graphs->memory);
    free(graphs->passes);
    free(graphs);
}

/* ---- a pass ---- */

static bool is_same(const struct recording *recording, const struct zinf_calls *calls)
{
    return recording->used == calls->used && !memcmp(recording->bytes, calls->bytes, calls->used);
}

/* Only to find what is then compared; multiplier of FNV-1a, 64 bits, on words. */
static uint64_t hash_of(const struct zinf_calls *calls)
{
    uint64_t hash = 14695981039346656037u, word;
    for (size_t at = 0; at < calls->used; at += sizeof word) {
        memcpy(&word, calls->bytes + at, sizeof word);
        hash = (hash ^ word) * 1099511628211u;
        hash ^= hash >> 32;
    }
    return hash;
}

static struct recording *find(struct zinf_graphs *graphs, uint64_t hash)
{
    for (int i = 0; i < graphs->count; i++)
        if (graphs->recordings[i].hash == hash && is_same(&graphs->recordings[i], &graphs->calls))
            return &graphs->recordings[i];
    return NULL;
}

static struct recording *remember(struct zinf_graphs *graphs, uint64_t hash)
{
    const struct zinf_calls *calls = &graphs->calls;
    if (graphs->count == MOST_RECORDINGS || graphs->memory_used + calls->used > REMEMBERED ||
        calls->count < FEWEST_CALLS)
        return NULL;
    struct recording *recording = &graphs->recordings[graphs->count++];
    *recording = (struct recording){.hash = hash,
                                    .bytes = graphs->memory + graphs->memory_used,
                                    .used = calls->used,
                                    .first = graphs->index};
    memcpy(recording->bytes, calls->bytes, calls->used);
    graphs->memory_used += calls->used;
    return recording;
}

/* What stands remembered of these calls; NULL: nothing. */
static struct recording *recognise(struct zinf_graphs *graphs, struct pass *pass)
{
    if (pass->recording && is_same(pass->recording, &graphs->calls))
        return pass->recording;
    uint64_t hash = hash_of(&graphs->calls);
    bool again = hash == pass->hash;
    pass->recording = find(graphs, hash);
    if (again && !pass->recording)
        pass->recording = remember(graphs, hash);
    pass->changes = again || pass->recording ? 0 : pass->changes + 1;
    pass->hash = hash;
    return pass->recording;
}

static void issue(struct zinf_graphs *graphs, bool counts)
{
    const struct zinf_calls *calls = &graphs->calls;
    double begin_s = zinf_clock_s();
    zinf_calls_issue(calls->bytes, calls->used);
    if (!counts)
        return;
    graphs->least_s = fmin(graphs->least_s, (zinf_clock_s() - begin_s) / calls->count);
    graphs->step_calls += calls->count;
}

void zinf_graphs_begin(struct zinf_graphs *graphs, int64_t index)
{
    if (!graphs || graphs->word == GIVEN_UP || graphs->passes[index].changes >= PATIENCE)
        return;
    graphs->index = index;
    zinf_calls_collect(&graphs->calls);
}

void zinf_graphs_end(struct zinf_graphs *graphs)
{
    if (!graphs || graphs->index < 0)
        return;
    struct pass *pass = &graphs->passes[graphs->index];
    zinf_calls_collect(NULL);
    if (graphs->calls.spilled) {
        pass->changes = PATIENCE;
    } else {
        struct recording *recording = recognise(graphs, pass);
        if (recording && recording->graph)
            graphs->recorder->launch(graphs->options.device, recording->graph);
        else
            issue(graphs, recording != NULL);
    }
    graphs->index = -1;
}

/* ---- between steps ---- */

static void issue_recording(void *context)
{
    const struct recording *recording = context;
    zinf_calls_issue(recording->bytes, recording->used);
}

/* This rank goes on without. */
static void fail(struct zinf_graphs *graphs, const struct recording *recording,
                 const struct zinf_error *error)
{
    char name[128];
    zinf_plan_describe(graphs->options.plan, ZINF_LANE_COMPUTE, recording->first, name,
                       sizeof name);
    snprintf(graphs->why, sizeof graphs->why, "%s could not be recorded: %.200s", name,
             error->text);
    zinf_warn("graphs: %s. The run goes on without (zinf.graphs)", graphs->why);
    graphs->word = graphs->wish = GIVEN_UP;
    graphs->failed = true;
    release_recordings(graphs);
}

/* Everything that is remembered, as far as there is room. */
static void record_all(struct zinf_graphs *graphs)
{
    struct zinf_device *device = graphs->options.device;
    struct zinf_error error = {0};
    for (int i = 0; i < graphs->count; i++) {
        struct recording *recording = &graphs->recordings[i];
        size_t bytes = 0;
        if (recording->graph ||
            graphs->device_bytes + graphs->largest > graphs->options.device_bytes)
            continue;
        recording->graph =
            graphs->recorder->record(device, issue_recording, recording, &bytes, &error);
        if (!recording->graph) {
            fail(graphs, recording, &error);
            return;
        }
        graphs->device_bytes += bytes;
        graphs->largest = bytes > graphs->largest ? bytes : graphs->largest;
    }
}

static int count_recordings(const struct zinf_graphs *graphs)
{
    int count = 0;
    for (int i = 0; i < graphs->count; i++)
        count += graphs->recordings[i].graph != NULL;
    return count;
}

/* Passes that were seen, and those of them that change, or are launched. */
static int count_passes(const struct zinf_graphs *graphs, int *changing, int *launched)
{
    int seen = 0;
    *changing = *launched = 0;
    for (int64_t i = 0; i < graphs->options.plan->count[ZINF_LANE_COMPUTE]; i++) {
        const struct pass *pass = &graphs->passes[i];
        seen += pass->hash != 0;
        *changing += pass->changes >= PATIENCE;
        *launched += pass->recording && pass->recording->graph;
    }
    return seen;
}

/* Is it worth a try, by what plain steps took? */
static void judge_plain(struct zinf_graphs *graphs)
{
    double issuing_s = graphs->step_calls > 0 ? graphs->least_s * (double)graphs->step_calls : 0;
    char dropped[128] = "";
    int changing, launched, seen = count_passes(graphs, &changing, &launched);
    graphs->wish = issuing_s >= worth_a_try * graphs->best_s[0] ? TRYING : GIVEN_UP;
    if (graphs->wish != GIVEN_UP)
        return;
    if (changing > 0)
        snprintf(dropped, sizeof dropped, " (%d of %d passes of blocks change with every step)",
                 changing, seen);
    snprintf(graphs->why, sizeof graphs->why,
             "issuing what could be recorded takes %.1f %% of the device's time%s",
             100 * issuing_s / graphs->best_s[0], dropped);
}

static void judge_recorded(struct zinf_graphs *graphs)
{
    bool faster = graphs->best_s[1] < (1 - least_gain) * graphs->best_s[0];
    graphs->wish = faster ? KEPT : GIVEN_UP;
    if (!faster)
        snprintf(graphs->why, sizeof graphs->why,
                 "a step takes %.3f ms on the device with them, %.3f without",
                 1e3 * graphs->best_s[1], 1e3 * graphs->best_s[0]);
}

/* On rank 0. Each way is timed by its best step, behind two to warm up. */
static void judge(struct zinf_graphs *graphs, double device_s)
{
    if (graphs->wish != graphs->word || graphs->word > TRYING || ++graphs->steps <= WARM_UP)
        return;
    double *best_s = &graphs->best_s[graphs->word];
    *best_s = fmin(*best_s, device_s);
    if (graphs->steps < WARM_UP + TIMED)
        return;
    graphs->steps = 0;
    if (graphs->word == MEASURING)
        judge_plain(graphs);
    else
        judge_recorded(graphs);
    if (graphs->wish == GIVEN_UP)
        zinf_info("graphs      off: %s", graphs->why);
    else if (graphs->wish == KEPT)
        zinf_info("graphs      on: a step takes %.3f ms on the device with them, %.3f without",
                  1e3 * graphs->best_s[1], 1e3 * graphs->best_s[0]);
}

void zinf_graphs_step_ended(struct zinf_graphs *graphs, double device_s)
{
    if (!graphs)
        return;
    if (graphs->options.rank == 0)
        judge(graphs, device_s);
    if (graphs->word == TRYING || graphs->word == KEPT)
        record_all(graphs);
    else if (graphs->word == GIVEN_UP)
        release_recordings(graphs);
    graphs->step_calls = 0;
}

double zinf_graphs_word(const struct zinf_graphs *graphs)
{
    return !graphs ? 0 : graphs->failed ? failure : graphs->wish;
}

void zinf_graphs_hear(struct zinf_graphs *graphs, int rank, double word)
{
    if (!graphs)
        return;
    if (word == failure && rank > 0 && !graphs->told)
        zinf_warn("graphs: rank %d could not record a block and goes on without (zinf.graphs)",
                  rank);
    graphs->told = graphs->told || (word == failure && rank > 0);
    if (rank == 0 && graphs->word != GIVEN_UP && graphs->options.use == ZINF_GRAPHS_AUTO)
        graphs->word = word == failure ? GIVEN_UP : (enum word)word;
}

char *zinf_graphs_text(const struct zinf_graphs *graphs)
{
    int changing, launched, seen;
    char timed[128] = "";
    if (!graphs)
        return zinf_strdup("off");
    if (graphs->word == GIVEN_UP)
        return zinf_format("off: %s", graphs->why);
    if (graphs->word == MEASURING)
        return zinf_strdup("off: the run was too short to measure whether they pay");
    seen = count_passes(graphs, &changing, &launched);
    if (isfinite(graphs->best_s[1]))
        snprintf(timed, sizeof timed,
                 "; a step takes %.3f ms on the device with them, %.3f without",
                 1e3 * graphs->best_s[1], 1e3 * graphs->best_s[0]);
    return zinf_format("on: %d of %d passes of blocks are launched as %d recordings (%.1f MiB on "
                       "the device), the arguments of %d change with every step%s",
                       launched, seen, count_recordings(graphs),
                       (double)graphs->device_bytes / 1048576, changing, timed);
}
