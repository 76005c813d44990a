/*
 * The list of commands, and those of the contract that are still to come: they answer by name, so
 * that nobody searches for a typing error.
 */
#include "cli/command.h"

#include <limits.h>
#include <string.h>

#include "base/words.h"

static int not_yet(const struct zinf_context *context)
{
    zinf_error_log("zinf %s: not yet in this version", context->options->command->name);
    return ZINF_E_USAGE;
}

static const struct zinf_option tokenize_options[] = {
    {"--tokenizer", "DIR|FILE|bytes", "what makes the tokens"},
    {"--out", "FILE", "the token file"},
    {"--encode", "TEXT", "print the tokens of a text"},
    {"--decode", "IDS", "print the text of tokens"},
    {0}};
static const struct zinf_option generate_options[] = {
    {"--prompt", "TEXT", "the text to continue"},
    {"--max-new-tokens", "N", "how far"},
    {"--temperature", "T", "0 = always the likeliest token"},
    {"--top-p", "P", "sample from the likeliest tokens of this mass"},
    {"--seed", "S", "of the sampling"},
    {0}};

static const struct zinf_command tokenize = {.name = "tokenize",
                                             .arguments = "FILE...",
                                             .summary = "make a token file (not yet)",
                                             .help = "",
                                             .options = tokenize_options,
                                             .max_arguments = -1,
                                             .run = not_yet};
static const struct zinf_command generate = {.name = "generate",
                                             .arguments = "MODEL_DIR|CHECKPOINT",
                                             .summary = "continue a text (not yet)",
                                             .help = "",
                                             .options = generate_options,
                                             .max_arguments = -1,
                                             .run = not_yet};
// One line a command.
// clang-format off
const struct zinf_command *const zinf_commands[] = {
    &zinf_command_train,
    &zinf_command_eval,
    &zinf_command_plan,
    &tokenize,
    &generate,
    &zinf_command_config_file,
    &zinf_command_inspect,
    &zinf_command_export,
    &zinf_command_report,
    &zinf_command_bench,
    &zinf_command_env,
    &zinf_command_init,
    &zinf_command_help,
    NULL};
// clang-format on

const struct zinf_command *zinf_command_find(const char *name)
{
    for (int i = 0; zinf_commands[i]; i++)
        if (!strcmp(zinf_commands[i]->name, name))
            return zinf_commands[i];
    return NULL;
}

int zinf_command_unknown(const char *word, struct zinf_error *error)
{
    const char *best = "";
    int distance = INT_MAX;
    for (int i = 0; zinf_commands[i]; i++) {
        int this = zinf_word_distance(zinf_commands[i]->name, word);
        if (this < distance) {
            distance = this;
            best = zinf_commands[i]->name;
        }
    }
    if (zinf_word_is_near(word, distance))
        return zinf_error_set(error, ZINF_E_USAGE, "unknown command %s; did you mean %s?", word,
                              best);
    return zinf_error_set(error, ZINF_E_USAGE,
                          "%s is neither a command nor a file; the nearest command is %s, `zinf "
                          "--help` lists all",
                          *word ? word : "an empty word", best);
}
