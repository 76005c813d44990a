/*
 * A checkpoint file: named global arrays in one HDF5 file, written and read by all ranks, each its own slices. Knows no ZeRO, no model:
 * contract section 4 for the format, facts on the commit protocol in checkpoint.c.
 *
 * HDF5 is asked for the layout only (rank 0, contiguous, early allocation, no fill); the bytes go by bulk.h to the offsets that HDF5 gives.
 * Why: parallel HDF5 1.10 deadlocks on a full disk when it moves the bytes itself, and reaches a third of the disk's speed.
 */
#ifndef ZINF_IO_CHECKPOINT_H
#define ZINF_IO_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "topology/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A run of elements of an array that this rank writes or wants. Slices of all ranks together cover a saved array exactly once. */
struct zinf_slice {
    int64_t offset, count; /* elements, row-major */
    float *data;           /* borrowed until save or load returns */
};

/** A float32 dataset. Names, shapes and order are equal on all ranks; slices are this rank's. */
struct zinf_array {
    const char *path; /* "/model/transformer.wte.weight" */
    int dim_count;
    int64_t shape[4];
    const struct zinf_slice *slices; /* ascending, not overlapping */
    int slice_count;
};

struct zinf_hard_link {
    const char *path, *target; /* "/model/lm_head.weight" -> "/model/transformer.wte.weight" */
};

/** An attribute of /run: exactly one of integer (is_real false) or real. */
struct zinf_attribute {
    const char *name;
    bool is_real;
    int64_t integer;
    double real;
};

/** A text dataset of /provenance. */
struct zinf_text {
    const char *name, *value;
};

/** Where the values of a checkpoint go while it is written. */
struct zinf_checkpoint_sink;

struct zinf_checkpoint {
    struct zinf_array *arrays;
    int array_count;
    struct zinf_hard_link *links;
    int link_count;
    struct zinf_attribute *attributes; /* save: all of /run but format_version, which is written by itself */
    int attribute_count;
    struct zinf_text *texts;
    int text_count;
    /**
     * Gives this rank's values by zinf_checkpoint_put() while they pass by, instead of slices; NULL: the slices of `arrays` are written.
     * @return 0 or what zinf_checkpoint_put() returned
     */
    int (*pour)(void *context, struct zinf_checkpoint_sink *sink);
    void *pour_context;
};

enum { ZINF_CHECKPOINT_VERSION = 1 };

/**
 * Write a checkpoint and give it its name when it is whole and on disk (temporary name, fsync on every rank, rename, fsync of the folder).
 * Collective over comm; comm's data path must be idle.
 * @return 0; ZINF_E_NO_SPACE or ZINF_E_RUNTIME, the same on all ranks: nothing but one message is left behind (an error when it is
 *         ZINF_E_RUNTIME, a warning when the disk is full). Only when the folder's fsync fails after the rename does the file, whole and
 *         synced, stay under its name.
 * Cost: one write of this rank's bytes, past the page cache where the file system can do that, behind one CRC32C pass and one copy;
 * 16 MiB of memory.
 */
int zinf_checkpoint_save(struct zinf_comm *comm, const char *path,
                         const struct zinf_checkpoint *checkpoint);

/**
 * Inside `pour`: elements [offset, offset + count) of an array, in any order, on all ranks together each element once. `data` is free again
 * when this returns. @return 0 or the failure because of which there is no use in going on
 */
int zinf_checkpoint_put(struct zinf_checkpoint_sink *sink, int array, int64_t offset, int64_t count,
                        const float *data);

/** An open checkpoint: its table of contents. */
struct zinf_checkpoint_file;

/**
 * Open, check the gate (only hard links, contiguous, inside the file, known schema) and the metadata's checksums.
 * Collective over comm.
 * @return 0; ZINF_E_CHECKPOINT with the name of the damaged dataset or the word metadata; ZINF_E_USAGE: no such file
 */
int zinf_checkpoint_open(struct zinf_checkpoint_file **file, struct zinf_comm *comm, const char *path,
                         struct zinf_error *error);
/** Check every byte against /checksums; slabs are shared out over the ranks. Collective. */
int zinf_checkpoint_verify(struct zinf_checkpoint_file *file, struct zinf_error *error);
/** The same for the datasets whose path begins with `prefix`, e.g. "/model/". */
int zinf_checkpoint_verify_part(struct zinf_checkpoint_file *file, const char *prefix,
                                struct zinf_error *error);
/** Does the file hold this dataset with this shape? */
bool zinf_checkpoint_has(const struct zinf_checkpoint_file *file, const char *path, int dim_count,
                         const int64_t *shape);
/** Attribute of /run; *real is set for both kinds. @return 0 or -1 when there is none. */
int zinf_checkpoint_attribute(const struct zinf_checkpoint_file *file, const char *name,
                              int64_t *integer, double *real);
/** All attributes of /run; borrowed until close. @return how many */
int zinf_checkpoint_attributes(const struct zinf_checkpoint_file *file,
                               const struct zinf_attribute **attributes);
/** A text of /provenance; borrowed until close; NULL when there is none. */
const char *zinf_checkpoint_text(const struct zinf_checkpoint_file *file, const char *name);
/** Read slices of arrays (any distribution, overlaps between ranks allowed). Collective: all ranks get the same status. */
int zinf_checkpoint_load(struct zinf_checkpoint_file *file, const struct zinf_array *arrays,
                         int array_count, struct zinf_error *error);
/**
 * These elements are read next: the system may begin to bring them. Local; never fails, costs a system call.
 * What is asked for stands in the page cache, so keep it to some MiB.
 */
void zinf_checkpoint_will_read(const struct zinf_checkpoint_file *file, const char *path,
                               int64_t offset, int64_t count);
/** Elements [offset, offset + count) of one array. Local. */
int zinf_checkpoint_read(const struct zinf_checkpoint_file *file, const char *path, int64_t offset,
                         int64_t count, float *out, struct zinf_error *error);
void zinf_checkpoint_close(struct zinf_checkpoint_file *file);

/** The datasets outside /checksums, for inspect and export; borrowed until close. */
struct zinf_checkpoint_entry {
    const char *path;
    int dim_count;
    int64_t shape[4];
    size_t bytes;
    int64_t file_offset; /* -1 for texts */
    const char *link_target; /* NULL unless this is a hard link to another entry */
};
int zinf_checkpoint_entries(const struct zinf_checkpoint_file *file,
                            const struct zinf_checkpoint_entry **entries);

#ifdef __cplusplus
}
#endif
#endif
