/*
 * The life of a request. See aio_queue.h.
 */
#include "io/aio_queue.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/trace.h"

/* A piece that is refused (EAGAIN, EBUSY, EINTR) for so long is an error: a run must end within two
 * seconds of a dead drive. */
static const double longest_refusal_s = 1, shortest_nap_s = 50e-6, longest_nap_s = 1e-3;

enum { STACK_BYTES = 512 << 10 };

static size_t rounded(size_t bytes)
{
    size_t blocks = (bytes + ZINF_AIO_UNIT - 1) / ZINF_AIO_UNIT;
    return blocks ? blocks * ZINF_AIO_UNIT : ZINF_AIO_UNIT;
}

void zinf_aio_queue_init(struct zinf_aio_queue *queue, struct zinf_aio *aio,
                         const struct zinf_aio_options *options)
{
    *queue = (struct zinf_aio_queue){.aio = aio};
    pthread_mutex_init(&queue->lock, NULL);
    pthread_cond_init(&queue->work, NULL);
    pthread_cond_init(&queue->finished, NULL);
    queue->block_bytes = rounded(options->block_bytes);
    if (queue->block_bytes > ZINF_AIO_LARGEST)
        queue->block_bytes = ZINF_AIO_LARGEST;
    int depth = options->queue_depth < 1 ? 1 : options->queue_depth;
    queue->pieces = zinf_alloc((size_t)depth * sizeof *queue->pieces);
    for (int i = 0; i < depth; i++) {
        queue->pieces[i].next = queue->free;
        queue->free = &queue->pieces[i];
    }
}

void zinf_aio_queue_release(struct zinf_aio_queue *queue)
{
    pthread_cond_destroy(&queue->finished);
    pthread_cond_destroy(&queue->work);
    pthread_mutex_destroy(&queue->lock);
    free(queue->pieces);
}

int zinf_aio_queue_add_file(struct zinf_aio_queue *queue, int descriptor)
{
    int flags = fcntl(descriptor, F_GETFL);
    if (flags < 0)
        return -errno;
    if (queue->file_count == ZINF_AIO_MOST_FILES)
        return -ENFILE;
    queue->descriptors[queue->file_count] = descriptor;
    queue->alignments[queue->file_count] = flags & O_DIRECT ? ZINF_AIO_UNIT : 1;
    return queue->file_count++;
}

static void trace(const struct zinf_aio_request *request)
{
    char name[64];
    snprintf(name, sizeof name, "%s %.1f MiB", request->write ? "write" : "read",
             (double)request->bytes / 1048576);
    zinf_trace_event(ZINF_TRACE_IO, name, request->begun_s, zinf_clock_s());
}

static void finish(struct zinf_aio_queue *queue, struct zinf_aio_request *request)
{
    if (zinf_trace_on())
        trace(request);
    __atomic_store_n(&request->finished, true, __ATOMIC_RELEASE);
    pthread_cond_broadcast(&queue->finished);
}

void zinf_aio_queue_add(struct zinf_aio_queue *queue, struct zinf_aio_request *request)
{
    ZINF_ASSERT(request->file >= 0 && request->file < queue->file_count);
    request->error = request->pieces = 0;
    request->done_bytes = request->cut_bytes = 0;
    request->next = NULL;
    request->finished = false;
    if (zinf_trace_on())
        request->begun_s = zinf_clock_s();
    if (!request->bytes) {
        finish(queue, request);
        return;
    }
    if (queue->first[request->write])
        queue->last[request->write]->next = request;
    else
        queue->first[request->write] = request;
    queue->last[request->write] = request;
    pthread_cond_broadcast(&queue->work);
}

/* The next piece of the oldest read or write, in turn, that is not wholly cut. */
static struct zinf_aio_piece *cut(struct zinf_aio_queue *queue)
{
    int direction = queue->first[queue->turn] ? queue->turn : !queue->turn;
    struct zinf_aio_request *request = queue->first[direction];
    queue->turn = !direction;
    struct zinf_aio_piece *piece = queue->free;
    queue->free = piece->next;
    size_t bytes = request->bytes - request->cut_bytes;
    *piece = (struct zinf_aio_piece){.request = request,
                                     .buffer = (char *)request->buffer + request->cut_bytes,
                                     .offset = request->offset + request->cut_bytes};
    if (bytes > queue->block_bytes)
        bytes = queue->block_bytes;
    uintptr_t place = (uintptr_t)piece->buffer - (uintptr_t)queue->pool;
    if (place < queue->pool_bytes && bytes > ZINF_AIO_LARGEST - place % ZINF_AIO_LARGEST)
        bytes = ZINF_AIO_LARGEST - place % ZINF_AIO_LARGEST;
    piece->bytes = bytes;
    request->cut_bytes += bytes;
    request->pieces++;
    queue->in_flight++;
    if (request->cut_bytes == request->bytes)
        queue->first[direction] = request->next;
    return piece;
}

/* Let the seam decide about this try. */
static void ask_seam(struct zinf_aio_queue *queue, struct zinf_aio_piece *piece)
{
    size_t unit = queue->alignments[piece->request->file], asked = piece->bytes;
    double delay_s;
    piece->injected = zinf_fault_timed(piece->request->write ? "write" : "read", &asked, &delay_s);
    asked = asked / unit * unit;
    if (!asked)
        asked = piece->bytes < unit ? piece->bytes : unit;
    piece->asked_bytes = asked;
    piece->due_s = 0;
    if (delay_s > 0) {
        double now_s = zinf_clock_s();
        piece->due_s = (queue->last_due_s > now_s ? queue->last_due_s : now_s) + delay_s;
        queue->last_due_s = piece->due_s;
    }
}

struct zinf_aio_piece *zinf_aio_queue_take(struct zinf_aio_queue *queue)
{
    struct zinf_aio_piece *piece = queue->again;
    if (piece)
        queue->again = piece->next;
    else if ((queue->first[0] || queue->first[1]) && queue->free)
        piece = cut(queue);
    if (piece)
        ask_seam(queue, piece);
    return piece;
}

static void nap_unlocked(struct zinf_aio_queue *queue, double seconds)
{
    pthread_mutex_unlock(&queue->lock);
    for (double end_s = zinf_clock_s() + seconds; seconds > 0; seconds = end_s - zinf_clock_s())
        zinf_clock_nap(seconds);
    pthread_mutex_lock(&queue->lock);
}

static void try_again(struct zinf_aio_queue *queue, struct zinf_aio_piece *piece)
{
    piece->next = queue->again;
    queue->again = piece;
    pthread_cond_signal(&queue->work);
}

/* A piece has ended, well (0) or not; with the last one its request does. */
static void end_piece(struct zinf_aio_queue *queue, struct zinf_aio_piece *piece, int error)
{
    struct zinf_aio_request *request = piece->request;
    if (error && !request->error) {
        request->error = error;
        request->error_offset = piece->offset;
        if (request->cut_bytes < request->bytes) { /* then it is the first: the rest is not begun */
            queue->first[request->write] = request->next;
            request->cut_bytes = request->bytes;
        }
    }
    piece->next = queue->free;
    queue->free = piece;
    queue->in_flight--;
    request->pieces--;
    if (!request->pieces && request->cut_bytes == request->bytes)
        finish(queue, request);
    pthread_cond_signal(&queue->work);
}

/* Nothing was moved, but may be next time. Returns 0 when it was refused too long. */
static int wait_for_another_try(struct zinf_aio_queue *queue, struct zinf_aio_piece *piece)
{
    double now_s = zinf_clock_s();
    if (piece->stuck_since_s == 0)
        piece->stuck_since_s = now_s;
    double stuck_s = now_s - piece->stuck_since_s;
    if (stuck_s > longest_refusal_s)
        return 0;
    double nap_s = stuck_s + shortest_nap_s;
    nap_unlocked(queue, nap_s < longest_nap_s ? nap_s : longest_nap_s);
    return 1;
}

static void advance(struct zinf_aio_queue *queue, struct zinf_aio_piece *piece, size_t moved)
{
    struct zinf_aio_request *request = piece->request;
    piece->buffer += moved;
    piece->offset += moved;
    piece->bytes -= moved;
    piece->stuck_since_s = 0;
    request->done_bytes += moved;
    if (request->write)
        queue->aio->write_bytes += (int64_t)moved;
    else
        queue->aio->read_bytes += (int64_t)moved;
}

void zinf_aio_queue_complete(struct zinf_aio_queue *queue, struct zinf_aio_piece *piece,
                             ssize_t result)
{
    if (piece->due_s > 0)
        nap_unlocked(queue, piece->due_s - zinf_clock_s());
    if (result == -EAGAIN || result == -EBUSY || result == -EINTR) {
        if (wait_for_another_try(queue, piece))
            try_again(queue, piece);
        else
            end_piece(queue, piece, (int)-result);
        return;
    }
    if (result <= 0) {
        end_piece(queue, piece, result < 0 ? (int)-result : piece->request->write ? EIO : ENODATA);
        return;
    }
    size_t unit = queue->alignments[piece->request->file], moved = (size_t)result;
    ZINF_ASSERT(moved <= piece->asked_bytes);
    if (moved < piece->bytes)
        moved = moved / unit * unit;
    if (!moved && piece->stuck_since_s > 0) { /* within one unit, twice: there is the end */
        end_piece(queue, piece, piece->request->write ? EIO : ENODATA);
        return;
    }
    piece->stuck_since_s = zinf_clock_s();
    if (moved)
        advance(queue, piece, moved);
    if (piece->bytes)
        try_again(queue, piece);
    else
        end_piece(queue, piece, 0);
}

void zinf_aio_queue_wait(struct zinf_aio_queue *queue, struct zinf_aio_request *request)
{
    pthread_mutex_lock(&queue->lock);
    while (!request->finished)
        pthread_cond_wait(&queue->finished, &queue->lock);
    pthread_mutex_unlock(&queue->lock);
}

int zinf_aio_thread(pthread_t *thread, void *(*body)(void *), void *context)
{
    sigset_t all, before;
    pthread_attr_t attributes;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    /* The usual 8 MiB a thread count where a limit of data (RLIMIT_DATA) is set. */
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int number = pthread_create(thread, &attributes, body, context);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return number;
}
