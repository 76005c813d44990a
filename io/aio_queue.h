/*
 * What all engines of aio.h share, so that their semantics cannot differ: requests wait in a queue, are cut into pieces, at most queue_depth
 * of which are out at a time, and the result of every piece is judged here. An engine only carries pieces to the kernel and back.
 *
 * The fault seam stands here too: it fails, cuts and delays pieces of every engine alike. Delayed pieces end one behind the other, as on
 * a slow drive: a delay of D seconds gives block_bytes / D bytes per second whatever the engine and the queue depth.
 */
#ifndef ZINF_IO_AIO_QUEUE_H
#define ZINF_IO_AIO_QUEUE_H

#include <pthread.h>
#include <sys/types.h>

#include "io/aio.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { ZINF_AIO_MOST_FILES = 64, ZINF_AIO_UNIT = 4096 };
#define ZINF_AIO_LARGEST ((size_t)1 << 30) /* of a piece and of a registered buffer */

/** A part of a request on its way. */
struct zinf_aio_piece {
    struct zinf_aio_request *request;
    char *buffer;
    size_t bytes; /* still to be moved */
    uint64_t offset;
    size_t asked_bytes; /* of this try: less than bytes when the seam cuts it */
    int injected;       /* errno that the seam wants instead of a transfer; 0 = none */
    double due_s;       /* not finished before; 0 = at once */
    double stuck_since_s; /* when it was refused first without moving a byte since; 0 = it moves */
    struct zinf_aio_piece *next;
};

struct zinf_aio_queue {
    struct zinf_aio *aio;
    pthread_mutex_t lock;
    pthread_cond_t work, finished;          /* there may be a piece to take; a request has ended */
    struct zinf_aio_request *first[2], *last[2]; /* reads and writes that are not wholly cut */
    int turn;                               /* which of them is next: a drive does both at a time, so both are kept going */
    struct zinf_aio_piece *pieces, *free, *again; /* (queue_depth), owned; unused; to be tried again */
    int in_flight;                          /* pieces that are not free */
    size_t block_bytes;
    const char *pool;                       /* pieces of it do not cross multiples of 1 GiB: registered buffers end there */
    size_t pool_bytes;
    double last_due_s;
    bool stopping;
    int file_count;
    int descriptors[ZINF_AIO_MOST_FILES];
    size_t alignments[ZINF_AIO_MOST_FILES];
};

void zinf_aio_queue_init(struct zinf_aio_queue *queue, struct zinf_aio *aio,
                         const struct zinf_aio_options *options);
void zinf_aio_queue_release(struct zinf_aio_queue *queue);
/** @return its number or -ENFILE */
int zinf_aio_queue_add_file(struct zinf_aio_queue *queue, int descriptor);

/** With the lock held: append a request and signal `work`. */
void zinf_aio_queue_add(struct zinf_aio_queue *queue, struct zinf_aio_request *request);
/** With the lock held: the next piece to carry, or NULL. */
struct zinf_aio_piece *zinf_aio_queue_take(struct zinf_aio_queue *queue);
/**
 * With the lock held (given back for a while when the piece must be waited for): judge a piece.
 * @param result  bytes moved or -errno
 */
void zinf_aio_queue_complete(struct zinf_aio_queue *queue, struct zinf_aio_piece *piece,
                             ssize_t result);
/** Without the lock: block until a request has ended. */
void zinf_aio_queue_wait(struct zinf_aio_queue *queue, struct zinf_aio_request *request);

/** A thread that no signal of the program reaches. @return 0 or an errno */
int zinf_aio_thread(pthread_t *thread, void *(*body)(void *), void *context);

#ifdef __cplusplus
}
#endif
#endif
