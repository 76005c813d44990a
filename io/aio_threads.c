/*
 * The engine that works everywhere: a pool of threads, each carrying one piece at a time by preadv
 * or pwritev. As many transfers are in flight as there are threads; the queue depth bounds them
 * too.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/uio.h>

#include "io/aio_queue.h"

struct threads {
    struct zinf_aio_queue queue;
    pthread_t *threads;
    int count;
};

static ssize_t transfer(const struct zinf_aio_queue *queue, const struct zinf_aio_piece *piece)
{
    const struct zinf_aio_request *request = piece->request;
    if (piece->injected)
        return -piece->injected;
    struct iovec vector = {piece->buffer, piece->asked_bytes};
    int descriptor = queue->descriptors[request->file];
    ssize_t moved = request->write ? pwritev(descriptor, &vector, 1, (off_t)piece->offset)
                                   : preadv(descriptor, &vector, 1, (off_t)piece->offset);
    return moved < 0 ? -errno : moved;
}

static void *work(void *context)
{
    struct zinf_aio_queue *queue = context;
    pthread_mutex_lock(&queue->lock);
    for (;;) {
        struct zinf_aio_piece *piece;
        while (!(piece = zinf_aio_queue_take(queue)) && !(queue->stopping && !queue->in_flight))
            pthread_cond_wait(&queue->work, &queue->lock);
        if (!piece)
            break;
        pthread_mutex_unlock(&queue->lock);
        ssize_t result = transfer(queue, piece);
        pthread_mutex_lock(&queue->lock);
        zinf_aio_queue_complete(queue, piece, result);
    }
    pthread_cond_broadcast(&queue->work); /* the others end too */
    pthread_mutex_unlock(&queue->lock);
    return NULL;
}

static void threads_close(struct zinf_aio *aio)
{
    struct threads *pool = aio->state;
    pthread_mutex_lock(&pool->queue.lock);
    pool->queue.stopping = true;
    pthread_cond_broadcast(&pool->queue.work);
    pthread_mutex_unlock(&pool->queue.lock);
    for (int i = 0; i < pool->count; i++)
        pthread_join(pool->threads[i], NULL);
    zinf_aio_queue_release(&pool->queue);
    free(pool->threads);
    free(pool);
}

static int threads_open(struct zinf_aio *aio, const struct zinf_aio_options *options)
{
    struct threads *pool = zinf_alloc(sizeof *pool);
    int wanted = options->threads < 1 ? 1 : options->threads, number = 0;
    zinf_aio_queue_init(&pool->queue, aio, options);
    pool->threads = zinf_alloc((size_t)wanted * sizeof *pool->threads);
    aio->state = pool;
    while (pool->count < wanted && !number) {
        number = zinf_aio_thread(&pool->threads[pool->count], work, &pool->queue);
        pool->count += !number;
    }
    if (!pool->count) {
        threads_close(aio);
        return number;
    }
    return 0; /* with fewer threads than wanted it is only slower */
}

static int threads_add_file(struct zinf_aio *aio, int descriptor)
{
    struct threads *pool = aio->state;
    return zinf_aio_queue_add_file(&pool->queue, descriptor);
}

static void threads_submit(struct zinf_aio *aio, struct zinf_aio_request *request)
{
    struct threads *pool = aio->state;
    pthread_mutex_lock(&pool->queue.lock);
    zinf_aio_queue_add(&pool->queue, request);
    pthread_mutex_unlock(&pool->queue.lock);
}

static void threads_wait(struct zinf_aio *aio, struct zinf_aio_request *request)
{
    struct threads *pool = aio->state;
    zinf_aio_queue_wait(&pool->queue, request);
}

extern const struct zinf_aio_engine zinf_aio_threads;
const struct zinf_aio_engine zinf_aio_threads = {
    .name = "threads",
    .open = threads_open,
    .close = threads_close,
    .add_file = threads_add_file,
    .submit = threads_submit,
    .wait = threads_wait,
};
