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

#include "topology/machine.h"

enum {
    LARGEST_RECORD = 4 << 20
}; /* elements: 16 MiB a part keeps a drive busy, and a ring of four small */

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

/* sub_group_size is an upper bound: its default of 1e9 would be 12 GB a record. */
static struct zinf_offload offload_of(const struct zinf_run *run)
{
    const struct zinf_config *config = run->config;
    const struct zinf_config_offload *offload = &config->offload;
    int64_t record = config->zero.sub_group_size;
    if (record < 1024 || record > LARGEST_RECORD)
        record = LARGEST_RECORD;
    return (struct zinf_offload){
        .optimizer = tier_of(offload->optimizer),
        .parameters = tier_of(offload->parameters),
        .optimizer_path = folder_of(run->optimizer_path, &offload->optimizer_paths),
        .parameter_path = folder_of(run->parameter_path, &offload->parameter_paths),
        .optimizer_buffers = offload->optimizer_buffers,
        .parameter_buffers = offload->parameter_buffers,
        .record_elements = record / 1024 * 1024,
        .cache_bytes = run->cache_bytes,
        .resident_parameters = offload->max_in_cpu,
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
static void lay_out(struct zinf_run *run, bool training, int kept_layers)
{
    const struct zinf_config *config = run->config;
    const char *names[2];
    const struct zinf_plan *plan = training ? &run->plan : &run->evaluation_plan;
    const struct zinf_zero_options options = {
        .model = run->model,
        .comm = run->comm,
        .ops = zinf_cpu_ops(),
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
        .kept_layers = kept_layers,
        .plan = &run->plan,
        .evaluation_plan = &run->evaluation_plan,
        .dropout_key = zinf_rng_key((uint64_t)config->train.seed, "dropout"),
        .activities = &run->activities};
    zinf_zero_layout(&run->zero, &options, plan, &run->device, &run->host);
    zinf_step_layout(&run->step, &step, &run->device, &run->host);
}

static void count_memory(struct zinf_run *run, bool training, int kept_layers)
{
    run->device = run->host = (struct zinf_pool){0};
    lay_out(run, training, kept_layers);
}

static bool fits(const struct zinf_run *run, const struct zinf_memory_limits *limits)
{
    return run->device.used_bytes <= limits->device && run->host.used_bytes <= limits->host &&
           run->device.used_bytes + run->host.used_bytes <= limits->both;
}

/* Bytes that the host pool may still grow by. */
static size_t host_left(const struct zinf_run *run, const struct zinf_memory_limits *limits)
{
    size_t host = limits->host - run->host.used_bytes;
    size_t both = limits->both - run->device.used_bytes - run->host.used_bytes;
    return host < both ? host : both;
}

int zinf_run_choose_kept_layers(struct zinf_run *run, bool training,
                                const struct zinf_memory_limits *limits)
{
    enum zinf_config_activations mode = run->config->memory.activations;
    bool may_keep = mode == ZINF_ACTIVATIONS_AUTO || mode == ZINF_ACTIVATIONS_KEEP;
    int kept = training && may_keep ? (int)run->model->layers : 0;
    int64_t cache = run->config->memory.cache_bytes;
    run->cache_bytes = cache > 0 ? (size_t)cache : 0;
    count_memory(run, training, kept);
    while (mode == ZINF_ACTIVATIONS_AUTO && kept > 0 && !fits(run, limits))
        count_memory(run, training, --kept);
    if (!fits(run, limits))
        return -1;
    /* What is resident makes rings smaller, never larger; the two pages are what alignment may add.
     */
    size_t left = host_left(run, limits);
    if (cache < 0 && left > 8192) {
        run->cache_bytes = left - 8192;
        count_memory(run, training, kept);
    }
    return kept;
}

void zinf_run_narrow_limits(struct zinf_memory_limits *limits, const struct zinf_config *config)
{
    const struct zinf_config_memory *memory = &config->memory;
    if (memory->device_bytes >= 0 && (size_t)memory->device_bytes < limits->device) {
        limits->device = (size_t)memory->device_bytes;
        limits->device_source = "zinf.memory.device";
    }
    if (memory->host_bytes >= 0 && (size_t)memory->host_bytes < limits->host) {
        limits->host = (size_t)memory->host_bytes;
        limits->host_source = "zinf.memory.host";
    }
}

char *zinf_run_limit_text(const struct zinf_run *run, const struct zinf_memory_limits *limits)
{
    const double mib = 1024.0 * 1024.0;
    size_t device = run->device.used_bytes, host = run->host.used_bytes;
    if (device > limits->device)
        return zinf_format("%.1f MiB on the device, and %s is %.1f MiB", (double)device / mib,
                           limits->device_source, (double)limits->device / mib);
    if (host > limits->host)
        return zinf_format("%.1f MiB of host memory, and %s is %.1f MiB", (double)host / mib,
                           limits->host_source, (double)limits->host / mib);
    return zinf_format("%.1f MiB, and its budget is %.1f MiB (%s)", (double)(device + host) / mib,
                       (double)limits->both / mib, limits->both_source);
}

static int does_not_fit(const struct zinf_run *run, const struct zinf_memory_limits *limits)
{
    const struct zinf_zero_bytes *bytes = &run->zero.bytes;
    const double mib = 1024.0 * 1024.0;
    char *needs = zinf_run_limit_text(run, limits);
    zinf_error_log("this does not fit: a rank needs %s\n"
                   "  weights        %8.0f MiB\n"
                   "  gradients      %8.0f MiB\n"
                   "  optimizer      %8.0f MiB\n"
                   "  windows        %8.0f MiB\n"
                   "  communication  %8.0f MiB\n"
                   "  rings          %8.0f MiB\n"
                   "  cache          %8.0f MiB\n"
                   "  activations    %8.0f MiB on the device, %.0f MiB of blocks' inputs in host "
                   "memory\n"
                   "use more ranks or a higher ZeRO stage, a smaller micro-batch or sequence "
                   "length, offload to nvme with a lower buffer_count or sub_group_size, or "
                   "zinf.memory.activations=recompute, cpu or nvme",
                   needs, (double)bytes->weights / mib, (double)bytes->gradients / mib,
                   (double)bytes->optimizer / mib, (double)bytes->windows / mib,
                   (double)bytes->communication / mib, (double)bytes->rings / mib,
                   (double)bytes->cache / mib, (double)run->step.activation_bytes / mib,
                   (double)run->step.activations.bytes.host / mib);
    free(needs);
    return ZINF_E_DOES_NOT_FIT;
}

/* What a rank may use when nobody said: contract section 2, memory.host auto; on a CPU rank device
 * memory is the same RAM. */
static size_t memory_budget(const struct zinf_machine *machine, int local_ranks,
                            const char **source)
{
    double available = (double)machine->memory_available / local_ranks;
    *source = "0.9 x available memory / ranks on this node";
    if (machine->limit_data && (double)machine->limit_data < available) {
        available = (double)machine->limit_data;
        *source = "0.9 x RLIMIT_DATA";
    }
    if (machine->limit_address_space && (double)machine->limit_address_space < available) {
        available = (double)machine->limit_address_space;
        *source = "0.9 x RLIMIT_AS";
    }
    return (size_t)(0.9 * available);
}

/* What the file gives counts as it stands; what it leaves open shares the RAM that is there. */
static struct zinf_memory_limits limits_of(const struct zinf_run *run)
{
    const struct zinf_config_memory *memory = &run->config->memory;
    struct zinf_memory_limits limits = {.device = SIZE_MAX, .host = SIZE_MAX};
    struct zinf_machine machine;
    zinf_machine_read(&machine, "");
    limits.both = memory_budget(&machine, run->comm->local_size, &limits.both_source);
    zinf_run_narrow_limits(&limits, run->config);
    if (memory->device_bytes >= 0 && memory->host_bytes >= 0)
        limits.both = SIZE_MAX;
    else if (memory->device_bytes >= 0 && limits.device > limits.both)
        limits.both = limits.device;
    else if (memory->host_bytes >= 0 && limits.host > limits.both)
        limits.both = limits.host;
    return limits;
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

int zinf_run_take_memory(struct zinf_run *run, bool training)
{
    struct zinf_memory_limits limits = limits_of(run);
    int kept = zinf_run_choose_kept_layers(run, training, &limits);
    int status = kept < 0 ? does_not_fit(run, &limits) : ZINF_OK;
    status = zinf_comm_agree(run->comm, status);
    /* The smallest number of kept layers of all ranks is everyone's: results do not depend on it,
     * times would. */
    int least = zinf_comm_agree(run->comm, kept);
    run->cache_bytes = least_of_all(run->comm, run->cache_bytes);
    if (!status) {
        count_memory(run, training, least);
        status = zinf_comm_agree(run->comm, zinf_pool_open_shared(&run->device, run->comm));
        if (!status && run->host.used_bytes)
            status = zinf_comm_agree(run->comm, zinf_pool_open(&run->host));
    }
    if (status)
        return status;
    lay_out(run, training, least);
    lock_host_memory(run);
    return ZINF_OK;
}
