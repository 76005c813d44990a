/*
 * A command: one file cmd_NAME.c with a `const struct zinf_command zinf_command_NAME` at its end, and one line in commands.c.
 */
#ifndef ZINF_CLI_COMMAND_H
#define ZINF_CLI_COMMAND_H

#include "cli/options.h"
#include "topology/comm.h"
#include "train/config.h"

#ifdef __cplusplus
extern "C" {
#endif

/** What a command gets. */
struct zinf_context {
    const struct zinf_options *options;
    struct zinf_comm *comm; /* commands that are not parallel run on rank 0 only, with a communicator of size 1 (ops NULL) */
    int ranks;              /* of the job: what `zinf config` counts with when it runs alone on rank 0 */
};

struct zinf_command {
    const char *name;
    const char *arguments; /* "ds.json", "PATH [--verify]" */
    const char *summary;   /* one line of --help */
    const char *help;      /* the text of `zinf help NAME`, behind the usage line */
    const struct zinf_option *options; /* its own; NULL = none */
    int min_arguments, max_arguments;  /* max < 0: any number */
    bool parallel;                     /* starts MPI and runs on every rank */
    bool takes_job;                    /* not parallel; started as a job, it runs on every rank all the same */
    bool takes_json;                   /* knows --json */
    /** @return 0 or a negative status; the same on all ranks; a message was logged before a failure */
    int (*run)(const struct zinf_context *context);
};

/** All commands, in the order of --help; NULL behind the last. */
extern const struct zinf_command *const zinf_commands[];
const struct zinf_command *zinf_command_find(const char *name);
/** What to say to a word that is none. @return ZINF_E_USAGE */
int zinf_command_unknown(const char *word, struct zinf_error *error);

/**
 * Load options->arguments[0] on every rank, log errors, warnings and the lists once, and agree. Collective over context->comm.
 * @return 0 or the same failure on all ranks; *config is the caller's, zinf_config_free()
 */
int zinf_command_config(const struct zinf_context *context, enum zinf_config_purpose purpose,
                        struct zinf_config **config);
/** --ranks N, else the ranks of the job; at most 2^24, which every product with a batch survives. @return 0 or ZINF_E_USAGE */
int zinf_command_ranks(const struct zinf_context *context, int64_t *ranks, struct zinf_error *error);
/** Log everything a report holds, each thing once. Local. */
void zinf_command_log_report(const struct zinf_config_report *report);

/* One declaration a command. */
extern const struct zinf_command zinf_command_train, zinf_command_eval, zinf_command_plan;
extern const struct zinf_command zinf_command_config_file; /* `zinf config` */
extern const struct zinf_command zinf_command_report, zinf_command_bench;
extern const struct zinf_command zinf_command_inspect;
extern const struct zinf_command zinf_command_export;
extern const struct zinf_command zinf_command_env;
extern const struct zinf_command zinf_command_init, zinf_command_help;

/* help.c: standard output unless said */
void zinf_print_version(void);
void zinf_print_usage(FILE *out);
void zinf_print_help(const struct zinf_command *command); /* NULL: of the program */

#ifdef __cplusplus
}
#endif
#endif
