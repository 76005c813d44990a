/*
 * `zinf plan`: what a step of a ds.json does, what it needs and moves, on machines that need not be
 * there.
 */
#include "cli/command.h"

#include <stdlib.h>
#include <string.h>

#include "base/words.h"
#include "device/link.h"
#include "topology/machine.h"
#include "train/card.h"
#include "train/estimate.h"

/* The job that is planned for, and what a rank of it may use. */
struct job {
    int64_t ranks, ranks_per_node;
    struct zinf_budget budget;
};

static int size_option(const struct zinf_context *context, const char *name, int64_t *bytes,
                       struct zinf_error *error)
{
    const char *text = zinf_options_value(context->options, name, NULL);
    if (text && zinf_size_parse(text, bytes))
        return zinf_error_set(error, ZINF_E_USAGE, "%s %s: right is a size such as 80GB or 512GiB",
                              name, text);
    return ZINF_OK;
}

/* Sizes of a node are shared by its ranks; -1 = not given. */
static void set_budget(struct job *job, int64_t device, int64_t node, int64_t nvme)
{
    struct zinf_budget *budget = &job->budget;
    struct zinf_machine machine;
    const char *source = "--host-memory / ranks of a node";
    *budget = zinf_budget_unlimited();
    if (node < 0) {
        zinf_machine_read(&machine, "");
        node = (int64_t)(0.9 * (double)machine.memory_available);
        source = "0.9 x memory available on this machine / ranks of a node";
    }
    size_t host = (size_t)(node / job->ranks_per_node);
    if (device >= 0) {
        bool direct = zinf_link_planned();
        zinf_budget_plan_device(
            budget, (size_t)device, ZINF_CARD_CONTEXT_BYTES,
            direct ? zinf_link_planned_bytes((int)job->ranks, (int)job->ranks_per_node) : 0);
        budget->host = host;
        budget->host_source = source;
    } else {
        budget->both = host;
        snprintf(budget->both_source, sizeof budget->both_source, "%s", source);
    }
    if (nvme >= 0) {
        budget->nvme = (size_t)(nvme / job->ranks_per_node);
        budget->nvme_source = "--nvme / ranks of a node";
    }
}

static int read_job(const struct zinf_context *context, struct job *job, struct zinf_error *error)
{
    int64_t device = -1, node = -1, nvme = -1;
    *job = (struct job){0};
    int status = zinf_command_ranks(context, &job->ranks, error);
    job->ranks_per_node = job->ranks;
    if (!status)
        status = zinf_options_integer(context->options, "--ranks-per-node", 1, &job->ranks_per_node,
                                      error);
    if (job->ranks_per_node > job->ranks) /* a node that could take more has these only */
        job->ranks_per_node = job->ranks;
    if (!status)
        status = size_option(context, "--gpu-memory", &device, error);
    if (!status)
        status = size_option(context, "--host-memory", &node, error);
    if (!status)
        status = size_option(context, "--nvme", &nvme, error);
    if (!status)
        set_budget(job, device, node, nvme);
    return status;
}

static void print_row(const char *name, size_t bytes, const char *note)
{
    printf("  %-15s %12.1f MiB  %s\n", name, (double)bytes / (1024.0 * 1024.0), note);
}

/* "master weights, first moment": the parts of a run of records that stay in host memory. */
static void list_parts(const struct zinf_resident_run *run, char *out, size_t out_bytes)
{
    size_t used = 0;
    for (int part = 0; part < ZINF_RING_PARTS; part++)
        if (run->resident[part] && used < out_bytes)
            used += (size_t)snprintf(out + used, out_bytes - used, "%s%s", used ? ", " : "",
                                     zinf_zero_part_name(part));
}

static void print_resident(const struct zinf_estimate *e)
{
    if (e->resident_count == 0)
        return;
    printf("\nin host memory for the whole run, never read nor written: %.1f MiB, %.2f %% of the "
           "optimizer's records\n",
           (double)e->bytes.cache / (1024.0 * 1024.0), 100 * e->cached_fraction);
    for (int i = 0; i < e->resident_count; i++) {
        const struct zinf_resident_run *run = &e->resident[i];
        bool one = !strcmp(run->from, run->to);
        char parts[128];
        list_parts(run, parts, sizeof parts);
        printf("  records %d-%d: %s of %s%s%s, %.1f MiB\n", run->first, run->last, parts, run->from,
               one ? "" : " to ", one ? "" : run->to, (double)run->bytes / (1024.0 * 1024.0));
    }
}

static struct zinf_json *resident_json(const struct zinf_estimate *e)
{
    struct zinf_json *array = zinf_json_new(ZINF_JSON_ARRAY);
    for (int i = 0; i < e->resident_count; i++) {
        const struct zinf_resident_run *run = &e->resident[i];
        struct zinf_json *object = zinf_json_new(ZINF_JSON_OBJECT);
        struct zinf_json *parts = zinf_json_new(ZINF_JSON_ARRAY);
        for (int part = 0; part < ZINF_RING_PARTS; part++)
            if (run->resident[part])
                zinf_json_append(parts, zinf_json_new_string(zinf_zero_part_name(part)));
        zinf_json_set(object, "first_record", zinf_json_new_integer(run->first));
        zinf_json_set(object, "last_record", zinf_json_new_integer(run->last));
        zinf_json_set(object, "from", zinf_json_new_string(run->from));
        zinf_json_set(object, "to", zinf_json_new_string(run->to));
        zinf_json_set(object, "parts", parts);
        zinf_json_set(object, "bytes", zinf_json_new_integer((int64_t)run->bytes));
        zinf_json_append(array, object);
    }
    return array;
}

static void print_budget(const struct zinf_budget *budget)
{
    const struct {
        const char *name;
        size_t bytes;
        const char *source;
    } rows[] = {{"device may", budget->device, budget->device_source},
                {"host may", budget->host, budget->host_source},
                {"both may", budget->both, budget->both_source},
                {"nvme may", budget->nvme, budget->nvme_source}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].bytes != SIZE_MAX)
            print_row(rows[i].name, rows[i].bytes, rows[i].source);
}

/* The inputs of layers, where they are not on the device. */
static void print_inputs(const struct zinf_config *config, const struct zinf_estimate *e)
{
    char note[96];
    if (config->memory.activations == ZINF_ACTIVATIONS_CPU)
        snprintf(note, sizeof note, "host: inputs of all %d layers", e->layers);
    else
        snprintf(note, sizeof note, "host: %d windows; %d of %d layers' inputs on nvme, %.1f MiB",
                 e->input_windows, e->layers - e->input_windows, e->layers,
                 (double)e->inputs.nvme / (1024.0 * 1024.0));
    print_row("layer inputs", e->inputs.host, note);
}

static void print_estimate(const struct zinf_config *config, const struct job *job,
                           const struct zinf_estimate *e)
{
    static const char *const tiers[] = {"device", "host", "nvme"};
    const double mib = 1024.0 * 1024.0;
    char kept[64], place[96];
    snprintf(kept, sizeof kept, "%d of %d layers keep theirs%s", e->kept_layers, e->layers,
             e->kept_logits ? ", the head its logits" : "");
    printf("%.2f M parameters, %lld ranks (%lld a node), ZeRO stage %d, %s\n"
           "batch %lld = %lld micro-batch x %lld accumulation x %lld ranks, %lld tokens a step\n\n",
           (double)e->parameters / 1e6, (long long)job->ranks, (long long)job->ranks_per_node,
           config->zero.stage, zinf_dtype_name(config->precision.dtype),
           (long long)config->batch.global, (long long)config->batch.micro,
           (long long)config->batch.accumulation, (long long)job->ranks,
           (long long)(config->batch.global * config->data.sequence_length));
    printf("memory of a rank\n");
    print_row("weights", e->bytes.weights, tiers[config->offload.parameters]);
    print_row("gradients", e->bytes.gradients,
              config->offload.optimizer == ZINF_CONFIG_DEVICE_NONE ? "device" : "host");
    snprintf(place, sizeof place, "%s", tiers[config->offload.optimizer]);
    if (e->device_blocks > 0)
        snprintf(place, sizeof place, "host; of the first %d of %d blocks on the device",
                 e->device_blocks, e->blocks);
    print_row("optimizer", e->bytes.optimizer, place);
    print_row("windows", e->bytes.windows, "device");
    print_row("communication", e->bytes.communication, "device");
    print_row("activations", e->activation_bytes, kept);
    if (config->memory.activations == ZINF_ACTIVATIONS_CPU ||
        config->memory.activations == ZINF_ACTIVATIONS_NVME)
        print_inputs(config, e);
    print_row("rings", e->bytes.rings, "host");
    if (e->scratch_bytes) {
        print_row("staging", e->bytes.staging, "host: between the device and the network or drive");
        print_row("scratch", e->scratch_bytes, "device: working memory of its streams");
        print_row("graphs", e->graph_bytes, "device: recorded blocks at most (zinf.graphs)");
    }
    if (e->bytes.cache)
        print_row("cache", e->bytes.cache, "host");
    print_row("device in all", e->device_bytes, "");
    if (e->scratch_bytes) {
        print_row("  beside them", job->budget.context, "CUDA's context and kernels, an estimate");
        print_row("  and", job->budget.link, "NCCL's buffers, at most");
        print_row("  on the card", e->card_bytes, "");
    }
    print_row("host in all", e->host_bytes, "");
    print_row("nvme", e->nvme_bytes, "padding included");
    if (e->bytes.spares)
        print_row("  of these", e->bytes.spares, "spare extents, for updates in the backward pass");
    print_budget(&job->budget);
    printf("\na step, for each rank\n");
    printf("  %-15s %12.1f MiB  sent in %lld operations, %lld windows, checksum %016llx\n",
           "network", (double)e->comm_bytes / mib, (long long)e->operations, (long long)e->windows,
           (unsigned long long)e->checksum);
    printf("  %-15s %12.1f MiB  in %lld records, and %.1f MiB of layer inputs\n", "nvme read",
           (double)e->nvme_read_bytes / mib, (long long)e->records,
           (double)e->inputs_nvme_bytes / mib);
    printf("  %-15s %12.1f MiB\n", "nvme written", (double)e->nvme_write_bytes / mib);
    print_resident(e);
    printf("\na checkpoint has %.1f MiB\n", (double)e->checkpoint_bytes / mib);
}

/* `operations`: the plan's, taken over; NULL: they were not asked for. */
static void print_json(const struct job *job, const struct zinf_estimate *e, bool fits,
                       struct zinf_json *operations)
{
    struct zinf_json *object = zinf_json_new(ZINF_JSON_OBJECT);
    char checksum[32];
    const struct {
        const char *name;
        int64_t value;
    } rows[] = {{"ranks", job->ranks},
                {"parameters", e->parameters},
                {"weights_bytes", (int64_t)e->bytes.weights},
                {"gradients_bytes", (int64_t)e->bytes.gradients},
                {"optimizer_bytes", (int64_t)e->bytes.optimizer},
                {"windows_bytes", (int64_t)e->bytes.windows},
                {"communication_bytes", (int64_t)e->bytes.communication},
                {"activations_bytes", (int64_t)e->activation_bytes},
                {"layer_inputs_device_bytes", (int64_t)e->inputs.device},
                {"layer_inputs_host_bytes", (int64_t)e->inputs.host},
                {"layer_inputs_nvme_bytes", (int64_t)e->inputs.nvme},
                {"rings_bytes", (int64_t)e->bytes.rings},
                {"cache_bytes", (int64_t)e->bytes.cache},
                {"staging_bytes", (int64_t)e->bytes.staging},
                {"scratch_bytes", (int64_t)e->scratch_bytes},
                {"graphs_bytes", (int64_t)e->graph_bytes},
                {"device_bytes", (int64_t)e->device_bytes},
                {"context_bytes", (int64_t)job->budget.context},
                {"link_bytes", (int64_t)job->budget.link},
                {"card_bytes", (int64_t)e->card_bytes},
                {"host_bytes", (int64_t)e->host_bytes},
                {"nvme_bytes", (int64_t)e->nvme_bytes},
                {"nvme_spare_bytes", (int64_t)e->bytes.spares},
                {"kept_layers", e->kept_layers},
                {"kept_logits", e->kept_logits},
                {"operations", e->operations},
                {"windows", e->windows},
                {"records", e->records},
                {"comm_bytes", e->comm_bytes},
                {"nvme_read_bytes", e->nvme_read_bytes},
                {"nvme_write_bytes", e->nvme_write_bytes},
                {"layer_inputs_read_bytes", e->inputs_nvme_bytes},
                {"layer_inputs_write_bytes", e->inputs_nvme_bytes},
                {"checkpoint_bytes", (int64_t)e->checkpoint_bytes}};
    zinf_json_set(object, "fits", zinf_json_new_bool(fits));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        zinf_json_set(object, rows[i].name, zinf_json_new_integer(rows[i].value));
    if (e->exceeded)
        zinf_json_set(object, "exceeded", zinf_json_new_string(e->exceeded));
    zinf_json_set(object, "cached_fraction", zinf_json_new_number(e->cached_fraction));
    zinf_json_set(object, "resident", resident_json(e));
    snprintf(checksum, sizeof checksum, "%016llx", (unsigned long long)e->checksum);
    zinf_json_set(object, "checksum", zinf_json_new_string(checksum));
    if (operations)
        zinf_json_set(object, "lanes", operations);
    char *text = zinf_json_print(object, 2);
    printf("%s\n", text);
    free(text);
    zinf_json_free(object);
}

static int plan(const struct zinf_context *context, const struct job *job,
                const struct zinf_config *config, struct zinf_error *error)
{
    struct zinf_estimate e;
    struct zinf_json *operations = NULL;
    bool json = context->options->json;
    bool listed = zinf_options_has(context->options, "--operations");
    if (!config->model.config)
        return zinf_error_set(error, ZINF_E_USAGE,
                              "zinf plan needs a model: --set zinf.model.path=FOLDER or "
                              "zinf.model.config");
    int status = zinf_estimate(&e, config, (int)job->ranks, &job->budget, error);
    if (!status && json && listed)
        status = zinf_estimate_plan_json(&operations, config, (int)job->ranks, &job->budget, error);
    if (!status || status == ZINF_E_DOES_NOT_FIT) {
        if (json)
            print_json(job, &e, !status, operations);
        else
            print_estimate(config, job, &e);
    }
    if (status == ZINF_E_DOES_NOT_FIT)
        zinf_error_set(error, status, "this does not fit: a rank needs %s", e.exceeded);
    zinf_estimate_release(&e);
    if (!status && listed && !json)
        return zinf_estimate_print_plan(config, (int)job->ranks, &job->budget, error);
    return status;
}

static int run_plan(const struct zinf_context *context)
{
    const struct zinf_options *options = context->options;
    struct job job;
    struct zinf_error error = {0};
    struct zinf_config *config = NULL;
    struct zinf_context counted = *context;
    int status = read_job(context, &job, &error);
    if (!status) {
        counted.ranks = (int)job.ranks;
        status = zinf_command_config(&counted, ZINF_CONFIG_CHECK, &config);
        if (status)
            return status; /* told already */
        if (!config->optimizer.given)
            config->optimizer.kind = ZINF_ADAM;
        zinf_budget_lower(&job.budget, &config->memory);
        status = plan(&counted, &job, config, &error);
    }
    if (status)
        zinf_error_log("%s", error.text);
    if (status == ZINF_E_DOES_NOT_FIT && !options->json) {
        char *table = zinf_estimate_alternatives(config, (int)job.ranks, &job.budget);
        fprintf(stderr, "\n%s", table);
        free(table);
    }
    zinf_config_free(config);
    return status;
}

static const struct zinf_option options[] = {
    {"--ranks", "N", "ranks of the job"},
    {"--ranks-per-node", "K", "ranks that share a node (all)"},
    {"--gpu-memory", "SIZE", "memory of a rank's GPU; without it ranks compute on CPUs"},
    {"--host-memory", "SIZE", "memory of a node (what this machine has free)"},
    {"--nvme", "SIZE", "drives of a node"},
    {"--operations", NULL, "print every operation of a step"},
    {0}};

const struct zinf_command zinf_command_plan = {
    .name = "plan",
    .arguments = "ds.json --ranks N [--ranks-per-node K --gpu-memory 80GB --host-memory 512GB "
                 "--nvme 3TB]",
    .summary = "what a step does, needs and moves; what would fit",
    .help = "Works out a run's memory, network and NVMe traffic from its plan, to the byte,\n"
            "without data and without the machine. Exit code 3 with a table of what would fit\n"
            "when it does not. Without an optimizer in the file: AdamW.\n",
    .options = options,
    .min_arguments = 1,
    .max_arguments = 1,
    .takes_json = true,
    .run = run_plan};
