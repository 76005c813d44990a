/*
 * Reading the command line. Own parser, because getopt_long knows neither options that depend on a
 * command standing behind them nor the nearest known word.
 *
 * Two passes: the first finds the command (the first argument that is no option and no option's
 * value), the second reads everything with the options that command declares.
 */
#include "cli/options.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/words.h"
#include "cli/command.h"
#include "train/config_keys.h"

const struct zinf_option zinf_global_options[] = {
    {"--set", "a.b.c=VALUE", "set a key of ds.json (JSON value; repeatable; wins over the file)"},
    {"--run-dir", "DIR", "the run folder (zinf.run.dir)"},
    {"--resume", "auto|never|PATH", "where to go on from (zinf.checkpoint.resume)"},
    {"--max-steps", "N", "stop once step N is done, with a checkpoint; the schedule's total stays"},
    {"--max-hours", "H", "stop in time, with a checkpoint"},
    {"--dry-run", NULL, "check everything a run needs, then stop before the first step"},
    {"--device", "auto|cpu|cuda", "where to compute (zinf.device)"},
    {"--threads", "N", "threads of each rank (default: available cores / ranks of the node)"},
    {"--deterministic", NULL, "sums in a fixed order everywhere (always so on CPUs)"},
    {"--json", NULL, "one JSON object on standard output and nothing else there"},
    {"-q", NULL, "warnings and errors only"},
    {"-v", NULL, "details too"},
    {"--version", NULL, "version and libraries"},
    {"--help", NULL, "this text; `zinf help COMMAND` for a command"},
    {0}};

static const struct {
    const char *option, *path;
} config_options[] = {{"--run-dir", "zinf.run.dir"},
                      {"--resume", "zinf.checkpoint.resume"},
                      {"--device", "zinf.device"}};

static const struct zinf_option *find_option(const struct zinf_option *list, const char *name,
                                             size_t length)
{
    for (; list && list->name; list++)
        if (!strncmp(list->name, name, length) && !list->name[length])
            return list;
    return NULL;
}

/* Of a command when it is known, else of any command: enough to know whether a value follows. */
static const struct zinf_option *find_known(const struct zinf_command *command, const char *text)
{
    static const char *const spelled[][2] = {
        {"-h", "--help"}, {"--quiet", "-q"}, {"--verbose", "-v"}};
    size_t length = strcspn(text, "=");
    for (int i = 0; i < 3; i++)
        if (!strcmp(text, spelled[i][0])) {
            text = spelled[i][1];
            length = strlen(text);
        }
    const struct zinf_option *found = find_option(zinf_global_options, text, length);
    if (!found && command)
        found = find_option(command->options, text, length);
    for (int i = 0; !found && !command && zinf_commands[i]; i++)
        found = find_option(zinf_commands[i]->options, text, length);
    return found;
}

static void nearest(const struct zinf_option *list, const char *word, const char **best,
                    int *distance)
{
    for (; list && list->name; list++) {
        int this = zinf_word_distance(list->name, word);
        if (this < *distance) {
            *distance = this;
            *best = list->name;
        }
    }
}

/* The key of ds.json whose last part is spelled like the option, e.g. zinf.bind for --bind; zinf's
 * own come first. NULL: none. */
static const char *key_of_option(const char *word)
{
    size_t count;
    const struct zinf_key *keys = zinf_keys(&count);
    char *name = zinf_strdup(word + strspn(word, "-"));
    const char *found = NULL;
    for (char *at = name; *at; at++)
        *at = *at == '-' ? '_' : *at;
    for (size_t i = 0; i < count && !found; i++) {
        const char *dot = strrchr(keys[i].path, '.');
        if (!strcmp(name, keys[i].path) || (dot && !strcmp(name, dot + 1)))
            found = keys[i].path;
    }
    free(name);
    return found;
}

static int unknown_option(const struct zinf_command *command, const char *text,
                          struct zinf_error *error)
{
    const char *best = "";
    int distance = INT_MAX;
    char *word = strndup(text, strcspn(text, "="));
    const char *key = key_of_option(word);
    nearest(zinf_global_options, word, &best, &distance);
    nearest(command ? command->options : NULL, word, &best, &distance);
    if (key)
        zinf_error_set(error, ZINF_E_USAGE,
                       "unknown option %s; did you mean the key of ds.json, --set %s=VALUE?", word,
                       key);
    else if (zinf_word_is_near(word, distance))
        zinf_error_set(error, ZINF_E_USAGE, "unknown option %s; did you mean %s?", word, best);
    else
        zinf_error_set(error, ZINF_E_USAGE,
                       "unknown option %s; the nearest known one is %s, `zinf help%s%s` lists all",
                       word, best, command ? " " : "", command ? command->name : "");
    free(word);
    return ZINF_E_USAGE;
}

/* `zinf ds.json` is `zinf train ds.json`: a word that is a file, or is spelled like one. */
static bool is_file(const char *word)
{
    struct stat info;
    size_t length = strlen(word);
    return strchr(word, '/') || (length > 5 && !strcmp(word + length - 5, ".json")) ||
           !stat(word, &info);
}

/* @return the index in argv of the command's name, 0 when the file stands without one, negative:
 * ZINF_E_USAGE */
static int find_command(struct zinf_options *options, int argc, char **argv,
                        struct zinf_error *error)
{
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--")) {
            continue;
        } else if (argv[i][0] == '-' && argv[i][1]) {
            const struct zinf_option *known = find_known(NULL, argv[i]);
            if (!known)
                return unknown_option(NULL, argv[i], error);
            i += known->argument && !strchr(argv[i], '=');
            continue;
        }
        options->command = zinf_command_find(argv[i]);
        if (options->command)
            return i;
        if (!is_file(argv[i]))
            return zinf_command_unknown(argv[i], error);
        options->command = zinf_command_find("train");
        return 0;
    }
    return 0;
}

static void add_override(struct zinf_options *options, struct zinf_config_override override)
{
    size_t count = (size_t)options->override_count + 1;
    options->overrides = zinf_realloc(options->overrides, count * sizeof *options->overrides);
    options->overrides[options->override_count++] = override;
}

static int take_set(struct zinf_options *options, const char *value, struct zinf_error *error)
{
    const char *equals = strchr(value, '=');
    if (!equals || equals == value)
        return zinf_error_set(error, ZINF_E_USAGE,
                              "--set %s: a key and a value should stand here, e.g. --set "
                              "zero_optimization.stage=3",
                              value);
    char *path = strndup(value, (size_t)(equals - value));
    add_override(options,
                 (struct zinf_config_override){path, equals + 1, zinf_format("--set %s", path)});
    return 0;
}

static int take_count(const char *name, const char *value, int64_t minimum, int64_t *out,
                      struct zinf_error *error)
{
    char *end;
    errno = 0;
    long long number = strtoll(value, &end, 10);
    if (errno || end == value || *end || number < minimum)
        return zinf_error_set(error, ZINF_E_USAGE,
                              "%s %s: a whole number of at least %lld should stand here", name,
                              value, (long long)minimum);
    *out = number;
    return 0;
}

static int take_hours(struct zinf_options *options, const char *value, struct zinf_error *error)
{
    char *end;
    double hours = strtod(value, &end);
    if (end == value || *end || !(hours > 0) || hours > 1e6)
        return zinf_error_set(
            error, ZINF_E_USAGE,
            "--max-hours %s: a number of hours above 0 should stand here, e.g. 11.5", value);
    options->limits.max_hours = hours;
    return 0;
}

static int take_global(struct zinf_options *options, const char *name, const char *value,
                       struct zinf_error *error)
{
    int64_t count = 0;
    int status = 0;
    for (size_t i = 0; i < sizeof config_options / sizeof *config_options; i++)
        if (!strcmp(name, config_options[i].option)) {
            add_override(options, (struct zinf_config_override){zinf_strdup(config_options[i].path),
                                                                value, zinf_strdup(name)});
            return 0;
        }
    if (!strcmp(name, "--set"))
        status = take_set(options, value, error);
    else if (!strcmp(name, "--max-steps"))
        status = take_count(name, value, 1, &options->limits.max_steps, error);
    else if (!strcmp(name, "--max-hours"))
        status = take_hours(options, value, error);
    else if (!strcmp(name, "--threads"))
        status = take_count(name, value, 1, &count, error);
    else if (!strcmp(name, "--dry-run"))
        options->limits.dry_run = true;
    else if (!strcmp(name, "--deterministic"))
        options->limits.deterministic = true;
    else
        *(!strcmp(name, "--json")      ? &options->json
          : !strcmp(name, "-q")        ? &options->quiet
          : !strcmp(name, "-v")        ? &options->verbose
          : !strcmp(name, "--version") ? &options->version
                                       : &options->help) = true;
    if (count > 4096)
        return zinf_error_set(error, ZINF_E_USAGE, "--threads %s: more than 4096 threads", value);
    if (count)
        options->limits.threads = (int)count;
    return status;
}

static void take_own(struct zinf_options *options, const struct zinf_option *option,
                     const char *value)
{
    size_t count = (size_t)options->given_count + 1;
    options->given = zinf_realloc(options->given, count * sizeof *options->given);
    options->given_values =
        zinf_realloc(options->given_values, count * sizeof *options->given_values);
    options->given[options->given_count] = option;
    options->given_values[options->given_count++] = value;
}

/* argv[*i] is an option; *i moves over its value. */
static int take_option(struct zinf_options *options, int argc, char **argv, int *i,
                       struct zinf_error *error)
{
    const struct zinf_option *option = find_known(options->command, argv[*i]);
    const char *value = strchr(argv[*i], '=');
    if (!option || (!options->command &&
                    !find_option(zinf_global_options, option->name, strlen(option->name))))
        return unknown_option(options->command, argv[*i], error);
    if (!option->argument && value)
        return zinf_error_set(error, ZINF_E_USAGE, "%s takes no value", option->name);
    if (value)
        value++;
    else if (option->argument) {
        if (*i + 1 >= argc)
            return zinf_error_set(error, ZINF_E_USAGE, "%s needs a value: %s %s", option->name,
                                  option->name, option->argument);
        value = argv[++*i];
    }
    if (find_option(zinf_global_options, option->name, strlen(option->name)))
        return take_global(options, option->name, value, error);
    take_own(options, option, value ? value : "");
    return 0;
}

static int check_arguments(const struct zinf_options *options, struct zinf_error *error)
{
    const struct zinf_command *command = options->command;
    if (!command || options->help || options->version)
        return 0;
    if (options->argument_count < command->min_arguments)
        return zinf_error_set(error, ZINF_E_USAGE, "something is missing; right is: zinf %s %s",
                              command->name, command->arguments);
    if (command->max_arguments >= 0 && options->argument_count > command->max_arguments)
        return zinf_error_set(
            error, ZINF_E_USAGE, "%s is one argument too many; right is: zinf %s %s",
            options->arguments[command->max_arguments], command->name, command->arguments);
    if (options->json && !command->takes_json)
        return zinf_error_set(error, ZINF_E_USAGE, "zinf %s has no --json", command->name);
    return 0;
}

int zinf_options_parse(struct zinf_options *options, int argc, char **argv,
                       struct zinf_error *error)
{
    bool only_arguments = false;
    memset(options, 0, sizeof *options);
    options->arguments = zinf_alloc((size_t)argc * sizeof *options->arguments);
    int command_at = find_command(options, argc, argv, error),
        status = command_at < 0 ? command_at : 0;
    for (int i = 1; i < argc && !status; i++) {
        if (i == command_at)
            continue;
        if (!only_arguments && !strcmp(argv[i], "--"))
            only_arguments = true;
        else if (!only_arguments && argv[i][0] == '-' && argv[i][1])
            status = take_option(options, argc, argv, &i, error);
        else
            options->arguments[options->argument_count++] = argv[i];
    }
    if (!status)
        status = check_arguments(options, error);
    return status;
}

void zinf_options_release(struct zinf_options *options)
{
    for (int i = 0; i < options->override_count; i++) {
        free((char *)options->overrides[i].path);
        free((char *)options->overrides[i].place);
    }
    free(options->overrides);
    free(options->arguments);
    free(options->given);
    free(options->given_values);
    memset(options, 0, sizeof *options);
}

const char *zinf_options_value(const struct zinf_options *options, const char *name,
                               const char *otherwise)
{
    for (int i = options->given_count - 1; i >= 0; i--)
        if (!strcmp(options->given[i]->name, name))
            return options->given_values[i];
    return otherwise;
}

bool zinf_options_has(const struct zinf_options *options, const char *name)
{
    return zinf_options_value(options, name, NULL) != NULL;
}

int zinf_options_integer(const struct zinf_options *options, const char *name, int64_t minimum,
                         int64_t *value, struct zinf_error *error)
{
    const char *text = zinf_options_value(options, name, NULL);
    return text ? take_count(name, text, minimum, value, error) : 0;
}
