/*
 * A configuration for a command: read on every rank, told once, agreed by all.
 */
#include "cli/command.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void log_list(enum zinf_log_level level, const struct zinf_error_list *list)
{
    char line[2300];
    for (size_t i = 0; i < list->count; i++) {
        zinf_error_print(&list->items[i], line, sizeof line);
        zinf_log(level, "%s", line);
    }
}

/* One line for all: "no effect here: a, b, c". */
static void log_joined(const char *title, const struct zinf_error_list *list)
{
    char line[6000];
    size_t used = 0;
    for (size_t i = 0; i < list->count && used < sizeof line - 1; i++)
        used += (size_t)snprintf(line + used, sizeof line - used, "%s%s", i ? ", " : "",
                                 list->items[i].text);
    if (list->count)
        zinf_info("%s%s", title, line);
}

void zinf_command_log_report(const struct zinf_config_report *report)
{
    log_list(ZINF_LOG_ERROR, &report->errors);
    log_list(ZINF_LOG_WARNING, &report->warnings);
    log_joined("filled in: ", &report->filled);
    log_joined("no effect here: ", &report->no_effect);
    log_joined("not yet in this version: ", &report->not_yet);
    log_list(ZINF_LOG_INFO, &report->notes);
}

int zinf_command_ranks(const struct zinf_context *context, int64_t *ranks, struct zinf_error *error)
{
    int64_t given = context->ranks;
    int status = zinf_options_integer(context->options, "--ranks", 1, &given, error);
    if (status)
        return status;
    if (given > 1 << 24)
        return zinf_error_set(error, ZINF_E_USAGE, "--ranks %lld: more than 16777216 ranks",
                              (long long)given);
    *ranks = given;
    return 0;
}

/* The first rank whose status is the one agreed on: it speaks. */
static bool speaks(struct zinf_comm *comm, int status, int agreed)
{
    if (comm->size == 1)
        return true;
    int32_t mine = status, *all = zinf_alloc((size_t)comm->size * sizeof *all);
    int first = 0;
    zinf_comm_gather_small(comm, &mine, sizeof mine, all);
    while (first < comm->size - 1 && all[first] != agreed)
        first++;
    free(all);
    return comm->rank == first;
}

/* Several ranks read the file, each for itself; a pipe gives its bytes to one of them, or makes the
 * others wait for ever. */
static int check_readable(const struct zinf_context *context)
{
    const char *path = context->options->arguments[0];
    struct stat status;
    int wrong = context->comm->size > 1 && !stat(path, &status) && !S_ISREG(status.st_mode) &&
                !S_ISDIR(status.st_mode);
    int agreed = zinf_comm_agree(context->comm, wrong ? ZINF_E_USAGE : ZINF_OK);
    if (agreed && context->comm->rank == 0)
        zinf_error_log("%s is no plain file: every rank reads the configuration for itself, which "
                       "pipes and devices do not allow; write it to a file",
                       path);
    return agreed;
}

int zinf_command_config(const struct zinf_context *context, enum zinf_config_purpose purpose,
                        struct zinf_config **config)
{
    const struct zinf_options *options = context->options;
    struct zinf_config_options load = {.file = options->arguments[0],
                                       .overrides = options->overrides,
                                       .override_count = options->override_count,
                                       .ranks = context->ranks,
                                       .purpose = purpose,
                                       .limits = options->limits};
    struct zinf_config_report report = {0};
    struct zinf_config *loaded = NULL;
    int status = check_readable(context);
    if (status)
        return status;
    status = zinf_config_load(&loaded, &load, &report);
    int agreed = zinf_comm_agree(context->comm, status);
    if (speaks(context->comm, status, agreed))
        zinf_command_log_report(&report);
    zinf_config_report_release(&report);
    if (agreed) {
        zinf_config_free(loaded);
        return agreed;
    }
    *config = loaded;
    return 0;
}
