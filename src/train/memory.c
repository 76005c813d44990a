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
        .kept_layers = kept_layers,
        .plan = &run->plan,
        .evaluation_plan = &run->evaluation_plan,
        .dropout_key = zinf_rng_key((uint64_t)config->train.seed, "dropout"),
        .activities = &run->activities};
    zinf_zero_layout(&run->zero, &options, plan, &run->device, &run->host);
    zinf_step_layout(&run->step, &step, &run->device);
}

/* Of device and host together: on a CPU rank both are the same RAM. */
static size_t bytes_needed(struct zinf_run *run, bool training, int kept_layers)
{
    run->device = run->host = (struct zinf_pool){0};
    lay_out(run, training, kept_layers);
    return run->device.used_bytes + run->host.used_bytes;
}

int zinf_run_choose_kept_layers(struct zinf_run *run, bool training, size_t budget)
{
    enum zinf_config_activations mode = run->config->memory.activations;
    int layers = (int)run->model->layers, kept = training ? layers : 0;
    int64_t cache = run->config->memory.cache_bytes;
    run->cache_bytes = cache > 0 ? (size_t)cache : 0;
    if (mode == ZINF_ACTIVATIONS_RECOMPUTE)
        kept = 0;
    while (mode == ZINF_ACTIVATIONS_AUTO && kept > 0 && bytes_needed(run, training, kept) > budget)
        kept--;
    size_t needed = bytes_needed(run, training, kept);
    if (needed > budget)
        return -1;
    /* What is resident makes rings smaller, never larger; the two pages are what alignment may add.
     */
    if (cache < 0 && budget - needed > 8192) {
        run->cache_bytes = budget - needed - 8192;
        bytes_needed(run, training, kept);
    }
    return kept;
}

static int does_not_fit(struct zinf_run *run, size_t needed, size_t budget, const char *source)
{
    const struct zinf_zero_bytes *bytes = &run->zero.bytes;
    const double mib = 1024.0 * 1024.0;
    zinf_error_log("this does not fit: a rank needs %.0f MiB, its budget is %.0f MiB (%s)\n"
                   "  weights        %8.0f MiB\n"
                   "  gradients      %8.0f MiB\n"
                   "  optimizer      %8.0f MiB\n"
                   "  windows        %8.0f MiB\n"
                   "  communication  %8.0f MiB\n"
                   "  rings          %8.0f MiB\n"
                   "  cache          %8.0f MiB\n"
                   "  activations    %8.0f MiB\n"
                   "use more ranks or a higher ZeRO stage, a smaller micro-batch or sequence "
                   "length, offload to nvme, or zinf.memory.activations=recompute",
                   (double)needed / mib, (double)budget / mib, source, (double)bytes->weights / mib,
                   (double)bytes->gradients / mib, (double)bytes->optimizer / mib,
                   (double)bytes->windows / mib, (double)bytes->communication / mib,
                   (double)bytes->rings / mib, (double)bytes->cache / mib,
                   (double)run->step.activation_bytes / mib);
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
    if (!mlock(run->host.base, run->host.size_bytes))
        run->pinned_bytes = run->host.size_bytes;
    else
        zinf_warn("%.0f MiB of host memory are not locked (%s); raise the limit with ulimit -l, or "
                  "in Slurm with PropagateResourceLimits=MEMLOCK",
                  (double)run->host.size_bytes / (1024.0 * 1024.0), strerror(errno));
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
    const struct zinf_config *config = run->config;
    struct zinf_machine machine;
    zinf_machine_read(&machine, "");
    const char *source = "zinf.memory.device";
    size_t budget = (size_t)config->memory.device_bytes;
    if (config->memory.device_bytes < 0)
        budget = memory_budget(&machine, run->comm->local_size, &source);
    int kept = zinf_run_choose_kept_layers(run, training, budget);
    int status = ZINF_OK;
    if (kept >= 0 && config->memory.host_bytes >= 0 &&
        run->host.used_bytes > (size_t)config->memory.host_bytes) {
        zinf_error_log("this does not fit: rings and states in host memory need %.0f MiB a rank, "
                       "zinf.memory.host allows %.0f MiB; lower buffer_count or sub_group_size",
                       (double)run->host.used_bytes / (1024.0 * 1024.0),
                       (double)config->memory.host_bytes / (1024.0 * 1024.0));
        status = ZINF_E_DOES_NOT_FIT;
    }
    if (kept < 0)
        status = does_not_fit(run, run->device.used_bytes + run->host.used_bytes, budget, source);
    status = zinf_comm_agree(run->comm, status);
    /* The smallest number of kept layers of all ranks is everyone's: results do not depend on it,
     * times would. */
    int least = zinf_comm_agree(run->comm, kept);
    run->cache_bytes = least_of_all(run->comm, run->cache_bytes);
    if (!status) {
        bytes_needed(run, training, least);
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
