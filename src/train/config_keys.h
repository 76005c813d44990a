/*
 * The table of every key of ds.json: DeepSpeed's own (0.19.6 to 0.19.8) and zinf's. One row a key; the reader, `zinf config --keys`,
 * the schema and the effective configuration are all made from it, so that none of them can know another set of keys.
 */
#ifndef ZINF_TRAIN_CONFIG_KEYS_H
#define ZINF_TRAIN_CONFIG_KEYS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/json.h"

#ifdef __cplusplus
extern "C" {
#endif

enum zinf_key_type {
    ZINF_KEY_BOOL,
    ZINF_KEY_INTEGER, /* integral floats such as 5e8 count */
    ZINF_KEY_NUMBER,
    ZINF_KEY_STRING,
    ZINF_KEY_CHOICE, /* range: "a|b|c" */
    ZINF_KEY_PATH,
    ZINF_KEY_PATHS,   /* a path or a list of them */
    ZINF_KEY_SIZE,    /* bytes, "6GB" or "auto" */
    ZINF_KEY_PAIR,    /* two numbers */
    ZINF_KEY_STRINGS, /* a list of strings */
    ZINF_KEY_LIST,    /* a list of anything */
    ZINF_KEY_OBJECT,  /* its members are rows of the table */
    ZINF_KEY_OPEN,    /* an object with any members */
    ZINF_KEY_ANY
};

enum zinf_key_state {
    ZINF_KEY_WORKS,
    ZINF_KEY_NO_EFFECT, /* concerns speed or Python only: listed once, otherwise ignored */
    ZINF_KEY_REFUSED,   /* would change results: an error unless it has its default */
    ZINF_KEY_NOT_YET    /* still to come: listed by a check, refused by a run, unless it has its default */
};

/* Parts of a note that are rules, not only words: a key that counts with something has no effect without it. */
#define ZINF_COUNTS_WITH      "counts with "
#define ZINF_COUNTS_WITH_EVAL ZINF_COUNTS_WITH "data.eval"
#define ZINF_COUNTS_WITH_NVME ZINF_COUNTS_WITH "offload to nvme"
#define ZINF_COUNTS_WITH_FP32 ZINF_COUNTS_WITH "fp32 on a GPU"

struct zinf_key {
    const char *path;      /* "zero_optimization.stage" */
    enum zinf_key_type type;
    const char *otherwise; /* the default as JSON; NULL = none (required, or an object that may be absent) */
    const char *range;     /* "[0,3]", "(0,)", or choices "a|b!|c^" (! not yet, ^ refused); "" = all */
    const char *unit;
    enum zinf_key_state state;
    const char *note;
    const char *only;      /* optimizer or scheduler types that have this parameter, "Adam|AdamW"; NULL = all */
    const char *automatic; /* what "auto" becomes, as JSON; NULL = "auto" is not taken */
};

/** The table; rows of an object stand behind the object's own row. */
const struct zinf_key *zinf_keys(size_t *count);

/**
 * The row of a path for an optimizer or scheduler type (NULL = any). NULL when there is none; *other_type is then a row of the same path
 * for another type, if there is one.
 */
const struct zinf_key *zinf_key_find(const char *path, const char *type, const struct zinf_key **other_type);

/** Does `list`, "Adam|AdamW", hold `word`? */
int zinf_key_list_has(const char *list, const char *word);
/** May a list with a value for each parameter group stand here, as in DeepSpeed's schedules? */
bool zinf_key_takes_groups(const struct zinf_key *key);

/** May "auto" stand here? Where it becomes nothing of its own, the default counts: DeepSpeed's models drop it. */
bool zinf_key_takes_auto(const struct zinf_key *key);

/** A default or a range's JSON text as a value; owned by the caller. */
struct zinf_json *zinf_key_value(const char *json);

/** For messages, "a whole number", and for tables, "int". */
const char *zinf_key_type_name(enum zinf_key_type type);
const char *zinf_key_type_word(enum zinf_key_type type);
const char *zinf_key_state_name(enum zinf_key_state state);

/** The table as an array of objects, and as a JSON schema (draft 2020-12); owned by the caller. */
struct zinf_json *zinf_keys_json(void);
struct zinf_json *zinf_keys_schema(void);

/* The parts of the table, put together by zinf_keys(); each ends with a zeroed row. */
extern const struct zinf_key zinf_keys_training[], zinf_keys_zero[], zinf_keys_other[], zinf_keys_own[];

#ifdef __cplusplus
}
#endif
#endif
