/*
 * The files a list of paths and globs names, and bytes out of them.
 *
 * Sizes and times are taken once, when the list is made; a file that is another one later (shorter, longer, touched) is an error with
 * path and offset, because positions in the stream of tokens would silently mean something else.
 */
#ifndef ZINF_TEXT_SOURCES_H
#define ZINF_TEXT_SOURCES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct zinf_source {
    char *path;
    int64_t bytes;
    struct timespec modified;
    dev_t device; /* with inode: which file it is, whatever the path says */
    ino_t inode;
};

enum { ZINF_SOURCES_OPEN = 16 }; /* descriptors kept: enough that a sequential or small corpus never reopens */

struct zinf_sources {
    struct zinf_source *items;
    int count;
    struct {
        int descriptor, file; /* file -1: free */
    } open[ZINF_SOURCES_OPEN];
};

/**
 * Local. Paths in the order of `patterns`, the matches of a glob sorted bytewise. A pattern that is the name of a file is that file,
 * whatever characters are in it.
 *
 * @param name  "zinf.data.train", for messages
 * @return 0 or ZINF_E_DATA: no match, a folder, no plain file, unreadable, the same file twice
 */
int zinf_sources_open(struct zinf_sources *sources, const char *const *patterns, int pattern_count,
                      const char *name, struct zinf_error *error);
void zinf_sources_close(struct zinf_sources *sources);

/**
 * Bytes [offset, offset + bytes) of file `index`; they lie within the size it had at open (asserted). One caller at a time.
 * @return 0 or ZINF_E_DATA: the file changed or cannot be read; the text has path and offset
 */
int zinf_sources_read(struct zinf_sources *sources, int index, int64_t offset, void *buffer,
                      size_t bytes, struct zinf_error *error);

#ifdef __cplusplus
}
#endif
#endif
