/*
 * The choice among the devices that are compiled in. See device.h.
 */
#include "device/device.h"

#include <string.h>

int zinf_device_choose(const char *wanted, const struct zinf_device_backend **out,
                       struct zinf_error *error)
{
    char why[512] = "this zinf was built without it (configure --with-cuda)";
    bool any = !strcmp(wanted, "auto");
    const struct zinf_device_backend *const *backends = zinf_device_backends();
    for (int i = 0; backends[i]; i++) {
        if (!any && strcmp(wanted, backends[i]->name) != 0)
            continue;
        if (backends[i]->list(NULL, 0, why, sizeof why) > 0) {
            *out = backends[i];
            return ZINF_OK;
        }
    }
    return zinf_error_set(error, ZINF_E_USAGE,
                          "zinf.device: \"%s\", but there is no such device here: %s; \"auto\" "
                          "computes on the CPU then",
                          wanted, why);
}

enum { PRODUCT_BYTES = 32 << 20 }; /* what cuBLASLt wants on Hopper */

/* Sums of dq and their turns (cuda/attention_hopper_backward.h): tiles of 64 queries of 128
 * columns, or where a head is narrower and nothing is dropped, 128 of 64; samples begin at tiles of
 * their own. */
static size_t query_sums(const struct zinf_device_shape *shape)
{
    const int64_t rows = shape->head_size <= 64 && !shape->drops ? 128 : 64;
    if (!shape->samples || shape->head_size > 128)
        return 0;
    return (size_t)(shape->heads * (shape->tokens / rows + shape->samples + 1)) * (64 * 128 + 1) *
           4;
}

/*
 * The largest of what any operation takes (all of it is given back when the operation ends):
 * attention's delta, 4 bytes a token and head, and its sums of dq; the embedding's token lists, 8
 * bytes a token and 8 a row; partial sums of weight gradients of a norm or bias, at most 2048 pairs
 * of rows of 1024 columns or fewer of longer ones (cuda/norm.cu), 16 MiB; partial sums of a scan; a
 * library's product.
 */
size_t zinf_device_scratch_bytes(const struct zinf_device_shape *shape)
{
    size_t attention = 4 * (size_t)(shape->tokens * shape->heads + 1) + query_sums(shape);
    size_t embedding = 8 * (size_t)(shape->tokens + shape->tile_rows) + 4096;
    size_t norm = ((size_t)16 << 20) + 64 * (size_t)shape->hidden;
    size_t bytes = attention > embedding ? attention : embedding;
    bytes = bytes > norm ? bytes : norm;
    bytes = bytes > PRODUCT_BYTES ? bytes : PRODUCT_BYTES;
    return (bytes + 4095) / 4096 * 4096;
}

size_t zinf_device_stream_scratch(enum zinf_stream stream, size_t scratch_bytes)
{
    return stream == ZINF_STREAM_COMPUTE || scratch_bytes < PRODUCT_BYTES ? scratch_bytes
                                                                          : PRODUCT_BYTES;
}

size_t zinf_device_streams_scratch(size_t scratch_bytes)
{
    size_t sum = 0;
    for (int stream = 0; stream < ZINF_STREAM_COUNT; stream++)
        sum += zinf_device_stream_scratch((enum zinf_stream)stream, scratch_bytes);
    return sum;
}
