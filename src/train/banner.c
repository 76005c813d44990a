/*
 * What a run says before its first step, and where the time went after its last.
 */
#include "train/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/version.h"
#include "topology/machine.h"
#include "zero/staged.h"

static const char *activations_text(const struct zinf_run *run, char out[96])
{
    int64_t kept = run->step.options.kept_layers, layers = run->model->layers;
    if (kept == layers)
        snprintf(out, 96, run->step.options.keep_logits ? "kept" : "kept, logits made again");
    else if (kept == 0)
        snprintf(out, 96, "recomputed");
    else
        snprintf(out, 96, "kept in the last %lld of %lld layers, else recomputed", (long long)kept,
                 (long long)layers);
    return out;
}

static void say_model(const struct zinf_run *run)
{
    const struct zinf_model *m = run->model;
    zinf_info("model       %s, %.2f M parameters (%lld): %lld layers, hidden %lld, %lld heads%s, "
              "vocabulary %lld",
              m->family, (double)m->total_count / 1e6, (long long)m->total_count,
              (long long)m->layers, (long long)m->hidden, (long long)m->heads,
              m->kv_heads == m->heads ? "" : " (grouped queries)", (long long)m->vocab);
}

static void say_data(const struct zinf_run *run)
{
    const struct zinf_config *config = run->config;
    const struct zinf_config_batch *batch = &config->batch;
    zinf_info(
        "data        %d file%s, %lld tokens, %lld samples of %lld tokens: %lld steps an epoch",
        zinf_batches_file_count(run->train), zinf_batches_file_count(run->train) == 1 ? "" : "s",
        (long long)zinf_batches_token_count(run->train),
        (long long)zinf_batches_sample_count(run->train), (long long)config->data.sequence_length,
        (long long)zinf_run_steps_per_epoch(run));
    zinf_info("batch       %lld = %lld micro-batch x %lld accumulation x %d rank%s, %lld tokens a "
              "step",
              (long long)batch->global, (long long)batch->micro, (long long)batch->accumulation,
              run->comm->size, run->comm->size == 1 ? "" : "s",
              (long long)(batch->global * config->data.sequence_length));
}

static const char *tier_name(enum zinf_tier tier)
{
    static const char *const names[] = {"on the device", "in host memory", "on NVMe"};
    return names[tier];
}

bool zinf_run_io_is_direct(const struct zinf_run *run)
{
    bool all = true;
    for (int i = 0; i < 2; i++)
        all = all && (!run->zero.swaps[i] || zinf_swap_direct(run->zero.swaps[i]));
    const struct zinf_swap *inputs = zinf_activations_store(&run->step.activations)->swap;
    if (inputs)
        all = all && zinf_swap_direct(inputs);
    return all;
}

const struct zinf_aio *zinf_run_io(const struct zinf_run *run)
{
    if (run->zero.update_aio.engine)
        return &run->zero.update_aio;
    return run->step.activations.aio.engine ? &run->step.activations.aio : NULL;
}

/* Where the inputs of layers stand, when not on the device. */
static void say_inputs(const struct zinf_run *run)
{
    const struct zinf_activations *inputs = &run->step.activations;
    const struct zinf_activations *store = zinf_activations_store(inputs);
    const long long layers = run->model->layers;
    const double mib = 1024.0 * 1024.0;
    char windows[64] = "";
    if (inputs->below)
        snprintf(windows, sizeof windows, "; %d windows on the device", inputs->window_count);
    if (inputs->options.tier == ZINF_TIER_HOST)
        zinf_info("inputs      of %lld layers in host memory, %.1f MiB a rank%s",
                  layers - (inputs->below ? inputs->window_count : 0),
                  (double)inputs->bytes.host / mib, windows);
    else if (inputs->options.tier == ZINF_TIER_NVME && !store->swap)
        zinf_info("inputs      of %lld layers in windows in memory, none on NVMe%s", layers,
                  windows);
    else if (inputs->options.tier == ZINF_TIER_NVME)
        zinf_info("inputs      of %d of %lld layers on NVMe, %.1f MiB a rank by %s%s, %d windows "
                  "of %.1f MiB%s",
                  store->written_count, layers, (double)inputs->bytes.nvme / mib,
                  store->aio.engine->name,
                  zinf_swap_direct(store->swap) ? ", O_DIRECT" : ", buffered", store->window_count,
                  (double)store->options.window_bytes / mib, windows);
}

/* What offload_optimizer.ratio leaves on the device. */
static const char *part_text(const struct zinf_run *run, char out[96])
{
    *out = '\0';
    if (run->device_blocks > 0)
        snprintf(out, 96, ", of the first %d of %d blocks on the device", run->device_blocks,
                 run->model->block_count);
    return out;
}

/* super_offload that was asked for and has nothing to do is said; what it needs of ds.json stands
 * in the list of what has no effect. */
static void say_offload_to_memory(const struct zinf_run *run)
{
    const struct zinf_offload *offload = &run->zero.options.offload;
    const char *when = "";
    char part[96];
    if (run->ahead)
        when = "; new weights are made in the backward pass, before the norm is known";
    else if (run->plan.options.update_lane)
        when = "; updates begin behind the norm";
    else if (run->config->offload.super == ZINF_SUPER_OFFLOAD_ON)
        when = "; super_offload has no effect on CPU ranks: there are no cores beside those that "
               "compute";
    zinf_info("offload     optimizer %s%s, parameters %s%s", tier_name(offload->optimizer),
              part_text(run, part), tier_name(offload->parameters), when);
}

static void say_memory(const struct zinf_run *run)
{
    const struct zinf_zero_bytes *bytes = &run->zero.bytes;
    const double mib = 1024.0 * 1024.0;
    const bool all_on_device = run->device_blocks == run->model->block_count;
    char text[96], part[96], sum[256];
    if (run->budget.own_memory)
        snprintf(sum, sizeof sum, "%.1f MiB a rank on the device, %.1f MiB in host memory",
                 (double)zinf_run_device_bytes(run) / mib, (double)run->host.size_bytes / mib);
    else
        snprintf(sum, sizeof sum, "%.1f of %.1f MiB a rank (%s)",
                 (double)(run->device.size_bytes + run->host.size_bytes) / mib,
                 (double)run->budget.both / mib, run->budget.both_source);
    zinf_info("memory      %s: weights %.1f, gradients %.1f, optimizer "
              "%.1f, windows %.1f, communication %.1f, activations %.1f (%s)",
              sum, (double)bytes->weights / mib, (double)bytes->gradients / mib,
              (double)bytes->optimizer / mib, (double)bytes->windows / mib,
              (double)bytes->communication / mib, (double)run->step.activation_bytes / mib,
              activations_text(run, text));
    if (all_on_device)
        say_offload_to_memory(run);
    else if (zinf_zero_uses_nvme(&run->zero.options) && !bytes->nvme)
        zinf_info("offload     optimizer %s, parameters %s%s: all of it, %.1f MiB a rank, is kept "
                  "in host memory",
                  tier_name(run->zero.options.offload.optimizer),
                  tier_name(run->zero.options.offload.parameters), part_text(run, part),
                  (double)bytes->cache / mib);
    else if (zinf_zero_uses_nvme(&run->zero.options))
        zinf_info("offload     optimizer %s, parameters %s%s: %.1f MiB a rank on NVMe (%.1f spare, "
                  "for early updates) in %d records by %s%s, %.1f MiB of rings, %.1f MiB stay in "
                  "host memory",
                  tier_name(run->zero.options.offload.optimizer),
                  tier_name(run->zero.options.offload.parameters), part_text(run, part),
                  (double)bytes->nvme / mib, (double)bytes->spares / mib,
                  (int)run->zero.update_length,
                  run->zero.update_aio.engine ? run->zero.update_aio.engine->name : "none",
                  zinf_run_io_is_direct(run) ? ", O_DIRECT" : ", buffered",
                  (double)bytes->rings / mib, (double)bytes->cache / mib);
    else if (run->zero.options.offload.optimizer != ZINF_TIER_DEVICE ||
             run->zero.options.offload.parameters != ZINF_TIER_DEVICE)
        say_offload_to_memory(run);
    say_inputs(run);
}

static void say_places(const struct zinf_run *run)
{
    char *summary = zinf_rankmap_summary(&run->rankmap), *table = zinf_rankmap_table(&run->rankmap);
    zinf_info("binding     %s", summary);
    zinf_info("%s", table);
    free(summary);
    free(table);
}

/* What the run has not asked for stands in no plan to the byte. */
static void say_card(const struct zinf_run *run)
{
    const struct zinf_card *card = &run->card;
    const double mib = 1024.0 * 1024.0;
    char link[64] = "";
    if (!run->processor.backend->unopened_bytes)
        return;
    if (card->link >= 0)
        snprintf(link, sizeof link, ", NCCL %.1f MiB", (double)card->link / mib);
    if (card->context >= 0)
        zinf_info("beside      CUDA's context and kernels %.1f MiB a rank%s, measured",
                  (double)card->context / mib, link);
    else
        zinf_info(
            "beside      CUDA's context and kernels: not measured, libnvidia-ml does not tell "
            "(a plan counts %.0f MiB)%s",
            (double)ZINF_CARD_CONTEXT_BYTES / mib, link);
}

/* Backends that "auto" would have preferred. */
static void say_why_not(const struct zinf_run *run)
{
    const struct zinf_device_backend *const *backend = zinf_device_backends();
    char why[512];
    if (strcmp(run->config->device, "auto") != 0)
        return;
    for (; *backend != run->processor.backend; backend++)
        if ((*backend)->list(NULL, 0, why, sizeof why) == 0)
            zinf_info("device      %s; %s: no device: %s", run->processor.backend->name,
                      (*backend)->name, why);
}

static void say_device(const struct zinf_run *run)
{
    const struct zinf_device_properties *p = &run->processor.properties;
    if (p->host_addressable && run->config->precision.tf32)
        zinf_info("device      cpu: zinf.tf32 has no effect on CPU ranks, products are fp32's own");
    if (p->host_addressable && run->config->graphs == ZINF_GRAPHS_ON)
        zinf_info(
            "graphs      on has no effect on CPU ranks: they compute what they issue at once");
    if (p->host_addressable) { /* which is in the line above */
        say_why_not(run);
        return;
    }
    zinf_info("device      %s: %s%s%s%s%s, %.1f MiB free, %d rank%s on it",
              run->processor.backend->name, p->name, *p->bus_id ? ", " : "", p->bus_id,
              *p->version ? ", " : "", p->version, (double)p->free_bytes / (1024.0 * 1024.0),
              run->device_ranks, run->device_ranks == 1 ? "" : "s");
    if (!strcmp(run->processor.backend->name, "cuda"))
        zinf_warn("no card has run the GPU code of this version yet: hold the first steps against "
                  "those of --device cpu");
    zinf_info("exchange    %s", run->exchange.text);
    if (*run->exchange.note)
        zinf_warn("exchange    %s", run->exchange.note);
    say_card(run);
}

void zinf_run_banner(const struct zinf_run *run)
{
    const struct zinf_config *config = run->config;
    struct zinf_machine machine;
    zinf_machine_read(&machine, "");
    zinf_info("%s", zinf_version());
    zinf_info("ranks       %d x %d threads, %s (%s), %s", run->comm->size, run->threads,
              machine.cpu_name, zinf_cpu_ops()->name, machine.host);
    say_device(run);
    say_places(run);
    say_model(run);
    say_data(run);
    zinf_info("training    ZeRO stage %d, %s, %s, lr %g, %lld steps%s", config->zero.stage,
              zinf_dtype_name(config->precision.dtype), config->optimizer.name,
              config->optimizer.learning_rate, (long long)run->total_steps,
              config->limits.max_steps ? " (--max-steps stops before)" : "");
    say_memory(run);
    zinf_info("plan        %lld operations a step, %d windows, %.2f MB sent by each rank a step, "
              "checksum %016llx",
              (long long)(run->plan.count[0] + run->plan.count[1]), run->plan.window_count,
              (double)run->plan.comm_bytes / 1e6, (unsigned long long)run->plan.checksum);
    zinf_run_say_products(run);
    if (*run->resumed_from)
        zinf_info("resume      from %s: step %lld of %lld", run->resumed_from,
                  (long long)run->state.step, (long long)run->total_steps);
    else
        zinf_info("start       from %s weights", run->model_weights_source);
    zinf_info("run folder  %s", config->run_dir);
}

/* What ran beside the activities of the table. */
static void say_update_lane(struct zinf_run *run)
{
    struct zinf_updates_totals totals = zinf_updates_totals(run->zero.updates);
    struct zinf_updates_totals *all = zinf_alloc((size_t)run->comm->size * sizeof *all);
    double busy = 0, drive = 0, records = 0, early = 0, refused = 0;
    char reads[64] = "", thrown[64] = "";
    zinf_comm_gather_small(run->comm, &totals, sizeof totals, all);
    for (int i = 0; i < run->comm->size; i++) {
        busy += all[i].busy_s / run->comm->size;
        drive += all[i].read_wait_s / run->comm->size;
        records += (double)all[i].records / run->comm->size;
        early += (double)all[i].early_records / run->comm->size;
        refused += (double)all[i].refused_records / run->comm->size;
    }
    free(all);
    if (records == 0) /* a run that had no step left */
        return;
    if (zinf_zero_uses_nvme(&run->zero.options))
        snprintf(reads, sizeof reads, " and waited %.3f s for its reads", drive);
    if (run->ahead)
        snprintf(thrown, sizeof thrown, ", new weights of %.0f more thrown away", refused);
    zinf_info("beside these, mean of the ranks: the update lane computed %.3f s%s, %.0f records, "
              "%.0f %% of them in the backward pass%s",
              busy, reads, records, records > 0 ? 100 * early / records : 0, thrown);
}

/* heading: a line above the table, or "". Collective. */
static void say_table(struct zinf_run *run, const char *heading,
                      const struct zinf_activity_totals *mine)
{
    struct zinf_activity_totals *all = zinf_alloc((size_t)run->comm->size * sizeof *all);
    zinf_comm_gather_small(run->comm, mine, sizeof *mine, all);
    if (run->comm->rank == 0) {
        char *table = zinf_activity_table(all, run->comm->size);
        zinf_info("%s\n%s", heading, table);
        free(table);
    }
    free(all);
}

static void say_graphs(const struct zinf_run *run)
{
    char *text = zinf_graphs_text(run->step.graphs);
    zinf_info("graphs      %s", text);
    free(text);
}

void zinf_run_end_table(struct zinf_run *run)
{
    struct zinf_activity_totals mine = zinf_activities_totals(&run->activities);
    struct zinf_activity_totals device = {0};
    zinf_staged_drain(&run->zero);
    zinf_device_times_end(&run->step.times);
    device = run->step.times.totals;
    device.wall_s = mine.wall_s;
    say_table(run, "", &mine);
    if (zinf_staged(&run->zero))
        say_table(
            run,
            "on the device, by events of its compute stream (above: the host, which only asks "
            "for it):",
            &device);
    if (zinf_staged(&run->zero))
        say_graphs(run);
    if (run->zero.updates)
        say_update_lane(run);
    run->results.wall_s += mine.wall_s;
}
