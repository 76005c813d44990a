/*
 * The table of contents of an open checkpoint, as rank 0 read and checked it and all ranks hold it.
 */
#ifndef ZINF_IO_CHECKPOINT_TABLE_H
#define ZINF_IO_CHECKPOINT_TABLE_H

#include "io/checkpoint.h"

#ifdef __cplusplus
extern "C" {
#endif

struct zinf_checkpoint_table {
    struct zinf_checkpoint_entry *entries; /* in the order of zinf_checkpoint_path_compare() */
    int64_t *first_rows;                   /* entry i: its checksums begin at rows[first_rows[i]]; -1 for texts */
    int entry_count;
    uint32_t *rows;
    int64_t row_count;
    struct zinf_attribute *attributes; /* of /run */
    int attribute_count;
    struct zinf_text *texts;
    int text_count;
    char *strings; /* owns every string above */
    int64_t string_bytes;
};

/**
 * Local. Read and check everything but the arrays' bytes. Strings are still offsets: zinf_checkpoint_table_broadcast() must follow.
 * @return 0 or ZINF_E_CHECKPOINT
 */
int zinf_checkpoint_table_read(struct zinf_checkpoint_table *table, int descriptor,
                               const char *path, struct zinf_error *error);
/** Collective over comm. Rank 0's table on all ranks, ready for use. */
void zinf_checkpoint_table_broadcast(struct zinf_checkpoint_table *table, struct zinf_comm *comm);
void zinf_checkpoint_table_release(struct zinf_checkpoint_table *table);

#ifdef __cplusplus
}
#endif
#endif
