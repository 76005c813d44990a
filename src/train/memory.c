/*
 * The memory of a run: worked out to the byte on counting pools, compared with what a rank may use,
 * taken once.
 */
#include "train/run.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "topology/machine.h"
#include "train/estimate.h"

enum {
    LARGEST_RECORD = 4 << 20, /* elements: 16 MiB a part keeps a drive busy, a ring of four small */
    SMALLEST_RECORD = 64 << 10 /* 256 KiB a part: below it a drive is busy with requests */
};

static enum zinf_tier tier_of(enum zinf_config_device device)
{
    return device == ZINF_CONFIG_DEVICE_NVME  ? ZINF_TIER_NVME
           : device == ZINF_CONFIG_DEVICE_CPU ? ZINF_TIER_HOST
                                              : ZINF_TIER_DEVICE;
}

/* This rank's folder; for a run that is only planned the first of the list, or a name where none is
 * given. */
static const char *folder_of(const char *chosen, const struct zinf_config_list *list)
{
    return chosen ? chosen : list->count > 0 ? list->items[0] : "nvme_path";
}

/* What states and spare extents may take together: the budget, but of a drive without one only half
 * of this rank's share of what is free, for there may be other uses of it. */
static size_t nvme_share(const struct zinf_run *run)
{
    const char *const folders[] = {run->optimizer_path, run->parameter_path, run->activation_path};
    size_t least = run->budget.nvme;
    for (int i = 0; i < 3 && run->budget.nvme == SIZE_MAX; i++) {
        struct statvfs space;
        if (!folders[i] || statvfs(folders[i], &space))
            continue;
        double bytes = 0.5 * (double)space.f_bavail * (double)space.f_frsize;
        size_t share = (size_t)(bytes / run->comm->local_size);
        if (share < least)
            least = share;
    }
    return least;
}

/* sub_group_size is an upper bound, and so is what the budget allows: its default of 1e9 would be
 * 12 GB a record. */
static struct zinf_offload offload_of(const struct zinf_run *run)
{
    const struct zinf_config *config = run->config;
    const struct zinf_config_offload *offload = &config->offload;
    int64_t record = config->zero.sub_group_size;
    size_t inputs = run->step.activations.bytes.nvme; /* as counted before */
    if (record < 1024 || record > run->largest_record)
        record = run->largest_record;
    return (struct zinf_offload){
        .optimizer = tier_of(offload->optimizer),
        .parameters = tier_of(offload->parameters),
        .optimizer_path = folder_of(run->optimizer_path, &offload->optimizer_paths),
        .parameter_path = folder_of(run->parameter_path, &offload->parameter_paths),
        .optimizer_buffers = offload->optimizer_buffers,
        .parameter_buffers = offload->parameter_buffers,
        .record_elements = record / 1024 * 1024,
        .device_blocks = run->device_blocks,
        .ahead = run->ahead,
        .cache_bytes = run->cache_bytes,
        .resident_parameters = offload->max_in_cpu,
        .nvme_bytes = run->nvme_bytes > inputs ? run->nvme_bytes - inputs : 0,
        .checksums = true,
        .queue_depth = offload->queue_depth,
        .io_threads = offload->io_threads,
        .io_block_bytes = (size_t)offload->block_bytes};
}

/* Where the inputs of blocks stand. The folder is the optimizer's, else the parameters'; so is the
 * number of buffers. */
static struct zinf_activations_options activations_of(const struct zinf_run *run)
{
    const struct zinf_config_offload *offload = &run->config->offload;
    enum zinf_config_activations mode = run->config->memory.activations;
    bool optimizers = offload->optimizer_paths.count > 0;
    return (struct zinf_activations_options){
        .tier = mode == ZINF_ACTIVATIONS_NVME  ? ZINF_TIER_NVME
                : mode == ZINF_ACTIVATIONS_CPU ? ZINF_TIER_HOST
                                               : ZINF_TIER_DEVICE,
        .buffers = optimizers ? offload->optimizer_buffers : offload->parameter_buffers,
        .folder = folder_of(run->activation_path,
                            optimizers ? &offload->optimizer_paths : &offload->parameter_paths),
        .checksums = true,
        .io = {.queue_depth = offload->queue_depth,
               .block_bytes = (size_t)offload->block_bytes,
               .threads = offload->io_threads}};
}

/* One pass over everything that takes memory: the first time on a counting pool, the second on the
 * mapped one. */
static void lay_out(struct zinf_run *run, bool training, int kept)
{
    const struct zinf_config *config = run->config;
    const char *names[2];
    const struct zinf_plan *plan = training ? &run->plan : &run->evaluation_plan;
    const struct zinf_zero_options options = {
        .model = run->model,
        .comm = run->comm,
        .direct = run->exchange.direct,
        .link = run->link.ops ? &run->link : NULL,
        .device = &run->processor,
        .ops = run->processor.backend ? run->processor.backend->operations() : zinf_cpu_ops(),
        .sharding = plan->options.sharding,
        .dtype = config->precision.dtype,
        .accumulation_dtype = config->precision.accumulation,
        .wire_dtype = config->precision.communication,
        .training = training,
        .moment_count = training ? zinf_optimizer_state_names(config->optimizer.kind,
                                                              config->optimizer.momentum, names)
                                 : 0,
        .offload = training ? offload_of(run) : (struct zinf_offload){0},
        .no_decay = run->no_decay,
        .watchdog_s = config->watchdog_s};
    const struct zinf_step_options step = {
        .zero = &run->zero,
        .batch = training ? config->batch.micro : 0,
        .sequence = config->data.sequence_length,
        .evaluation_batch = config->data.eval.count ? config->train.eval_micro_batch : 0,
        .micro_count = (int)config->batch.accumulation,
        .activations = activations_of(run),
        .kept_layers = kept < run->model->layers ? kept : (int)run->model->layers,
        .keep_logits = kept > run->model->layers,
        .plan = &run->plan,
        .evaluation_plan = &run->evaluation_plan,
        .dropout_key = zinf_rng_key((uint64_t)config->train.seed, "dropout"),
        .activities = &run->activities,
        .graphs = config->graphs,
        .graph_bytes = run->graph_bytes,
        .first_event = zinf_run_step_event(run, training)};
    zinf_zero_layout(&run->zero, &options, plan, &run->device, &run->host);
    zinf_step_layout(&run->step, &step, &run->device, &run->host);
}

static void count_memory(struct zinf_run *run, bool training, int kept)
{
    size_t inputs;
    do { /* again where the inputs of layers leave less of the drive for spare extents */
        inputs = run->step.activations.bytes.nvme;
        run->device = run->host = (struct zinf_pool){0};
        lay_out(run, training, kept);
    } while (inputs != run->step.activations.bytes.nvme);
    /* what is mapped, locked and reported are whole pages */
    zinf_pool_round(&run->device);
    zinf_pool_round(&run->host);
}

size_t zinf_run_device_bytes(const struct zinf_run *run)
{
    return (run->device.base ? run->device.size_bytes : run->device.used_bytes) +
           run->scratch_bytes + run->graph_bytes;
}

static bool fits(const struct zinf_run *run, const struct zinf_budget *budget)
{
    return zinf_budget_holds(budget, zinf_run_device_bytes(run), run->host.used_bytes);
}

int zinf_run_choose_kept(struct zinf_run *run, bool training, const struct zinf_budget *budget)
{
    enum zinf_config_activations mode = run->config->memory.activations;
    bool may_keep = mode == ZINF_ACTIVATIONS_AUTO || mode == ZINF_ACTIVATIONS_KEEP;
    int layers = (int)run->model->layers, kept = training && may_keep ? layers + 1 : 0;
    int64_t cache = run->config->memory.cache_bytes;
    run->cache_bytes = cache > 0 ? (size_t)cache : 0;
    run->largest_record = LARGEST_RECORD;
    count_memory(run, training, kept);
    while ((mode == ZINF_ACTIVATIONS_AUTO ? kept > 0 : kept > layers) && !fits(run, budget))
        count_memory(run, training, --kept);
    /* Nothing else is left to give: shorter records make shorter rings. */
    while (run->zero.bytes.rings && run->largest_record > SMALLEST_RECORD && !fits(run, budget)) {
        run->largest_record /= 2;
        count_memory(run, training, kept);
    }
    if (!fits(run, budget))
        return -1;
    /* What is resident makes rings smaller, never larger; the three pages are what alignment and
     * rounding may add. */
    size_t left = zinf_budget_host_left(budget, zinf_run_device_bytes(run), run->host.used_bytes);
    if (cache < 0 && left > 12288) {
        run->cache_bytes = left - 12288;
        count_memory(run, training, kept);
    }
    return kept;
}

size_t zinf_run_nvme_bytes(const struct zinf_run *run)
{
    return run->zero.bytes.nvme + run->step.activations.bytes.nvme;
}

/* What a rank puts into each of its folders, and on which file system that is. */
struct claim {
    uint64_t device[3], bytes[3];
};

/* Space on the drives before anything is made there: what all ranks of this node want of a file
 * system against what it has; where that is less, the budget becomes this rank's share of it.
 * Collective. Returns what is wrong, or NULL. */
static char *drive_exceeded(struct zinf_run *run)
{
    const char *const folders[3] = {run->optimizer_path, run->parameter_path, run->activation_path};
    const uint64_t bytes[3] = {run->zero.swap_bytes[0], run->zero.swap_bytes[1],
                               run->step.activations.bytes.nvme};
    const struct zinf_rankmap_row *rows = run->rankmap.rows;
    struct claim mine = {0}, *all = zinf_alloc((size_t)run->comm->size * sizeof *all);
    char *why = NULL;
    for (int i = 0; i < 3; i++) {
        struct stat status;
        if (bytes[i] && folders[i] && !stat(folders[i], &status)) {
            mine.device[i] = (uint64_t)status.st_dev;
            mine.bytes[i] = bytes[i];
        }
    }
    zinf_comm_gather_small(run->comm, &mine, sizeof mine, all);
    for (int i = 0; i < 3 && !why; i++) {
        struct statvfs space;
        double wanted = 0;
        /* A folder that is not there, not ours to write or of no drive (/proc) is told where it is
         * opened. */
        if (!mine.bytes[i] || access(folders[i], W_OK | X_OK) || statvfs(folders[i], &space) ||
            space.f_blocks == 0)
            continue;
        for (int r = 0; r < run->comm->size; r++)
            for (int j = 0; j < 3; j++)
                if (!strcmp(rows[r].host, rows[run->comm->rank].host) &&
                    all[r].device[j] == mine.device[i])
                    wanted += (double)all[r].bytes[j];
        double there = (double)space.f_bavail * (double)space.f_frsize;
        if (wanted <= there)
            continue;
        run->budget.nvme = (size_t)((double)zinf_run_nvme_bytes(run) * there / wanted);
        why = zinf_format("%.1f MiB on NVMe; nvme_path %s: the ranks of this node need %.1f MiB "
                          "there, %.1f MiB are free",
                          (double)zinf_run_nvme_bytes(run) / 1048576, folders[i], wanted / 1048576,
                          there / 1048576);
    }
    free(all);
    return why;
}

static void say_does_not_fit(const struct zinf_run *run, const char *why)
{
    const struct zinf_zero_bytes *bytes = &run->zero.bytes;
    const double mib = 1024.0 * 1024.0;
    char *table = zinf_estimate_alternatives(run->config, run->comm->size, &run->budget);
    zinf_error_log("this does not fit: rank %d needs %s\n"
                   "  weights        %8.1f MiB\n"
                   "  gradients      %8.1f MiB\n"
                   "  optimizer      %8.1f MiB\n"
                   "  windows        %8.1f MiB\n"
                   "  communication  %8.1f MiB\n"
                   "  staging        %8.1f MiB\n"
                   "  rings          %8.1f MiB\n"
                   "  cache          %8.1f MiB\n"
                   "  activations    %8.1f MiB on the device, %.1f MiB of blocks' inputs in host "
                   "memory\n"
                   "  scratch        %8.1f MiB\n"
                   "  graphs         %8.1f MiB\n"
                   "  on NVMe        %8.1f MiB\n"
                   "use more ranks, a smaller micro-batch or sequence length, or what fits of\n%s",
                   run->comm->rank, why, (double)bytes->weights / mib,
                   (double)bytes->gradients / mib, (double)bytes->optimizer / mib,
                   (double)bytes->windows / mib, (double)bytes->communication / mib,
                   (double)bytes->staging / mib, (double)bytes->rings / mib,
                   (double)bytes->cache / mib, (double)run->step.activation_bytes / mib,
                   (double)run->step.activations.bytes.host / mib, (double)run->scratch_bytes / mib,
                   (double)run->graph_bytes / mib, (double)zinf_run_nvme_bytes(run) / mib, table);
    free(table);
}

/* The first rank that has something to say says it. Collective. */
static int agree_to_fit(struct zinf_run *run, const char *why)
{
    int wrong = why != NULL, first = -1;
    int *all = zinf_alloc((size_t)run->comm->size * sizeof *all);
    zinf_comm_gather_small(run->comm, &wrong, sizeof wrong, all);
    for (int i = run->comm->size - 1; i >= 0; i--)
        if (all[i])
            first = i;
    free(all);
    if (first == run->comm->rank)
        say_does_not_fit(run, why);
    return first < 0 ? ZINF_OK : ZINF_E_DOES_NOT_FIT;
}

/* Pages that I/O fills must stay where they are. Without the right to lock them the run is slower,
 * not wrong. */
static void lock_host_memory(struct zinf_run *run)
{
    struct rlimit limit;
    if (!run->host.base)
        return;
    if (!getrlimit(RLIMIT_MEMLOCK, &limit) && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_MEMLOCK, &limit);
    }
    run->host.locked = !mlock(run->host.base, run->host.size_bytes);
    if (run->host.locked)
        run->pinned_bytes = run->host.size_bytes;
    else
        zinf_warn("%.1f MiB of host memory can be neither locked nor registered for I/O, which "
                  "costs more CPU time (%s; the limit of locked memory is %.0f KiB): type "
                  "`ulimit -l unlimited` before the start, in Slurm set "
                  "PropagateResourceLimits=MEMLOCK",
                  (double)run->host.size_bytes / (1024.0 * 1024.0), strerror(errno),
                  (double)limit.rlim_cur / 1024);
}

static size_t least_of_all(struct zinf_comm *comm, size_t mine)
{
    size_t *all = zinf_alloc((size_t)comm->size * sizeof *all), least = mine;
    zinf_comm_gather_small(comm, &mine, sizeof mine, all);
    for (int i = 0; i < comm->size; i++)
        least = all[i] < least ? all[i] : least;
    free(all);
    return least;
}

static struct zinf_budget budget_of(const struct zinf_run *run)
{
    const struct zinf_device_properties *device = &run->processor.properties;
    const struct zinf_config_memory *memory = &run->config->memory;
    struct zinf_machine machine;
    zinf_machine_read(&machine, "");
    if (device->host_addressable)
        return zinf_budget_of_run(&machine, run->comm->local_size, memory);
    int64_t free_bytes = device->free_bytes;
    if (device->memory_bytes > 0) { /* what the streams have taken is counted with the rest */
        free_bytes += (int64_t)run->scratch_bytes * run->device_ranks;
        free_bytes = free_bytes > 0 ? free_bytes : 1; /* 0 would be "not known" */
    }
    struct zinf_budget budget = zinf_budget_of_device(&machine, run->comm->local_size, memory,
                                                      free_bytes, run->device_ranks);
    budget.through_host = !run->exchange.direct;
    return budget;
}

/* What was free a moment ago may be another process's by now: told like what never was. Collective.
 */
static int open_device_pool(struct zinf_run *run)
{
    struct zinf_device *device = &run->processor;
    const struct zinf_device_properties *p = &device->properties;
    const double mib = 1024.0 * 1024.0;
    char *why = NULL;
    if (zinf_pool_open_device(&run->device, device)) {
        if (device->backend->measure)
            device->backend->measure(device);
        size_t left = (size_t)(p->free_bytes / run->device_ranks) + run->scratch_bytes;
        if (left < run->budget.device)
            run->budget.device = left;
        why =
            zinf_format("%.1f MiB on the device, which has refused them (%s: %.1f of %.1f MiB are "
                        "free; other processes may use it)",
                        (double)zinf_run_device_bytes(run) / mib, p->name,
                        (double)p->free_bytes / mib, (double)p->memory_bytes / mib);
    }
    int status = agree_to_fit(run, why);
    free(why);
    return status;
}

/* Device memory and host memory, each taken once. A device with memory of its own pins the host's:
 * its copies come from there. */
static int open_pools(struct zinf_run *run)
{
    struct zinf_device *processor = &run->processor;
    bool own = !processor->properties.host_addressable;
    int status = own ? open_device_pool(run)
                     : zinf_comm_agree(run->comm, zinf_pool_open_shared(&run->device, run->comm));
    if (!status && run->host.used_bytes)
        status = zinf_comm_agree(run->comm, zinf_pool_open(&run->host));
    if (status)
        return status;
    lock_host_memory(run);
    if (own && run->host.base)
        status = processor->backend->pin(processor, run->host.base, run->host.size_bytes);
    if (own && !status) /* the device's driver has locked it, whatever the limit says */
        run->pinned_bytes = run->host.size_bytes;
    return zinf_comm_agree(run->comm, status);
}

int zinf_run_take_memory(struct zinf_run *run, bool training)
{
    run->budget = budget_of(run);
    run->nvme_bytes = nvme_share(run);
    int kept = zinf_run_choose_kept(run, training, &run->budget);
    /* The smallest choices of all ranks are everyone's: results do not depend on them, times would.
     */
    int least = zinf_comm_agree(run->comm, kept);
    run->cache_bytes = least_of_all(run->comm, run->cache_bytes);
    run->largest_record = (int64_t)least_of_all(run->comm, (size_t)run->largest_record);
    if (least >= 0)
        count_memory(run, training, least);
    char *why = zinf_budget_exceeded(&run->budget, zinf_run_device_bytes(run), run->host.used_bytes,
                                     zinf_run_nvme_bytes(run));
    char *full = drive_exceeded(run);
    int status = agree_to_fit(run, why ? why : full);
    free(why);
    free(full);
    if (!status)
        status = open_pools(run);
    if (status)
        return status;
    lay_out(run, training, least);
    return ZINF_OK;
}
