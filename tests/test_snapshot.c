/*
 * test_snapshot save|load FILE STAGE: write or read a checkpoint of a small model whose every value
 * says where it belongs.
 *
 * Run by test_resume.sh on different numbers of ranks. Exit 0 = every value is in its place, 1 =
 * not.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "topology/comm_mpi.h"
#include "train/snapshot.h"

static const char config_text[] =
    "{\"model_type\": \"gpt2\", \"vocab_size\": 257, \"n_positions\": 33, \"n_embd\": 24, "
    "\"n_layer\": 3, \"n_head\": 2}";

static struct zinf_model *small_model(void)
{
    const struct zinf_json_options options = {.file = "test", .strict = true};
    struct zinf_error_list errors = {0};
    struct zinf_json *config = NULL;
    struct zinf_model *model = NULL;
    struct zinf_error error;
    zinf_json_parse(&config, config_text, strlen(config_text), &options, &errors);
    if (zinf_model_new(&model, config, "test", &error))
        fprintf(stderr, "%s\n", error.text);
    zinf_json_free(config);
    return model;
}

/* A value that no other element of the file has: small integers are exact in fp32. */
static float value_of(int kind, int param, int64_t element)
{
    return (float)(kind * 2000000 + param * 20011 + element % 20011);
}

/* Fill (check false) or compare everything this rank keeps. */
static int64_t visit(struct zinf_zero *zero, int kinds, int check)
{
    int64_t wrong = 0;
    for (int b = 0; b < zero->options.model->block_count; b++) {
        const struct zinf_block *block = &zero->options.model->blocks[b];
        struct zinf_range owned = zinf_zero_owned(zero, b);
        for (int i = 0; i < block->piece_count; i++)
            for (int64_t e = 0; e < block->pieces[i].count; e++)
                for (int kind = 0; kind < kinds; kind++) {
                    int64_t at = block->pieces[i].block_offset + e - owned.begin;
                    float value =
                        value_of(kind, block->pieces[i].param, block->pieces[i].param_offset + e);
                    float *place = kind ? zero->blocks[b].moment[kind - 1] : zero->blocks[b].master;
                    if (at < 0 || at >= owned.end - owned.begin)
                        continue;
                    if (check)
                        wrong += place[at] != value;
                    else
                        place[at] = value;
                }
    }
    return wrong;
}

static void lay_out(struct zinf_zero *zero, struct zinf_plan *plan, struct zinf_pool *pool,
                    struct zinf_comm *comm, struct zinf_model *model, int stage)
{
    const struct zinf_plan_options options = {.model = model,
                                              .ranks = comm->size,
                                              .sharding = zinf_sharding_of_stage(stage),
                                              .micro_count = 1,
                                              .training = true,
                                              .max_live_elements = 1000000};
    const struct zinf_zero_options zero_options = {.model = model,
                                                   .comm = comm,
                                                   .ops = zinf_cpu_ops(),
                                                   .sharding = options.sharding,
                                                   .training = true,
                                                   .moment_count = 2};
    zinf_plan_build(plan, &options);
    zinf_zero_layout(zero, &zero_options, plan, pool, pool);
    zinf_pool_open(pool);
    zinf_zero_layout(zero, &zero_options, plan, pool, pool);
}

int main(int argc, char **argv)
{
    struct zinf_comm comm;
    struct zinf_zero zero = {0};
    struct zinf_plan plan;
    struct zinf_pool pool = {0};
    struct zinf_error error = {0};
    struct zinf_run_state state = {.step = 12, .lr = 0.1, .loss_scale = 1}, read;
    struct zinf_checkpoint_file *file = NULL;
    int status = zinf_comm_mpi_open(&comm, &argc, &argv);
    if (status || argc != 4)
        return 2;
    struct zinf_model *model = small_model();
    lay_out(&zero, &plan, &pool, &comm, model, atoi(argv[3]));
    struct zinf_snapshot snapshot = {
        .zero = &zero, .moment_count = 2, .moment_names = {"exp_avg", "exp_avg_sq"}};
    if (strcmp(argv[1], "save") == 0) {
        visit(&zero, 3, 0);
        status = zinf_snapshot_save(&snapshot, &state, argv[2]);
    } else {
        status = zinf_checkpoint_open(&file, &comm, argv[2], &error);
        if (!status)
            status = zinf_snapshot_read_state(file, &read, &error);
        if (!status)
            status = zinf_snapshot_load(&snapshot, file, &error);
        if (status)
            fprintf(stderr, "%s\n", error.text);
        else if (visit(&zero, 3, 1) || read.step != 12 || read.lr != 0.1)
            status = ZINF_E_RUNTIME;
        zinf_checkpoint_close(file);
    }
    status = zinf_comm_agree(&comm, status);
    zinf_zero_close(&zero);
    zinf_plan_release(&plan);
    zinf_pool_close(&pool);
    zinf_model_free(model);
    comm.ops->close(&comm);
    return status != 0;
}
