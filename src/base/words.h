/*
 * Words users type: the nearest known one to a misspelt one, and sizes such as "6GB".
 */
#ifndef ZINF_BASE_WORDS_H
#define ZINF_BASE_WORDS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Insertions, deletions, changes and swaps of neighbours that lead from a to b, letters' case ignored (Damerau 1964, restricted). */
int zinf_word_distance(const char *a, const char *b);

/** Is `distance` small enough for words of this length to be the same word misspelt? */
int zinf_word_is_near(const char *word, int distance);

/**
 * "6GB", "512MiB", "80G", "1.5TB", "4096": kB, MB, GB, TB are powers of 1000, KiB ... TiB and the bare letters K, M, G, T powers of 1024
 * (as Slurm counts).
 * @return 0, or -1: not a size, negative or past int64
 */
int zinf_size_parse(const char *text, int64_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
