/*
 * Two trees walked side by side. See json_diff.h.
 */
#include "base/json_diff.h"

#include <stdlib.h>
#include <string.h>

struct walk {
    zinf_json_differs_fn differs;
    void *context;
};

static bool is_object(const struct zinf_json *value)
{
    return value && value->type == ZINF_JSON_OBJECT;
}

static bool is_nothing(const struct zinf_json *value)
{
    return !value || value->type == ZINF_JSON_NULL;
}

static bool is_number(const struct zinf_json *value)
{
    return value->type == ZINF_JSON_INTEGER || value->type == ZINF_JSON_NUMBER;
}

/* Every member of `a` is in `b` too; those that only `b` has are the other direction's. */
static bool has_members(const struct zinf_json *a, const struct zinf_json *b)
{
    for (size_t i = 0; i < a->count; i++)
        if (!zinf_json_is_same(a->members[i], zinf_json_get(b, a->keys[i])))
            return false;
    return true;
}

static bool is_same_list(const struct zinf_json *a, const struct zinf_json *b)
{
    bool same = a->count == b->count;
    for (size_t i = 0; same && i < a->count; i++)
        same = zinf_json_is_same(a->members[i], b->members[i]);
    return same;
}

bool zinf_json_is_same(const struct zinf_json *a, const struct zinf_json *b)
{
    if (is_nothing(a) || is_nothing(b))
        return is_nothing(a) && is_nothing(b);
    if (a->type == ZINF_JSON_INTEGER && b->type == ZINF_JSON_INTEGER)
        return a->integer == b->integer; /* past 2^53 doubles no longer tell them apart */
    if (is_number(a) && is_number(b))
        return a->number == b->number;
    if (a->type != b->type)
        return false;
    switch (a->type) {
    case ZINF_JSON_BOOL:
        return a->boolean == b->boolean;
    case ZINF_JSON_STRING:
        return !strcmp(a->string, b->string);
    case ZINF_JSON_ARRAY:
        return is_same_list(a, b);
    default:
        return has_members(a, b) && has_members(b, a);
    }
}

static void diff(const struct walk *walk, const char *path, const struct zinf_json *a,
                 const struct zinf_json *b);

static void diff_member(const struct walk *walk, const char *path, const char *key,
                        const struct zinf_json *a, const struct zinf_json *b)
{
    char *name = zinf_format("%s%s%s", path, *path ? "." : "", key);
    if ((is_object(a) || is_nothing(a)) && (is_object(b) || is_nothing(b)))
        diff(walk, name, a, b);
    else if (!zinf_json_is_same(a, b))
        walk->differs(walk->context, name, is_nothing(a) ? NULL : a, is_nothing(b) ? NULL : b);
    free(name);
}

static void diff(const struct walk *walk, const char *path, const struct zinf_json *a,
                 const struct zinf_json *b)
{
    for (size_t i = 0; is_object(a) && i < a->count; i++)
        diff_member(walk, path, a->keys[i], a->members[i], zinf_json_get(b, a->keys[i]));
    for (size_t i = 0; is_object(b) && i < b->count; i++)
        if (!zinf_json_get(a, b->keys[i]))
            diff_member(walk, path, b->keys[i], NULL, b->members[i]);
}

void zinf_json_diff(const struct zinf_json *a, const struct zinf_json *b,
                    zinf_json_differs_fn differs, void *context)
{
    diff(&(struct walk){differs, context}, "", a, b);
}
