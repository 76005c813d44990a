/*
 * The tree of JSON values: reading members, building and changing. Parser: json_parse.c; text of a
 * tree: json_print.c.
 *
 * Members are plain arrays searched in order: configurations are small, and whoever reads a large
 * file (a tokenizer, a header of thousands of tensors) walks its members instead of searching them.
 */
#include "base/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void zinf_error_list_add(struct zinf_error_list *list, const struct zinf_error *error)
{
    list->items = zinf_realloc(list->items, (list->count + 1) * sizeof *list->items);
    list->items[list->count++] = *error;
}

void zinf_error_list_release(struct zinf_error_list *list)
{
    free(list->items);
    list->items = NULL;
    list->count = 0;
}

void zinf_json_free(struct zinf_json *value)
{
    if (!value)
        return;
    for (size_t i = 0; i < value->count; i++) {
        zinf_json_free(value->members[i]);
        if (value->keys)
            free(value->keys[i]);
    }
    free(value->members);
    free(value->keys);
    free(value->key_lines);
    free(value->key_columns);
    free(value->string);
    free(value);
}

static int64_t index_of(const struct zinf_json *object, const char *key, size_t length)
{
    if (!object || object->type != ZINF_JSON_OBJECT)
        return -1;
    for (size_t i = 0; i < object->count; i++)
        if (!strncmp(object->keys[i], key, length) && !object->keys[i][length])
            return (int64_t)i;
    return -1;
}

struct zinf_json *zinf_json_get(const struct zinf_json *object, const char *key)
{
    int64_t i = index_of(object, key, strlen(key));
    return i < 0 ? NULL : object->members[i];
}

struct zinf_json *zinf_json_path(const struct zinf_json *object, const char *path)
{
    for (;;) {
        size_t length = strcspn(path, ".");
        int64_t i = index_of(object, path, length);
        if (i < 0 || !path[length])
            return i < 0 ? NULL : object->members[i];
        object = object->members[i];
        path += length + 1;
    }
}

int64_t zinf_json_integer(const struct zinf_json *object, const char *key, int64_t otherwise)
{
    const struct zinf_json *value = zinf_json_get(object, key);
    return value && value->type == ZINF_JSON_INTEGER ? value->integer : otherwise;
}

double zinf_json_number(const struct zinf_json *object, const char *key, double otherwise)
{
    const struct zinf_json *value = zinf_json_get(object, key);
    bool number = value && (value->type == ZINF_JSON_INTEGER || value->type == ZINF_JSON_NUMBER);
    return number ? value->number : otherwise;
}

bool zinf_json_bool(const struct zinf_json *object, const char *key, bool otherwise)
{
    const struct zinf_json *value = zinf_json_get(object, key);
    return value && value->type == ZINF_JSON_BOOL ? value->boolean : otherwise;
}

const char *zinf_json_string(const struct zinf_json *object, const char *key, const char *otherwise)
{
    const struct zinf_json *value = zinf_json_get(object, key);
    return value && value->type == ZINF_JSON_STRING ? value->string : otherwise;
}

struct zinf_json *zinf_json_new(enum zinf_json_type type)
{
    struct zinf_json *value = zinf_alloc(sizeof *value);
    value->type = type;
    if (type == ZINF_JSON_STRING)
        value->string = zinf_strdup("");
    return value;
}

struct zinf_json *zinf_json_new_integer(int64_t integer)
{
    struct zinf_json *value = zinf_json_new(ZINF_JSON_INTEGER);
    value->integer = integer;
    value->number = (double)integer;
    return value;
}

struct zinf_json *zinf_json_new_number(double number)
{
    struct zinf_json *value = zinf_json_new(isfinite(number) ? ZINF_JSON_NUMBER : ZINF_JSON_NULL);
    value->number = isfinite(number) ? number : 0;
    return value;
}

struct zinf_json *zinf_json_new_bool(bool boolean)
{
    struct zinf_json *value = zinf_json_new(ZINF_JSON_BOOL);
    value->boolean = boolean;
    return value;
}

struct zinf_json *zinf_json_new_string(const char *string)
{
    struct zinf_json *value = zinf_alloc(sizeof *value);
    value->type = ZINF_JSON_STRING;
    value->string = zinf_strdup(string);
    return value;
}

/* Room for one more member. The room is always the next power of two, so that no field has to keep
 * it. */
static void grow(struct zinf_json *value)
{
    if (value->count & (value->count - 1))
        return;
    size_t room = value->count ? 2 * value->count : 1;
    value->members = zinf_realloc(value->members, room * sizeof *value->members);
    if (value->type == ZINF_JSON_OBJECT) {
        value->keys = zinf_realloc(value->keys, room * sizeof *value->keys);
        value->key_lines = zinf_realloc(value->key_lines, room * sizeof *value->key_lines);
        value->key_columns = zinf_realloc(value->key_columns, room * sizeof *value->key_columns);
    }
}

void zinf_json_append(struct zinf_json *array, struct zinf_json *value)
{
    ZINF_ASSERT(array->type == ZINF_JSON_ARRAY);
    grow(array);
    array->members[array->count++] = value;
}

void zinf_json_append_member(struct zinf_json *object, char *key, int line, int column,
                             struct zinf_json *value)
{
    ZINF_ASSERT(object->type == ZINF_JSON_OBJECT);
    grow(object);
    object->keys[object->count] = key;
    object->key_lines[object->count] = line;
    object->key_columns[object->count] = column;
    object->members[object->count++] = value;
}

void zinf_json_set(struct zinf_json *object, const char *key, struct zinf_json *value)
{
    int64_t i = index_of(object, key, strlen(key));
    if (i < 0) {
        zinf_json_append_member(object, zinf_strdup(key), value->line, value->column, value);
        return;
    }
    zinf_json_free(object->members[i]);
    object->members[i] = value;
}

void zinf_json_unwrap(struct zinf_json *array)
{
    ZINF_ASSERT(array->type == ZINF_JSON_ARRAY && array->count == 1);
    struct zinf_json list = *array, *only = list.members[0];
    *array = *only;
    free(only);
    free(list.members);
    free(list.keys);
    free(list.key_lines);
    free(list.key_columns);
    free(list.string);
}

void zinf_json_remove(struct zinf_json *object, const char *key)
{
    int64_t i = index_of(object, key, strlen(key));
    if (i < 0)
        return;
    zinf_json_free(object->members[i]);
    free(object->keys[i]);
    size_t rest = --object->count - (size_t)i;
    memmove(object->members + i, object->members + i + 1, rest * sizeof *object->members);
    memmove(object->keys + i, object->keys + i + 1, rest * sizeof *object->keys);
    memmove(object->key_lines + i, object->key_lines + i + 1, rest * sizeof *object->key_lines);
    memmove(object->key_columns + i, object->key_columns + i + 1,
            rest * sizeof *object->key_columns);
}

struct zinf_json *zinf_json_copy(const struct zinf_json *value)
{
    struct zinf_json *copy = zinf_json_new(value->type);
    free(copy->string);
    copy->line = value->line;
    copy->column = value->column;
    copy->boolean = value->boolean;
    copy->integer = value->integer;
    copy->number = value->number;
    copy->string = value->string ? zinf_strdup(value->string) : NULL;
    for (size_t i = 0; i < value->count; i++) {
        struct zinf_json *member = zinf_json_copy(value->members[i]);
        if (value->type == ZINF_JSON_OBJECT)
            zinf_json_append_member(copy, zinf_strdup(value->keys[i]), value->key_lines[i],
                                    value->key_columns[i], member);
        else
            zinf_json_append(copy, member);
    }
    return copy;
}
