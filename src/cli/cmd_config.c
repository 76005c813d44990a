/*
 * zinf config: what a file says, what is wrong with it, and which keys there are.
 */
#include "cli/command.h"

#include <stdlib.h>
#include <string.h>

#include "train/config_keys.h"

static void print_json(struct zinf_json *value)
{
    char *text = zinf_json_print(value, 2);
    printf("%s\n", text);
    free(text);
    zinf_json_free(value);
}

static void print_keys(void)
{
    size_t count;
    const struct zinf_key *keys = zinf_keys(&count);
    printf("%-58s %-9s %-11s %-24s %-14s %s\n", "key", "state", "type", "default", "unit",
           "range, note");
    for (size_t i = 0; i < count; i++) {
        const struct zinf_key *key = &keys[i];
        printf("%-58s %-9s %-11s %-24s %-14s %s%s%s%s%s%s\n", key->path,
               zinf_key_state_name(key->state), zinf_key_type_word(key->type),
               key->otherwise ? key->otherwise : "-", *key->unit ? key->unit : "-", key->range,
               *key->range && *key->note ? "  " : "", key->note, key->only ? " (" : "",
               key->only ? key->only : "", key->only ? ")" : "");
    }
    printf("\nIn a range: ! = not yet, ^ = refused.\n");
}

static struct zinf_json *list_json(const struct zinf_error_list *list)
{
    struct zinf_json *array = zinf_json_new(ZINF_JSON_ARRAY);
    for (size_t i = 0; i < list->count; i++) {
        struct zinf_json *item = zinf_json_new(ZINF_JSON_OBJECT);
        if (list->items[i].file[0])
            zinf_json_set(item, "file", zinf_json_new_string(list->items[i].file));
        if (list->items[i].line > 0) {
            zinf_json_set(item, "line", zinf_json_new_integer(list->items[i].line));
            zinf_json_set(item, "column", zinf_json_new_integer(list->items[i].column));
        }
        zinf_json_set(item, "text", zinf_json_new_string(list->items[i].text));
        zinf_json_append(array, item);
    }
    return array;
}

static struct zinf_json *report_json(const struct zinf_config_report *report,
                                     const struct zinf_config *config)
{
    struct zinf_json *object = zinf_json_new(ZINF_JSON_OBJECT);
    zinf_json_set(object, "ok", zinf_json_new_bool(config != NULL));
    zinf_json_set(object, "errors", list_json(&report->errors));
    zinf_json_set(object, "warnings", list_json(&report->warnings));
    zinf_json_set(object, "not_yet", list_json(&report->not_yet));
    zinf_json_set(object, "no_effect", list_json(&report->no_effect));
    zinf_json_set(object, "filled", list_json(&report->filled));
    zinf_json_set(object, "notes", list_json(&report->notes));
    if (config)
        zinf_json_set(object, "effective", zinf_json_copy(config->effective));
    return object;
}

static void print_summary(const struct zinf_config *config)
{
    printf("%s: ok\n", config->file);
    printf("batch %lld = micro-batch %lld x accumulation %lld x %d rank%s, ZeRO stage %d, %s, "
           "optimizer %s\n",
           (long long)config->batch.global, (long long)config->batch.micro,
           (long long)config->batch.accumulation, config->ranks, config->ranks == 1 ? "" : "s",
           config->zero.stage, zinf_dtype_name(config->precision.dtype),
           config->optimizer.given ? config->optimizer.name : "none");
}

static int check_file(const struct zinf_context *context, int ranks)
{
    const struct zinf_options *options = context->options;
    struct zinf_config_options load = {.file = options->arguments[0],
                                       .overrides = options->overrides,
                                       .override_count = options->override_count,
                                       .ranks = ranks,
                                       .purpose = ZINF_CONFIG_CHECK,
                                       .limits = options->limits};
    struct zinf_config_report report = {0};
    struct zinf_config *config;
    int status = zinf_config_load(&config, &load, &report);
    if (options->json)
        print_json(report_json(&report, config));
    else
        zinf_command_log_report(&report);
    if (config && !options->json && zinf_options_has(options, "--effective"))
        print_json(zinf_json_copy(config->effective));
    else if (config && !options->json)
        print_summary(config);
    zinf_config_report_release(&report);
    zinf_config_free(config);
    return status;
}

static int run(const struct zinf_context *context)
{
    const struct zinf_options *options = context->options;
    struct zinf_error error;
    int64_t ranks;
    int status = zinf_command_ranks(context, &ranks, &error);
    if (!status && zinf_options_has(options, "--keys")) {
        if (options->json)
            print_json(zinf_keys_json());
        else
            print_keys();
        return 0;
    }
    if (!status && zinf_options_has(options, "--schema")) {
        print_json(zinf_keys_schema());
        return 0;
    }
    if (!status && !options->argument_count)
        status = zinf_error_set(&error, ZINF_E_USAGE,
                                "which file? right is zinf config ds.json, or zinf config --keys");
    if (status) {
        zinf_error_log("%s", error.text);
        return status;
    }
    return check_file(context, (int)ranks);
}

static const struct zinf_option config_options[] = {
    {"--check", NULL,
     "report every problem, what has no effect and what is not yet (also without it)"},
    {"--effective", NULL, "print the complete configuration, every key with its value"},
    {"--ranks", "N", "ranks the batch is counted with (default 1, under mpiexec their number)"},
    {"--keys", NULL, "print all keys: state, type, default, unit, range"},
    {"--schema", NULL, "print a JSON schema for editors"},
    {0}};

const struct zinf_command zinf_command_config_file = {
    .name = "config",
    .arguments = "ds.json [--check|--effective] [--ranks N], or --keys, or --schema",
    .summary = "check a ds.json, print it complete, list the keys",
    .help = "Looks at the file alone, and at config.json of the model's folder if it exists. What "
            "only a run "
            "needs is a note.\nThe log goes to standard error, results to standard output.\n",
    .options = config_options,
    .max_arguments = 1,
    .takes_json = true,
    .run = run};
