/*
 * The communicator over MPI. See comm.h and comm_mpi.h.
 *
 * All waiting here is a nonblocking operation, a test, and a nap when there are more ranks than
 * cores: MPICH's blocking calls spin, and a spinning rank keeps the core from the rank it waits for
 * (64 ranks on two cores: half a second for one MPI_Allreduce, 25 ms here).
 *
 * all_gather and exchange are p-1 pairs of MPI_Isend and MPI_Irecv, in pieces of at most 1 GiB (MPI
 * counts are int). Each rank begins with its right neighbour, so that no rank is everybody's first.
 * Not MPI_Iallgather: with 16 MiB shards it is faster on two idle ranks only, not beside computing
 * threads and not on four (0.72 against 1.09 GB/s); and what it sends is its own affair, while
 * bytes_sent is promised to be exact. All operations use one tag: they are posted in the same order
 * everywhere, and MPI does not let messages of a pair overtake each other.
 */
#include "topology/comm_mpi.h"

#include <math.h>
#include <mpi.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/status.h"
#include "topology/comm_node.h"

static const double longest_nap_s =
    2e-3; /* naps grow with the wait, so that a long one costs no core */

enum { TAG_DATA = 1, TAG_BYTES = 2 };

struct comm_state {
    MPI_Comm world; /* our own copy of MPI_COMM_WORLD: HDF5's messages can never meet ours */
    size_t piece_bytes;
    double spin_s, nap_s;
    char host[MPI_MAX_PROCESSOR_NAME];
    struct zinf_node *node; /* NULL: everything travels as messages */
};

/* An operation in flight: what the ranks of this node read from each other, and messages: one a
 * peer, direction and piece. */
struct mpi_request {
    struct zinf_transfer transfer;
    bool shared;
    struct zinf_node_operation node;
    int count;
    MPI_Status *statuses;
    MPI_Request items[];
};

static void check(struct zinf_comm *comm, int code, const char *operation)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int length;
    if (code == MPI_SUCCESS)
        return;
    MPI_Error_string(code, text, &length);
    zinf_error_log("rank %d of %d on %s: %s failed: %s", comm->rank, comm->size,
                   ((struct comm_state *)comm->state)->host, operation, text);
    zinf_abort(ZINF_E_RUNTIME);
}

/* The fault seam in front of every call. */
static void seam(struct zinf_comm *comm, const char *fault, const char *operation)
{
    int error = zinf_fault(fault, NULL);
    if (!error)
        return;
    zinf_error_log("rank %d of %d on %s: %s failed: %s", comm->rank, comm->size,
                   ((struct comm_state *)comm->state)->host, operation, strerror(error));
    zinf_abort(ZINF_E_RUNTIME);
}

static int piece_count(const struct comm_state *state, size_t bytes)
{
    return (int)((bytes + state->piece_bytes - 1) / state->piece_bytes);
}

static int piece_length(const struct comm_state *state, size_t bytes, int piece)
{
    size_t begin = (size_t)piece * state->piece_bytes, left = bytes - begin;
    return (int)(left < state->piece_bytes ? left : state->piece_bytes);
}

/* The peers at distance `step`: everybody begins with its neighbours, so that nobody is everybody's
 * first. */
static int peer_to(const struct zinf_comm *comm, int step)
{
    return (comm->rank + step) % comm->size;
}

static int peer_from(const struct zinf_comm *comm, int step)
{
    return (comm->rank + comm->size - step) % comm->size;
}

/* Are bytes between us and `peer` copied within the node, in place of a message? */
static bool in_node(const struct zinf_comm *comm, const struct mpi_request *request, int peer)
{
    struct comm_state *state = comm->state;
    return request->shared && zinf_node_has(state->node, peer);
}

static bool messages_done(MPI_Request *items, int count)
{
    int done = 1;
    for (int i = 0; done && i < count; i++)
        MPI_Request_get_status(items[i], &done, MPI_STATUS_IGNORE);
    return done;
}

/* Ranks whose bytes are not through, e.g. "from rank 3, to rank 3". Messages stand in the order of
 * post(). */
static void name_pending(struct zinf_comm *comm, struct mpi_request *request, char *out,
                         size_t out_bytes)
{
    struct comm_state *state = comm->state;
    int pieces = piece_count(state, request->transfer.bytes);
    MPI_Request *items = request->items;
    size_t used = 0;
    out[0] = '\0';
    for (int step = 1; step < comm->size; step++) {
        for (int way = 0; way < 2; way++) {
            int peer = way ? peer_to(comm, step) : peer_from(comm, step);
            bool waits = false;
            if (in_node(comm, request, peer)) {
                waits = !way && zinf_node_waits_for(state->node, &request->node, peer);
            } else {
                waits = !messages_done(items, pieces);
                items += pieces;
            }
            if (waits && used + 32 < out_bytes)
                used += (size_t)snprintf(out + used, out_bytes - used, "%s%s rank %d",
                                         used ? ", " : "", way ? "to" : "from", peer);
        }
    }
}

static void describe(struct zinf_comm *comm, struct zinf_comm_request *request, char *out,
                     size_t out_bytes)
{
    struct mpi_request *pending = request->state;
    if (pending)
        name_pending(comm, pending, out, out_bytes);
    else
        snprintf(out, out_bytes, "nobody");
}

/* Wait for an operation of the control path without keeping a core from the rank we wait for. */
static void complete(struct zinf_comm *comm, MPI_Request *request, const char *operation)
{
    struct comm_state *state = comm->state;
    double begin = zinf_clock_s(), waited = 0;
    int done = 0;
    for (;;) {
        check(comm, MPI_Test(request, &done, MPI_STATUS_IGNORE), operation);
        if (done)
            return;
        waited = zinf_clock_s() - begin;
        if (comm->watchdog_s > 0 && waited > comm->watchdog_s) {
            zinf_error_log(
                "rank %d of %d on %s: no progress for %.0f s in %s: another rank does not "
                "take part",
                comm->rank, comm->size, state->host, waited, operation);
            zinf_abort(ZINF_E_RUNTIME);
        }
        if (waited >= state->spin_s)
            zinf_clock_nap(fmax(state->nap_s, fmin(waited / 16, longest_nap_s)));
    }
}

/* Post the messages from and to the peers at distance `step`; returns how many. */
static int post_step(struct zinf_comm *comm, const struct mpi_request *request, int step,
                     MPI_Request *items)
{
    struct comm_state *state = comm->state;
    const struct zinf_transfer *transfer = &request->transfer;
    int to = peer_to(comm, step), from = peer_from(comm, step), count = 0;
    int pieces = piece_count(state, transfer->bytes);
    char *receive = transfer->receive + (size_t)from * transfer->bytes;
    const char *send = transfer->send + (size_t)to * transfer->send_stride;
    for (int i = 0; i < pieces && !in_node(comm, request, from); i++)
        check(comm,
              MPI_Irecv(receive + (size_t)i * state->piece_bytes,
                        piece_length(state, transfer->bytes, i), MPI_BYTE, from, TAG_DATA,
                        state->world, &items[count++]),
              transfer->operation);
    for (int i = 0; i < pieces && !in_node(comm, request, to); i++)
        check(comm,
              MPI_Isend(send + (size_t)i * state->piece_bytes,
                        piece_length(state, transfer->bytes, i), MPI_BYTE, to, TAG_DATA,
                        state->world, &items[count++]),
              transfer->operation);
    comm->bytes_sent += (int64_t)transfer->bytes;
    return count;
}

static void post(struct zinf_comm *comm, const struct zinf_transfer *transfer,
                 struct zinf_comm_request *request)
{
    struct comm_state *state = comm->state;
    size_t room = 2 * (size_t)(comm->size - 1) * (size_t)piece_count(state, transfer->bytes);
    ZINF_ASSERT(!request->state);
    if (!room)
        return;
    struct mpi_request *posted = zinf_alloc(sizeof *posted + room * sizeof(MPI_Request));
    posted->transfer = *transfer;
    posted->shared = state->node && zinf_node_holds(state->node, transfer->send);
    if (posted->shared)
        zinf_node_post(state->node, transfer, &posted->node);
    for (int step = 1; step < comm->size; step++)
        posted->count += post_step(comm, posted, step, posted->items + posted->count);
    posted->statuses = zinf_alloc((size_t)posted->count * sizeof *posted->statuses);
    request->state = posted;
}

static void all_gather(struct zinf_comm *comm, void *buffer, size_t shard_bytes,
                       struct zinf_comm_request *request)
{
    seam(comm, "gather", "all-gather");
    post(comm,
         &(struct zinf_transfer){.operation = "all-gather",
                                 .send = (char *)buffer + (size_t)comm->rank * shard_bytes,
                                 .receive = buffer,
                                 .bytes = shard_bytes},
         request);
}

static void exchange(struct zinf_comm *comm, const void *send, void *receive, size_t part_bytes,
                     struct zinf_comm_request *request)
{
    size_t own = (size_t)comm->rank * part_bytes;
    seam(comm, "exchange", "exchange");
    post(comm,
         &(struct zinf_transfer){.operation = "exchange",
                                 .send = send,
                                 .send_stride = part_bytes,
                                 .receive = receive,
                                 .bytes = part_bytes},
         request);
    if (send != receive && part_bytes) /* while the messages are under way */
        memcpy((char *)receive + own, (const char *)send + own, part_bytes);
}

static bool test(struct zinf_comm *comm, struct zinf_comm_request *request)
{
    struct mpi_request *posted = request->state;
    struct comm_state *state = comm->state;
    int done = 0;
    if (!posted)
        return true;
    bool copied =
        !posted->shared || zinf_node_progress(state->node, &posted->transfer, &posted->node);
    int code = MPI_Testall(posted->count, posted->items, &done, posted->statuses);
    for (int i = 0; code == MPI_ERR_IN_STATUS && i < posted->count; i++)
        if (posted->statuses[i].MPI_ERROR != MPI_ERR_PENDING)
            check(comm, posted->statuses[i].MPI_ERROR, posted->transfer.operation);
    check(comm, code, posted->transfer.operation);
    if (!done || !copied)
        return false;
    free(posted->statuses);
    free(posted);
    request->state = NULL;
    return true;
}

static void barrier(struct zinf_comm *comm)
{
    struct comm_state *state = comm->state;
    MPI_Request request;
    if (comm->size == 1)
        return;
    seam(comm, "agree", "barrier");
    check(comm, MPI_Ibarrier(state->world, &request), "barrier");
    complete(comm, &request, "barrier");
}

static void gather_small(struct zinf_comm *comm, const void *mine, size_t bytes, void *all)
{
    struct comm_state *state = comm->state;
    MPI_Request request;
    ZINF_ASSERT(bytes <= state->piece_bytes);
    if (comm->size == 1) {
        memcpy(all, mine, bytes);
        return;
    }
    seam(comm, "agree", "gather of small values");
    check(comm,
          MPI_Iallgather(mine, (int)bytes, MPI_BYTE, all, (int)bytes, MPI_BYTE, state->world,
                         &request),
          "gather of small values");
    comm->bytes_sent += (int64_t)(comm->size - 1) * (int64_t)bytes;
    complete(comm, &request, "gather of small values");
}

static void broadcast(struct zinf_comm *comm, int root, void *buffer, size_t bytes)
{
    struct comm_state *state = comm->state;
    MPI_Request request;
    if (comm->size == 1)
        return;
    seam(comm, "agree", "broadcast");
    for (int i = 0; i < piece_count(state, bytes); i++) {
        char *at = (char *)buffer + (size_t)i * state->piece_bytes;
        check(comm,
              MPI_Ibcast(at, piece_length(state, bytes, i), MPI_BYTE, root, state->world, &request),
              "broadcast");
        complete(comm, &request, "broadcast");
    }
}

/* Root: receive everybody's bytes behind each other. The others: send. In pieces, at most one a
 * rank in flight. */
static void move_bytes(struct zinf_comm *comm, const void *mine, size_t bytes, char *all,
                       const size_t *offsets)
{
    struct comm_state *state = comm->state;
    MPI_Request request;
    for (int i = 0; comm->rank && i < piece_count(state, bytes); i++) {
        const char *at = (const char *)mine + (size_t)i * state->piece_bytes;
        check(comm,
              MPI_Isend(at, piece_length(state, bytes, i), MPI_BYTE, 0, TAG_BYTES, state->world,
                        &request),
              "gather of bytes");
        complete(comm, &request, "gather of bytes");
    }
    for (int rank = 1; !comm->rank && rank < comm->size; rank++) {
        size_t length = offsets[rank + 1] - offsets[rank];
        for (int i = 0; i < piece_count(state, length); i++) {
            check(comm,
                  MPI_Irecv(all + offsets[rank] + (size_t)i * state->piece_bytes,
                            piece_length(state, length, i), MPI_BYTE, rank, TAG_BYTES, state->world,
                            &request),
                  "gather of bytes");
            complete(comm, &request, "gather of bytes");
        }
    }
}

static void gather_bytes(struct zinf_comm *comm, const void *mine, size_t bytes, void **all,
                         size_t *offsets)
{
    uint64_t length = bytes, *lengths = zinf_alloc((size_t)comm->size * sizeof *lengths);
    int64_t sent = comm->bytes_sent;
    gather_small(comm, &length, sizeof length, lengths);
    comm->bytes_sent = sent; /* bytes_sent counts what a step does, not this */
    char *buffer = NULL;
    if (comm->rank == 0) {
        offsets[0] = 0;
        for (int rank = 0; rank < comm->size; rank++)
            offsets[rank + 1] = offsets[rank] + (size_t)lengths[rank];
        buffer = zinf_alloc(offsets[comm->size]);
        if (bytes)
            memcpy(buffer, mine, bytes);
    }
    move_bytes(comm, mine, bytes, buffer, offsets);
    *all = buffer;
    free(lengths);
}

static void *map_shared(struct zinf_comm *comm, size_t bytes)
{
    struct comm_state *state = comm->state;
    int64_t sent = comm->bytes_sent;
    void *memory = state->node ? zinf_node_map(state->node, comm, bytes) : NULL;
    comm->bytes_sent = sent;
    return memory;
}

static void unmap_shared(struct zinf_comm *comm, void *memory)
{
    zinf_node_unmap(((struct comm_state *)comm->state)->node, memory);
}

static void abort_at_alarm(int number)
{
    (void)number;
    _exit(1);
}

/*
 * The abort hook. The first caller ends the job; others wait for that. MPI_Abort of a broken
 * library may hang, so an alarm stands behind it.
 */
static void abort_job(int exit_code)
{
    static pthread_mutex_t once = PTHREAD_MUTEX_INITIALIZER; /* never given back */
    sigset_t set;
    pthread_mutex_lock(&once);
    signal(SIGALRM, abort_at_alarm);
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    alarm(5);
    /* On a busy machine mpiexec ends before it has read what this rank said last: let it read
     * first. */
    zinf_clock_nap(0.2);
    MPI_Abort(MPI_COMM_WORLD, exit_code);
    _exit(exit_code);
}

/* Between nodes nobody can be asked when a run breaks: each has a voice. */
static struct zinf_node *voice_node;

static int may_speak(void)
{
    return !voice_node || zinf_node_speaks_first(voice_node);
}

static void comm_close(struct zinf_comm *comm)
{
    struct comm_state *state = comm->state;
    if (!state)
        return;
    if (comm->size > 1)
        barrier(comm); /* napping, before MPI_Finalize waits spinning */
    zinf_set_voice_hook(NULL);
    voice_node = NULL;
    zinf_node_close(state->node);
    zinf_set_abort_hook(NULL);
    MPI_Comm_free(&state->world);
    MPI_Finalize();
    free(state);
    comm->state = NULL;
}

static void describe_library(struct zinf_comm *comm, char *out, size_t out_bytes)
{
    char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int length, level = MPI_THREAD_SINGLE;
    const char *name = "single";
    (void)comm;
    MPI_Get_library_version(text, &length);
    MPI_Query_thread(&level);
    if (level == MPI_THREAD_FUNNELED)
        name = "funneled";
    else if (level == MPI_THREAD_SERIALIZED)
        name = "serialized";
    else if (level == MPI_THREAD_MULTIPLE)
        name = "multiple";
    for (char *c = text; *c && *c != '\n'; c++) /* MPICH sets its fields apart with tabs */
        if (*c == '\t')
            *c = ' ';
    snprintf(out, out_bytes, "%.*s; threads: %s", (int)strcspn(text, "\n"), text, name);
}

static const struct zinf_comm_ops mpi_ops = {
    .name = "mpi",
    .all_gather = all_gather,
    .exchange = exchange,
    .test = test,
    .describe = describe,
    .barrier = barrier,
    .gather_small = gather_small,
    .broadcast = broadcast,
    .gather_bytes = gather_bytes,
    .map_shared = map_shared,
    .unmap_shared = unmap_shared,
    .describe_library = describe_library,
    .close = comm_close,
};

/*
 * Tasks that Slurm started beside us while MPI sees only this one; 0 = no such thing. A batch
 * script's own shell has SLURM_NTASKS and SLURM_PROCID too, but is one process; PMI_SIZE means that
 * a launcher did speak to us and one rank is what it wanted.
 */
static int lonely_tasks(void)
{
    const char *step = getenv("SLURM_STEP_NUM_TASKS"), *job = getenv("SLURM_NTASKS");
    const char *environment = getenv("ENVIRONMENT");
    int batch = environment && !strcmp(environment, "BATCH");
    if (!getenv("SLURM_PROCID") || getenv("PMI_SIZE"))
        return 0;
    int tasks = step ? atoi(step) : job && !batch ? atoi(job) : 0;
    return tasks > 1 ? tasks : 0;
}

static int refuse_lonely(int tasks)
{
    if (atoi(getenv("SLURM_PROCID")) == 0)
        zinf_error_log(
            "srun started %d tasks, but MPI was not told about it, so each would be a run of "
            "its own: start with `srun --mpi=pmi2` (MPICH's interface; "
            "`srun --mpi=list` shows what this Slurm has) or with mpiexec",
            tasks);
    return ZINF_E_USAGE;
}

/* A number for the node whose memory this process shares: the running kernel's id, and the node's
 * name where one machine plays several. */
static uint64_t node_id(void)
{
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    char text[128] = "";
    const char *name = getenv("SLURMD_NODENAME");
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    size_t used = file ? fread(text, 1, 40, file) : 0;
    if (file)
        fclose(file);
    else
        gethostname(text, sizeof text - 1);
    snprintf(text + used, sizeof text - used, "%s", name ? name : "");
    for (const char *c = text; *c; c++)
        hash = (hash ^ (unsigned char)*c) * 0x100000001b3u;
    return hash;
}

/*
 * Ranks of this node. MPI_Comm_split_type says the same, by blocking collectives that spin: 5 s
 * with 64 ranks on two cores against 0.03. A rank spins a little before it naps only where each has
 * a core of its own.
 */
static void find_neighbours(struct zinf_comm *comm)
{
    struct comm_state *state = comm->state;
    uint64_t mine = node_id(), *all = zinf_alloc((size_t)comm->size * sizeof *all);
    cpu_set_t allowed;
    int cores = 1;
    gather_small(comm, &mine, sizeof mine, all);
    comm->local_rank = comm->local_size = 0;
    comm->node = mine;
    for (int rank = 0; rank < comm->size; rank++) {
        comm->local_rank += all[rank] == mine && rank < comm->rank;
        comm->local_size += all[rank] == mine;
    }
    const char *wanted = getenv("ZINF_SHARED");
    if (!wanted || strcmp(wanted, "0"))
        zinf_node_open(&state->node, comm, all);
    comm->bytes_sent = 0;
    free(all);
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0)
        cores = CPU_COUNT(&allowed);
    double crowd = (double)comm->local_size / cores;
    state->spin_s = crowd <= 1 ? 50e-6 : 0;
    state->nap_s = 10e-6 * fmax(crowd, 1);
}

int zinf_comm_mpi_open(struct zinf_comm *comm, int *argc, char ***argv)
{
    int provided = 0, length, tasks;
    MPI_Request request;
    if (MPI_Init_thread(argc, argv, MPI_THREAD_SERIALIZED, &provided) != MPI_SUCCESS) {
        zinf_error_log("MPI did not start");
        return ZINF_E_RUNTIME;
    }
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN);
    memset(comm, 0, sizeof *comm);
    MPI_Comm_rank(MPI_COMM_WORLD, &comm->rank);
    MPI_Comm_size(MPI_COMM_WORLD, &comm->size);
    if (comm->size == 1 && (tasks = lonely_tasks())) {
        MPI_Finalize();
        return refuse_lonely(tasks);
    }
    if (provided < MPI_THREAD_SERIALIZED) {
        if (comm->rank == 0)
            zinf_error_log(
                "this MPI offers no MPI_THREAD_SERIALIZED, which zinf needs: install one "
                "built with threads (Debian: libmpich12)");
        MPI_Finalize();
        return ZINF_E_RUNTIME;
    }
    zinf_set_abort_hook(abort_job);
    struct comm_state *state = zinf_alloc(sizeof *state);
    comm->ops = &mpi_ops;
    comm->state = state;
    state->piece_bytes = (size_t)1 << 30;
    MPI_Get_processor_name(state->host, &length);
    zinf_fault_init(comm->rank);
    check(comm, MPI_Comm_idup(MPI_COMM_WORLD, &state->world, &request), "copying the communicator");
    state->nap_s = 100e-6; /* until the neighbours are known */
    complete(comm, &request, "copying the communicator");
    comm->local_size = 1;
    if (comm->size > 1)
        find_neighbours(comm);
    voice_node = state->node;
    zinf_set_voice_hook(may_speak);
    return 0;
}

void zinf_comm_mpi_set_piece(struct zinf_comm *comm, size_t bytes)
{
    ZINF_ASSERT(comm->ops == &mpi_ops && bytes > 0 && bytes <= (size_t)1 << 30);
    ((struct comm_state *)comm->state)->piece_bytes = bytes;
}
