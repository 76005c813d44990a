/*
 * Where training samples come from: files -> documents -> tokens -> samples of sequence_length + 1 tokens, in the order the contract
 * fixes ("What a batch is"). A position is one number (samples taken in this epoch), so it can be saved and does not depend on ranks.
 *
 * Nothing as large as the corpus is held: sample i is read from its files when it is asked for.
 */
#ifndef ZINF_TEXT_BATCHES_H
#define ZINF_TEXT_BATCHES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct zinf_batches_options {
    const char *const *patterns; /* paths or globs (sorted bytewise within each pattern); borrowed during open */
    int pattern_count;
    int64_t sequence_length;     /* S */
    int64_t vocab;               /* ids must be below it */
    bool shuffle;
    uint64_t seed;
    const char *name;            /* "zinf.data.train", for messages */
};

struct zinf_batches;

/** Local. @return 0; ZINF_E_DATA: a file missing, unreadable, a pattern without match, less text than one sample */
int zinf_batches_open(struct zinf_batches **batches, const struct zinf_batches_options *options,
                      struct zinf_error *error);
void zinf_batches_close(struct zinf_batches *batches);

int64_t zinf_batches_sample_count(const struct zinf_batches *batches); /* of an epoch */
int64_t zinf_batches_token_count(const struct zinf_batches *batches);  /* of the stream, end-of-text tokens included */
int zinf_batches_file_count(const struct zinf_batches *batches);
/** Fingerprint of file names, sizes and options, equal on all ranks when they see the same data. */
uint64_t zinf_batches_fingerprint(const struct zinf_batches *batches);

/** Samples position .. position + count - 1 of an epoch's order, and where they go. */
struct zinf_batch {
    int64_t epoch, position, count;
    int32_t *inputs, *targets; /* (count, S), e.g. 8, 1024: the first and the last S tokens of each sample's S + 1 */
};

/**
 * Local. Reads count * (S + 1) bytes, each sample from its files.
 * @return 0 or ZINF_E_DATA: a file changed or cannot be read (path, offset); what was read until then stands in the batch
 */
int zinf_batches_read(struct zinf_batches *batches, const struct zinf_batch *batch,
                      struct zinf_error *error);

#ifdef __cplusplus
}
#endif
#endif
