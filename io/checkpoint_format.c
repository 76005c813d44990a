/*
 * What writer and reader of checkpoints must agree on. See checkpoint_format.h.
 */
#include "io/checkpoint_format.h"

#include "base/crc32c.h"

#include <stdlib.h>
#include <string.h>

int64_t zinf_slab_count(int64_t bytes)
{
    return (bytes + ZINF_SLAB_BYTES - 1) / ZINF_SLAB_BYTES;
}

static int path_rank(char letter)
{
    return letter == '/' ? 1 : letter ? (unsigned char)letter + 1 : 0;
}

int zinf_checkpoint_path_compare(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return path_rank(*a) - path_rank(*b);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct zinf_attribute *)a)->name,
                  ((const struct zinf_attribute *)b)->name);
}

uint32_t zinf_checkpoint_run_crc(struct zinf_attribute *attributes, int count)
{
    uint32_t crc = 0;
    qsort(attributes, (size_t)count, sizeof *attributes, by_name);
    for (int i = 0; i < count; i++) {
        const struct zinf_attribute *one = &attributes[i];
        crc = zinf_crc32c(crc, one->name, strlen(one->name));
        crc = one->is_real ? zinf_crc32c(crc, &one->real, sizeof one->real)
                           : zinf_crc32c(crc, &one->integer, sizeof one->integer);
    }
    return crc;
}

static int by_path(const void *a, const void *b)
{
    return zinf_checkpoint_path_compare(((const struct zinf_checksum_rows *)a)->path,
                                        ((const struct zinf_checksum_rows *)b)->path);
}

static int seen_before(const struct zinf_checksum_rows *list, int index)
{
    for (int i = 0; i < index; i++)
        if (list[i].rows == list[index].rows)
            return 1;
    return 0;
}

uint32_t zinf_checkpoint_table_crc(struct zinf_checksum_rows *list, int count)
{
    uint32_t crc = 0;
    qsort(list, (size_t)count, sizeof *list, by_path);
    for (int i = 0; i < count; i++)
        if (!seen_before(list, i))
            crc = zinf_crc32c(crc, list[i].rows, sizeof *list[i].rows * (size_t)list[i].count);
    return crc;
}
