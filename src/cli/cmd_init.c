/*
 * zinf init NAME: a folder with a ds.json and a Slurm job script to begin with. Nothing that exists
 * is overwritten.
 */
#include "cli/command.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char example_config[] =
    "// A DeepSpeed configuration with zinf's own keys in \"zinf\". `zinf config ds.json` checks "
    "it, `zinf config --keys` "
    "lists all keys.\n"
    "{\n"
    "  \"train_micro_batch_size_per_gpu\": 4,      // samples a rank computes at once\n"
    "  \"gradient_accumulation_steps\": 1,\n"
    "  \"gradient_clipping\": 1.0,\n"
    "  \"steps_per_print\": 10,\n"
    "  \"bf16\": {\"enabled\": false},\n"
    "  \"zero_optimization\": {\"stage\": 3},      // every rank holds 1/N of weights, gradients "
    "and optimizer state\n"
    "  \"optimizer\": {\"type\": \"AdamW\", \"params\": {\"lr\": 1e-3, \"betas\": [0.9, 0.99], "
    "\"weight_decay\": 0.1}},\n"
    "  \"scheduler\": {\"type\": \"WarmupCosineLR\", \"params\": {\"total_num_steps\": \"auto\", "
    "\"warmup_num_steps\": 50}},\n"
    "  \"zinf\": {\n"
    "    // a new small model; {\"path\": \"FOLDER\"} instead takes a Hugging Face folder\n"
    "    \"model\": {\"config\": {\"model_type\": \"gpt2\", \"n_layer\": 6, \"n_head\": 8, "
    "\"n_embd\": 256, \"n_positions\": 256, "
    "\"vocab_size\": 257}},\n"
    "    \"data\": {\"train\": \"train.txt\", \"tokenizer\": \"bytes\", \"sequence_length\": "
    "256},\n"
    "    \"train\": {\"steps\": 1000, \"seed\": 42},\n"
    "    \"checkpoint\": {\"every_steps\": 200, \"num_to_keep\": 2},\n"
    "    \"run\": {\"dir\": \"run\"}\n"
    "  }\n"
    "}\n";

static const char example_job[] =
    "#!/bin/sh\n"
    "# sbatch job.sbatch: two ranks a node, their cores as threads. Ten minutes before the time "
    "limit Slurm sends SIGTERM:\n"
    "# zinf writes a checkpoint and leaves with 75, the job goes back into the queue and continues "
    "from there.\n"
    "#SBATCH --job-name=zinf\n"
    "#SBATCH --nodes=1\n"
    "#SBATCH --ntasks-per-node=2\n"
    "#SBATCH --cpus-per-task=4\n"
    "#SBATCH --time=04:00:00\n"
    "#SBATCH --signal=TERM@600\n"
    "#SBATCH --requeue\n"
    "#SBATCH --open-mode=append\n"
    "#SBATCH --output=%x-%j.out\n"
    "\n"
    "srun --mpi=\"${ZINF_PMI:-pmi2}\" --cpus-per-task=\"$SLURM_CPUS_PER_TASK\" \"${ZINF:-zinf}\" "
    "ds.json \"$@\"\n"
    "status=$?\n"
    "[ $status -eq 75 ] && scontrol requeue \"$SLURM_JOB_ID\"\n"
    "exit $status\n";

/* O_EXCL: between a look and a write somebody else may have made the file. */
static int write_new(const char *path, const char *text, mode_t mode)
{
    int file = open(path, O_WRONLY | O_CREAT | O_EXCL, mode);
    if (file < 0) {
        if (errno == EEXIST)
            zinf_error_log("%s exists already and is not overwritten; give another name", path);
        else
            zinf_error_log("%s: cannot be written: %s", path, strerror(errno));
        return ZINF_E_USAGE;
    }
    size_t bytes = strlen(text);
    bool written = write(file, text, bytes) == (ssize_t)bytes;
    int failure = errno;
    if (close(file) || !written) {
        zinf_error_log("%s: cannot be written: %s", path, strerror(written ? errno : failure));
        unlink(path);
        return ZINF_E_RUNTIME;
    }
    return 0;
}

static int run(const struct zinf_context *context)
{
    const char *folder = context->options->arguments[0];
    bool made = !mkdir(folder, 0777);
    if (!made && errno != EEXIST) {
        zinf_error_log("%s: cannot be made: %s", folder, strerror(errno));
        return ZINF_E_USAGE;
    }
    char *config = zinf_format("%s/ds.json", folder), *job = zinf_format("%s/job.sbatch", folder);
    int status = write_new(config, example_config, 0666);
    if (!status && (status = write_new(job, example_job, 0777)))
        unlink(config);
    if (status && made)
        rmdir(folder);
    if (!status)
        zinf_info(
            "wrote %s and %s\nput text in %s/train.txt, then: cd %s && mpiexec -n 2 zinf ds.json",
            config, job, folder, folder);
    free(config);
    free(job);
    return status;
}

const struct zinf_command zinf_command_init = {
    .name = "init",
    .arguments = "NAME",
    .summary = "write an example ds.json and job script into a new folder",
    .help = "Writes NAME/ds.json and NAME/job.sbatch. Files that exist are never overwritten.\n",
    .min_arguments = 1,
    .max_arguments = 1,
    .run = run};
