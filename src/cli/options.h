/*
 * The command line: global options before or after the command and its file, and the options a command declares itself.
 */
#ifndef ZINF_CLI_OPTIONS_H
#define ZINF_CLI_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "train/config.h"

#ifdef __cplusplus
extern "C" {
#endif

/** An option a command takes besides the global ones. A list ends with a zeroed entry. */
struct zinf_option {
    const char *name;     /* "--checkpoint" */
    const char *argument; /* "PATH"; NULL = a flag */
    const char *help;
};

struct zinf_command;

struct zinf_options {
    const struct zinf_command *command;
    bool help, version;
    bool json, quiet, verbose;
    struct zinf_config_override *overrides; /* --set, --run-dir, --resume, --device in their order; owned */
    int override_count;
    struct zinf_config_limits limits;
    const char **arguments; /* what is no option and not the command; array owned, strings borrowed from argv */
    int argument_count;
    const struct zinf_option **given; /* the command's own options as they came, with their values */
    const char **given_values;
    int given_count;
};

/**
 * Read argv. Local.
 * @param options  out; zinf_options_release(); argv stays in use
 * @return 0, or ZINF_E_USAGE with the nearest known command or option
 */
int zinf_options_parse(struct zinf_options *options, int argc, char **argv, struct zinf_error *error);
void zinf_options_release(struct zinf_options *options);

/** Value of a command's own option, the last one given; `otherwise` when absent. Flags: "" when given. */
const char *zinf_options_value(const struct zinf_options *options, const char *name,
                               const char *otherwise);
bool zinf_options_has(const struct zinf_options *options, const char *name);
/** The same as an integer of at least `minimum`. @return 0 or ZINF_E_USAGE; *value stays as it is when the option is absent */
int zinf_options_integer(const struct zinf_options *options, const char *name, int64_t minimum,
                         int64_t *value, struct zinf_error *error);

extern const struct zinf_option zinf_global_options[];

#ifdef __cplusplus
}
#endif
#endif
