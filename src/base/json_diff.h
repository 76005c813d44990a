/*
 * The leaves in which two JSON trees differ: what changed in a configuration since a checkpoint, and between two runs.
 *
 * A member that is null counts as absent, and 1 as 1.0: neither makes another configuration.
 */
#ifndef ZINF_BASE_JSON_DIFF_H
#define ZINF_BASE_JSON_DIFF_H

#include "base/json.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Do both say the same? NULL is as good as null; the order of an object's members does not count. */
bool zinf_json_is_same(const struct zinf_json *a, const struct zinf_json *b);

/**
 * One leaf that differs.
 *
 * @param path  "zero_optimization.stage"; borrowed during the call
 * @param a, b  its values, borrowed as long as the trees; NULL where a side has none
 */
typedef void (*zinf_json_differs_fn)(void *context, const char *path, const struct zinf_json *a,
                                     const struct zinf_json *b);

/**
 * Calls `differs` for each leaf: those of `a` in its order, then those that only `b` has. An object that one side has not is walked,
 * a list is a leaf. Either tree may be NULL.
 *
 * Cost: members of a times members of b, object by object.
 */
void zinf_json_diff(const struct zinf_json *a, const struct zinf_json *b, zinf_json_differs_fn differs,
                    void *context);

#ifdef __cplusplus
}
#endif
#endif
