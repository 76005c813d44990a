/*
 * A run up to the point where it would take memory, with a communicator that only knows its size.
 * See estimate.h.
 */
#include "train/estimate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/run.h"

/* What planning needs of a run; release with zinf_run_close(). */
static int open_planned(struct zinf_run *run, const struct zinf_config *config,
                        struct zinf_comm *comm, int ranks, const struct zinf_budget *budget,
                        struct zinf_error *error)
{
    memset(run, 0, sizeof *run);
    *comm = (struct zinf_comm){.size = ranks, .local_size = ranks};
    run->config = config;
    run->nvme_bytes = SIZE_MAX;
    run->comm = comm;
    run->own_memory = budget->own_memory;
    run->processor.properties.host_addressable = !budget->own_memory;
    int status =
        zinf_model_new(&run->model, config->model.config, config->model.config_source, error);
    if (!status)
        zinf_run_build_plans(run, true);
    return status;
}

/* fp32 master weights and each moment, whatever the run computes in; metadata is less than 1 %. */
static size_t checkpoint_bytes(const struct zinf_run *run)
{
    int arrays = 1 + run->zero.options.moment_count;
    return (size_t)run->model->total_count * sizeof(float) * (size_t)arrays;
}

int zinf_estimate(struct zinf_estimate *estimate, const struct zinf_config *config, int ranks,
                  const struct zinf_budget *budget, struct zinf_error *error)
{
    struct zinf_run run;
    struct zinf_comm comm;
    memset(estimate, 0, sizeof *estimate);
    int status = open_planned(&run, config, &comm, ranks, budget, error);
    if (status)
        return status;
    run.nvme_bytes = budget->nvme;
    run.exchange.direct =
        budget->own_memory && ranks > 1 && !budget->through_host && zinf_link_planned();
    if (budget->own_memory)
        run.scratch_bytes = zinf_device_streams_scratch(zinf_run_device_scratch(&run));
    if (budget->own_memory)
        run.graph_bytes = zinf_run_graph_bytes(&run);
    zinf_run_choose_kept(&run, true, budget);
    bool uses_nvme = zinf_zero_uses_nvme(&run.zero.options);
    const struct zinf_activations *inputs = &run.step.activations;
    *estimate = (struct zinf_estimate){
        .bytes = run.zero.bytes,
        .activation_bytes = run.step.activation_bytes,
        .inputs = inputs->bytes,
        .nvme_bytes = zinf_run_nvme_bytes(&run),
        .input_windows = zinf_activations_store(inputs)->window_count,
        .scratch_bytes = run.scratch_bytes,
        .graph_bytes = run.graph_bytes,
        .device_bytes = zinf_run_device_bytes(&run),
        .host_bytes = run.host.used_bytes,
        .card_bytes =
            budget->own_memory ? zinf_run_device_bytes(&run) + budget->context + budget->link : 0,
        .device_blocks = run.device_blocks,
        .blocks = run.model->block_count,
        .kept_layers = run.step.options.kept_layers,
        .kept_logits = run.step.options.keep_logits,
        .layers = (int)run.model->layers,
        .parameters = run.model->total_count,
        .comm_bytes = run.plan.comm_bytes,
        .operations = run.plan.count[ZINF_LANE_COMPUTE] + run.plan.count[ZINF_LANE_COMM],
        .windows = run.plan.window_count,
        .records = uses_nvme ? run.zero.record_count : 0,
        .checkpoint_bytes = checkpoint_bytes(&run),
        .checksum = run.plan.checksum};
    zinf_zero_nvme_traffic(&run.zero, &run.plan, &estimate->nvme_read_bytes,
                           &estimate->nvme_write_bytes);
    estimate->cached_fraction = zinf_zero_cached_fraction(&run.zero);
    estimate->resident_count = zinf_zero_resident_runs(&run.zero, &estimate->resident);
    estimate->inputs_nvme_bytes =
        zinf_activations_traffic(&run.step.activations, run.step.options.micro_count);
    estimate->nvme_read_bytes += estimate->inputs_nvme_bytes;
    estimate->nvme_write_bytes += estimate->inputs_nvme_bytes;
    estimate->exceeded = zinf_budget_exceeded(budget, estimate->device_bytes, estimate->host_bytes,
                                              estimate->nvme_bytes);
    zinf_run_close(&run);
    return !estimate->exceeded ? ZINF_OK : ZINF_E_DOES_NOT_FIT;
}

void zinf_estimate_release(struct zinf_estimate *estimate)
{
    free(estimate->resident);
    free(estimate->exceeded);
    memset(estimate, 0, sizeof *estimate);
}

struct choice {
    int stage;
    enum zinf_config_device optimizer, parameters;
    bool inputs; /* of layers on nvme too */
    const char *text;
    bool as_file; /* offload_optimizer.ratio too */
};

/* A row of the table, or NULL when this cannot be planned. */
static char *row_of(const struct zinf_config *config, int ranks, const struct zinf_budget *budget,
                    const char *text, bool *fits)
{
    const double mib = 1024.0 * 1024.0;
    struct zinf_estimate e;
    struct zinf_error error;
    int status = zinf_estimate(&e, config, ranks, budget, &error);
    char *row = NULL;
    *fits = !status;
    if (!status || status == ZINF_E_DOES_NOT_FIT)
        row = zinf_format("  %-36s %8.1f %12.1f %12.1f  %s\n", text, (double)e.device_bytes / mib,
                          (double)e.host_bytes / mib, (double)e.nvme_bytes / mib,
                          status ? "does not fit" : "fits");
    zinf_estimate_release(&e);
    return row;
}

/* The same batch in smaller micro-batches: the first half, quarter, ... that fits, else the
 * smallest. NULL: it is one row already. */
static char *smaller_micro_batch(const struct zinf_config *config, int ranks,
                                 const struct zinf_budget *budget)
{
    struct zinf_config other = *config;
    char *row = NULL;
    bool fits = false;
    while (!fits && other.batch.micro % 2 == 0) {
        char text[64];
        other.batch.micro /= 2;
        other.batch.accumulation *= 2;
        if (config->train.eval_micro_batch == config->batch.micro)
            other.train.eval_micro_batch = other.batch.micro;
        snprintf(text, sizeof text, "micro-batch %lld, accumulation %lld",
                 (long long)other.batch.micro, (long long)other.batch.accumulation);
        free(row);
        row = row_of(&other, ranks, budget, text, &fits);
    }
    return row;
}

static char *alternative(const struct zinf_config *config, int ranks,
                         const struct zinf_budget *budget, const struct choice *choice)
{
    struct zinf_config other = *config;
    bool fits;
    other.zero.stage = choice->stage;
    other.offload.optimizer = choice->optimizer;
    other.offload.parameters = choice->parameters;
    other.offload.max_in_cpu = 0;
    if (!choice->as_file)
        other.offload.ratio = 1;
    other.memory.cache_bytes = 0;
    other.memory.activations = choice->inputs ? ZINF_ACTIVATIONS_NVME : ZINF_ACTIVATIONS_AUTO;
    return row_of(&other, ranks, budget, choice->text, &fits);
}

char *zinf_estimate_alternatives(const struct zinf_config *config, int ranks,
                                 const struct zinf_budget *budget)
{
    enum zinf_config_device none = ZINF_CONFIG_DEVICE_NONE, cpu = ZINF_CONFIG_DEVICE_CPU,
                            nvme = ZINF_CONFIG_DEVICE_NVME;
    const struct choice choices[] = {
        {config->zero.stage, config->offload.optimizer, config->offload.parameters, false,
         "as the file says, nothing cached", true},
        {1, none, none, false, "stage 1", false},
        {2, none, none, false, "stage 2", false},
        {3, none, none, false, "stage 3", false},
        {3, none, cpu, false, "stage 3, param cpu", false},
        {3, cpu, none, false, "stage 3, optimizer cpu", false},
        {3, cpu, cpu, false, "stage 3, optimizer cpu, param cpu", false},
        {3, nvme, none, false, "stage 3, optimizer nvme", false},
        {3, nvme, nvme, false, "stage 3, optimizer nvme, param nvme", false},
        {3, nvme, nvme, true, "the same, activations nvme", false},
    };
    char *table = zinf_strdup("  what a rank would need, with            device MiB     host MiB "
                              "    nvme MiB\n");
    const size_t count = sizeof choices / sizeof *choices;
    for (size_t i = 0; i <= count; i++) {
        char *row = i < count ? alternative(config, ranks, budget, &choices[i])
                              : smaller_micro_batch(config, ranks, budget);
        char *longer = zinf_format("%s%s", table, row ? row : "");
        free(table);
        free(row);
        table = longer;
    }
    return table;
}

static const char *const lanes[] = {"compute", "communication", "update"};

static struct zinf_json *operations_json(const struct zinf_plan *plan, enum zinf_lane lane)
{
    struct zinf_json *list = zinf_json_new(ZINF_JSON_ARRAY);
    for (int64_t i = 0; i < plan->count[lane]; i++) {
        const struct zinf_plan_operation *operation = &plan->operations[lane][i];
        struct zinf_json *row = zinf_json_new(ZINF_JSON_OBJECT);
        char text[160];
        zinf_plan_describe(plan, lane, i, text, sizeof text);
        zinf_json_set(row, "operation", zinf_json_new_string(text));
        if (operation->window >= 0)
            zinf_json_set(row, "window", zinf_json_new_integer(operation->window));
        if (operation->wait_other > 0)
            zinf_json_set(row, "waits_for", zinf_json_new_integer(operation->wait_other));
        zinf_json_append(list, row);
    }
    return list;
}

int zinf_estimate_plan_json(struct zinf_json **plan, const struct zinf_config *config, int ranks,
                            const struct zinf_budget *budget, struct zinf_error *error)
{
    struct zinf_run run;
    struct zinf_comm comm;
    int status = open_planned(&run, config, &comm, ranks, budget, error);
    if (status)
        return status;
    *plan = zinf_json_new(ZINF_JSON_OBJECT);
    for (int lane = 0; lane < ZINF_LANE_COUNT; lane++)
        if (run.plan.count[lane] > 0)
            zinf_json_set(*plan, lanes[lane], operations_json(&run.plan, (enum zinf_lane)lane));
    zinf_run_close(&run);
    return ZINF_OK;
}

int zinf_estimate_print_plan(const struct zinf_config *config, int ranks,
                             const struct zinf_budget *budget, struct zinf_error *error)
{
    static const char *const others[] = {"communication", "compute", "communication"};
    struct zinf_run run;
    struct zinf_comm comm;
    int status = open_planned(&run, config, &comm, ranks, budget, error);
    if (status)
        return status;
    for (int lane = 0; lane < ZINF_LANE_COUNT; lane++) {
        if (run.plan.count[lane] > 0)
            printf("%s lane: number, operation, waits until the %s lane has finished\n",
                   lanes[lane], others[lane]);
        for (int64_t i = 0; i < run.plan.count[lane]; i++) {
            const struct zinf_plan_operation *operation = &run.plan.operations[lane][i];
            char text[160];
            zinf_plan_describe(&run.plan, (enum zinf_lane)lane, i, text, sizeof text);
            printf("%6lld  %-44s", (long long)i, text);
            if (operation->window >= 0)
                printf("  window %d", operation->window);
            if (operation->wait_other > 0)
                printf("  waits for %lld", (long long)operation->wait_other);
            printf("\n");
        }
    }
    zinf_run_close(&run);
    return ZINF_OK;
}
