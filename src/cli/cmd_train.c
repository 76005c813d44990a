/*
 * `zinf ds.json` and `zinf train ds.json`: a run from its configuration to its results.
 */
#include "cli/command.h"

#include "base/signals.h"
#include "train/run.h"

static int train(struct zinf_run *run)
{
    int status;
    if (run->comm->rank == 0)
        zinf_run_banner(run);
    if (run->config->limits.dry_run) {
        zinf_info("--dry-run: everything fits and agrees; nothing was trained or written");
        return ZINF_OK;
    }
    status = zinf_run_train(run);
    zinf_run_end_table(run);
    run->results.ended = true;
    /* Only rank 0 writes the file; that it could not is a failure of the run. */
    int written = zinf_comm_agree(run->comm, zinf_run_write_results(run, status));
    return status ? status : written;
}

static int run_train(const struct zinf_context *context)
{
    struct zinf_config *config = NULL;
    struct zinf_run run = {0};
    int status = zinf_command_config(context, ZINF_CONFIG_TRAIN, &config);
    if (!status)
        status = zinf_comm_agree(context->comm, zinf_signals_install());
    if (!status)
        status = zinf_run_open_training(&run, config, context->comm);
    if (!status)
        status = train(&run);
    zinf_run_close(&run);
    zinf_config_free(config);
    return status;
}

const struct zinf_command zinf_command_train = {
    .name = "train",
    .arguments = "ds.json",
    .summary = "train, fine-tune, resume (the same as `zinf ds.json`)",
    .help = "Trains the model that ds.json describes, on all ranks of mpiexec or srun.\n"
            "The same command line goes on from the newest whole checkpoint of the run folder.\n"
            "SIGTERM (or touch <run.dir>/STOP) writes a checkpoint and leaves with exit code 75;\n"
            "SIGUSR1 writes a checkpoint and goes on.\n",
    .min_arguments = 1,
    .max_arguments = 1,
    .parallel = true,
    .run = run_train};
