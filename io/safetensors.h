/*
 * Hugging Face weight folders and files in the safetensors format, read and written in slices: no rank ever holds more than it asks for.
 * Format and limits: github.com/huggingface/safetensors README; limits as in facts on hostile input (header <= 100 MB, no holes, no overlap,
 * no duplicate, sizes that fit the file).
 */
#ifndef ZINF_IO_SAFETENSORS_H
#define ZINF_IO_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/status.h"
#include "topology/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

struct zinf_safetensors_entry {
    char *name;
    char dtype[12]; /* as written: "F32", "BF16", "F16", "I64", "BOOL" ... */
    int dim_count;
    int64_t shape[8];
    int file;           /* index into files */
    int64_t offset;     /* bytes from the start of the file */
    int64_t bytes;
};

/** A single file, or all files of a folder (model.safetensors, else model.safetensors.index.json). */
struct zinf_safetensors {
    struct zinf_safetensors_entry *entries; /* sorted by name; owned */
    int entry_count;
    char **files; /* paths; owned */
    int *descriptors;
    int file_count;
};

/** Local. @return 0 or ZINF_E_DATA with file and what is wrong. */
int zinf_safetensors_open(struct zinf_safetensors *weights, const char *path,
                          struct zinf_error *error);
void zinf_safetensors_close(struct zinf_safetensors *weights);
/** NULL when there is none. */
const struct zinf_safetensors_entry *zinf_safetensors_find(const struct zinf_safetensors *weights,
                                                           const char *name);
/** Elements [offset, offset + count) of a F32, F16, BF16 or F64 tensor as float32. Local. */
int zinf_safetensors_read(const struct zinf_safetensors *weights,
                          const struct zinf_safetensors_entry *entry, int64_t offset, int64_t count,
                          float *out, struct zinf_error *error);

/** Not 0 when the folder holds weights zinf can read; zinf_safetensors_open() says what is there instead (e.g. only pytorch_model.bin). */
int zinf_safetensors_folder_has_weights(const char *folder);

/** A tensor to write; `read` gives elements [offset, offset + count) as float32. */
struct zinf_export_tensor {
    const char *name;
    int dim_count;
    int64_t shape[4];
    int (*read)(void *context, int index, int64_t offset, int64_t count, float *out,
                struct zinf_error *error);
    void *context;
};
/** What to write: tensors in the order of the state dict. */
struct zinf_safetensors_content {
    const struct zinf_export_tensor *tensors;
    int tensor_count;
    enum zinf_dtype dtype;
    int64_t shard_bytes; /* largest file; a larger tensor has one of its own */
};
/**
 * Write a folder's weights: one model.safetensors, or shards with an index. Shards close greedily in the order of the tensors. All ranks compute
 * the same headers; each writes its share of every tensor at known offsets; names appear when all is on disk.
 * Collective over comm; `content` is equal on all ranks.
 * @return 0 or the worst status of any rank's read or write, the same on all ranks: then nothing is left behind
 */
int zinf_safetensors_write(struct zinf_comm *comm, const char *folder,
                           const struct zinf_safetensors_content *content,
                           struct zinf_error *error);

#ifdef __cplusplus
}
#endif
#endif
