/*
 * The table of keys put together, searched and printed. Its rows: config_keys_training.c, _zero.c,
 * _other.c, _own.c.
 */
#include "train/config_keys.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static struct zinf_key *table;
static size_t table_count;
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void make_table(void)
{
    const struct zinf_key *const parts[] = {zinf_keys_own, zinf_keys_training, zinf_keys_zero,
                                            zinf_keys_other};
    for (int part = 0; part < 4; part++)
        for (const struct zinf_key *key = parts[part]; key->path; key++) {
            table = zinf_realloc(table, (table_count + 1) * sizeof *table);
            table[table_count++] = *key;
        }
}

const struct zinf_key *zinf_keys(size_t *count)
{
    pthread_once(&table_once, make_table);
    *count = table_count;
    return table;
}

int zinf_key_list_has(const char *list, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = list; at; at = strchr(at, '|')) {
        at += *at == '|';
        size_t here = strcspn(at, "|");
        if (here == length && !strncmp(at, word, length))
            return 1;
    }
    return 0;
}

const struct zinf_key *zinf_key_find(const char *path, const char *type,
                                     const struct zinf_key **other_type)
{
    size_t count;
    const struct zinf_key *keys = zinf_keys(&count);
    if (other_type)
        *other_type = NULL;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(keys[i].path, path) != 0)
            continue;
        if (!type || !keys[i].only || zinf_key_list_has(keys[i].only, type))
            return &keys[i];
        if (other_type)
            *other_type = &keys[i];
    }
    return NULL;
}

bool zinf_key_takes_groups(const struct zinf_key *key)
{
    static const char lists[] = "warmup_min_lr|warmup_max_lr|cycle_min_lr|cycle_max_lr|"
                                "cycle_min_mom|cycle_max_mom|lr_range_test_min_lr";
    static const char parent[] = "scheduler.params.";
    return !strncmp(key->path, parent, strlen(parent)) &&
           zinf_key_list_has(lists, key->path + strlen(parent));
}

bool zinf_key_takes_auto(const struct zinf_key *key)
{
    static const char *const models[] = {"zero_optimization.", "fp16.",        "bf16.",
                                         "tensorboard.",       "csv_monitor.", "aio.",
                                         "comms_logger."};
    bool takes = key->automatic != NULL;
    for (size_t i = 0; i < sizeof models / sizeof *models && !takes; i++)
        takes = key->otherwise && !strncmp(key->path, models[i], strlen(models[i]));
    return takes;
}

const char *zinf_key_type_name(enum zinf_key_type type)
{
    static const char *const names[] = {"true or false",
                                        "a whole number",
                                        "a number",
                                        "a string",
                                        "one of a few words",
                                        "a path",
                                        "a path or a list of paths",
                                        "a size such as \"6GB\", or \"auto\"",
                                        "two numbers in [ ]",
                                        "a list of strings",
                                        "a list",
                                        "an object",
                                        "an object",
                                        "any value"};
    return names[type];
}

const char *zinf_key_state_name(enum zinf_key_state state)
{
    static const char *const names[] = {"works", "no effect", "refused", "not yet"};
    return names[state];
}

const char *zinf_key_type_word(enum zinf_key_type type)
{
    static const char *const names[] = {"bool", "int",    "number", "string", "choice",
                                        "path", "paths",  "size",   "pair",   "strings",
                                        "list", "object", "object", "any"};
    return names[type];
}

struct zinf_json *zinf_key_value(const char *text)
{
    struct zinf_json *value;
    struct zinf_error_list errors = {0};
    struct zinf_json_options options = {.file = "default", .strict = true};
    int status = zinf_json_parse(&value, text, strlen(text), &options, &errors);
    ZINF_ASSERT(!status && value);
    return value;
}

static void set_text(struct zinf_json *object, const char *key, const char *text)
{
    zinf_json_set(object, key, zinf_json_new_string(text ? text : ""));
}

struct zinf_json *zinf_keys_json(void)
{
    size_t count;
    const struct zinf_key *keys = zinf_keys(&count);
    struct zinf_json *object = zinf_json_new(ZINF_JSON_OBJECT);
    struct zinf_json *list = zinf_json_new(ZINF_JSON_ARRAY);
    for (size_t i = 0; i < count; i++) {
        struct zinf_json *row = zinf_json_new(ZINF_JSON_OBJECT);
        set_text(row, "path", keys[i].path);
        set_text(row, "type", zinf_key_type_word(keys[i].type));
        if (keys[i].otherwise)
            zinf_json_set(row, "default", zinf_key_value(keys[i].otherwise));
        set_text(row, "range", keys[i].range);
        set_text(row, "unit", keys[i].unit);
        set_text(row, "state", zinf_key_state_name(keys[i].state));
        set_text(row, "only", keys[i].only);
        set_text(row, "note", keys[i].note);
        zinf_json_append(list, row);
    }
    zinf_json_set(object, "keys", list);
    return object;
}

/* null is as if the key were not there. */
static bool is_nothing_taken(const struct zinf_key *key)
{
    bool object = key->type == ZINF_KEY_OBJECT || key->type == ZINF_KEY_OPEN;
    return object || (key->otherwise && !strcmp(key->otherwise, "null"));
}

static void schema_types(struct zinf_json *schema, const struct zinf_key *key)
{
    static const char *const types[][3] = {
        {"boolean"}, {"integer"}, {"number"},          {"string"},
        {"string"},  {"string"},  {"string", "array"}, {"string", "integer"},
        {"array"},   {"array"},   {"array"},           {"object"},
        {"object"},  {NULL}};
    struct zinf_json *list = zinf_json_new(ZINF_JSON_ARRAY);
    for (int i = 0; i < 3 && types[key->type][i]; i++)
        zinf_json_append(list, zinf_json_new_string(types[key->type][i]));
    if (!strcmp(key->path, "zero_optimization") || !strcmp(key->path, "gradient_clipping"))
        zinf_json_append(list, zinf_json_new_string("boolean"));
    if (zinf_key_takes_groups(key))
        zinf_json_append(list, zinf_json_new_string("array"));
    if (is_nothing_taken(key))
        zinf_json_append(list, zinf_json_new_string("null"));
    if (zinf_key_takes_auto(key) && list->count && strcmp(types[key->type][0], "string") != 0)
        zinf_json_append(list, zinf_json_new_string("string"));
    if (key->type == ZINF_KEY_ANY)
        zinf_json_free(list);
    else
        zinf_json_set(schema, "type", list);
}

static void schema_choices(struct zinf_json *schema, const struct zinf_key *key)
{
    struct zinf_json *list = zinf_json_new(ZINF_JSON_ARRAY);
    char *copy = zinf_strdup(key->range), *rest = copy, *word;
    while ((word = strsep(&rest, "|"))) {
        word[strcspn(word, "!^")] = '\0';
        zinf_json_append(list, strcmp(word, "null") ? zinf_json_new_string(word)
                                                    : zinf_json_new(ZINF_JSON_NULL));
    }
    if (is_nothing_taken(key))
        zinf_json_append(list, zinf_json_new(ZINF_JSON_NULL));
    if (zinf_key_takes_auto(key) && !zinf_key_list_has(key->range, "auto"))
        zinf_json_append(list, zinf_json_new_string("auto"));
    zinf_json_set(schema, "enum", list);
    zinf_json_remove(schema, "type");
    free(copy);
}

static struct zinf_json *schema_of(const struct zinf_key *key)
{
    struct zinf_json *schema = zinf_json_new(ZINF_JSON_OBJECT);
    char *text = zinf_format("%s%s%s%s%s", zinf_key_state_name(key->state), *key->unit ? ", " : "",
                             key->unit, *key->note ? ": " : "", key->note);
    schema_types(schema, key);
    if (key->type == ZINF_KEY_CHOICE)
        schema_choices(schema, key);
    if (key->otherwise)
        zinf_json_set(schema, "default", zinf_key_value(key->otherwise));
    set_text(schema, "description", text);
    if (key->type == ZINF_KEY_OBJECT) {
        zinf_json_set(schema, "properties", zinf_json_new(ZINF_JSON_OBJECT));
        zinf_json_set(schema, "additionalProperties", zinf_json_new_bool(false));
    }
    free(text);
    return schema;
}

struct zinf_json *zinf_keys_schema(void)
{
    size_t count;
    const struct zinf_key *keys = zinf_keys(&count);
    struct zinf_json *root = zinf_json_new(ZINF_JSON_OBJECT);
    set_text(root, "$schema", "https://json-schema.org/draft/2020-12/schema");
    set_text(root, "title", "ds.json as zinf reads it");
    set_text(root, "type", "object");
    zinf_json_set(root, "properties", zinf_json_new(ZINF_JSON_OBJECT));
    zinf_json_set(root, "additionalProperties", zinf_json_new_bool(false));
    for (size_t i = 0; i < count; i++) {
        char *path = zinf_strdup(keys[i].path), *rest = path, *part = strsep(&rest, ".");
        struct zinf_json *properties = zinf_json_get(root, "properties");
        for (; rest; part = strsep(&rest, "."))
            properties = zinf_json_get(zinf_json_get(properties, part), "properties");
        if (!zinf_json_get(properties,
                           part)) /* rows for other types come later: the first describes */
            zinf_json_set(properties, part, schema_of(&keys[i]));
        free(path);
    }
    return root;
}
