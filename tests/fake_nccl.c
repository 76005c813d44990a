/*
 * A libnccl that any machine can load: the calls that cuda/link_nccl.c makes, carried out in
 * memory of the host between processes of one machine, in the order of a fake stream. It answers
 * "in progress" as often as it may, and refuses what NCCL refuses: a communicator that blocks, a
 * call while another is in progress, a peer that expects another number of bytes.
 *
 * Transport. A rank writes what an operation sends to a file of its own in the folder
 * ZINF_FAKE_NCCL, in one piece (a rename), and reads its part of the others'. Who sees a file of
 * operation n knows that its writer has read everything of operation n - 1; so when an operation
 * is complete the own file of the one before can go.
 *
 * Lateness. An operation touches no byte before everything in front of it in its stream is done.
 * Then what it receives is garbage until it is there: whoever reads too early, or has yet to read
 * what stood there, does not get away with it.
 *
 * Faults, from ZINF_FAKE_NCCL_FAULT="KIND[,n=N][,rank=R]" (several: with spaces between them): old
 * (version 2.14), start (never ends), refuse (the start fails), async (an error comes up after the
 * n-th operation), call (the n-th call fails), stuck (the n-th operation is never complete); of
 * rank R, or of all.
 */
#include <nccl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fake_stream.h"

enum { MOST_RANKS = 64, POLLS = 3 };

/* What an operation sends to a rank, or receives from it. */
struct part {
    void *memory;
    size_t bytes;
    bool any;
};

struct operation {
    struct ncclComm *comm;
    uint64_t number;
    struct fake_stream *stream;
    struct part send[MOST_RANKS], receive[MOST_RANKS];
    bool written;
};

struct ncclComm {
    char id[NCCL_UNIQUE_ID_BYTES];
    int rank, size;
    uint64_t issued;
    int pending; /* polls until a call is through */
    bool stuck_start, ended;
    ncclResult_t error;
    struct operation *open; /* between group start and end */
};

/* What stands at the begin of a rank's file: where each peer's part is, and how long. */
struct header {
    uint64_t offset[MOST_RANKS], bytes[MOST_RANKS];
};

static struct ncclComm *only; /* a process has one */
static int group_depth;

static bool is_fault(const char *text, size_t length, uint64_t number, int rank)
{
    char own[64];
    snprintf(own, sizeof own, "%.*s", (int)length, text);
    const char *n = strstr(own, ",n="), *r = strstr(own, ",rank=");
    return (!n || strtoull(n + 3, NULL, 10) == number) && (!r || atoi(r + 6) == rank);
}

static bool fault(const char *kind, uint64_t number, int rank)
{
    const char *text = getenv("ZINF_FAKE_NCCL_FAULT");
    for (size_t length; text && *text; text += length + (text[length] == ' ')) {
        length = strcspn(text, " ");
        if (!strncmp(text, kind, strlen(kind)) && is_fault(text, length, number, rank))
            return true;
    }
    return false;
}

static void die(const struct ncclComm *comm, const char *what)
{
    fprintf(stderr, "fake NCCL, rank %d: %s\n", comm ? comm->rank : -1, what);
    abort();
}

/* ---- operations ---- */

static void path_of(const struct operation *o, int rank, const char *end, char *out, size_t bytes)
{
    snprintf(out, bytes, "%s/%s-%llu-%d%s", getenv("ZINF_FAKE_NCCL"), o->comm->id,
             (unsigned long long)o->number, rank, end);
}

static void write_own(const struct operation *o)
{
    struct header header;
    char name[600], temporary[620];
    uint64_t at = sizeof header;
    memset(&header, 0, sizeof header);
    path_of(o, o->comm->rank, "", name, sizeof name);
    path_of(o, o->comm->rank, ".part", temporary, sizeof temporary);
    FILE *file = fopen(temporary, "w");
    if (!file)
        die(o->comm, "cannot write to ZINF_FAKE_NCCL");
    for (int peer = 0; peer < o->comm->size; peer++) {
        header.offset[peer] = at;
        header.bytes[peer] = o->send[peer].bytes;
        at += o->send[peer].bytes;
    }
    bool good = fwrite(&header, sizeof header, 1, file) == 1;
    for (int peer = 0; good && peer < o->comm->size; peer++)
        good = !o->send[peer].bytes ||
               fwrite(o->stream->bytes_of(o->send[peer].memory), o->send[peer].bytes, 1, file) == 1;
    if (fclose(file) || !good || rename(temporary, name))
        die(o->comm, "cannot write to ZINF_FAKE_NCCL");
}

/* false: it is not there yet. */
static bool read_from(struct operation *o, int peer)
{
    struct part *part = &o->receive[peer];
    struct header header;
    char name[600];
    path_of(o, peer, "", name, sizeof name);
    FILE *file = fopen(name, "r");
    if (!file)
        return false;
    if (fread(&header, sizeof header, 1, file) != 1)
        die(o->comm, "a file is short");
    if (header.bytes[o->comm->rank] != part->bytes)
        die(o->comm, "a peer sends another number of bytes than are expected");
    if (part->bytes && (fseek(file, (long)header.offset[o->comm->rank], SEEK_SET) ||
                        fread(o->stream->bytes_of(part->memory), part->bytes, 1, file) != 1))
        die(o->comm, "a file is short");
    fclose(file);
    return true;
}

static void begin(struct operation *o)
{
    write_own(o);
    for (int peer = 0; peer < o->comm->size; peer++)
        if (o->receive[peer].any)
            memset(o->stream->bytes_of(o->receive[peer].memory), 0xff, o->receive[peer].bytes);
    o->written = true;
}

/* In the stream, when everything before it is done. */
static bool poll_operation(void *context)
{
    struct operation *o = context;
    char name[600];
    bool all = true;
    if (fault("stuck", o->number, o->comm->rank))
        return false;
    if (!o->written)
        begin(o);
    for (int peer = 0; peer < o->comm->size; peer++) {
        if (o->receive[peer].any && read_from(o, peer))
            o->receive[peer].any = false;
        all = all && !o->receive[peer].any;
    }
    if (!all)
        return false;
    o->number--;
    path_of(o, o->comm->rank, "", name, sizeof name);
    unlink(name);
    free(o);
    return true;
}

static ncclResult_t begin_call(struct ncclComm *comm)
{
    if (comm != only || comm->pending || comm->ended)
        die(comm, "a call while another is in progress, or of a communicator that has ended");
    return comm->error;
}

static struct operation *new_operation(struct ncclComm *comm, cudaStream_t stream)
{
    struct operation *o = calloc(1, sizeof *o);
    if (!o)
        die(comm, "out of memory");
    o->comm = comm;
    o->number = ++comm->issued;
    o->stream = (struct fake_stream *)stream;
    return o;
}

static ncclResult_t issue(struct operation *o)
{
    struct ncclComm *comm = o->comm;
    if (fault("call", o->number, comm->rank)) {
        free(o);
        return ncclInvalidArgument;
    }
    if (fault("async", o->number, comm->rank))
        comm->error = ncclRemoteError;
    /* the last poll puts it in the stream, as NCCL's own thread does */
    comm->open = o;
    comm->pending = POLLS;
    return ncclInProgress;
}

ncclResult_t ncclAllGather(const void *send, void *receive, size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream)
{
    ncclResult_t code = begin_call(comm);
    if (code || type != ncclInt8 || group_depth)
        return code ? code : ncclInvalidArgument;
    if (send != (char *)receive + (size_t)comm->rank * count)
        return ncclInvalidArgument; /* NCCL could; we never do */
    struct operation *o = new_operation(comm, stream);
    for (int peer = 0; peer < comm->size; peer++) {
        if (peer == comm->rank)
            continue;
        o->send[peer] = (struct part){(void *)send, count, true};
        o->receive[peer] = (struct part){(char *)receive + (size_t)peer * count, count, true};
    }
    return issue(o);
}

ncclResult_t ncclGroupStart(void)
{
    group_depth++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void)
{
    struct operation *o = only ? only->open : NULL;
    if (--group_depth != 0 || !o)
        return ncclInvalidUsage;
    only->open = NULL;
    for (int peer = 0; peer < only->size; peer++)
        if (o->send[peer].any != o->receive[peer].any)
            return ncclInvalidUsage; /* our exchanges go both ways */
    return issue(o);
}

static ncclResult_t add_part(struct ncclComm *comm, bool send, int peer, struct part part,
                             cudaStream_t stream)
{
    ncclResult_t code = begin_call(comm);
    if (code || !group_depth || peer < 0 || peer >= comm->size || peer == comm->rank)
        return code ? code : ncclInvalidArgument;
    if (!comm->open)
        comm->open = new_operation(comm, stream);
    *(send ? &comm->open->send[peer] : &comm->open->receive[peer]) = part;
    return ncclSuccess;
}

ncclResult_t ncclSend(const void *memory, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream)
{
    struct part part = {(void *)memory, count, true};
    return type == ncclInt8 ? add_part(comm, true, peer, part, stream) : ncclInvalidArgument;
}

ncclResult_t ncclRecv(void *memory, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    struct part part = {memory, count, true};
    return type == ncclInt8 ? add_part(comm, false, peer, part, stream) : ncclInvalidArgument;
}

/* ---- life ---- */

ncclResult_t ncclGetVersion(int *version)
{
    *version = fault("old", 0, -1) ? 21400 : NCCL_VERSION_CODE;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    static int count;
    snprintf(id->internal, sizeof id->internal, "%d.%d", (int)getpid(), count++);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t *config)
{
    if (only || size > MOST_RANKS || config->blocking != 0 || config->magic != 0xcafebeef)
        return ncclInvalidUsage;
    if (fault("refuse", 0, rank))
        return ncclSystemError;
    struct ncclComm *comm = calloc(1, sizeof *comm);
    if (!comm)
        return ncclSystemError;
    memcpy(comm->id, id.internal, sizeof comm->id);
    comm->rank = rank;
    comm->size = size;
    comm->pending = 2 * POLLS;
    comm->stuck_start = fault("start", 0, rank);
    *out = only = comm;
    return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error)
{
    *error = ncclInProgress;
    if (comm->stuck_start || (comm->pending && --comm->pending))
        return ncclSuccess;
    if (comm->open) {
        comm->open->stream->append(comm->open->stream, poll_operation, comm->open);
        comm->open = NULL;
        *error = ncclSuccess; /* an error comes up later, behind the operation */
        return ncclSuccess;
    }
    *error = comm->error;
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    ncclResult_t code = begin_call(comm);
    comm->ended = true;
    comm->pending = POLLS;
    return code ? code : ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    if (comm != only || !comm->ended)
        die(comm, "a communicator is destroyed that has not ended");
    only = NULL;
    free(comm);
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    only = NULL;
    free(comm);
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t code)
{
    static const char *const texts[] = {"no error",       "unhandled cuda error", "system error",
                                        "internal error", "invalid argument",     "invalid usage",
                                        "remote error",   "in progress"};
    return texts[code];
}

const char *ncclGetLastError(ncclComm_t comm)
{
    return comm ? "fake NCCL" : "";
}
