/*
 * What writer and reader of checkpoints must agree on: slabs, the order of names, what the two special checksums cover.
 */
#ifndef ZINF_IO_CHECKPOINT_FORMAT_H
#define ZINF_IO_CHECKPOINT_FORMAT_H

#include <stdint.h>

#include "io/checkpoint.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { ZINF_SLAB_BYTES = 4 << 20 }; /* what one CRC32C covers */

/** Rows of the checksum of a dataset. */
int64_t zinf_slab_count(int64_t bytes);

/** Depth first, names of a group bytewise: the order in which HDF5's own visitors see a file. Like strcmp, '/' before all else. */
int zinf_checkpoint_path_compare(const char *a, const char *b);

/** /checksums/run: name and the 8 bytes of the value of each attribute, attributes by name. Sorts `attributes`. */
uint32_t zinf_checkpoint_run_crc(struct zinf_attribute *attributes, int count);

/** Rows of a dataset of /checksums. Two names of one dataset have the same `rows`. */
struct zinf_checksum_rows {
    const char *path;
    const uint32_t *rows;
    int64_t count;
};
/** Attribute "table" of /checksums: all rows, datasets in the order above, each once at its first name. Sorts `list`. */
uint32_t zinf_checkpoint_table_crc(struct zinf_checksum_rows *list, int count);

#ifdef __cplusplus
}
#endif
#endif
