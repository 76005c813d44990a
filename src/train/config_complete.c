/*
 * What the file leaves open: "auto", defaults, and defaults that depend on other keys; then the
 * rules that join several keys.
 */
#include "train/config_internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static const char *string_at(const struct zinf_loader *loader, const char *path)
{
    const struct zinf_json *value = zinf_json_path(loader->tree, path);
    return value && value->type == ZINF_JSON_STRING ? value->string : NULL;
}

static bool given(const struct zinf_loader *loader, const char *path)
{
    const struct zinf_json *value = zinf_json_path(loader->tree, path);
    return (value && value->type != ZINF_JSON_NULL) || zinf_json_get(loader->refused, path);
}

static bool is_true(const struct zinf_loader *loader, const char *path)
{
    const struct zinf_json *value = zinf_json_path(loader->tree, path);
    return value && value->type == ZINF_JSON_BOOL && value->boolean;
}

static void complain(struct zinf_loader *loader, const char *path, const char *text)
{
    zinf_loader_say(loader, &loader->report->errors, zinf_loader_place(loader, path), path, "%s",
                    text);
}

/* A parameter of an optimizer or scheduler that the file does not have. */
static bool applies(const struct zinf_loader *loader, const struct zinf_key *key)
{
    const char *type = !strncmp(key->path, "optimizer.", 10)   ? loader->optimizer
                       : !strncmp(key->path, "scheduler.", 10) ? loader->scheduler
                                                               : "";
    return type && (!key->only || zinf_key_list_has(key->only, type));
}

static struct zinf_json *automatic_value(const struct zinf_loader *loader,
                                         const struct zinf_key *key)
{
    const struct zinf_json *other = NULL;
    if (!strcmp(key->path, "scheduler.params.warmup_max_lr"))
        other = zinf_json_path(loader->tree, "optimizer.params.lr");
    if (!strcmp(key->path, "scheduler.params.total_num_steps"))
        other = zinf_json_path(loader->tree, "zinf.train.steps");
    if (other && other->type != ZINF_JSON_NULL)
        return zinf_json_copy(other);
    return zinf_key_value(key->automatic ? key->automatic : key->otherwise);
}

static void fill_key(struct zinf_loader *loader, const struct zinf_key *key)
{
    struct zinf_json *value = zinf_json_path(loader->tree, key->path);
    bool leaf = key->type != ZINF_KEY_OBJECT && key->otherwise,
         useful = key->state == ZINF_KEY_WORKS || key->state == ZINF_KEY_NOT_YET;
    if (!applies(loader, key))
        return;
    if (!value) {
        if (leaf && useful)
            zinf_tree_set(loader->tree, key->path, zinf_key_value(key->otherwise));
        return;
    }
    bool word = /* of its own */
        key->type == ZINF_KEY_SIZE || key->type == ZINF_KEY_PATH ||
        (key->type == ZINF_KEY_CHOICE && zinf_key_list_has(key->range, "auto"));
    if (word || value->type != ZINF_JSON_STRING || strcmp(value->string, "auto") != 0)
        return;
    struct zinf_json *filled = automatic_value(loader, key);
    filled->line = value->line;
    filled->column = value->column;
    char *text = zinf_json_print(filled, -1);
    bool later = filled->type == ZINF_JSON_NULL && key->automatic;
    zinf_loader_say(loader, &loader->report->filled, zinf_place_of(value), key->path, "%s",
                    later ? "the run's" : text);
    free(text);
    if (later) {
        zinf_json_free(filled); /* stays "auto" until the length of an epoch is known */
        return;
    }
    zinf_tree_set(loader->tree, key->path, filled);
}

static void set_string(struct zinf_loader *loader, const char *path, const char *text)
{
    struct zinf_place place = zinf_loader_place(loader, path);
    struct zinf_json *value = text ? zinf_json_new_string(text) : zinf_json_new(ZINF_JSON_NULL);
    value->line = place.line;
    value->column = place.column;
    zinf_tree_set(loader->tree, path, value);
}

/* runs/<name of ds.json>, without folder and ending */
static void fill_run_dir(struct zinf_loader *loader)
{
    const char *slash = strrchr(loader->options->file, '/');
    char *name = zinf_strdup(slash ? slash + 1 : loader->options->file), *dot = strrchr(name, '.');
    if (given(loader, "zinf.run.dir")) {
        free(name);
        return;
    }
    if (dot && dot != name)
        *dot = '\0';
    char *folder = zinf_format("runs/%s", name);
    set_string(loader, "zinf.run.dir", folder);
    free(folder);
    free(name);
}

static void fill_dependent(struct zinf_loader *loader)
{
    const char *task = string_at(loader, "zinf.model.task");
    bool classification = task && !strcmp(task, "sequence-classification");
    if (!given(loader, "zinf.data.tokenizer"))
        set_string(loader, "zinf.data.tokenizer", string_at(loader, "zinf.model.path"));
    if (!given(loader, "zinf.data.packing"))
        set_string(loader, "zinf.data.packing", classification ? "none" : "concat");
    fill_run_dir(loader);
}

static void check_precision(struct zinf_loader *loader)
{
    const char *param = string_at(loader, "data_types.param_dtype");
    enum zinf_dtype wanted, dtype = is_true(loader, "fp16.enabled")   ? ZINF_FP16
                                    : is_true(loader, "bf16.enabled") ? ZINF_BF16
                                                                      : ZINF_FP32;
    if (is_true(loader, "fp16.enabled") && is_true(loader, "bf16.enabled"))
        complain(loader, "bf16.enabled", "fp16 and bf16 are both enabled; right is one of them");
    else if (param && !zinf_dtype_parse(param, &wanted) && wanted != dtype)
        zinf_loader_say(loader, &loader->report->errors,
                        zinf_loader_place(loader, "data_types.param_dtype"),
                        "data_types.param_dtype",
                        "\"%s\" is not what fp16 and bf16 say; right is \"%s\", or leave it out",
                        param, zinf_dtype_name(dtype));
}

static void check_optimizer(struct zinf_loader *loader)
{
    const struct zinf_json *params = zinf_json_path(loader->tree, "optimizer.params");
    if (!loader->optimizer || strcmp(loader->optimizer, "SGD") != 0)
        return;
    if (zinf_json_bool(params, "nesterov", false) &&
        (zinf_json_number(params, "momentum", 0) <= 0 ||
         zinf_json_number(params, "dampening", 0) != 0))
        complain(loader, "optimizer.params.nesterov",
                 "Nesterov's momentum is wrong here; right is momentum above 0 and dampening 0");
}

static void check_scheduler(struct zinf_loader *loader)
{
    static const char *const required[] = {"total_num_steps", "cycle_min_lr", "cycle_max_lr"};
    for (int i = 0; i < 3 && loader->scheduler; i++) {
        char *path = zinf_format("scheduler.params.%s", required[i]);
        const struct zinf_key *key = zinf_key_find(path, loader->scheduler, NULL);
        if (key && !given(loader, path)) {
            char *text =
                zinf_format("missing; %s needs it%s", loader->scheduler,
                            i ? "" : ", right is a number of steps, or \"auto\" for the run's");
            complain(loader, path, text);
            free(text);
        }
        free(path);
    }
}

/* What is asked for has nothing to begin with. */
static void check_super_offload(struct zinf_loader *loader)
{
    const char *path = "zero_optimization.offload_optimizer.super_offload";
    const char *ratio = "zero_optimization.offload_optimizer.ratio";
    const struct zinf_json *object =
        zinf_json_path(loader->tree, "zero_optimization.offload_optimizer");
    bool part = zinf_json_number(object, "ratio", 1) < 1;
    const char *optimizer = string_at(loader, "zero_optimization.offload_optimizer.device");
    const char *parameters = string_at(loader, "zero_optimization.offload_param.device");
    bool counts =
        optimizer && !strcmp(optimizer, "cpu") && strcmp(parameters ? parameters : "", "nvme");
    if (is_true(loader, path) && !counts)
        zinf_loader_say(loader, &loader->report->no_effect, zinf_loader_place(loader, path), path,
                        "%s", "");
    if (part && (!optimizer || strcmp(optimizer, "cpu") != 0))
        zinf_loader_say(loader, &loader->report->no_effect, zinf_loader_place(loader, ratio), ratio,
                        "%s", "");
}

static void check_offload(struct zinf_loader *loader)
{
    static const char *const objects[] = {"zero_optimization.offload_param",
                                          "zero_optimization.offload_optimizer"};
    const struct zinf_json *zero = zinf_json_get(loader->tree, "zero_optimization");
    bool wrong = zinf_json_get(loader->refused, "zero_optimization.stage") != NULL;
    int64_t stage = wrong ? 3 : zinf_json_integer(zero, "stage", 0); /* one error is enough */
    for (int i = 0; i < 2; i++) {
        const struct zinf_json *offload = zinf_json_path(loader->tree, objects[i]);
        const char *device = zinf_json_string(offload, "device", "none");
        bool nvme = !strcmp(device, "nvme");
        int64_t least = i == 0 ? 3 : 1;
        char *folders = zinf_format("%s.nvme_path", objects[i]);
        char *path = zinf_format("%s.device", objects[i]), *text = NULL;
        if (strcmp(device, "none") != 0 && stage < least)
            text = zinf_format("\"%s\" needs ZeRO stage %" PRId64
                               "%s, and zero_optimization.stage is %" PRId64,
                               device, least, least < 3 ? " or above" : "", stage);
        else if (nvme && !given(loader, folders))
            text = zinf_format("\"nvme\" needs nvme_path, a folder on a local drive");
        if (text)
            complain(loader, path, text);
        free(folders);
        free(path);
        free(text);
    }
    check_super_offload(loader);
}

/* DeepSpeed's word for inputs of blocks in host memory; zinf's own key, where given, wins. */
static void fill_activations(struct zinf_loader *loader)
{
    const char *own = "zinf.memory.activations",
               *path = "activation_checkpointing.cpu_checkpointing";
    const char *mode = string_at(loader, own);
    if (!is_true(loader, path) || !mode || !strcmp(mode, "cpu"))
        return;
    if (!strcmp(mode, "auto")) {
        zinf_loader_say(loader, &loader->report->filled, zinf_loader_place(loader, path), own,
                        "\"cpu\", as %s says", path);
        set_string(loader, own, "cpu");
        return;
    }
    zinf_loader_say(loader, &loader->report->warnings, zinf_loader_place(loader, path), path,
                    "true, but %s is \"%s\", which counts", own, mode);
}

static void check_activations(struct zinf_loader *loader)
{
    const char *mode = string_at(loader, "zinf.memory.activations");
    if (mode && !strcmp(mode, "nvme") &&
        !given(loader, "zero_optimization.offload_optimizer.nvme_path") &&
        !given(loader, "zero_optimization.offload_param.nvme_path"))
        complain(loader, "zinf.memory.activations",
                 "\"nvme\" needs a folder on a local drive; right is "
                 "zero_optimization.offload_optimizer.nvme_path (its device may stay \"none\") or "
                 "zero_optimization.offload_param.nvme_path");
}

static void check_length(struct zinf_loader *loader)
{
    if (given(loader, "zinf.train.steps") && given(loader, "zinf.train.epochs"))
        complain(loader, "zinf.train.epochs",
                 "zinf.train.steps is given too; right is exactly one of them");
}

/* Formats known by their ending that are still to come. */
static void check_endings(struct zinf_loader *loader, const char *path)
{
    static const char *const endings[] = {".jsonl", ".csv", ".tsv", ".h5"};
    struct zinf_json *value = zinf_json_path(loader->tree, path);
    const char *format = string_at(loader, "zinf.data.format");
    size_t count = !value ? 0 : value->type == ZINF_JSON_ARRAY ? value->count : 1;
    for (size_t i = 0; i < count && format && !strcmp(format, "auto"); i++) {
        const struct zinf_json *item = value->type == ZINF_JSON_ARRAY ? value->members[i] : value;
        size_t length = item->type == ZINF_JSON_STRING ? strlen(item->string) : 0;
        for (int e = 0; e < 4; e++) {
            size_t ending = strlen(endings[e]);
            if (length > ending && !strcasecmp(item->string + length - ending, endings[e]))
                zinf_loader_say(
                    loader, &loader->report->not_yet, zinf_place_of(item), path,
                    "\"%s\" (%s files; \"zinf.data.format\": \"text\" reads its bytes as text)",
                    item->string, endings[e]);
        }
    }
}

/* Defaults that are not DeepSpeed's are said where they count and the file leaves them open. */
static void say_own_defaults(struct zinf_loader *loader)
{
    static const struct {
        const char *path, *text;
        bool parameters; /* counts with offload_param alone */
    } keys[] = {
        {"aio.block_size", "8388608 (DeepSpeed: 1048576)", false},
        {"zero_optimization.offload_param.max_in_cpu", "0 (DeepSpeed: 1000000000)", true},
    };
    const char *parameters = string_at(loader, "zero_optimization.offload_param.device");
    const char *optimizer = string_at(loader, "zero_optimization.offload_optimizer.device");
    bool of_parameters = parameters && !strcmp(parameters, "nvme");
    bool any = of_parameters || (optimizer && !strcmp(optimizer, "nvme"));
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if ((keys[i].parameters ? of_parameters : any) && !given(loader, keys[i].path))
            zinf_loader_say(loader, &loader->report->filled, (struct zinf_place){0, 0},
                            keys[i].path, "%s", keys[i].text);
}

void zinf_config_complete(struct zinf_loader *loader)
{
    size_t count;
    say_own_defaults(loader);
    const struct zinf_key *keys = zinf_keys(&count);
    for (size_t i = 0; i < count; i++)
        fill_key(loader, &keys[i]);
    fill_dependent(loader);
    fill_activations(loader);
    check_precision(loader);
    check_optimizer(loader);
    check_scheduler(loader);
    check_offload(loader);
    check_activations(loader);
    check_length(loader);
    check_endings(loader, "zinf.data.train");
    check_endings(loader, "zinf.data.eval");
}

/* What is missing: an error for a run, a note for a look at the file. */
static void need(struct zinf_loader *loader, const char *text)
{
    struct zinf_error note;
    if (loader->options->purpose == ZINF_CONFIG_CHECK) {
        zinf_error_set(&note, 0, "a run still needs %s", text);
        zinf_error_list_add(&loader->report->notes, &note);
    } else {
        zinf_loader_say(loader, &loader->report->errors, (struct zinf_place){0, 0}, "",
                        "this run still needs %s", text);
    }
}

static void check_tokenizer(struct zinf_loader *loader)
{
    const char *tokenizer = string_at(loader, "zinf.data.tokenizer");
    if (!tokenizer && !given(loader, "zinf.data.tokenizer"))
        need(loader, "zinf.data.tokenizer, e.g. --set zinf.data.tokenizer=bytes");
    else if (tokenizer && strcmp(tokenizer, "bytes") != 0)
        zinf_loader_say(loader, &loader->report->not_yet,
                        zinf_loader_place(loader, "zinf.data.tokenizer"), "zinf.data.tokenizer",
                        "\"%s\" (only \"bytes\": --set zinf.data.tokenizer=bytes)", tokenizer);
}

void zinf_config_check_run(struct zinf_loader *loader)
{
    bool eval = loader->options->purpose == ZINF_CONFIG_EVAL;
    if (!loader->optimizer_given && !eval)
        need(loader,
             "an optimizer: --set 'optimizer={\"type\":\"AdamW\",\"params\":{\"lr\":1e-4}}'");
    if (!given(loader, "zinf.model.path") && !given(loader, "zinf.model.config"))
        need(loader, "a model: --set zinf.model.path=FOLDER (config.json, *.safetensors), or "
                     "zinf.model.config "
                     "in the file");
    if (!eval && !given(loader, "zinf.data.train"))
        need(loader, "training text: --set zinf.data.train=FILE");
    if (eval && !given(loader, "zinf.data.eval"))
        need(loader, "text to evaluate on: --set zinf.data.eval=FILE");
    if (!eval && !given(loader, "zinf.train.steps") && !given(loader, "zinf.train.epochs"))
        need(loader, "a length: --set zinf.train.steps=N or --set zinf.train.epochs=N");
    check_tokenizer(loader);
}
