/*
 * The program: reads the command line, finds the command, starts MPI where it is needed, and turns
 * a status into the exit code.
 *
 * Everything works under mpiexec. Commands that are not parallel then run on rank 0 only, so that
 * output and files come once, and the other ranks wait for its status: the exit code is the same on
 * every rank. Only bench takes the whole job where there is one.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "cli/command.h"
#include "topology/comm_mpi.h"

/* A number a launcher left in the environment; hydra and srun --mpi=pmi2, PMIx, Open MPI. */
static int launcher_number(const char *const names[3], int otherwise)
{
    for (int i = 0; i < 3; i++) {
        const char *value = getenv(names[i]);
        if (value && *value)
            return atoi(value);
    }
    return otherwise;
}

static int launcher_rank(void)
{
    const char *const names[3] = {"PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK"};
    return launcher_number(names, 0);
}

static bool launched(void)
{
    const char *const names[3] = {"PMI_SIZE", "PMIX_RANK", "OMPI_COMM_WORLD_SIZE"};
    return launcher_number(names, -1) >= 0;
}

/* --help, --version and nothing at all: answered without MPI, by the first rank. Returns false when
 * there is a command to run. */
static bool answered(const struct zinf_options *options, bool first, int *status)
{
    bool asked = options->help || options->version;
    if (!asked && options->command)
        return false;
    if (!asked)
        *status = ZINF_E_USAGE;
    if (!first)
        return true;
    if (options->version)
        zinf_print_version();
    else if (asked)
        zinf_print_help(options->command);
    else
        zinf_print_usage(stderr);
    return true;
}

static int run_parallel(const struct zinf_options *options, struct zinf_comm *comm)
{
    struct zinf_context context = {options, comm, comm->size};
    return options->command->run(&context);
}

/* On rank 0 alone; the others get its status. */
static int run_serial(const struct zinf_options *options, struct zinf_comm *comm)
{
    struct zinf_comm alone = {.size = 1, .local_size = 1};
    struct zinf_context context = {options, &alone, comm->size};
    int status = comm->rank == 0 ? options->command->run(&context) : 0;
    return zinf_comm_agree(comm, status);
}

static int run(const struct zinf_options *options, int argc, char **argv)
{
    struct zinf_comm comm = {.size = 1, .local_size = 1};
    struct zinf_log_options log = {
        .rank = launcher_rank(), .quiet = options->quiet, .verbose = options->verbose};
    bool parallel = options->command->parallel;
    zinf_log_configure(&log);
    if (parallel || launched()) {
        int status = zinf_comm_mpi_open(&comm, &argc, &argv);
        if (status)
            return status;
        log.rank = comm.rank;
        zinf_log_configure(&log);
    } else {
        zinf_fault_init(0);
    }
    bool all = parallel || options->command->takes_job;
    int status = all ? run_parallel(options, &comm) : run_serial(options, &comm);
    if (comm.ops)
        comm.ops->close(&comm);
    return status;
}

/* Results that nobody got are none: a full disk behind `zinf plan --json > FILE`. */
static int check_output(int status)
{
    bool now = fflush(stdout) != 0; /* else the reason is no longer known */
    if (!now && !ferror(stdout))
        return status;
    zinf_error_log("standard output cannot be written%s%s", now ? ": " : "",
                   now ? strerror(errno) : "");
    return status ? status : ZINF_E_RUNTIME;
}

int main(int argc, char **argv)
{
    struct zinf_options options;
    struct zinf_error error;
    bool first = launcher_rank() == 0;
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is an error of write(2), told like a full disk */
    int status = zinf_options_parse(&options, argc, argv, &error);
    if (status && first)
        zinf_error_log("%s", error.text);
    if (!status && !answered(&options, first, &status))
        status = run(&options, argc, argv);
    zinf_options_release(&options);
    return zinf_exit_code(check_output(status));
}
