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

/* jobscripts/example.json and jobscripts/zinf.sbatch; the build makes example_files.c from them. */
extern const char zinf_example_config[], zinf_example_job[];

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
    int status = write_new(config, zinf_example_config, 0666);
    if (!status && (status = write_new(job, zinf_example_job, 0777)))
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
