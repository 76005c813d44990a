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

/*
 * The largest of what any operation takes (all of it is given back when the operation ends):
 * attention's delta, 4 bytes a token and head; the embedding's token lists, 8 bytes a token and 8 a
 * row; partial sums of weight gradients of a norm or bias, at most 2048 pairs of rows of 1024
 * columns or fewer of longer ones (cuda/norm.cu), 16 MiB; partial sums of a scan; 32 MiB for a
 * library's product (what cuBLASLt wants on Hopper).
 */
size_t zinf_device_scratch_bytes(const struct zinf_device_shape *shape)
{
    size_t attention = 4 * (size_t)(shape->tokens * shape->heads);
    size_t embedding = 8 * (size_t)(shape->tokens + shape->tile_rows) + 4096;
    size_t norm = ((size_t)16 << 20) + 64 * (size_t)shape->hidden;
    size_t bytes = attention > embedding ? attention : embedding;
    bytes = bytes > norm ? bytes : norm;
    bytes = bytes > (size_t)32 << 20 ? bytes : (size_t)32 << 20;
    return (bytes + 4095) / 4096 * 4096;
}
