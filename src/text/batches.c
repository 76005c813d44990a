/*
 * Samples of byte tokens. See batches.h.
 *
 * The stream of tokens is never built: token k of a file is its byte k, token `size` its end of
 * text, so a sample is the bytes of one stretch of one or a few files. Token 256 ends every
 * document, the last one too.
 */
#include "text/batches.h"

#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "text/sources.h"

enum { END_OF_TEXT = 256 };

struct zinf_batches {
    struct zinf_sources sources;
    int64_t *starts; /* (files + 1): first token of each file in the stream; the last is the length
                        of the stream */
    int64_t sequence_length, sample_count;
    bool shuffle;
    uint64_t seed, fingerprint;
    unsigned char *bytes; /* (S + 1) */
};

static uint64_t hash_bytes(uint64_t hash, const void *data, size_t bytes)
{
    for (const unsigned char *p = data; bytes-- > 0; p++) /* FNV-1a */
        hash = (hash ^ *p) * 0x100000001b3ull;
    return hash;
}

static uint64_t fingerprint_of(const struct zinf_batches *batches)
{
    uint64_t hash = 0xcbf29ce484222325ull;
    const int64_t options[] = {batches->sequence_length, batches->shuffle, (int64_t)batches->seed};
    hash = hash_bytes(hash, options, sizeof options);
    for (int i = 0; i < batches->sources.count; i++) {
        const struct zinf_source *source = &batches->sources.items[i];
        hash = hash_bytes(hash, source->path, strlen(source->path) + 1);
        hash = hash_bytes(hash, &source->bytes, sizeof source->bytes);
    }
    return hash;
}

static void lay_out(struct zinf_batches *batches)
{
    const int files = batches->sources.count;
    batches->starts = zinf_alloc(((size_t)files + 1) * sizeof *batches->starts);
    for (int i = 0; i < files; i++)
        batches->starts[i + 1] = batches->starts[i] + batches->sources.items[i].bytes + 1;
    batches->sample_count = (batches->starts[files] - 1) / batches->sequence_length;
}

static int check_size(const struct zinf_batches *batches,
                      const struct zinf_batches_options *options, struct zinf_error *error)
{
    if (options->vocab <= END_OF_TEXT)
        return zinf_error_set(
            error, ZINF_E_DATA,
            "%s: the byte tokenizer has ids 0 to %d, but the model's vocab_size is "
            "%lld; it must be at least %d",
            options->name, END_OF_TEXT, (long long)options->vocab, END_OF_TEXT + 1);
    if (batches->sample_count == 0)
        return zinf_error_set(
            error, ZINF_E_DATA,
            "%s: %d file%s with %lld tokens in all (bytes and one end of text a file) "
            "give no sample; sequence_length %lld needs at least %lld",
            options->name, batches->sources.count, batches->sources.count == 1 ? "" : "s",
            (long long)zinf_batches_token_count(batches), (long long)batches->sequence_length,
            (long long)batches->sequence_length + 1);
    return 0;
}

int zinf_batches_open(struct zinf_batches **batches, const struct zinf_batches_options *options,
                      struct zinf_error *error)
{
    ZINF_ASSERT(options->sequence_length > 0);
    struct zinf_batches *new = zinf_alloc(sizeof *new);
    new->sequence_length = options->sequence_length;
    new->shuffle = options->shuffle;
    new->seed = options->seed;
    int status = zinf_sources_open(&new->sources, options->patterns, options->pattern_count,
                                   options->name, error);
    if (!status) {
        lay_out(new);
        status = check_size(new, options, error);
    }
    if (status) {
        zinf_batches_close(new);
        return status;
    }
    new->fingerprint = fingerprint_of(new);
    new->bytes = zinf_alloc((size_t) new->sequence_length + 1);
    *batches = new;
    return 0;
}

void zinf_batches_close(struct zinf_batches *batches)
{
    if (!batches)
        return;
    zinf_sources_close(&batches->sources);
    free(batches->starts);
    free(batches->bytes);
    free(batches);
}

int64_t zinf_batches_sample_count(const struct zinf_batches *batches)
{
    return batches->sample_count;
}

int64_t zinf_batches_token_count(const struct zinf_batches *batches)
{
    return batches->starts[batches->sources.count];
}

int zinf_batches_file_count(const struct zinf_batches *batches)
{
    return batches->sources.count;
}

uint64_t zinf_batches_fingerprint(const struct zinf_batches *batches)
{
    return batches->fingerprint;
}

/* The file that holds token `place` of the stream. */
static int file_of(const struct zinf_batches *batches, int64_t place)
{
    int low = 0, high = batches->sources.count;
    while (high - low > 1) {
        const int middle = low + (high - low) / 2;
        if (batches->starts[middle] <= place)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Token j of a sample is the last of inputs[j] and of targets[j - 1]. */
static void put_token(int64_t sequence_length, int64_t j, int32_t token, int32_t *inputs,
                      int32_t *targets)
{
    if (j < sequence_length)
        inputs[j] = token;
    if (j > 0)
        targets[j - 1] = token;
}

static int read_sample(struct zinf_batches *batches, int64_t sample, int32_t *inputs,
                       int32_t *targets, struct zinf_error *error)
{
    const int64_t length = batches->sequence_length, first = sample * length;
    int64_t done = 0;
    for (int file = file_of(batches, first); done <= length; file++) {
        const int64_t offset = first + done - batches->starts[file];
        const int64_t in_file = batches->sources.items[file].bytes - offset;
        const int64_t count = in_file < length + 1 - done ? in_file : length + 1 - done;
        const int status = zinf_sources_read(&batches->sources, file, offset, batches->bytes,
                                             (size_t)count, error);
        if (status)
            return status;
        for (int64_t i = 0; i < count; i++)
            put_token(length, done + i, batches->bytes[i], inputs, targets);
        done += count;
        if (done <= length)
            put_token(length, done++, END_OF_TEXT, inputs, targets);
    }
    return 0;
}

int zinf_batches_read(struct zinf_batches *batches, const struct zinf_batch *batch,
                      struct zinf_error *error)
{
    const int64_t length = batches->sequence_length, first = batch->position;
    ZINF_ASSERT(first >= 0 && batch->count >= 0 && first + batch->count <= batches->sample_count);
    char name[64];
    snprintf(name, sizeof name, "shuffle/%lld", (long long)batch->epoch);
    const struct zinf_rng_key key = zinf_rng_key(batches->seed, name);
    for (int64_t i = 0; i < batch->count; i++) {
        const int64_t sample =
            batches->shuffle ? zinf_rng_permute(key, batches->sample_count, first + i) : first + i;
        const int status = read_sample(batches, sample, batch->inputs + i * length,
                                       batch->targets + i * length, error);
        if (status)
            return status;
    }
    return 0;
}
