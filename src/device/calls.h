/*
 * Calls of operations, kept as bytes: compared with what was called before, and issued later.
 *
 * zinf_calls_operations() is a table like the backend's own. While the calling thread collects, an operation called through it is written
 * down, with its struct and pointers, and nothing is issued; else it goes straight through. That is the one seam through which everything
 * passes that decides what an operation does (ops.h: an operation is its struct and its pointers, and the struct may be copied to call later).
 * So two runs of calls with equal bytes put the same work into a stream, whatever made them, and none of their arguments can be forgotten
 * in the comparison. Padding is cleared where the compiler can; elsewhere equal calls may look different, never the other way round.
 *
 * Cost: a copy of about 170 bytes a call, and a memcmp() of as much: 70 ns measured, where a launch takes 2000 to 5000.
 *
 * Rejected: a key of what a block's calls are known to depend on (windows, shapes, dropout counters). Whoever adds an argument would have to
 * think of the key, and a stale argument is a wrong number that nobody sees.
 */
#ifndef ZINF_DEVICE_CALLS_H
#define ZINF_DEVICE_CALLS_H

#include <stdbool.h>
#include <stddef.h>

#include "device/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

struct zinf_calls {
    char *bytes; /* owned; all calls behind each other */
    size_t used, room;
    int count;
    bool spilled; /* there was no room: what did not fit went to the device at once, behind the rest. The bytes are incomplete */
};

/** The table in front of `inner`: one a process, as devices are. Borrowed for ever. Not thread-safe: before any operation. */
const struct zinf_ops *zinf_calls_operations(const struct zinf_ops *inner);

/** Room for so many bytes; 0: none. */
void zinf_calls_open(struct zinf_calls *calls, size_t room);
void zinf_calls_close(struct zinf_calls *calls);

/** From now on operations of the calling thread are kept in `calls`, which is emptied; NULL: no longer. None that gives the host a result may be called meanwhile. */
void zinf_calls_collect(struct zinf_calls *calls);

/** Call what was kept, in order, in the calling thread's stream. */
void zinf_calls_issue(const char *bytes, size_t used);

#ifdef __cplusplus
}
#endif
#endif
