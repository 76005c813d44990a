/*
 * What the program says about itself: usage, help of a command, version.
 */
#include "cli/command.h"

#include "base/version.h"

void zinf_print_version(void)
{
    printf("%s\n\n  compiler           %s\n%s", zinf_version(), zinf_build_compiler(),
           zinf_build_libraries());
}

static void print_options(FILE *out, const struct zinf_option *option)
{
    for (; option && option->name; option++) {
        char left[64];
        snprintf(left, sizeof left, "%s %s", option->name,
                 option->argument ? option->argument : "");
        fprintf(out, "  %-28s %s\n", left, option->help);
    }
}

void zinf_print_usage(FILE *out)
{
    fprintf(out, "usage: mpiexec -n RANKS zinf ds.json      train or resume: zinf train ds.json\n"
                 "       zinf COMMAND [ARGUMENT]... [OPTION]...\n\ncommands:\n");
    for (int i = 0; zinf_commands[i]; i++)
        fprintf(out, "  %-10s %s\n", zinf_commands[i]->name, zinf_commands[i]->summary);
    fprintf(out, "\noptions of all commands:\n");
    print_options(out, zinf_global_options);
    fprintf(
        out,
        "\nexit codes: 0 done, 1 failed while running, 2 usage or configuration, 3 does not fit,\n"
        "4 data or model folder, 5 damaged checkpoint, 6 numeric failure, 75 stopped early with a "
        "checkpoint\n");
}

void zinf_print_help(const struct zinf_command *command)
{
    if (!command) {
        zinf_print_usage(stdout);
        return;
    }
    printf("usage: zinf %s %s\n\n%s\n", command->name, command->arguments, command->summary);
    if (command->help[0])
        printf("\n%s", command->help);
    if (command->options) {
        printf("\noptions:\n");
        print_options(stdout, command->options);
    }
    printf("\n`zinf --help` lists the options of all commands.\n");
}

static int run(const struct zinf_context *context)
{
    const struct zinf_options *options = context->options;
    const char *name = options->argument_count ? options->arguments[0] : NULL;
    const struct zinf_command *command = name ? zinf_command_find(name) : NULL;
    if (name && !command) {
        struct zinf_error error;
        zinf_command_unknown(name, &error);
        zinf_error_log("%s", error.text);
        return ZINF_E_USAGE;
    }
    zinf_print_help(command);
    return 0;
}

const struct zinf_command zinf_command_help = {.name = "help",
                                               .arguments = "[COMMAND]",
                                               .summary = "what a command does and takes",
                                               .help = "",
                                               .max_arguments = 1,
                                               .run = run};
