/*
 * JSON with line and column of every value, all errors of a file at once, and the freedoms HJSON users take:
 * comments (of C, C++ and shell), trailing commas, missing commas between lines, unquoted keys. Multi-line and unquoted strings are
 * refused by name. Duplicate keys are errors. Depth at most 64. Messages begin with the JSON path of the object they are in.
 *
 * Own reader because no C library gives the place of every value and all problems at once (design rule 2).
 */
#ifndef ZINF_BASE_JSON_H
#define ZINF_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum zinf_json_type {
    ZINF_JSON_NULL,
    ZINF_JSON_BOOL,
    ZINF_JSON_INTEGER, /* fits int64 and was written without '.', 'e' */
    ZINF_JSON_NUMBER,  /* any other number; finite */
    ZINF_JSON_STRING,
    ZINF_JSON_ARRAY,
    ZINF_JSON_OBJECT
};

/* A value. Arrays and objects own their members, in the order of the file. */
struct zinf_json {
    enum zinf_json_type type;
    int line, column; /* of its first character; 0 for values not from a file */
    bool boolean;
    int64_t integer;
    double number;    /* set for INTEGER too */
    char *string;     /* UTF-8, NUL-terminated (a NUL inside is an error) */
    size_t count;     /* members */
    char **keys;      /* objects only */
    int *key_lines, *key_columns;
    struct zinf_json **members;
};

/** Every problem found, in order of place. Owns `items`. A zeroed list is empty. */
struct zinf_error_list {
    struct zinf_error *items;
    size_t count;
};
void zinf_error_list_add(struct zinf_error_list *list, const struct zinf_error *error);
void zinf_error_list_release(struct zinf_error_list *list);

/** Strict = RFC 8259 only (config.json of models, safetensors headers); otherwise with HJSON's freedoms. */
struct zinf_json_options {
    const char *file; /* for messages; borrowed during the call */
    bool strict;
    int status;       /* what errors carry, e.g. ZINF_E_USAGE, ZINF_E_DATA */
    bool partial;     /* hand out what could be read, without the members that could not, unless brackets do not match */
};

/**
 * @param value   out; owned by the caller, zinf_json_free(). NULL when errors were found (but see options->partial)
 * @param errors  every problem of the text is appended
 * @return 0 or options->status
 */
int zinf_json_parse(struct zinf_json **value, const char *text, size_t bytes,
                    const struct zinf_json_options *options, struct zinf_error_list *errors);
/** Read a whole file (at most 256 MiB) and parse it. */
int zinf_json_read(struct zinf_json **value, const char *path,
                   const struct zinf_json_options *options, struct zinf_error_list *errors);
void zinf_json_free(struct zinf_json *value);

/** Member `key` of an object; NULL when absent or `object` is NULL or no object. Borrowed. */
struct zinf_json *zinf_json_get(const struct zinf_json *object, const char *key);
/** Value at a dotted path, "zero_optimization.stage"; NULL when absent. */
struct zinf_json *zinf_json_path(const struct zinf_json *object, const char *path);
/** With a default for absent or null members; a member of another type counts as absent (callers have checked types). */
int64_t zinf_json_integer(const struct zinf_json *object, const char *key, int64_t otherwise);
double zinf_json_number(const struct zinf_json *object, const char *key, double otherwise);
bool zinf_json_bool(const struct zinf_json *object, const char *key, bool otherwise);
const char *zinf_json_string(const struct zinf_json *object, const char *key, const char *otherwise);

/* Building and changing. `zinf_json_set` takes `value` over and replaces a member of that name. */
struct zinf_json *zinf_json_new(enum zinf_json_type type);
struct zinf_json *zinf_json_new_integer(int64_t value);
struct zinf_json *zinf_json_new_number(double value); /* not finite: null */
struct zinf_json *zinf_json_new_bool(bool value);
struct zinf_json *zinf_json_new_string(const char *value);
struct zinf_json *zinf_json_copy(const struct zinf_json *value);
void zinf_json_set(struct zinf_json *object, const char *key, struct zinf_json *value);
void zinf_json_append(struct zinf_json *array, struct zinf_json *value);
/** A list of one member becomes that member. */
void zinf_json_unwrap(struct zinf_json *array);
/** A member behind the others, with the place of its key; `key` (owned, on the heap) and `value` are taken over. Not checked for doubles. */
void zinf_json_append_member(struct zinf_json *object, char *key, int line, int column,
                             struct zinf_json *value);
void zinf_json_remove(struct zinf_json *object, const char *key);

/**
 * Text of a value, owned by the caller. indent < 0: one line; else pretty with that many spaces a level.
 * Numbers print in the shortest form that reads back to the same double, whole ones as 1.0: what was an integer stays one, and the reverse.
 */
char *zinf_json_print(const struct zinf_json *value, int indent);

#ifdef __cplusplus
}
#endif
#endif
