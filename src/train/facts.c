/*
 * What all ranks must agree on before a run, as facts for consistency.h: one for each value of the
 * configuration and of the model, so that what differs is told by its name.
 */
#include "train/run.h"

#include <stdlib.h>
#include <string.h>

#include "base/version.h"
#include "device/ops.h"
#include "topology/consistency.h"

/* Names and values are owned. */
struct facts {
    struct zinf_fact *items;
    size_t count;
};

/* Takes both over. */
static void add(struct facts *facts, char *name, char *value)
{
    if ((facts->count & (facts->count - 1)) == 0) /* room doubles at powers of two */
        facts->items = zinf_realloc(facts->items,
                                    (facts->count ? 2 * facts->count : 1) * sizeof *facts->items);
    facts->items[facts->count++] = (struct zinf_fact){name, value};
}

/* The leaves of an object; a list is one. Takes `name` over. */
static void add_json(struct facts *facts, char *name, const struct zinf_json *value)
{
    if (value->type != ZINF_JSON_OBJECT) {
        add(facts, name, zinf_json_print(value, -1));
        return;
    }
    for (size_t i = 0; i < value->count; i++)
        add_json(facts, zinf_format("%s%s%s", name, *name ? "." : "", value->keys[i]),
                 value->members[i]);
    free(name);
}

static void add_model(struct facts *facts, const struct zinf_model *model)
{
    struct zinf_model_trait traits[ZINF_MODEL_TRAITS];
    const int count = zinf_model_traits(model, traits);
    for (int i = 0; i < count; i++)
        add(facts, zinf_format("model's %s", traits[i].key), zinf_strdup(traits[i].value));
    add(facts, zinf_strdup("model"),
        zinf_format("%016llx", (unsigned long long)zinf_model_fingerprint(model)));
}

static void add_data(struct facts *facts, const char *name, const struct zinf_batches *batches)
{
    if (batches)
        add(facts, zinf_strdup(name),
            zinf_format("%d files, %lld tokens, %016llx", zinf_batches_file_count(batches),
                        (long long)zinf_batches_token_count(batches),
                        (unsigned long long)zinf_batches_fingerprint(batches)));
}

int zinf_run_check_ranks(struct zinf_run *run)
{
    struct facts facts = {0};
    add(&facts, zinf_strdup("build"), zinf_strdup(zinf_build()));
    add_json(&facts, zinf_strdup(""), run->config->effective);
    add_model(&facts, run->model);
    add_data(&facts, "training data", run->train);
    add_data(&facts, "evaluation data", run->eval);
    add(&facts, zinf_strdup("device"), zinf_strdup(run->processor.backend->name));
    add(&facts, zinf_strdup("kernels"), zinf_strdup(run->processor.backend->operations()->name));
    add(&facts, zinf_strdup("plan"),
        zinf_format("%016llx/%016llx", (unsigned long long)run->plan.checksum,
                    (unsigned long long)run->evaluation_plan.checksum));
    const int status = zinf_consistency_check(run->comm, facts.items, facts.count);
    for (size_t i = 0; i < facts.count; i++) {
        free((char *)facts.items[i].name);
        free((char *)facts.items[i].value);
    }
    free(facts.items);
    return status;
}
