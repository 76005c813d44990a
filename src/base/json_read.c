/*
 * A whole JSON file from disk.
 */
#include "base/json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"

enum { FILE_MAX = 256 << 20 }; /* bytes; a tokenizer.json has 20 MB */

/* The bytes of a file, or NULL and errno (EFBIG: more than FILE_MAX). */
static char *read_all(FILE *file, size_t *count)
{
    size_t room = 1 << 16, got;
    char *text = zinf_alloc(room);
    *count = 0;
    while ((got = fread(text + *count, 1, room - *count, file)) > 0) {
        *count += got;
        if (*count > FILE_MAX) {
            errno = EFBIG;
            break;
        }
        if (*count == room)
            text = zinf_realloc(text, room *= 2);
    }
    if (ferror(file) || *count > FILE_MAX) {
        free(text);
        return NULL;
    }
    return text;
}

/* What editors on Windows call Unicode: a byte-order mark of two bytes, which no UTF-8 holds. */
static bool is_utf16(const char *text, size_t count)
{
    return count >= 2 && (!memcmp(text, "\xff\xfe", 2) || !memcmp(text, "\xfe\xff", 2));
}

int zinf_json_read(struct zinf_json **value, const char *path,
                   const struct zinf_json_options *options, struct zinf_error_list *errors)
{
    struct zinf_json_options named = *options;
    struct zinf_error error;
    size_t count = 0;
    *value = NULL;
    int failure = zinf_fault("open", NULL);
    FILE *file = failure ? NULL : fopen(path, "rb");
    errno = failure ? failure : errno;
    char *text = file ? read_all(file, &count) : NULL;
    failure = errno;
    if (file)
        fclose(file);
    if (!text) {
        zinf_error_set(&error, options->status, "%s: cannot be read: %s", path, strerror(failure));
        zinf_error_list_add(errors, &error);
        return options->status;
    }
    if (is_utf16(text, count)) {
        zinf_error_set(&error, options->status, "%s: is UTF-16; save it as UTF-8", path);
        zinf_error_list_add(errors, &error);
        free(text);
        return options->status;
    }
    if (!named.file)
        named.file = path;
    int status = zinf_json_parse(value, text, count, &named, errors);
    free(text);
    return status;
}
