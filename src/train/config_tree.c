/*
 * The tree of a configuration: the file with the overrides over it, every key where it belongs.
 *
 * Old spellings and misplaced keys are moved before anything is checked, in the file and in each
 * override apart, so that an override wins whatever spelling either uses.
 */
#include "train/config_internal.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/words.h"

static const char *place_name(const struct zinf_loader *loader, struct zinf_place place)
{
    return place.line < 0 ? loader->options->overrides[-place.line - 1].place
                          : loader->options->file;
}

void zinf_loader_say(struct zinf_loader *loader, struct zinf_error_list *list,
                     struct zinf_place place, const char *path, const char *format, ...)
{
    struct zinf_error error;
    char text[sizeof error.text];
    const char *name = place_name(loader, place);
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    /* "--set a.b: a.b: wrong" would say it twice */
    bool sentence = list == &loader->report->errors || list == &loader->report->warnings;
    bool repeated = sentence && place.line < 0 && strlen(name) >= strlen(path) &&
                    !strcmp(name + strlen(name) - strlen(path), path);
    bool bare = repeated || !*path;
    zinf_error_at(&error, ZINF_E_USAGE,
                  (struct zinf_text_place){name, place.line < 0 ? 0 : place.line, place.column},
                  "%s%s%s", bare ? "" : path, bare || !*text ? "" : ": ", text);
    zinf_error_list_add(list, &error);
}

struct zinf_place zinf_place_of(const struct zinf_json *value)
{
    return (struct zinf_place){value->line, value->column};
}

struct zinf_place zinf_loader_place(const struct zinf_loader *loader, const char *path)
{
    char *copy = zinf_strdup(path), *dot;
    struct zinf_json *value = zinf_json_path(loader->tree, copy);
    while (!value && (dot = strrchr(copy, '.'))) {
        *dot = '\0';
        value = zinf_json_path(loader->tree, copy);
    }
    free(copy);
    if (!value)
        value = loader->tree;
    return value ? zinf_place_of(value) : (struct zinf_place){0, 0};
}

/* The object that holds the last part of a path; made on the way, or NULL where something else
 * stands. */
static struct zinf_json *parent_of(struct zinf_json *tree, const char *path, bool make,
                                   const char **last)
{
    for (;;) {
        size_t length = strcspn(path, ".");
        if (!path[length]) {
            *last = path;
            return tree->type == ZINF_JSON_OBJECT ? tree : NULL;
        }
        char *part = strndup(path, length);
        struct zinf_json *next = zinf_json_get(tree, part);
        if (!next && make && tree->type == ZINF_JSON_OBJECT) {
            next = zinf_json_new(ZINF_JSON_OBJECT);
            next->line = tree->line;
            next->column = tree->column;
            zinf_json_set(tree, part, next);
        }
        free(part);
        if (!next)
            return NULL;
        tree = next;
        path += length + 1;
    }
}

void zinf_tree_set(struct zinf_json *tree, const char *path, struct zinf_json *value)
{
    const char *last;
    struct zinf_json *parent = parent_of(tree, path, true, &last);
    if (parent)
        zinf_json_set(parent, last, value);
    else
        zinf_json_free(value);
}

void zinf_tree_remove(struct zinf_json *tree, const char *path)
{
    const char *last;
    struct zinf_json *parent = parent_of(tree, path, false, &last);
    if (parent)
        zinf_json_remove(parent, last);
}

/* Take a member out of an object without freeing it. */
static struct zinf_json *detach(struct zinf_json *object, const char *key)
{
    struct zinf_json *copy = zinf_json_copy(zinf_json_get(object, key));
    zinf_json_remove(object, key);
    return copy;
}

static void mark(struct zinf_json *value, int line)
{
    value->line = line;
    value->column = 0;
    for (size_t i = 0; i < value->count; i++) {
        if (value->keys) {
            value->key_lines[i] = line;
            value->key_columns[i] = 0;
        }
        mark(value->members[i], line);
    }
}

static void warn_moved(struct zinf_loader *loader, const struct zinf_json *value, const char *from,
                       const char *to, const char *why)
{
    zinf_loader_say(loader, &loader->report->warnings, zinf_place_of(value), from,
                    "%s; it is applied as %s", why, to);
}

static void twice(struct zinf_loader *loader, const struct zinf_json *value, const char *from,
                  const char *to)
{
    zinf_loader_say(loader, &loader->report->errors, zinf_place_of(value), from,
                    "is another spelling of %s, which the file has too; keep one", to);
}

/* from -> to, both dotted; nothing when `from` is absent. Quiet spellings (why NULL) are as good as
 * the canonical one. */
static void respell(struct zinf_loader *loader, struct zinf_json *tree, const char *from,
                    const char *to, const char *why)
{
    const char *last;
    struct zinf_json *parent = parent_of(tree, from, false, &last);
    struct zinf_json *value = parent ? zinf_json_get(parent, last) : NULL;
    if (!value)
        return;
    if (zinf_json_path(tree, to)) {
        twice(loader, value, from, to);
    } else {
        if (why)
            warn_moved(loader, value, from, to, why);
        zinf_tree_set(tree, to, detach(parent, last));
        return;
    }
    zinf_json_remove(parent, last);
}

static void normalise_bare_zero(struct zinf_loader *loader, struct zinf_json *tree)
{
    struct zinf_json *value = zinf_json_get(tree, "zero_optimization");
    if (!value || value->type != ZINF_JSON_BOOL)
        return;
    struct zinf_json *object = zinf_json_new(ZINF_JSON_OBJECT);
    struct zinf_json *stage = zinf_json_new_integer(value->boolean);
    warn_moved(loader, value, "zero_optimization",
               value->boolean ? "zero_optimization.stage 1" : "zero_optimization.stage 0",
               "true and false are deprecated");
    stage->line = object->line = value->line;
    stage->column = object->column = value->column;
    zinf_json_set(object, "stage", stage);
    zinf_json_set(tree, "zero_optimization", object);
}

/* zero_optimization.cpu_offload: true and its two companions of 2021 */
static void normalise_cpu_offload(struct zinf_loader *loader, struct zinf_json *tree,
                                  const char *old, const char *modern)
{
    struct zinf_json *zero = zinf_json_get(tree, "zero_optimization"),
                     *value = zinf_json_get(zero, old);
    char from[64], to[64];
    if (!value || value->type != ZINF_JSON_BOOL)
        return; /* absent; a wrong type is found as an unknown key */
    snprintf(from, sizeof from, "zero_optimization.%s", old);
    snprintf(to, sizeof to, "zero_optimization.%s.device", modern);
    if (zinf_json_get(zero, modern)) {
        twice(loader, value, from, to);
    } else {
        struct zinf_json *device = zinf_json_new_string(value->boolean ? "cpu" : "none");
        warn_moved(loader, value, from, to, "is deprecated");
        device->line = value->line;
        device->column = value->column;
        zinf_tree_set(tree, to, device);
    }
    zinf_json_remove(zero, old);
}

static void normalise_pin_memory(struct zinf_loader *loader, struct zinf_json *tree)
{
    struct zinf_json *zero = zinf_json_get(tree, "zero_optimization");
    struct zinf_json *value = zinf_json_get(zero, "cpu_offload_use_pin_memory");
    if (!value)
        return;
    warn_moved(loader, value, "zero_optimization.cpu_offload_use_pin_memory",
               "pin_memory of offload_param and offload_optimizer", "is deprecated");
    static const char *const names[] = {"offload_param", "offload_optimizer"};
    for (int i = 0; i < 2; i++) {
        struct zinf_json *offload = zinf_json_get(zero, names[i]);
        if (offload && offload->type == ZINF_JSON_OBJECT && !zinf_json_get(offload, "pin_memory"))
            zinf_json_set(offload, "pin_memory", zinf_json_copy(value));
    }
    zinf_json_remove(zero, "cpu_offload_use_pin_memory");
}

/* Python's names of the stage3_ keys: "prefetch_bucket_size" and the like. */
static void normalise_stage3(struct zinf_loader *loader, struct zinf_json *tree)
{
    static const char prefix[] = "zero_optimization.stage3_";
    size_t count;
    const struct zinf_key *keys = zinf_keys(&count);
    for (size_t i = 0; i < count; i++) {
        if (strncmp(keys[i].path, prefix, strlen(prefix)) != 0)
            continue;
        char *from = zinf_format("zero_optimization.%s", keys[i].path + strlen(prefix));
        respell(loader, tree, from, keys[i].path, NULL);
        free(from);
    }
    respell(loader, tree, "zero_optimization.stage3_gather_fp16_weights_on_model_save",
            "zero_optimization.stage3_gather_16bit_weights_on_model_save", "is the old name");
    respell(loader, tree, "zero_optimization.gather_fp16_weights_on_model_save",
            "zero_optimization.stage3_gather_16bit_weights_on_model_save", "is the old name");
}

/* ds_nvme_tune prints booleans as strings, and two names of the thread count that DeepSpeed ignores
 * since 2025. */
static void normalise_aio(struct zinf_loader *loader, struct zinf_json *tree)
{
    struct zinf_json *aio = zinf_json_get(tree, "aio");
    static const char why[] = "is ignored by DeepSpeed since 2025";
    if (!aio || aio->type != ZINF_JSON_OBJECT)
        return;
    respell(loader, tree, "aio.thread_count", "aio.intra_op_parallelism", why);
    respell(loader, tree, "aio.num_threads", "aio.intra_op_parallelism", why);
    for (size_t i = 0; i < aio->count; i++) {
        struct zinf_json *value = aio->members[i];
        bool is_true = value->type == ZINF_JSON_STRING && !strcmp(value->string, "true");
        bool is_false = value->type == ZINF_JSON_STRING && !strcmp(value->string, "false");
        if (!is_true && !is_false)
            continue;
        char *path = zinf_format("aio.%s", aio->keys[i]);
        zinf_loader_say(loader, &loader->report->warnings, zinf_place_of(value), path,
                        "\"%s\" is a string; taken as %s", value->string, value->string);
        free(path);
        free(value->string);
        value->string = NULL;
        value->type = ZINF_JSON_BOOL;
        value->boolean = is_true;
    }
}

static const char *last_part(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot ? dot + 1 : path;
}

/* Words that say nothing about where they belong. */
static bool is_common(const char *key)
{
    return zinf_key_list_has("enabled|type|params|profile|verbose|debug|version|fast|metric", key);
}

/*
 * The one path that ends in `key`. Keys that work or will work come before those without effect:
 * "seed" at the top is zinf.train.seed.
 * @param others  counts further paths of the same rank
 */
static const char *only_home(const char *key, int *others)
{
    const char *home = NULL;
    size_t count;
    const struct zinf_key *keys = zinf_keys(&count);
    *others = 0;
    for (int useful = 1; useful >= 0 && !home; useful--)
        for (size_t i = 0; i < count; i++) {
            bool works = keys[i].state == ZINF_KEY_WORKS || keys[i].state == ZINF_KEY_NOT_YET;
            if (works != useful || strcmp(last_part(keys[i].path), key) != 0)
                continue;
            if (home && strcmp(home, keys[i].path) != 0)
                (*others)++;
            else
                home = keys[i].path;
        }
    return home;
}

/* An unknown key with one home moves there; true when it did. */
static bool move_home(struct zinf_loader *loader, struct zinf_json *tree, struct zinf_json *object,
                      size_t i, const char *path)
{
    int others;
    const char *key = object->keys[i], *home = is_common(key) ? NULL : only_home(key, &others);
    if (!home || others)
        return false;
    struct zinf_json *value = object->members[i];
    if (zinf_json_path(tree, home)) {
        zinf_loader_say(loader, &loader->report->errors,
                        (struct zinf_place){object->key_lines[i], object->key_columns[i]}, path,
                        "belongs to %s, which the file has too; keep that one", home);
        zinf_json_remove(object, key);
        return true;
    }
    zinf_loader_say(loader, &loader->report->warnings,
                    (struct zinf_place){object->key_lines[i], object->key_columns[i]}, path,
                    "stands in the wrong place%s; it is applied as %s",
                    strncmp(home, "zinf.", 5) ? ", where DeepSpeed does not look" : "", home);
    value = detach(object, key);
    zinf_tree_set(tree, home, value);
    return true;
}

/* One walk; true when something moved (then the walk begins again, because objects have changed).
 */
static bool move_misplaced(struct zinf_loader *loader, struct zinf_json *tree,
                           struct zinf_json *object, const char *prefix)
{
    bool moved = false;
    for (size_t i = 0; i < object->count && !moved; i++) {
        char *path = zinf_format("%s%s%s", prefix, *prefix ? "." : "", object->keys[i]);
        const struct zinf_key *key = zinf_key_find(path, NULL, NULL);
        struct zinf_json *value = object->members[i];
        if (!key)
            moved = move_home(loader, tree, object, i, path);
        else if (key->type == ZINF_KEY_OBJECT && value->type == ZINF_JSON_OBJECT)
            moved = move_misplaced(loader, tree, value, path);
        free(path);
    }
    return moved;
}

void zinf_config_normalise(struct zinf_loader *loader, struct zinf_json *tree)
{
    respell(loader, tree, "bfloat16", "bf16", NULL);
    normalise_bare_zero(loader, tree);
    normalise_cpu_offload(loader, tree, "cpu_offload", "offload_optimizer");
    normalise_cpu_offload(loader, tree, "cpu_offload_params", "offload_param");
    normalise_cpu_offload(loader, tree, "cpu_offload_param", "offload_param");
    normalise_pin_memory(loader, tree);
    normalise_stage3(loader, tree);
    normalise_aio(loader, tree);
    while (move_misplaced(loader, tree, tree, ""))
        continue;
}

/* What stands in `over` replaces what stands in `tree`; objects that only lead to a value are
 * merged (final ones have boolean set). */
static void merge(struct zinf_json *tree, const struct zinf_json *over)
{
    for (size_t i = 0; i < over->count; i++) {
        const struct zinf_json *value = over->members[i];
        struct zinf_json *old = zinf_json_get(tree, over->keys[i]);
        bool leads = value->type == ZINF_JSON_OBJECT && !value->boolean;
        if (leads && old && old->type == ZINF_JSON_OBJECT) {
            merge(old, value);
        } else {
            zinf_json_remove(tree, over->keys[i]);
            zinf_json_append_member(tree, zinf_strdup(over->keys[i]), over->key_lines[i],
                                    over->key_columns[i], zinf_json_copy(value));
        }
    }
}

static struct zinf_json *override_value(const char *text)
{
    struct zinf_json *value;
    struct zinf_error_list errors = {0};
    struct zinf_json_options strict = {.file = "", .strict = true, .status = ZINF_E_USAGE};
    if (zinf_json_parse(&value, text, strlen(text), &strict, &errors))
        value = zinf_json_new_string(text);
    zinf_error_list_release(&errors);
    return value;
}

static void apply_override(struct zinf_loader *loader, int index)
{
    const struct zinf_config_override *override = &loader->options->overrides[index];
    struct zinf_json *over = zinf_json_new(ZINF_JSON_OBJECT),
                     *value = override_value(override->value);
    value->boolean |= value->type == ZINF_JSON_OBJECT;
    if (!*override->path || strstr(override->path, "..") ||
        override->path[strlen(override->path) - 1] == '.') {
        zinf_loader_say(loader, &loader->report->errors, (struct zinf_place){-index - 1, 0}, "",
                        "is no path of a key; right is e.g. zero_optimization.stage");
        zinf_json_free(value);
        zinf_json_free(over);
        return;
    }
    zinf_tree_set(over, override->path, value);
    mark(over, -index - 1);
    zinf_config_normalise(loader, over);
    merge(loader->tree, over);
    zinf_json_free(over);
}

int zinf_config_read_tree(struct zinf_loader *loader)
{
    const struct zinf_config_options *options = loader->options;
    struct zinf_json_options read = {
        .file = options->file, .status = ZINF_E_USAGE, .partial = true};
    int status = zinf_json_read(&loader->tree, options->file, &read, &loader->report->errors);
    if (!loader->tree)
        return status;
    loader->incomplete = status != 0;
    if (loader->tree->type != ZINF_JSON_OBJECT) {
        zinf_loader_say(loader, &loader->report->errors, zinf_place_of(loader->tree), "",
                        "a configuration is an object: { ... }");
        return ZINF_E_USAGE;
    }
    zinf_config_normalise(loader, loader->tree);
    for (int i = 0; i < options->override_count; i++)
        apply_override(loader, i);
    return 0;
}
