/*
 * Every key of the tree against the table: known, of its type, in its range, and what its state
 * says. A wrong value is reported and taken out, so that the stages behind see a default there and
 * find their own problems, each thing once.
 */
#include "train/config_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/json_diff.h"
#include "base/words.h"

/* What stands where something else should. */
static void describe(const struct zinf_json *value, char *out, size_t out_bytes)
{
    if (value->type == ZINF_JSON_OBJECT || value->type == ZINF_JSON_ARRAY) {
        snprintf(out, out_bytes, "%s",
                 value->type == ZINF_JSON_OBJECT ? "an object"
                 : value->count                  ? "a list"
                                                 : "an empty list");
        return;
    }
    char *text = zinf_json_print(value, -1);
    snprintf(out, out_bytes, "%.80s%s", text, strlen(text) > 80 ? "..." : "");
    free(text);
}

static void wrong(struct zinf_loader *loader, const struct zinf_json *value, const char *path,
                  const char *right)
{
    char is[128];
    describe(value, is, sizeof is);
    zinf_loader_say(loader, &loader->report->errors, zinf_place_of(value), path,
                    "%s is wrong; right is %s", is, right);
}

/* The list of words of a choice as prose: "auto, cpu or cuda". */
static char *choices_text(const char *range)
{
    char *text = zinf_strdup(""), *copy = zinf_strdup(range), *rest = copy, *word;
    while ((word = strsep(&rest, "|"))) {
        bool refused = strchr(word, '^');
        word[strcspn(word, "!^")] = '\0';
        if (refused)
            continue;
        char *longer = zinf_format("%s%s%s", text, *text ? ", " : "", word);
        free(text);
        text = longer;
    }
    free(copy);
    return text;
}

/* Finds `word` in "a|b!|c^", case ignored for optimizers' and schedulers' sake; writes the table's
 * spelling. '\0' when it is not there. */
static char choice_mark(const char *range, const char *word, bool any_case, char *spelling,
                        size_t bytes)
{
    for (const char *at = range; at; at = strchr(at, '|')) {
        at += *at == '|';
        size_t length = strcspn(at, "|!^");
        bool same = any_case ? !strncasecmp(at, word, length) : !strncmp(at, word, length);
        if (same && strlen(word) == length) {
            snprintf(spelling, bytes, "%.*s", (int)length, at);
            return at[length] == '!' || at[length] == '^' ? at[length] : '+';
        }
    }
    return '\0';
}

static bool check_choice(struct zinf_loader *loader, const struct zinf_key *key,
                         struct zinf_json *value)
{
    char spelling[64];
    bool any_case = !strcmp(key->path, "optimizer.type"); /* DeepSpeed lowers them */
    const char *word = value->type == ZINF_JSON_STRING ? value->string : "";
    char found = value->type == ZINF_JSON_NULL
                     ? choice_mark(key->range, "null", false, spelling, sizeof spelling)
                     : choice_mark(key->range, word, any_case, spelling, sizeof spelling);
    char *choices = choices_text(key->range);
    bool right = found && found != '^';
    if (!found) {
        wrong(loader, value, key->path, choices);
    } else if (found == '^') {
        zinf_loader_say(loader, &loader->report->errors, zinf_place_of(value), key->path,
                        "\"%s\" is not supported%s%s; right is %s", word, *key->note ? ": " : "",
                        key->note, choices);
    } else if (found == '!') {
        zinf_loader_say(loader, &loader->report->not_yet, zinf_place_of(value), key->path, "\"%s\"",
                        word);
    }
    if (right && value->type == ZINF_JSON_STRING) {
        free(value->string);
        value->string = zinf_strdup(spelling);
    }
    free(choices);
    return right;
}

/* "[0,3]", "(0,)", "[0,1)" */
static bool in_range(const char *range, double number)
{
    char *end;
    if (*range != '[' && *range != '(')
        return true;
    double low = strtod(range + 1, &end);
    if (number < low || (number == low && *range == '('))
        return false;
    const char *high_text = end + 1;
    double high = strtod(high_text, &end);
    if (end == high_text)
        return true;
    return number < high || (number == high && *end == ']');
}

static void range_text(const struct zinf_key *key, char *out, size_t bytes)
{
    char *end;
    const char *type = zinf_key_type_name(key->type == ZINF_KEY_PAIR ? ZINF_KEY_NUMBER : key->type);
    if (*key->range != '[' && *key->range != '(') {
        snprintf(out, bytes, "%s", type);
        return;
    }
    double low = strtod(key->range + 1, &end), high = strtod(end + 1, &end);
    if (end[0] && strlen(strchr(key->range, ',')) > 2)
        snprintf(out, bytes, "%s from %g to %s%g", type, low, *end == ')' ? "below " : "", high);
    else
        snprintf(out, bytes, "%s %s %g", type, *key->range == '(' ? "above" : "of at least", low);
}

static bool is_number(const struct zinf_json *value)
{
    return value->type == ZINF_JSON_INTEGER || value->type == ZINF_JSON_NUMBER;
}

/* DeepSpeed takes one number for all parameter groups, or a list with one for each. Here there is
 * one group: a list of one is its member. */
static bool take_group_list(struct zinf_loader *loader, const struct zinf_key *key,
                            struct zinf_json *value)
{
    if (value->type != ZINF_JSON_ARRAY || !zinf_key_takes_groups(key))
        return true;
    if (value->count != 1) {
        zinf_loader_say(loader, &loader->report->errors, zinf_place_of(value), key->path,
                        "a list has one value for each parameter group, and this one has %zu; zinf "
                        "has one group (zinf.train.no_decay needs no second), so that right is "
                        "one number",
                        value->count);
        return false;
    }
    zinf_json_unwrap(value);
    return true;
}

static bool check_number(struct zinf_loader *loader, const struct zinf_key *key,
                         struct zinf_json *value)
{
    char right[160];
    range_text(key, right, sizeof right);
    if (!take_group_list(loader, key, value))
        return false;
    bool whole = value->type == ZINF_JSON_INTEGER ||
                 (value->type == ZINF_JSON_NUMBER && value->number == trunc(value->number) &&
                  fabs(value->number) < 0x1p63);
    if (!strcmp(key->path, "gradient_clipping") && value->type == ZINF_JSON_BOOL) {
        value->type = ZINF_JSON_NUMBER; /* Python's True is 1 */
        value->number = value->boolean;
    }
    if (value->type == ZINF_JSON_STRING) {
        char *end;
        strtod(value->string, &end);
        if (*value->string && !*end)
            strncat(right, ", without the quotes", sizeof right - strlen(right) - 1);
    }
    if (!is_number(value) || (key->type == ZINF_KEY_INTEGER && !whole) ||
        !in_range(key->range, value->number)) {
        wrong(loader, value, key->path, right);
        return false;
    }
    if (key->type == ZINF_KEY_INTEGER && value->type == ZINF_JSON_NUMBER) {
        value->type = ZINF_JSON_INTEGER;
        value->integer = (int64_t)value->number;
    }
    return true;
}

static bool check_pair(struct zinf_loader *loader, const struct zinf_key *key,
                       struct zinf_json *value)
{
    char one[160], right[200];
    bool ok = value->type == ZINF_JSON_ARRAY && value->count == 2;
    for (size_t i = 0; ok && i < 2; i++)
        ok = is_number(value->members[i]) && in_range(key->range, value->members[i]->number);
    range_text(key, one, sizeof one);
    snprintf(right, sizeof right, "a list of two numbers, each %s", one);
    if (!ok)
        wrong(loader, value, key->path, right);
    return ok;
}

/* ${VAR} and ${VAR:-default}; NULL after an error. */
static char *expand(struct zinf_loader *loader, const struct zinf_json *value, const char *path)
{
    char *out = zinf_strdup("");
    for (const char *at = value->string; *at;) {
        const char *begin = strstr(at, "${"), *end = begin ? strchr(begin, '}') : NULL;
        int plain = begin ? (int)(begin - at) : (int)strlen(at);
        char *name = begin && end ? strndup(begin + 2, (size_t)(end - begin - 2)) : NULL;
        char *otherwise = name ? strstr(name, ":-") : NULL;
        if (otherwise) {
            *otherwise = '\0';
            otherwise += 2;
        }
        const char *set = name ? getenv(name) : "";
        if ((!set || !*set) && otherwise)
            set = otherwise;
        bool missing = !set, open = begin && !end;
        if (missing || open)
            zinf_loader_say(
                loader, &loader->report->errors, zinf_place_of(value), path,
                missing ? "the environment variable %s is not set; set it, or write ${%s:-default}"
                        : "a } is missing in \"%s\"",
                missing ? name : value->string, name);
        char *longer = zinf_format("%s%.*s%s", out, plain, at, set && !open ? set : "");
        free(out);
        free(name);
        out = longer;
        if (missing || open) {
            free(out);
            return NULL;
        }
        at = end ? end + 1 : at + plain;
    }
    return out;
}

static bool check_path_string(struct zinf_loader *loader, const struct zinf_key *key,
                              struct zinf_json *value)
{
    const char *scheme = strstr(value->string, "://");
    if (scheme) {
        zinf_loader_say(
            loader, &loader->report->errors, zinf_place_of(value), key->path,
            "\"%s\" is a remote address and zinf reads files only; copy it first (e.g. aws s3 cp, "
            "gsutil cp, huggingface-cli download, or stage-in of the job script) and give the "
            "local path",
            value->string);
        return false;
    }
    char *expanded = expand(loader, value, key->path);
    if (!expanded)
        return false;
    free(value->string);
    value->string = expanded;
    if (*expanded)
        return true;
    wrong(loader, value, key->path, "a path that is not empty");
    return false;
}

static bool check_path(struct zinf_loader *loader, const struct zinf_key *key,
                       struct zinf_json *value)
{
    bool list = key->type == ZINF_KEY_PATHS && value->type == ZINF_JSON_ARRAY && value->count,
         ok = true;
    if (value->type == ZINF_JSON_STRING)
        return check_path_string(loader, key, value);
    for (size_t i = 0; list && i < value->count; i++)
        list = value->members[i]->type == ZINF_JSON_STRING;
    if (!list) {
        wrong(loader, value, key->path, zinf_key_type_name(key->type));
        return false;
    }
    for (size_t i = 0; i < value->count; i++)
        ok = check_path_string(loader, key, value->members[i]) && ok;
    return ok;
}

static bool check_size(struct zinf_loader *loader, const struct zinf_key *key,
                       struct zinf_json *value)
{
    int64_t bytes;
    bool word = value->type == ZINF_JSON_STRING;
    if ((word && (!strcmp(value->string, "auto") || !zinf_size_parse(value->string, &bytes))) ||
        (value->type == ZINF_JSON_INTEGER && value->integer >= 0))
        return true;
    wrong(loader, value, key->path, zinf_key_type_name(key->type));
    return false;
}

static bool check_shape(struct zinf_loader *loader, const struct zinf_key *key,
                        struct zinf_json *value)
{
    static const int wanted[] = {
        [ZINF_KEY_BOOL] = ZINF_JSON_BOOL,     [ZINF_KEY_STRING] = ZINF_JSON_STRING,
        [ZINF_KEY_STRINGS] = ZINF_JSON_ARRAY, [ZINF_KEY_LIST] = ZINF_JSON_ARRAY,
        [ZINF_KEY_OBJECT] = ZINF_JSON_OBJECT, [ZINF_KEY_OPEN] = ZINF_JSON_OBJECT};
    bool right = (int)value->type == wanted[key->type];
    for (size_t i = 0; right && key->type == ZINF_KEY_STRINGS && i < value->count; i++)
        right = value->members[i]->type == ZINF_JSON_STRING;
    if (!right)
        wrong(loader, value, key->path, zinf_key_type_name(key->type));
    return right;
}

static bool check_value(struct zinf_loader *loader, const struct zinf_key *key,
                        struct zinf_json *value)
{
    switch (key->type) {
    case ZINF_KEY_CHOICE:
        return check_choice(loader, key, value);
    case ZINF_KEY_INTEGER:
    case ZINF_KEY_NUMBER:
        return check_number(loader, key, value);
    case ZINF_KEY_PAIR:
        return check_pair(loader, key, value);
    case ZINF_KEY_PATH:
    case ZINF_KEY_PATHS:
        return check_path(loader, key, value);
    case ZINF_KEY_SIZE:
        return check_size(loader, key, value);
    case ZINF_KEY_ANY:
        return true;
    default:
        return check_shape(loader, key, value);
    }
}

static bool is_default(const struct zinf_key *key, const struct zinf_json *value)
{
    if (!key->otherwise) /* an object zinf does not have: empty or switched off is as good as absent
                          */
        return value->type == ZINF_JSON_OBJECT &&
               !zinf_json_bool(value, "enabled", value->count != 0);
    struct zinf_json *otherwise = zinf_key_value(key->otherwise);
    bool same = zinf_json_is_same(value, otherwise);
    zinf_json_free(otherwise);
    return same;
}

static bool is_on(const struct zinf_loader *loader, const char *path)
{
    const struct zinf_json *value = zinf_json_path(loader->tree, path);
    return value && value->type == ZINF_JSON_BOOL && value->boolean;
}

static bool has_word(const struct zinf_loader *loader, const char *path, const char *word)
{
    const struct zinf_json *value = zinf_json_path(loader->tree, path);
    return value && value->type == ZINF_JSON_STRING && !strcmp(value->string, word);
}

/* Keys that say more about a part of the run that this file does not have, or that is "not yet"
 * itself. */
static bool is_idle(const struct zinf_loader *loader, const struct zinf_key *key)
{
    const struct zinf_json *eval = zinf_json_path(loader->tree, "zinf.data.eval");
    if (strstr(key->note, ZINF_COUNTS_WITH_EVAL))
        return !eval || eval->type == ZINF_JSON_NULL;
    if (strstr(key->note, ZINF_COUNTS_WITH_NVME))
        return !has_word(loader, "zero_optimization.offload_optimizer.device", "nvme") &&
               !has_word(loader, "zero_optimization.offload_param.device", "nvme") &&
               !has_word(loader, "zinf.memory.activations", "nvme");
    if (strstr(key->note, ZINF_COUNTS_WITH_FP32))
        return is_on(loader, "fp16.enabled") || is_on(loader, "bf16.enabled") ||
               has_word(loader, "zinf.device", "cpu");
    return key->state == ZINF_KEY_NOT_YET && strstr(key->note, ZINF_COUNTS_WITH);
}

static void apply_state(struct zinf_loader *loader, const struct zinf_key *key,
                        const struct zinf_json *value)
{
    struct zinf_config_report *report = loader->report;
    struct zinf_place place = zinf_place_of(value);
    if (key->state == ZINF_KEY_NO_EFFECT || (is_idle(loader, key) && !is_default(key, value))) {
        zinf_loader_say(loader, &report->no_effect, place, key->path, "%s", "");
    } else if (key->state == ZINF_KEY_REFUSED && !is_default(key, value)) {
        char is[128];
        describe(value, is, sizeof is);
        zinf_loader_say(loader, &report->errors, place, key->path,
                        "%s would change the results and is not supported%s%s; leave the key out",
                        is, *key->note ? ": " : "", key->note);
    } else if (key->state == ZINF_KEY_NOT_YET && !is_default(key, value)) {
        char is[128];
        describe(value, is, sizeof is);
        zinf_loader_say(loader, &report->not_yet, place, key->path, "%s", is);
    }
}

static void nearest_key(const char *path, const char *parent, const char **best, int *distance)
{
    size_t count, length = strlen(parent);
    const struct zinf_key *keys = zinf_keys(&count);
    const char *word = strrchr(path, '.') ? strrchr(path, '.') + 1 : path;
    for (size_t i = 0; i < count; i++) {
        const char *dot = strrchr(keys[i].path, '.'), *name = dot ? dot + 1 : keys[i].path;
        size_t parent_length = dot ? (size_t)(dot - keys[i].path) : 0;
        /* a sibling is likelier meant than a key of the same distance elsewhere */
        bool sibling = parent_length == length && !strncmp(keys[i].path, parent, length);
        int here = 2 * zinf_word_distance(word, name) + !sibling;
        if (here < *distance) {
            *distance = here;
            *best = keys[i].path;
        }
    }
}

static void unknown_key(struct zinf_loader *loader, struct zinf_place place, const char *path,
                        const char *parent)
{
    const char *best = "", *word = strrchr(path, '.') ? strrchr(path, '.') + 1 : path;
    int distance = 1000;
    if (!strcmp(path, "optimizer.params.max_grad_norm")) {
        zinf_loader_say(
            loader, &loader->report->errors, place, path,
            "is not a parameter of the optimizer; right is \"gradient_clipping\" at the top of the "
            "file");
        return;
    }
    nearest_key(path, parent, &best, &distance);
    if (zinf_word_is_near(word, distance / 2))
        zinf_loader_say(loader, &loader->report->errors, place, path,
                        "unknown key; did you mean %s?", best);
    else
        zinf_loader_say(loader, &loader->report->errors, place, path,
                        "unknown key; the nearest known one is %s, `zinf config --keys` lists all",
                        best);
}

static void key_of_other_type(struct zinf_loader *loader, struct zinf_place place, const char *path)
{
    bool optimizer = !strncmp(path, "optimizer.", 10);
    const char *type = optimizer ? loader->optimizer : loader->scheduler;
    char *names = zinf_strdup("");
    size_t count, length = optimizer ? strlen("optimizer.params.") : strlen("scheduler.params.");
    const struct zinf_key *keys = zinf_keys(&count);
    for (size_t i = 0; i < count; i++)
        if (!strncmp(keys[i].path, path, length) && keys[i].only &&
            zinf_key_list_has(keys[i].only, type) && keys[i].state == ZINF_KEY_WORKS) {
            char *longer = zinf_format("%s%s%s", names, *names ? ", " : "", keys[i].path + length);
            free(names);
            names = longer;
        }
    zinf_loader_say(loader, &loader->report->errors, place, path,
                    "%s has no such parameter; it has %s%s", type, names,
                    optimizer ? ", weight_decay" : "");
    free(names);
}

static bool is_auto(const struct zinf_json *value)
{
    return value->type == ZINF_JSON_STRING && !strcmp(value->string, "auto");
}

static void check_object(struct zinf_loader *loader, struct zinf_json *object, const char *path,
                         bool listed);

/* One member. Returns false when it has to be taken out. */
static bool check_member(struct zinf_loader *loader, const char *path, const char *parent,
                         struct zinf_json *value, struct zinf_place key_place, bool listed)
{
    const struct zinf_key *other, *key = zinf_loader_key(loader, path, &other);
    if (!key && other) {
        key_of_other_type(loader, key_place, path);
        return false;
    }
    if (!key) {
        unknown_key(loader, key_place, path, parent);
        return false;
    }
    bool nothing =
        value->type == ZINF_JSON_NULL && (!key->otherwise || !strcmp(key->otherwise, "null"));
    if (nothing && !zinf_key_list_has(key->range, "null"))
        return key->otherwise != NULL; /* as if it were not there */
    if (is_auto(value) && zinf_key_takes_auto(key))
        return true;
    if (!check_value(loader, key, value)) {
        loader->batch_wrong |= zinf_key_list_has(
            "train_batch_size|train_micro_batch_size_per_gpu|gradient_accumulation_steps", path);
        zinf_json_set(loader->refused, path, zinf_json_new(ZINF_JSON_NULL));
        return false;
    }
    if (!listed)
        apply_state(loader, key, value);
    if (key->type == ZINF_KEY_OBJECT)
        check_object(loader, value, path, listed || key->state == ZINF_KEY_NO_EFFECT);
    return true;
}

/* A path in one key, as --set takes it: DeepSpeed would not look there, and neither would we. */
static bool has_dot(struct zinf_loader *loader, const char *key, const char *path,
                    struct zinf_place place)
{
    const char *dot = strchr(key, '.');
    if (dot)
        zinf_loader_say(loader, &loader->report->errors, place, path,
                        "a key holds no dots; right is an object in an object, \"%.*s\": {\"%s\": "
                        "...}",
                        (int)(dot - key), key, dot + 1);
    return dot != NULL;
}

/* `listed`: the object itself stands in the list of what has no effect, so its members need not. */
static void check_object(struct zinf_loader *loader, struct zinf_json *object, const char *path,
                         bool listed)
{
    for (size_t i = 0; i < object->count;) {
        struct zinf_place place = {object->key_lines[i], object->key_columns[i]};
        char *member = zinf_format("%s%s%s", path, *path ? "." : "", object->keys[i]);
        bool keep = !has_dot(loader, object->keys[i], member, place) &&
                    check_member(loader, member, path, object->members[i], place, listed);
        free(member);
        if (keep)
            i++;
        else
            zinf_json_remove(object, object->keys[i]);
    }
}

/* The table's spelling of a type, or NULL when it is absent, unknown or refused (which the walk
 * reports). */
static const char *canonical_type(const struct zinf_loader *loader, const char *path,
                                  char *spelling, size_t bytes)
{
    bool optimizer = !strcmp(path, "optimizer.type");
    const struct zinf_json *value = zinf_json_path(loader->tree, path);
    if (!value || value->type != ZINF_JSON_STRING)
        return NULL;
    const char *range = zinf_key_find(path, NULL, NULL)->range;
    char found = choice_mark(range, value->string, optimizer, spelling, bytes);
    return found && found != '^' ? spelling : NULL;
}

const struct zinf_key *zinf_loader_key(const struct zinf_loader *loader, const char *path,
                                       const struct zinf_key **other_type)
{
    bool optimizer = !strncmp(path, "optimizer.", 10);
    return zinf_key_find(path, optimizer ? loader->optimizer : loader->scheduler, other_type);
}

/* Parameters of an optimizer that is refused itself would only add noise; those of a misspelt or
 * missing one are held against all that there are. */
static void check_type(struct zinf_loader *loader, const char *object, const char *type)
{
    struct zinf_json *value = zinf_json_get(loader->tree, object);
    if (!value || value->type != ZINF_JSON_OBJECT || type)
        return;
    const struct zinf_json *given = zinf_json_get(value, "type");
    if ((!given || given->type == ZINF_JSON_NULL) && value->count && !loader->incomplete)
        zinf_loader_say(loader, &loader->report->errors, zinf_place_of(value), object,
                        "has no \"type\"; right is e.g. %s",
                        *object == 'o' ? "\"type\": \"AdamW\"" : "\"type\": \"WarmupLR\"");
    char *path = zinf_format("%s.type", object), spelling[64];
    const char *word = given && given->type == ZINF_JSON_STRING ? given->string : "";
    const char *range = zinf_key_find(path, NULL, NULL)->range;
    if (choice_mark(range, word, *object == 'o', spelling, sizeof spelling) == '^')
        zinf_json_remove(value, "params");
    free(path);
}

void zinf_config_check_tree(struct zinf_loader *loader)
{
    const struct zinf_json *optimizer = zinf_json_get(loader->tree, "optimizer");
    bool nothing = !optimizer || optimizer->type == ZINF_JSON_NULL ||
                   (optimizer->type == ZINF_JSON_OBJECT && optimizer->count == 0);
    loader->optimizer_given = !nothing;
    loader->optimizer =
        canonical_type(loader, "optimizer.type", loader->types[0], sizeof loader->types[0]);
    loader->scheduler =
        canonical_type(loader, "scheduler.type", loader->types[1], sizeof loader->types[1]);
    check_type(loader, "optimizer", loader->optimizer);
    check_type(loader, "scheduler", loader->scheduler);
    check_object(loader, loader->tree, "", false);
}
