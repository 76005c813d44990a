/*
 * The algorithms of matrix products, chosen before the first step: rank 0 times them, all ranks use
 * its table, and a run that goes on uses the table of its checkpoint. See device/products.h.
 *
 * A table is good for one version of the library on one kind of device. Where ranks differ in
 * either, none is made and every rank takes the first algorithm of its own library: that is slower
 * by some per cent, and the same in every start of that job. So does --deterministic. Rejected: a
 * table for each kind, whose bits would depend on which rank is asked first.
 */
#include "train/run.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "model/products.h"

static const struct zinf_device_products *backend_of(const struct zinf_run *run)
{
    return run->processor.backend ? run->processor.backend->products : NULL;
}

static void add_product(void *context, const struct zinf_matmul *op)
{
    struct zinf_product product;
    zinf_product_of(op, &product);
    zinf_products_add(context, &product);
}

/* What this run's passes are made of: of a micro-batch and of an evaluation's. */
static void list_products(const struct zinf_run *run, bool training, struct zinf_products *products)
{
    const struct zinf_config *config = run->config;
    struct zinf_products_pass pass = {.model = run->model,
                                      .dtype = config->precision.dtype,
                                      .batch = config->batch.micro,
                                      .sequence = config->data.sequence_length,
                                      .training = true};
    if (training)
        zinf_model_products(&pass, add_product, products);
    pass.batch = config->train.eval_micro_batch;
    pass.training = false;
    if (config->data.eval.count)
        zinf_model_products(&pass, add_product, products);
}

/* The library and device of all ranks, and how algorithms are chosen. @return may they be timed?
 * Collective. */
static bool find_source(struct zinf_run *run, char source[320])
{
    char mine[280] = "", theirs[320] = "";
    backend_of(run)->source(&run->processor, mine, sizeof mine);
    int other = zinf_products_other_source(run->comm, mine, theirs);
    zinf_comm_broadcast(run->comm, 0, mine, sizeof mine);
    bool timed = *mine && other < 0 && !run->config->limits.deterministic;
    snprintf(source, 320, "%s%s", *mine ? mine : "zinf's own kernel",
             timed || !*mine ? "" : ", the first algorithms");
    if (other > 0)
        zinf_warn("matrix products: rank 0 has %s, rank %d has %s: no algorithms are timed, each "
                  "rank takes the first of its own library, which is slower; give all ranks the "
                  "same library (ZINF_CUDA_LIBRARIES) and cards",
                  *mine ? mine : "no library", other, *theirs ? theirs : "no library");
    return timed;
}

/* What the checkpoint's table says of them, where it holds for this library and device. */
static void take_over(const struct zinf_run *run, struct zinf_products *products)
{
    struct zinf_products before = {0};
    struct zinf_error error = {0};
    if (!run->products_text)
        return;
    if (zinf_products_parse(&before, run->products_text, &error))
        zinf_warn("%s: %s; they are chosen again (the numbers go on within rounding, not bit for "
                  "bit)",
                  run->resumed_from, error.text);
    else if (strcmp(before.source, products->source) != 0)
        zinf_info("changed since the checkpoint: matrix products: %s -> %s (the numbers go on "
                  "within rounding, not bit for bit)",
                  before.source, products->source);
    else
        for (int i = 0; i < products->count; i++) {
            struct zinf_product_choice *own = &products->items[i];
            const struct zinf_product_choice *known = zinf_products_find(&before, &own->product);
            if (known)
                *own = *known;
        }
    zinf_products_release(&before);
}

static int without_algorithm(const struct zinf_products *products)
{
    int count = 0;
    for (int i = 0; i < products->count; i++)
        count += products->items[i].bytes == 0;
    return count;
}

void zinf_run_choose_products(struct zinf_run *run, bool training)
{
    const struct zinf_device_products *backend = backend_of(run);
    struct zinf_products *products = &run->products;
    double begin = zinf_clock_s();
    if (!backend || run->config->limits.dry_run)
        return;
    list_products(run, training, products);
    bool timed = find_source(run, products->source);
    take_over(run, products);
    run->products_new = timed ? without_algorithm(products) : 0;
    run->processor.backend->use(&run->processor, ZINF_STREAM_COMPUTE);
    if (run->products_new > 0 && run->comm->rank == 0)
        backend->measure(&run->processor, products->items, products->count);
    zinf_products_share(products, run->comm);
    backend->take(&run->processor, products);
    run->products_s = zinf_clock_s() - begin;
}

static void say_row(const struct zinf_product_choice *row)
{
    const char *way = row->fused                              ? ", fused"
                      : zinf_product_activates(&row->product) ? ", then an operation of its own"
                                                              : "";
    char name[160];
    zinf_product_name(&row->product, name, sizeof name);
    if (row->bytes == 0)
        zinf_debug("product     %s: the library's first algorithm", name);
    else if (row->seconds > 0)
        zinf_debug("product     %s: algorithm %d of %d%s, %.1f us (the first %.1f us)", name,
                   row->candidate, row->candidates, way, row->seconds * 1e6, row->first_s * 1e6);
    else
        zinf_debug("product     %s: algorithm %d of %d%s", name, row->candidate, row->candidates,
                   way);
}

void zinf_run_say_products(const struct zinf_run *run)
{
    const struct zinf_products *products = &run->products;
    const int missing = without_algorithm(products), timed = run->products_new - missing;
    const int kept = products->count - run->products_new;
    char new[160] = "", old[64] = "", left[96] = "";
    double first_s = 0, chosen_s = 0;
    for (int i = 0; i < products->count; i++) {
        say_row(&products->items[i]);
        first_s += products->items[i].first_s, chosen_s += products->items[i].seconds;
    }
    if (products->count == 0)
        return;
    if (run->products_new > 0 && timed > 0)
        snprintf(new, sizeof new, ", %d timed on rank 0 (%.2f x the first algorithms)", timed,
                 chosen_s > 0 ? first_s / chosen_s : 1);
    if (kept > missing || (kept > 0 && run->products_new > 0))
        snprintf(old, sizeof old, ", %d as in the checkpoint", kept);
    if (run->products_new > 0 && missing > 0)
        snprintf(left, sizeof left, ", %d by the first algorithm: no memory is left to time them",
                 missing);
    zinf_info("products    %d by %s%s%s%s; ready in %.2f s", products->count, products->source, new,
              old, left, run->products_s);
}

void zinf_run_keep_products(struct zinf_run *run, const struct zinf_checkpoint_file *file)
{
    const char *text = zinf_checkpoint_text(file, "products");
    free(run->products_text);
    run->products_text = text ? zinf_strdup(text) : NULL;
}
