/*
 * The communicator over NCCL. See link.h, device/device.h and topology/comm.h.
 *
 * NCCL is asked never to block (config.blocking = 0), so that a peer that does not come is told by
 * our watchdog, and an error by whoever sees it, in place of a rank that hangs in a library. A call
 * may then answer "in progress"; nothing else may be given to NCCL, or put behind the call in the
 * stream, before it is through. So each posting polls until the operation stands in the stream
 * (microseconds, after the first of each kind, which makes connections: open() carries out one of
 * each). Nothing of MPI is called in between: a peer's kernel may wait for ours.
 *
 * Operations complete in the order of their stream. Operation n records event n modulo the number
 * of events behind itself; a request is that number, complete when as many have been seen to end.
 * When all events are taken, posting polls for the oldest. Nobody else waits for an operation here:
 * what needs its bytes stands behind it, and the mover, which runs ahead, tests from time to time.
 *
 * An error that comes up by itself (ncclCommGetAsyncError) is told of the oldest operation that has
 * not ended, whichever call or test meets it: those behind it cannot be to blame before it is.
 * Errors end the job from where they are seen (zinf_abort() ends all ranks' processes; NCCL's
 * memory and kernels go with them), so ncclCommAbort() is for a last resort in close() only.
 */
#include "cuda/link.h"

#include <math.h>
#include <nccl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "cuda/libraries.h"
#include "device/link.h"
#include "topology/comm.h"

/* NCCL's own ending may hang when a peer has gone: wait so long, then tear down. */
static const double longest_ending_s = 2;
static const double longest_nap_s = 1e-3;

enum { FIRST_BYTES = 16 }; /* of the start's own operations, from each rank to each */

/* What is used of the library; found by name. */
struct api {
    __typeof__(&ncclGetUniqueId) get_id;
    __typeof__(&ncclCommInitRankConfig) init;
    __typeof__(&ncclCommGetAsyncError) async_error;
    __typeof__(&ncclCommFinalize) finalize;
    __typeof__(&ncclCommDestroy) destroy;
    __typeof__(&ncclCommAbort) abort;
    __typeof__(&ncclAllGather) all_gather;
    __typeof__(&ncclSend) send;
    __typeof__(&ncclRecv) receive;
    __typeof__(&ncclGroupStart) group_start;
    __typeof__(&ncclGroupEnd) group_end;
    __typeof__(&ncclGetErrorString) text;
    __typeof__(&ncclGetLastError) last_error;
};

static const struct symbol {
    const char *name;
    size_t offset; /* in struct api */
} symbols[] = {
    {"ncclGetUniqueId", offsetof(struct api, get_id)},
    {"ncclCommInitRankConfig", offsetof(struct api, init)},
    {"ncclCommGetAsyncError", offsetof(struct api, async_error)},
    {"ncclCommFinalize", offsetof(struct api, finalize)},
    {"ncclCommDestroy", offsetof(struct api, destroy)},
    {"ncclCommAbort", offsetof(struct api, abort)},
    {"ncclAllGather", offsetof(struct api, all_gather)},
    {"ncclSend", offsetof(struct api, send)},
    {"ncclRecv", offsetof(struct api, receive)},
    {"ncclGroupStart", offsetof(struct api, group_start)},
    {"ncclGroupEnd", offsetof(struct api, group_end)},
    {"ncclGetErrorString", offsetof(struct api, text)},
    {"ncclGetLastError", offsetof(struct api, last_error)},
};

/* An operation in the stream. */
struct posted {
    const char *operation; /* "all-gather", "exchange" */
    size_t bytes;          /* from each rank to each */
};

struct link_state {
    struct api api;
    struct zinf_comm *host;
    struct zinf_device *device;
    cudaStream_t stream;
    ncclComm_t nccl;
    int first_event, event_count;
    uint64_t posted_count, ended_count;
    struct posted *posted; /* (event_count): operation n at (n - 1) modulo that */
    char name[72];         /* of this host */
};

static struct link_state *state_of(const struct zinf_comm *comm)
{
    return comm->state;
}

/* ---- failure ---- */

static const char *advice(ncclResult_t code)
{
    switch (code) {
    case ncclRemoteError:
        return "; another rank or the network to it is gone, that rank's own message says why";
    case ncclSystemError:
        return "; NCCL_SOCKET_IFNAME chooses the network, and /dev/shm must have room";
    case ncclUnhandledCudaError:
        return "; other processes may use the device: see nvidia-smi";
    default:
        return "";
    }
}

static void fail(struct zinf_comm *comm, ncclResult_t code, const char *operation)
{
    const struct link_state *state = state_of(comm);
    const char *last = state->api.last_error(state->nccl);
    zinf_error_log("rank %d of %d on %s: %s failed: NCCL: %s%s%s%s (NCCL_DEBUG=WARN says more)",
                   comm->rank, comm->size, state->name, operation, state->api.text(code),
                   last && *last ? ": " : "", last ? last : "", advice(code));
    zinf_abort(ZINF_E_RUNTIME);
}

static bool failed(ncclResult_t code)
{
    return code != ncclSuccess && code != ncclInProgress;
}

static void check(struct zinf_comm *comm, ncclResult_t code, const char *operation)
{
    if (failed(code))
        fail(comm, code, operation);
}

/* The fault seam in front of every call, as in comm_mpi.c. */
static void seam(struct zinf_comm *comm, const char *fault, const char *operation)
{
    int error = zinf_fault(fault, NULL);
    if (!error)
        return;
    zinf_error_log("rank %d of %d on %s: %s failed: %s", comm->rank, comm->size,
                   state_of(comm)->name, operation, strerror(error));
    zinf_abort(ZINF_E_RUNTIME);
}

/* A poll that came to nothing: end the run if it was one too many, else sleep. */
static void nap(struct zinf_comm *comm, double begin_s, const char *operation, const char *hint)
{
    double waited_s = zinf_clock_s() - begin_s;
    if (comm->watchdog_s > 0 && waited_s > comm->watchdog_s) {
        zinf_error_log("rank %d of %d on %s: no progress for %.0f s in %s: another rank does not "
                       "take part%s",
                       comm->rank, comm->size, state_of(comm)->name, waited_s, operation, hint);
        zinf_abort(ZINF_E_RUNTIME);
    }
    zinf_clock_nap(fmin(longest_nap_s, 10e-6 + waited_s / 16));
}

static ncclResult_t ask(struct zinf_comm *comm, const char *operation)
{
    struct link_state *state = state_of(comm);
    ncclResult_t code = ncclSuccess;
    check(comm, state->api.async_error(state->nccl, &code), operation);
    return code;
}

/* Until NCCL is through with a call that answered `code`. @return what came of it */
static ncclResult_t settle(struct zinf_comm *comm, ncclResult_t code, const char *operation,
                           const char *hint)
{
    double begin_s = zinf_clock_s();
    while (code == ncclInProgress) {
        code = ask(comm, operation);
        if (code == ncclInProgress)
            nap(comm, begin_s, operation, hint);
    }
    return code;
}

/* ---- data path ---- */

static int event_of(const struct link_state *state, uint64_t number)
{
    return state->first_event + (int)((number - 1) % (uint64_t)state->event_count);
}

static struct posted *posted_of(const struct link_state *state, uint64_t number)
{
    return &state->posted[(number - 1) % (uint64_t)state->event_count];
}

/* "all-gather 5 of 5000 bytes a rank" */
static void name_posted(const struct link_state *state, uint64_t number, char out[96])
{
    const struct posted *posted = posted_of(state, number);
    snprintf(out, 96, "%s %llu of %zu bytes a rank", posted->operation, (unsigned long long)number,
             posted->bytes);
}

/* Tell an error that is not about a call of its own. */
static void check_posted(struct zinf_comm *comm, ncclResult_t code)
{
    const struct link_state *state = state_of(comm);
    uint64_t oldest = state->ended_count + (state->ended_count < state->posted_count);
    char name[96];
    if (!failed(code))
        return;
    name_posted(state, oldest, name);
    fail(comm, code, name);
}

/* Of a call that posts an operation: one that was called wrongly is to blame itself. */
static void check_call(struct zinf_comm *comm, ncclResult_t code, const char *operation)
{
    const struct link_state *state = state_of(comm);
    bool own = code == ncclInvalidArgument || code == ncclInvalidUsage;
    if (own || state->ended_count == state->posted_count)
        check(comm, code, operation);
    else
        check_posted(comm, code);
}

/* Look at what has ended; an error that NCCL met meanwhile ends the run. */
static void look(struct zinf_comm *comm)
{
    struct link_state *state = state_of(comm);
    const struct zinf_device_backend *backend = state->device->backend;
    if (state->ended_count == state->posted_count)
        return;
    while (state->ended_count < state->posted_count &&
           backend->reached(state->device, event_of(state, state->ended_count + 1)))
        state->ended_count++;
    check_posted(comm, ask(comm, "the question for errors"));
}

static void make_room(struct zinf_comm *comm)
{
    struct link_state *state = state_of(comm);
    double begin_s = zinf_clock_s();
    look(comm);
    while (state->posted_count - state->ended_count == (uint64_t)state->event_count) {
        nap(comm, begin_s, posted_of(state, state->ended_count + 1)->operation, "");
        look(comm);
    }
}

/* Behind the call of NCCL that answered `code`. */
static void put(struct zinf_comm *comm, const struct posted *posted, ncclResult_t code,
                struct zinf_comm_request *request)
{
    struct link_state *state = state_of(comm);
    int64_t sent = (int64_t)(comm->size - 1) * (int64_t)posted->bytes;
    check_call(comm, settle(comm, code, posted->operation, ""), posted->operation);
    uint64_t number = ++state->posted_count;
    *posted_of(state, number) = *posted;
    state->device->backend->record(state->device, event_of(state, number),
                                   ZINF_STREAM_COMMUNICATION);
    comm->bytes_sent += sent;
    state->host->bytes_sent += sent;
    request->state = (void *)(uintptr_t)number;
}

static void all_gather(struct zinf_comm *comm, void *buffer, size_t shard_bytes,
                       struct zinf_comm_request *request)
{
    struct link_state *state = state_of(comm);
    const struct posted posted = {"all-gather", shard_bytes};
    ZINF_ASSERT(!request->state);
    seam(comm, "gather", posted.operation);
    if (!shard_bytes)
        return;
    make_room(comm);
    put(comm, &posted,
        state->api.all_gather((char *)buffer + (size_t)comm->rank * shard_bytes, buffer,
                              shard_bytes, ncclInt8, state->nccl, state->stream),
        request);
}

/* All parts in one group, or ranks would wait for each other's. Each begins with its neighbours. */
static ncclResult_t exchange_parts(struct zinf_comm *comm, const char *send, char *receive,
                                   size_t bytes)
{
    struct link_state *state = state_of(comm);
    check_call(comm, state->api.group_start(), "exchange");
    for (int step = 1; step < comm->size; step++) {
        int to = (comm->rank + step) % comm->size;
        int from = (comm->rank + comm->size - step) % comm->size;
        check_call(comm,
                   state->api.send(send + (size_t)to * bytes, bytes, ncclInt8, to, state->nccl,
                                   state->stream),
                   "exchange");
        check_call(comm,
                   state->api.receive(receive + (size_t)from * bytes, bytes, ncclInt8, from,
                                      state->nccl, state->stream),
                   "exchange");
    }
    return state->api.group_end();
}

static void exchange(struct zinf_comm *comm, const void *send, void *receive, size_t part_bytes,
                     struct zinf_comm_request *request)
{
    struct link_state *state = state_of(comm);
    const struct posted posted = {"exchange", part_bytes};
    size_t own = (size_t)comm->rank * part_bytes;
    ZINF_ASSERT(!request->state);
    seam(comm, "exchange", posted.operation);
    if (!part_bytes)
        return;
    make_room(comm);
    if (send != receive)
        state->device->backend->copy(state->device, ZINF_STREAM_COMMUNICATION,
                                     (char *)receive + own, (const char *)send + own, part_bytes);
    put(comm, &posted,
        comm->size > 1 ? exchange_parts(comm, send, receive, part_bytes) : ncclSuccess, request);
}

static bool test(struct zinf_comm *comm, struct zinf_comm_request *request)
{
    uint64_t number = (uint64_t)(uintptr_t)request->state;
    if (number > state_of(comm)->ended_count)
        look(comm);
    if (number > state_of(comm)->ended_count)
        return false;
    request->state = NULL;
    return true;
}

/* NCCL does not say which rank it waits for: what stands first in the stream must do. */
static void describe(struct zinf_comm *comm, struct zinf_comm_request *request, char *out,
                     size_t out_bytes)
{
    const struct link_state *state = state_of(comm);
    uint64_t number = (uint64_t)(uintptr_t)request->state, first = state->ended_count + 1;
    char name[96];
    if (number < first) {
        snprintf(out, out_bytes, "nobody");
        return;
    }
    name_posted(state, first, name);
    snprintf(out, out_bytes, "of NCCL, %s (NCCL does not say from whom; NCCL_DEBUG=INFO says more)",
             name);
}

/* ---- control path: the host's ---- */

static struct zinf_comm *host_of(struct zinf_comm *comm)
{
    struct zinf_comm *host = state_of(comm)->host;
    host->watchdog_s = comm->watchdog_s;
    return host;
}

static void barrier(struct zinf_comm *comm)
{
    zinf_comm_barrier(host_of(comm));
}

static void gather_small(struct zinf_comm *comm, const void *mine, size_t bytes, void *all)
{
    struct zinf_comm *host = host_of(comm);
    int64_t before = host->bytes_sent;
    zinf_comm_gather_small(host, mine, bytes, all);
    comm->bytes_sent += host->bytes_sent - before;
}

static void broadcast(struct zinf_comm *comm, int root, void *buffer, size_t bytes)
{
    zinf_comm_broadcast(host_of(comm), root, buffer, bytes);
}

static void gather_bytes(struct zinf_comm *comm, const void *mine, size_t bytes, void **all,
                         size_t *offsets)
{
    zinf_comm_gather_bytes(host_of(comm), mine, bytes, all, offsets);
}

static void describe_library(struct zinf_comm *comm, char *out, size_t out_bytes)
{
    (void)comm;
    zinf_cuda_link.available(out, out_bytes);
}

/* ---- life ---- */

static int available(char *out, size_t out_bytes)
{
    int version;
    if (zinf_cuda_library_open(&zinf_cuda_nccl)) {
        snprintf(out, out_bytes, "%s", zinf_cuda_nccl.why);
        return ZINF_E_USAGE;
    }
    version = zinf_cuda_nccl.version(zinf_cuda_nccl.handle);
    snprintf(out, out_bytes, "NCCL %d.%d.%d", version / 10000, version / 100 % 100, version % 100);
    return ZINF_OK;
}

static void link_close(struct zinf_comm *comm)
{
    struct link_state *state = state_of(comm);
    ncclResult_t code;
    if (!state)
        return;
    double begin_s = zinf_clock_s();
    while (state->ended_count < state->posted_count) {
        look(comm);
        if (state->ended_count < state->posted_count)
            nap(comm, begin_s, "the last operations", "");
    }
    zinf_comm_barrier(host_of(comm));
    begin_s = zinf_clock_s();
    code = state->api.finalize(state->nccl);
    while (code == ncclInProgress && zinf_clock_s() - begin_s < longest_ending_s) {
        zinf_clock_nap(longest_nap_s);
        if (state->api.async_error(state->nccl, &code) != ncclSuccess)
            break;
    }
    if (code == ncclSuccess)
        state->api.destroy(state->nccl);
    else
        state->api.abort(state->nccl); /* the run is over: what matters is that it ends */
    free(state->posted);
    free(state);
    *comm = (struct zinf_comm){0};
}

static const struct zinf_comm_ops nccl_ops = {
    .name = "nccl",
    .in_stream = true,
    .all_gather = all_gather,
    .exchange = exchange,
    .test = test,
    .describe = describe,
    .barrier = barrier,
    .gather_small = gather_small,
    .broadcast = broadcast,
    .gather_bytes = gather_bytes,
    .describe_library = describe_library,
    .close = link_close,
};

static void find_symbols(struct zinf_comm *comm)
{
    struct link_state *state = state_of(comm);
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *symbol = zinf_cuda_library_symbol(&zinf_cuda_nccl, symbols[i].name);
        if (!symbol) {
            zinf_error_log("rank %d of %d on %s: NCCL in %s has no %s", comm->rank, comm->size,
                           state->name, zinf_cuda_nccl.path, symbols[i].name);
            zinf_abort(ZINF_E_RUNTIME);
        }
        memcpy((char *)&state->api + symbols[i].offset, &symbol, sizeof symbol);
    }
}

/* All ranks meet. */
static void start(struct zinf_comm *comm)
{
    static const char operation[] = "the start of NCCL";
    static const char hint[] = ", or the network does not let it through: NCCL_SOCKET_IFNAME "
                               "chooses one, NCCL_DEBUG=INFO shows where it waits";
    struct link_state *state = state_of(comm);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclUniqueId id;
    memset(&id, 0, sizeof id);
    if (comm->rank == 0)
        check(comm, state->api.get_id(&id), operation);
    zinf_comm_broadcast(state->host, 0, &id, sizeof id);
    config.blocking = 0;
    config.maxCTAs = ZINF_LINK_CHANNELS; /* NCCL_MAX_CTAS wins */
    check(comm,
          settle(comm, state->api.init(&state->nccl, comm->size, id, comm->rank, &config),
                 operation, hint),
          operation);
}

/* One small operation of each kind: connections are made, and errors told, here and not in step 1.
 */
static void warm_up(struct zinf_comm *comm, char *memory)
{
    struct zinf_comm_request requests[2] = {{0}, {0}};
    double begin_s = zinf_clock_s();
    all_gather(comm, memory, FIRST_BYTES, &requests[0]);
    exchange(comm, memory, memory + comm->size * FIRST_BYTES, FIRST_BYTES, &requests[1]);
    for (int i = 0; i < 2; i++)
        while (!test(comm, &requests[i]))
            nap(comm, begin_s, "the first operations of NCCL", "");
}

static int link_open(struct zinf_device *device, const struct zinf_device_link_options *options,
                     struct zinf_comm *comm, struct zinf_error *error)
{
    struct zinf_comm *host = options->host;
    size_t bytes = (size_t)host->size * 2 * FIRST_BYTES;
    int64_t sent = host->bytes_sent;
    ZINF_ASSERT(options->event_count > 0 && zinf_cuda_nccl.handle);
    device->backend->use(device, ZINF_STREAM_COMMUNICATION);
    char *memory = device->backend->allocate(device, bytes);
    int status = memory ? ZINF_OK : ZINF_E_DOES_NOT_FIT;
    if (status)
        zinf_error_set(error, status,
                       "rank %d: its device has no %zu bytes for NCCL's first "
                       "operations: other processes may use it, see nvidia-smi",
                       host->rank, bytes);
    status = zinf_comm_agree(host, status);
    if (status)
        return status;
    struct link_state *state = zinf_alloc(sizeof *state);
    *comm = *host;
    comm->ops = &nccl_ops;
    comm->state = state;
    state->host = host;
    state->device = device;
    state->stream = device->backend->native_stream(device, ZINF_STREAM_COMMUNICATION);
    state->first_event = options->first_event;
    state->event_count = options->event_count;
    state->posted = zinf_alloc((size_t)options->event_count * sizeof *state->posted);
    gethostname(state->name, sizeof state->name - 1);
    find_symbols(comm);
    start(comm);
    warm_up(comm, memory);
    comm->bytes_sent = 0; /* it counts what a step does, not this */
    host->bytes_sent = sent;
    return ZINF_OK;
}

const struct zinf_device_link zinf_cuda_link = {
    .name = "nccl",
    .available = available,
    .open = link_open,
};
