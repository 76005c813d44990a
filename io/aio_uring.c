/*
 * The io_uring engine, the only home of liburing. Opcodes: READ, WRITE and their fixed forms,
 * nothing else.
 *
 * One thread owns the ring: it submits, sleeps in the kernel until something completes, judges it
 * and submits again. So transfers longer than the queue go on while the caller computes, the
 * caller's submit is a few instructions, and completions do not interrupt it. The caller wakes the
 * thread through an eventfd that is always being read in the ring. Rejected: reaping in submit and
 * wait, where the drive idles between two calls; SQPOLL, which burns a core for no gain (facts:
 * 51-99 %).
 */
#include <errno.h>
#include <liburing.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "io/aio_queue.h"

struct uring {
    struct zinf_aio_queue queue;
    struct io_uring ring;
    pthread_t thread;
    bool started;
    int wake; /* eventfd */
    uint64_t wakes;
    bool asleep; /* the thread will not look at the queue before something completes; under the lock
                  */
    bool files_registered;
};

static void prepare(struct uring *uring, struct zinf_aio_piece *piece)
{
    const struct zinf_aio_queue *queue = &uring->queue;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
    ZINF_ASSERT(sqe); /* the ring has a place for each piece */
    int file = piece->request->file, descriptor = queue->descriptors[file];
    unsigned bytes = (unsigned)piece->asked_bytes;
    uintptr_t place = (uintptr_t)piece->buffer - (uintptr_t)queue->pool;
    if (uring->files_registered)
        descriptor = file;
    if (place < queue->pool_bytes && piece->request->write)
        io_uring_prep_write_fixed(sqe, descriptor, piece->buffer, bytes, piece->offset,
                                  (int)(place / ZINF_AIO_LARGEST));
    else if (place < queue->pool_bytes)
        io_uring_prep_read_fixed(sqe, descriptor, piece->buffer, bytes, piece->offset,
                                 (int)(place / ZINF_AIO_LARGEST));
    else if (piece->request->write)
        io_uring_prep_write(sqe, descriptor, piece->buffer, bytes, piece->offset);
    else
        io_uring_prep_read(sqe, descriptor, piece->buffer, bytes, piece->offset);
    if (uring->files_registered)
        io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
    io_uring_sqe_set_data(sqe, piece);
}

static void prepare_wake(struct uring *uring)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
    ZINF_ASSERT(sqe);
    io_uring_prep_read(sqe, uring->wake, &uring->wakes, sizeof uring->wakes, 0);
    io_uring_sqe_set_data(sqe, NULL);
}

/* Prepare all that may go out. False: the thread may end. */
static bool prepare_all(struct uring *uring)
{
    struct zinf_aio_queue *queue = &uring->queue;
    struct zinf_aio_piece *piece;
    pthread_mutex_lock(&queue->lock);
    while ((piece = zinf_aio_queue_take(queue))) {
        if (piece->injected)
            zinf_aio_queue_complete(queue, piece, -piece->injected);
        else
            prepare(uring, piece);
    }
    bool go_on = !queue->stopping || queue->in_flight;
    uring->asleep = go_on;
    pthread_mutex_unlock(&queue->lock);
    return go_on;
}

static void submit_and_sleep(struct uring *uring)
{
    int number = io_uring_submit_and_wait(&uring->ring, 1);
    if (number == -EAGAIN ||
        number == -EBUSY) /* the kernel is short of memory: what is prepared stays so */
        zinf_clock_nap(1e-3);
    else if (number < 0 && number != -EINTR)
        zinf_fatal(ZINF_E_RUNTIME, "io_uring: the kernel takes no more requests: %s",
                   strerror(-number));
}

static void reap(struct uring *uring)
{
    struct zinf_aio_queue *queue = &uring->queue;
    struct io_uring_cqe *cqe;
    pthread_mutex_lock(&queue->lock);
    uring->asleep = false;
    while (!io_uring_peek_cqe(&uring->ring, &cqe)) {
        struct zinf_aio_piece *piece = io_uring_cqe_get_data(cqe);
        int result = cqe->res;
        io_uring_cqe_seen(&uring->ring, cqe);
        if (piece)
            zinf_aio_queue_complete(queue, piece, result);
        else
            prepare_wake(uring);
    }
    pthread_mutex_unlock(&queue->lock);
}

static void *drive(void *context)
{
    struct uring *uring = context;
    while (prepare_all(uring)) {
        submit_and_sleep(uring);
        reap(uring);
    }
    return NULL;
}

static void wake_locked(struct uring *uring)
{
    uint64_t one = 1;
    if (uring->asleep && write(uring->wake, &one, sizeof one) == sizeof one)
        uring->asleep = false;
}

/* A process may raise its own limit as far as the hard one; a larger one is for the administrator.
 */
static void raise_memlock(void)
{
    struct rlimit limit;
    if (!getrlimit(RLIMIT_MEMLOCK, &limit) && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_MEMLOCK, &limit);
    }
}

static void say_unregistered(size_t bytes, int number)
{
    static atomic_flag said = ATOMIC_FLAG_INIT;
    struct rlimit limit = {0};
    getrlimit(RLIMIT_MEMLOCK, &limit);
    if (!atomic_flag_test_and_set(&said))
        zinf_warn("io_uring: %.1f MiB of buffers cannot be registered (%s): I/O costs more CPU "
                  "time. The limit of locked "
                  "memory is %.0f KiB; `ulimit -l unlimited` before the start lifts it",
                  (double)bytes / 1048576, strerror(number), (double)limit.rlim_cur / 1024);
}

static bool register_pool(struct uring *uring, const struct zinf_aio_options *options)
{
    size_t count = (options->pool_bytes + ZINF_AIO_LARGEST - 1) / ZINF_AIO_LARGEST;
    if (!options->pool || !count)
        return false;
    struct iovec *vectors = zinf_alloc(count * sizeof *vectors);
    for (size_t i = 0; i < count; i++) {
        size_t left = options->pool_bytes - i * ZINF_AIO_LARGEST;
        vectors[i].iov_base = (char *)options->pool + i * ZINF_AIO_LARGEST;
        vectors[i].iov_len = left < ZINF_AIO_LARGEST ? left : ZINF_AIO_LARGEST;
    }
    raise_memlock();
    int number = io_uring_register_buffers(&uring->ring, vectors, (unsigned)count);
    free(vectors);
    if (number) {
        say_unregistered(options->pool_bytes, -number);
        return false;
    }
    uring->queue.pool = options->pool;
    uring->queue.pool_bytes = options->pool_bytes;
    return true;
}

static bool register_files(struct uring *uring)
{
    int none[ZINF_AIO_MOST_FILES];
    for (int i = 0; i < ZINF_AIO_MOST_FILES; i++)
        none[i] = -1;
    return !io_uring_register_files(&uring->ring, none, ZINF_AIO_MOST_FILES);
}

/* The ring with its first request; where the kernel refuses either, this engine cannot work. */
static int start_ring(struct uring *uring, const struct zinf_aio_options *options)
{
    int depth = options->queue_depth < 1 ? 1 : options->queue_depth;
    int number = io_uring_queue_init((unsigned)depth + 1, &uring->ring, 0);
    if (number)
        return -number;
    struct io_uring_probe *probe = io_uring_get_probe_ring(&uring->ring);
    bool known = probe && io_uring_opcode_supported(probe, IORING_OP_READ) &&
                 io_uring_opcode_supported(probe, IORING_OP_WRITE);
    io_uring_free_probe(probe);
    number = known ? 0 : ENOSYS; /* before Linux 5.6 */
    if (!number) {
        prepare_wake(uring);
        int submitted = io_uring_submit(&uring->ring);
        number = submitted < 0 ? -submitted : 0;
    }
    if (number)
        io_uring_queue_exit(&uring->ring);
    return number;
}

static void uring_close(struct zinf_aio *aio)
{
    struct uring *uring = aio->state;
    if (uring->started) {
        pthread_mutex_lock(&uring->queue.lock);
        uring->queue.stopping = true;
        wake_locked(uring);
        pthread_mutex_unlock(&uring->queue.lock);
        pthread_join(uring->thread, NULL);
    }
    io_uring_queue_exit(&uring->ring);
    zinf_aio_queue_release(&uring->queue);
    close(uring->wake);
    free(uring);
}

static int uring_open(struct zinf_aio *aio, const struct zinf_aio_options *options)
{
    int wake = eventfd(0, EFD_CLOEXEC);
    if (wake < 0)
        return errno;
    struct uring *uring = zinf_alloc(sizeof *uring);
    uring->wake = wake;
    int number = start_ring(uring, options);
    if (number) {
        close(wake);
        free(uring);
        return number;
    }
    zinf_aio_queue_init(&uring->queue, aio, options);
    aio->state = uring;
    uring->files_registered = register_files(uring);
    aio->registered = register_pool(uring, options);
    number = zinf_aio_thread(&uring->thread, drive, uring);
    uring->started = !number;
    if (number)
        uring_close(aio);
    return number;
}

static int uring_add_file(struct zinf_aio *aio, int descriptor)
{
    struct uring *uring = aio->state;
    int file = zinf_aio_queue_add_file(&uring->queue, descriptor);
    if (file < 0 || !uring->files_registered)
        return file;
    int number = io_uring_register_files_update(&uring->ring, (unsigned)file, &descriptor, 1);
    return number < 0 ? number : file;
}

static void uring_submit(struct zinf_aio *aio, struct zinf_aio_request *request)
{
    struct uring *uring = aio->state;
    pthread_mutex_lock(&uring->queue.lock);
    zinf_aio_queue_add(&uring->queue, request);
    wake_locked(uring);
    pthread_mutex_unlock(&uring->queue.lock);
}

static void uring_wait(struct zinf_aio *aio, struct zinf_aio_request *request)
{
    struct uring *uring = aio->state;
    zinf_aio_queue_wait(&uring->queue, request);
}

extern const struct zinf_aio_engine zinf_aio_uring;
const struct zinf_aio_engine zinf_aio_uring = {
    .name = "io_uring",
    .open = uring_open,
    .close = uring_close,
    .add_file = uring_add_file,
    .submit = uring_submit,
    .wait = uring_wait,
};
