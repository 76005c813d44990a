/*
 * A stream of a device that only tests have, as its maker's libraries know it: what tests/late_device.c gives for a cudaStream_t, and what
 * tests/fake_nccl.c takes one for.
 */
#ifndef ZINF_TESTS_FAKE_STREAM_H
#define ZINF_TESTS_FAKE_STREAM_H

#include <stdbool.h>

struct fake_stream {
    /** Append work. When everything before it is done, `poll` is called, by any thread and again and again, until it says true. */
    void (*append)(struct fake_stream *stream, bool (*poll)(void *context), void *context);
    /** Where the bytes are that `memory`, of the device or of the host, means. For use in poll(). */
    void *(*bytes_of)(const void *memory);
    int number;
};

#endif
