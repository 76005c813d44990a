/*
 * The parameter table and the blocks of a model, from config.json and the family's description.
 *
 * Parameters stand in the order of transformers' state dict (that is the order files are written
 * in); inside a layer block they lie in the order of `enum group` (that is what products need). A
 * piece ties the two together.
 */
#include "model/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "model/families.h"

enum { GROUP_ALIGNMENT = 64, MAX_MODULES = 16, TILE_ROW_ALIGNMENT = 64 };

/* What begins at a multiple of 64 elements of a layer block, in block order: the fields of struct
 * zinf_layer_offsets. */
enum group {
    NORM1,
    NORM1_BIAS,
    QKV,
    QKV_BIAS,
    OUT,
    OUT_BIAS,
    NORM2,
    NORM2_BIAS,
    UP,
    UP_BIAS,
    DOWN,
    DOWN_BIAS,
    GROUPS
};

static const size_t group_offsets[GROUPS] = {offsetof(struct zinf_layer_offsets, norm1_weight),
                                             offsetof(struct zinf_layer_offsets, norm1_bias),
                                             offsetof(struct zinf_layer_offsets, qkv_weight),
                                             offsetof(struct zinf_layer_offsets, qkv_bias),
                                             offsetof(struct zinf_layer_offsets, out_weight),
                                             offsetof(struct zinf_layer_offsets, out_bias),
                                             offsetof(struct zinf_layer_offsets, norm2_weight),
                                             offsetof(struct zinf_layer_offsets, norm2_bias),
                                             offsetof(struct zinf_layer_offsets, up_weight),
                                             offsetof(struct zinf_layer_offsets, up_bias),
                                             offsetof(struct zinf_layer_offsets, down_weight),
                                             offsetof(struct zinf_layer_offsets, down_bias)};

/* A parameter of a layer: its group and how it begins. The same for all layers. */
struct member {
    enum group group;
    const char *module, *suffix; /* "attn.c_attn", ".weight" */
    int dim_count;
    int64_t shape[2], count, block_offset;
    enum zinf_init init;
    double init_std;
};

/* A model under construction. */
struct builder {
    struct zinf_model *model;
    const struct zinf_family *family;
    struct zinf_settings settings;
    struct member members[2 * MAX_MODULES]; /* of a layer, in state-dict order */
    int member_count;
    int64_t layer_elements;
};

static enum group role_group(enum zinf_role role)
{
    switch (role) {
    case ZINF_ROLE_NORM1:
        return NORM1;
    case ZINF_ROLE_QKV:
    case ZINF_ROLE_QUERY:
    case ZINF_ROLE_KEY:
    case ZINF_ROLE_VALUE:
        return QKV;
    case ZINF_ROLE_OUT:
        return OUT;
    case ZINF_ROLE_NORM2:
        return NORM2;
    case ZINF_ROLE_GATE:
    case ZINF_ROLE_UP:
        return UP;
    default:
        return DOWN;
    }
}

/* What a module makes of a token's vector: `in` numbers -> `out` numbers; in == 0: a norm. */
static void role_size(const struct zinf_model *model, enum zinf_role role, int64_t *in,
                      int64_t *out)
{
    const int64_t queries = model->heads * model->head_size;
    const int64_t keys = model->kv_heads * model->head_size;
    *in = model->hidden;
    *out = model->hidden;
    if (role == ZINF_ROLE_NORM1 || role == ZINF_ROLE_NORM2)
        *in = 0;
    else if (role == ZINF_ROLE_QKV)
        *out = queries + 2 * keys;
    else if (role == ZINF_ROLE_QUERY)
        *out = queries;
    else if (role == ZINF_ROLE_KEY || role == ZINF_ROLE_VALUE)
        *out = keys;
    else if (role == ZINF_ROLE_OUT)
        *in = queries;
    else if (role == ZINF_ROLE_GATE || role == ZINF_ROLE_UP)
        *out = model->features;
    else
        *in = model->features;
}

static bool has_bias(const struct builder *builder, const struct zinf_family_module *module)
{
    return module->bias == ZINF_BIAS_ALWAYS ||
           (module->bias == ZINF_BIAS_ATTENTION && builder->settings.attention_bias) ||
           (module->bias == ZINF_BIAS_MLP && builder->settings.mlp_bias);
}

static void add_members(struct builder *builder, const struct zinf_family_module *module)
{
    int64_t in, out;
    role_size(builder->model, module->role, &in, &out);
    struct member *weight = &builder->members[builder->member_count++];
    *weight = (struct member){.group = role_group(module->role),
                              .module = module->name,
                              .suffix = ".weight",
                              .dim_count = in ? 2 : 1,
                              .shape = {out, in ? in : 1},
                              .count = out * (in ? in : 1),
                              .init = in ? ZINF_INIT_NORMAL : ZINF_INIT_ONE,
                              .init_std = in ? builder->settings.init_std : 0};
    if (in && builder->family->conv1d) {
        weight->shape[0] = in;
        weight->shape[1] = out;
    }
    if (builder->family->residual_init && (weight->group == OUT || weight->group == DOWN))
        weight->init_std /= sqrt(2.0 * (double)builder->model->layers);
    if (!has_bias(builder, module))
        return;
    struct member *bias = &builder->members[builder->member_count++];
    *bias = (struct member){.group = weight->group + 1, /* see enum group */
                            .module = module->name,
                            .suffix = ".bias",
                            .dim_count = 1,
                            .shape = {out, 1},
                            .count = out,
                            .init = ZINF_INIT_ZERO};
}

/* Where every member lies in a layer block: group after group, each at its alignment, members of a
 * group without a gap. */
static void place_members(struct builder *builder)
{
    int64_t end = 0;
    for (int group = 0; group < GROUPS; group++) {
        int64_t begin = (end + GROUP_ALIGNMENT - 1) / GROUP_ALIGNMENT * GROUP_ALIGNMENT;
        int64_t next = begin;
        for (int i = 0; i < builder->member_count; i++) {
            struct member *member = &builder->members[i];
            if ((int)member->group != group)
                continue;
            member->block_offset = next;
            next += member->count;
        }
        int64_t *offset = (int64_t *)((char *)&builder->model->layer + group_offsets[group]);
        *offset = next > begin ? begin : -1;
        end = next > begin ? next : end;
    }
    builder->layer_elements = end;
}

/* Takes `name` over. */
static int add_param(struct zinf_model *model, char *name, int64_t rows, int64_t columns)
{
    struct zinf_param *param = &model->params[model->param_count];
    *param = (struct zinf_param){.name = name,
                                 .dim_count = columns ? 2 : 1,
                                 .shape = {rows, columns ? columns : 1},
                                 .count = rows * (columns ? columns : 1)};
    model->total_count += param->count;
    return model->param_count++;
}

static int add_table(struct builder *builder, char *name, int64_t rows, bool lookup_only)
{
    int index = add_param(builder->model, name, rows, builder->model->hidden);
    struct zinf_param *param = &builder->model->params[index];
    param->init = ZINF_INIT_NORMAL;
    param->init_std = builder->settings.init_std;
    param->lookup_only = lookup_only;
    return index;
}

static struct zinf_block *add_block(struct zinf_model *model, enum zinf_block_kind kind, int layer,
                                    int piece_count)
{
    struct zinf_block *block = &model->blocks[model->block_count++];
    *block =
        (struct zinf_block){.kind = kind,
                            .layer = layer,
                            .pieces = zinf_alloc((size_t)piece_count * sizeof(struct zinf_piece)),
                            .piece_count = piece_count};
    return block;
}

/* Rows of a tile: at most a layer's elements, all tiles about equal, whole multiples of 64 where
 * that fits. */
static int64_t tile_rows(const struct builder *builder, int64_t rows)
{
    int64_t most = builder->layer_elements / builder->model->hidden;
    most = most < 1 ? 1 : most;
    int64_t tiles = (rows + most - 1) / most;
    int64_t even = (rows + tiles - 1) / tiles;
    int64_t aligned = (even + TILE_ROW_ALIGNMENT - 1) / TILE_ROW_ALIGNMENT * TILE_ROW_ALIGNMENT;
    return aligned <= most ? aligned : even;
}

static int tile_count(const struct builder *builder, int64_t rows)
{
    int64_t height = tile_rows(builder, rows);
    return (int)((rows + height - 1) / height);
}

static void add_tiles(struct builder *builder, enum zinf_block_kind kind, int param)
{
    const struct zinf_param *table = &builder->model->params[param];
    const int64_t rows = table->shape[0], columns = table->shape[1];
    const int64_t height = tile_rows(builder, rows);
    for (int64_t first = 0; first < rows; first += height) {
        struct zinf_block *block = add_block(builder->model, kind, -1, 1);
        block->first_row = first;
        block->row_count = rows - first < height ? rows - first : height;
        block->element_count = block->row_count * columns;
        block->pieces[0] = (struct zinf_piece){param, first * columns, 0, block->element_count};
    }
}

static int compare_pieces(const void *a, const void *b)
{
    const struct zinf_piece *left = a, *right = b;
    return left->block_offset < right->block_offset ? -1 : 1;
}

static void add_layer(struct builder *builder, int layer)
{
    struct zinf_model *model = builder->model;
    const struct zinf_family *family = builder->family;
    struct zinf_block *block = add_block(model, ZINF_BLOCK_LAYER, layer, builder->member_count);
    block->element_count = builder->layer_elements;
    for (int i = 0; i < builder->member_count; i++) {
        const struct member *member = &builder->members[i];
        char *name = zinf_format("%s%s%d.%s%s", family->prefix, family->layers, layer,
                                 member->module, member->suffix);
        int param =
            add_param(model, name, member->shape[0], member->dim_count == 2 ? member->shape[1] : 0);
        model->params[param].init = member->init;
        model->params[param].init_std = member->init_std;
        block->pieces[i] = (struct zinf_piece){param, 0, member->block_offset, member->count};
    }
    qsort(block->pieces, (size_t)block->piece_count, sizeof(*block->pieces), compare_pieces);
}

static void add_final_norm(struct builder *builder)
{
    struct zinf_model *model = builder->model;
    const struct zinf_family *family = builder->family;
    const int count = model->rms_norm ? 1 : 2;
    struct zinf_block *block = add_block(model, ZINF_BLOCK_FINAL_NORM, -1, count);
    for (int i = 0; i < count; i++) {
        char *name =
            zinf_format("%s%s%s", family->prefix, family->final_norm, i ? ".bias" : ".weight");
        int param = add_param(model, name, model->hidden, 0);
        model->params[param].init = i ? ZINF_INIT_ZERO : ZINF_INIT_ONE;
        int64_t offset =
            (block->element_count + GROUP_ALIGNMENT - 1) / GROUP_ALIGNMENT * GROUP_ALIGNMENT;
        block->pieces[i] = (struct zinf_piece){param, 0, offset, model->hidden};
        block->element_count = offset + model->hidden;
    }
}

static void add_everything(struct builder *builder)
{
    struct zinf_model *model = builder->model;
    const struct zinf_family *family = builder->family;
    char *name = zinf_format("%s%s.weight", family->prefix, family->embedding);
    add_tiles(builder, ZINF_BLOCK_EMBEDDING, add_table(builder, name, model->vocab, !model->tied));
    model->embedding_block_count = model->block_count;
    if (family->position) {
        name = zinf_format("%s%s.weight", family->prefix, family->position);
        add_tiles(builder, ZINF_BLOCK_POSITION, add_table(builder, name, model->positions, true));
    }
    model->position_block_count = model->block_count - model->embedding_block_count;
    model->first_layer_block = model->block_count;
    for (int layer = 0; layer < model->layers; layer++)
        add_layer(builder, layer);
    model->final_norm_block = model->block_count;
    add_final_norm(builder);
    model->head_block_count = model->embedding_block_count;
    if (model->tied)
        return;
    model->first_head_block = model->block_count;
    add_tiles(builder, ZINF_BLOCK_HEAD,
              add_table(builder, zinf_strdup("lm_head.weight"), model->vocab, false));
}

static void build(struct builder *builder)
{
    struct zinf_model *model = builder->model;
    for (const struct zinf_family_module *module = builder->family->modules; module->name;
         module++) {
        ZINF_ASSERT(builder->member_count + 2 <= 2 * MAX_MODULES);
        add_members(builder, module);
    }
    place_members(builder);
    size_t params =
        (size_t)(builder->member_count * model->layers) + 5; /* tables, final norm, head */
    size_t blocks = (size_t)model->layers + 1 + 2 * (size_t)tile_count(builder, model->vocab) +
                    (size_t)tile_count(builder, model->positions);
    model->params = zinf_alloc(params * sizeof(*model->params));
    model->blocks = zinf_alloc(blocks * sizeof(*model->blocks));
    add_everything(builder);
    ZINF_ASSERT((size_t)model->param_count <= params && (size_t)model->block_count <= blocks);
    for (int i = 0; i < model->param_count; i++)
        model->matmul_count += model->params[i].lookup_only ? 0 : model->params[i].count;
}

static const struct zinf_family *find_family(const struct zinf_json *config,
                                             zinf_model_problem_fn say, void *context)
{
    const char *name = zinf_json_string(config, "model_type", NULL);
    const struct zinf_family *family = name ? zinf_family_find(name) : NULL;
    if (family)
        return family;
    char known[256] = "known are ";
    for (const struct zinf_family *const *other = zinf_family_all(); *other; other++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof(known) - used, "%s%s", other == zinf_family_all() ? "" : ", ",
                 (*other)->name);
    }
    say(context, "model_type", zinf_json_get(config, "model_type"), known);
    return NULL;
}

/* The first problem, as an error. */
struct first_problem {
    const char *source;
    struct zinf_error *error;
    bool found;
};

static void keep_first(void *context, const char *key, const struct zinf_json *value,
                       const char *right)
{
    struct first_problem *first = context;
    char *text = value ? zinf_json_print(value, -1) : zinf_strdup("missing");
    if (!first->found)
        zinf_error_set(first->error, ZINF_E_DATA, "%s: \"%s\" is %.200s; %s", first->source, key,
                       text, right);
    first->found = true;
    free(text);
}

/* Everything but the tables. */
static int read_config(struct zinf_model *model, struct zinf_settings *settings,
                       const struct zinf_family *family, zinf_model_problem_fn say, void *context)
{
    model->family = family->name;
    model->conv1d = family->conv1d;
    model->rms_norm = family->rms_norm;
    model->gated = family->gated;
    model->rotary = !family->position;
    return zinf_settings_read(model, settings, family, say, context);
}

int zinf_model_new(struct zinf_model **model, const struct zinf_json *config, const char *source,
                   struct zinf_error *error)
{
    struct first_problem first = {.source = source, .error = error};
    const struct zinf_family *family = find_family(config, keep_first, &first);
    if (!family)
        return ZINF_E_DATA;
    struct builder builder = {.model = zinf_alloc(sizeof(struct zinf_model)), .family = family};
    struct zinf_model *made = builder.model;
    made->config = zinf_json_copy(config);
    int status = read_config(made, &builder.settings, family, keep_first, &first);
    if (status) {
        zinf_model_free(made);
        return status;
    }
    build(&builder);
    *model = made;
    return 0;
}

int64_t zinf_model_check(const struct zinf_json *config, zinf_model_problem_fn say, void *context)
{
    const struct zinf_family *family = find_family(config, say, context);
    struct zinf_settings settings;
    if (!family)
        return 0;
    struct zinf_model *model = zinf_alloc(sizeof *model);
    model->config = zinf_json_copy(config);
    int64_t positions = read_config(model, &settings, family, say, context) ? 0 : model->positions;
    zinf_model_free(model);
    return positions;
}

void zinf_model_free(struct zinf_model *model)
{
    if (!model)
        return;
    for (int i = 0; i < model->param_count; i++)
        free(model->params[i].name);
    for (int i = 0; i < model->block_count; i++)
        free(model->blocks[i].pieces);
    free(model->params);
    free(model->blocks);
    free(model->inverse_frequency);
    zinf_json_free(model->config);
    free(model);
}

/* What wrappers leave before a name, also several: DistributedDataParallel, torch.compile, PEFT, a
 * class of one's own around the model. NULL: nothing. */
static const char *without_wrapper(const char *name)
{
    static const char *const wrappers[] = {"module.", "_orig_mod.", "base_model.", "model."};
    for (size_t i = 0; i < sizeof wrappers / sizeof *wrappers; i++)
        if (strncmp(name, wrappers[i], strlen(wrappers[i])) == 0)
            return name + strlen(wrappers[i]);
    return NULL;
}

static int find_exactly(const struct zinf_model *model, const char *name)
{
    const char *prefix = zinf_family_find(model->family)->prefix;
    const size_t prefix_bytes = strlen(prefix);
    for (int i = 0; i < model->param_count; i++) {
        const char *full = model->params[i].name;
        bool prefixed = strncmp(full, prefix, prefix_bytes) == 0;
        if (strcmp(full, name) == 0 || (prefixed && strcmp(full + prefix_bytes, name) == 0))
            return i;
    }
    return -1;
}

int zinf_model_find(const struct zinf_model *model, const char *name)
{
    int found = -1;
    for (; name && found < 0; name = without_wrapper(name))
        found = find_exactly(model, name);
    return found;
}

bool zinf_model_ignores(const struct zinf_model *model, const char *name)
{
    const size_t length = strlen(name);
    for (const char *const *suffix = zinf_family_find(model->family)->buffers; *suffix; suffix++) {
        const size_t bytes = strlen(*suffix);
        if (length >= bytes && strcmp(name + length - bytes, *suffix) == 0)
            return true;
    }
    bool head = false;
    for (; name && !head; name = without_wrapper(name))
        head = strcmp(name, "lm_head.weight") == 0;
    return model->tied && head;
}

/* Zero what falls into the padding row of the embedding, as transformers' _init_weights does for
 * torch's padding_idx. */
static void zero_padding_row(const struct zinf_model *model, int64_t offset, int64_t count,
                             float *out)
{
    int64_t begin = model->padding_row * model->hidden - offset;
    int64_t end = begin + model->hidden;
    begin = begin < 0 ? 0 : begin;
    end = end > count ? count : end;
    if (begin < end)
        memset(out + begin, 0, (size_t)(end - begin) * sizeof(*out));
}

void zinf_model_init_values(const struct zinf_model *model, int param, uint64_t seed,
                            int64_t offset, int64_t count, float *out)
{
    ZINF_ASSERT(param >= 0 && param < model->param_count);
    const struct zinf_param *info = &model->params[param];
    ZINF_ASSERT(offset >= 0 && count >= 0 && offset + count <= info->count);
    if (info->init != ZINF_INIT_NORMAL) {
        for (int64_t i = 0; i < count; i++)
            out[i] = info->init == ZINF_INIT_ONE ? 1.0f : 0.0f;
        return;
    }
    char *stream = zinf_format("init/%s", info->name);
    zinf_rng_normal(out, zinf_rng_key(seed, stream), offset, count, 0, info->init_std);
    free(stream);
    if (model->padding_row >= 0 && param == 0) /* the embedding is the first parameter */
        zero_padding_row(model, offset, count, out);
}

double zinf_model_flop_per_token(const struct zinf_model *model, int64_t sequence)
{
    return 6.0 * (double)model->matmul_count + 12.0 * (double)model->layers * (double)model->heads *
                                                   (double)model->head_size * (double)sequence;
}

/* FNV-1a, 64 bit. */
static uint64_t hash(uint64_t state, const void *data, size_t bytes)
{
    const unsigned char *at = data;
    for (size_t i = 0; i < bytes; i++)
        state = (state ^ at[i]) * 0x100000001b3u;
    return state;
}

uint64_t zinf_model_fingerprint(const struct zinf_model *model)
{
    const int64_t integers[] = {model->heads,      model->kv_heads,
                                model->head_size,  model->activation,
                                model->conv1d,     model->rms_norm,
                                model->gated,      model->tied,
                                model->rotary,     model->attention_scale_by_layer,
                                model->padding_row};
    const double numbers[] = {model->norm_epsilon, model->embedding_dropout,
                              model->attention_dropout, model->residual_dropout,
                              model->attention_scale_base};
    uint64_t state = hash(0xcbf29ce484222325u, model->family, strlen(model->family) + 1);
    state = hash(state, integers, sizeof(integers));
    state = hash(state, numbers, sizeof(numbers));
    if (model->inverse_frequency)
        state = hash(state, model->inverse_frequency,
                     (size_t)(model->head_size / 2) * sizeof(*model->inverse_frequency));
    for (int i = 0; i < model->param_count; i++) {
        const struct zinf_param *param = &model->params[i];
        state = hash(state, param->name, strlen(param->name) + 1);
        state = hash(state, param->shape, sizeof(param->shape));
    }
    return state;
}
