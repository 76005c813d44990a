/*
 * `zinf env`: what this machine lets a process do. See env.h.
 *
 * I/O is tried with the parts that a run uses (engines, swap files), not with calls of our own:
 * what is said here is what a run will find.
 */
#include "cli/env.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

#include "base/status.h"
#include "io/aio.h"
#include "io/swap.h"
#include "topology/topology.h"

extern char **environ;

void zinf_env_limits(struct zinf_json *limits)
{
    static const struct {
        const char *name;
        __rlimit_resource_t resource;
    } all[] = {{"locked_memory_bytes", RLIMIT_MEMLOCK},
               {"data_bytes", RLIMIT_DATA},
               {"address_space_bytes", RLIMIT_AS},
               {"stack_bytes", RLIMIT_STACK},
               {"file_size_bytes", RLIMIT_FSIZE},
               {"open_files", RLIMIT_NOFILE},
               {"processes", RLIMIT_NPROC}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
        getrlimit(all[i].resource, &limit);
        int64_t value = limit.rlim_cur == RLIM_INFINITY ? -1 : (int64_t)limit.rlim_cur;
        zinf_env_set_number(limits, all[i].name, value, -1);
    }
}

void zinf_env_kernel(struct zinf_json *kernel)
{
    static const char *const files[] = {
        "/proc/sys/kernel/io_uring_disabled",
        "/proc/sys/fs/aio-max-nr",
        "/proc/sys/vm/overcommit_memory",
        "/proc/sys/vm/max_map_count",
        "/proc/sys/vm/swappiness",
        "/proc/sys/kernel/numa_balancing",
        "/proc/sys/kernel/yama/ptrace_scope",
        "/sys/kernel/mm/transparent_hugepage/enabled",
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char line[256] = "";
        FILE *file = fopen(files[i], "re");
        if (file && fgets(line, sizeof line, file)) {
            line[strcspn(line, "\n")] = '\0';
            zinf_env_set(kernel, files[i], "%s", line);
        }
        if (file)
            fclose(file);
    }
}

void zinf_env_engines(struct zinf_json *io)
{
    const struct zinf_aio_options options = {.queue_depth = 1, .block_bytes = 4096, .threads = 1};
    struct zinf_json *engines = zinf_json_new(ZINF_JSON_OBJECT);
    for (int i = 0; zinf_aio_engines()[i]; i++) {
        struct zinf_aio aio = {.engine = zinf_aio_engines()[i]};
        int failure = aio.engine->open(&aio, &options);
        zinf_env_set(engines, aio.engine->name, "%s", failure ? strerror(failure) : "works");
        if (!failure)
            aio.engine->close(&aio);
    }
    zinf_json_set(io, "engines", engines);
}

/* "ext4" of a device number, from the table of mounts: "ID PARENT MAJOR:MINOR ... - TYPE SOURCE
 * ...". */
static bool file_system(dev_t device, char out[64])
{
    FILE *mounts = fopen("/proc/self/mountinfo", "re");
    char line[4096];
    bool found = false;
    while (mounts && !found && fgets(line, sizeof line, mounts)) {
        unsigned number[2];
        const char *type = strstr(line, " - ");
        found = sscanf(line, "%*d %*d %u:%u", &number[0], &number[1]) == 2 && type &&
                number[0] == major(device) && number[1] == minor(device) &&
                sscanf(type, " - %63s", out) == 1;
    }
    if (mounts)
        fclose(mounts);
    return found;
}

static void no_name(void *context, int extent, char *out, size_t out_bytes)
{
    (void)context;
    (void)extent;
    snprintf(out, out_bytes, "a block written by zinf env");
}

/* A swap file of one block, as a run makes it. */
static void try_swap(struct zinf_json *out, const char *path)
{
    const size_t bytes = 4096;
    const struct zinf_swap_options options = {
        .folder = path, .extent_bytes = &bytes, .extent_count = 1, .name = no_name};
    struct zinf_swap *swap = NULL;
    struct zinf_error error = {0};
    if (zinf_swap_open(&swap, &options, &error)) {
        zinf_env_set(out, "swap_file", "%s", error.text);
        return;
    }
    zinf_env_set(out, "swap_file", "works");
    zinf_json_set(out, "direct_io", zinf_json_new_bool(zinf_swap_direct(swap)));
    zinf_swap_close(swap);
}

void zinf_env_path(struct zinf_json *io, const char *path)
{
    struct zinf_json *out = zinf_json_new(ZINF_JSON_OBJECT);
    struct stat about;
    struct statvfs space;
    char type[64];
    zinf_env_set(out, "path", "%s", path);
    if (stat(path, &about) || statvfs(path, &space)) {
        zinf_env_set(out, "swap_file", "%s", strerror(errno));
    } else {
        if (file_system(about.st_dev, type))
            zinf_env_set(out, "file_system", "%s", type);
        zinf_json_set(out, "free_bytes",
                      zinf_json_new_integer((int64_t)space.f_bavail * (int64_t)space.f_frsize));
        zinf_env_set_number(out, "numa_node", zinf_topology_near(path, ""), -1);
        try_swap(out, path);
    }
    zinf_json_set(io, "path", out);
}

void zinf_env_variables(struct zinf_json *variables)
{
    static const char *const begins[] = {"OMP_",      "GOMP_",  "KMP_",   "MPICH_", "MPIR_",
                                         "UCX_",      "FI_",    "OMPI_",  "PMI_",   "PMIX_",
                                         "MPI_",      "HYDRA_", "HWLOC_", "DNNL_",  "ONEDNN_",
                                         "OPENBLAS_", "ZINF_",  "HDF5_",  "CUDA_",  "NCCL_"};
    /* Of Slurm's some sixty only what says how the job lies; accounts and users are nobody's
     * business. */
    static const char *const names[] = {"SLURM_JOB_ID",
                                        "SLURM_STEP_ID",
                                        "SLURM_JOB_NUM_NODES",
                                        "SLURM_JOB_NODELIST",
                                        "SLURM_NTASKS",
                                        "SLURM_TASKS_PER_NODE",
                                        "SLURM_STEP_NUM_TASKS",
                                        "SLURM_PROCID",
                                        "SLURM_LOCALID",
                                        "SLURMD_NODENAME",
                                        "SLURM_CPUS_PER_TASK",
                                        "SLURM_CPU_BIND",
                                        "SLURM_MPI_TYPE",
                                        "SLURM_RESTART_COUNT",
                                        "SLURM_JOB_END_TIME",
                                        "SLURM_TMPDIR",
                                        "TMPDIR",
                                        "LD_PRELOAD"};
    for (char **entry = environ; *entry; entry++) {
        const char *value = strchr(*entry, '=');
        size_t length = value ? (size_t)(value - *entry) : 0;
        bool wanted = false;
        for (size_t i = 0; i < sizeof begins / sizeof *begins; i++)
            wanted = wanted || !strncmp(*entry, begins[i], strlen(begins[i]));
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            wanted = wanted || (strlen(names[i]) == length && !strncmp(*entry, names[i], length));
        if (!wanted || !length)
            continue;
        char *name = zinf_format("%.*s", (int)length, *entry);
        zinf_env_set(variables, name, "%s", value + 1);
        free(name);
    }
}
