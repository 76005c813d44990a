/*
 * A model as data: which parameters it has, in which order, and how they lie in flat blocks.
 *
 * The table is made from config.json and the family's description (families.c) alone; no weights are needed. It is equal on all
 * ranks. Parameter names are those of the state dict of the transformers class with its head ("transformer.h.0.attn.c_attn.weight").
 *
 * Blocks, in this order: embedding row tiles, position row tiles (gpt2), layers 0 .. L-1, final norm, head row tiles (not when the head is
 * tied: the head then reads the embedding's tiles). A row tile holds at most as many elements as the largest layer, so that no window
 * needs to be larger than a layer. Inside a block, groups of parameters that are one matrix product (q, k, v; gate, up; their biases) lie
 * behind each other without a gap; every group starts at a multiple of 64 elements; gaps are zero and stay zero.
 */
#ifndef ZINF_MODEL_MODEL_H
#define ZINF_MODEL_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"
#include "base/status.h"
#include "device/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

enum zinf_init { ZINF_INIT_ZERO, ZINF_INIT_ONE, ZINF_INIT_NORMAL };

struct zinf_param {
    char *name;       /* in the state dict, with the transformers prefix; owned */
    int dim_count;    /* 1 or 2 */
    int64_t shape[2];
    int64_t count;    /* elements */
    enum zinf_init init;
    double init_std;
    bool lookup_only; /* an embedding table that no matrix product reads: outside N' of the MFU formula */
};

/** A run of one parameter inside a block. */
struct zinf_piece {
    int param;
    int64_t param_offset; /* first element within the parameter (row tiles: first_row * columns) */
    int64_t block_offset; /* first element within the block */
    int64_t count;
};

enum zinf_block_kind {
    ZINF_BLOCK_EMBEDDING,
    ZINF_BLOCK_POSITION,
    ZINF_BLOCK_LAYER,
    ZINF_BLOCK_FINAL_NORM,
    ZINF_BLOCK_HEAD
};

struct zinf_block {
    enum zinf_block_kind kind;
    int layer;                    /* LAYER: its number; else -1 */
    int64_t first_row, row_count; /* row tiles: EMBEDDING, POSITION, HEAD */
    struct zinf_piece *pieces;    /* in order of block_offset; owned */
    int piece_count;
    int64_t element_count;        /* gaps between groups included, shard padding not */
};

/** Where the groups of a layer block begin, in elements; -1 = the family has none. Equal for all layers. */
struct zinf_layer_offsets {
    int64_t norm1_weight, norm1_bias;
    int64_t qkv_weight, qkv_bias; /* Conv1D (C, (H + 2 Hkv) D) or Linear ((H + 2 Hkv) D, C), see `conv1d` */
    int64_t out_weight, out_bias;
    int64_t norm2_weight, norm2_bias;
    int64_t up_weight, up_bias;   /* gated: gate then up, (2 F, C) */
    int64_t down_weight, down_bias;
};

/** How the frequencies of rotary positions are stretched; what the type does not compute with is 0. */
struct zinf_rope_scaling {
    enum { ZINF_ROPE_DEFAULT, ZINF_ROPE_LINEAR, ZINF_ROPE_LLAMA3 } type;
    double theta, factor, low, high, original;
};

struct zinf_model {
    const char *family;      /* "gpt2", "llama" */
    struct zinf_json *config; /* config.json as read and merged; owned */
    struct zinf_param *params;
    int param_count;
    struct zinf_block *blocks;
    int block_count;
    int first_layer_block, final_norm_block;
    int first_head_block, head_block_count; /* tiles the head reads: the embedding's when tied */
    int embedding_block_count;              /* tiles of the token embedding: blocks 0 .. n-1 */
    int position_block_count;               /* behind them; 0 = rotary positions */
    struct zinf_layer_offsets layer;

    int64_t vocab, positions, hidden, layers, heads, kv_heads, head_size, features; /* features: MLP width F */
    bool conv1d;     /* weights stored (in, out) */
    bool rms_norm;   /* no mean, no bias */
    bool gated;      /* MLP = down(f(gate) * up) */
    bool tied;       /* head = embedding */
    bool rotary;
    enum zinf_activation activation;
    double norm_epsilon;
    double embedding_dropout, attention_dropout, residual_dropout;
    double attention_scale_base; /* 1 / sqrt(head_size), or 1 */
    bool attention_scale_by_layer; /* gpt2: also / (layer + 1) */
    struct zinf_rope_scaling rope;         /* zero without rotary */
    float *inverse_frequency;      /* (head_size / 2), rope_scaling applied; NULL without rotary; owned */
    int64_t padding_row;           /* row of the embedding that starts at 0 and gets no gradient as an input (torch: padding_idx); -1 = none */
    int64_t total_count;           /* elements of all parameters, tied once */
    int64_t matmul_count;          /* N' of contract section 3 */
};

/**
 * @param model   out; owned by the caller, zinf_model_free()
 * @param config  the merged config.json (inline `zinf.model.config` wins key by key); copied
 * @param source  file name for messages
 * @return 0; ZINF_E_DATA: a feature that changes the mathematics and is not supported (names key and value), a value missing or out of range,
 *         an unknown model_type (names the known ones)
 * Spellings of transformers 4 (rope_theta, rope_scaling, torch_dtype) and 5 (rope_parameters, dtype) are both read.
 */
int zinf_model_new(struct zinf_model **model, const struct zinf_json *config, const char *source,
                   struct zinf_error *error);
void zinf_model_free(struct zinf_model *model);

/**
 * One thing wrong in a config.json.
 * @param key    "n_layer", "rope_scaling.factor"
 * @param value  borrowed, with its line and column if it came from a text; NULL: missing
 * @param right  what would be right, "it must be an integer from 1 to 4096"
 */
typedef void (*zinf_model_problem_fn)(void *context, const char *key, const struct zinf_json *value,
                                      const char *right);

/**
 * Look at a config.json without making a model: every problem of it at once. Local.
 * @param say  called with `context` for each problem, in no particular order
 * @return positions of the model, the longest sequence it can take; 0 after a problem
 */
int64_t zinf_model_check(const struct zinf_json *config, zinf_model_problem_fn say, void *context);

enum zinf_model_field {
    ZINF_MODEL_FIELD_UNKNOWN,
    ZINF_MODEL_FIELD_READ,
    ZINF_MODEL_FIELD_IGNORED /* transformers' own, concerns generation, other heads, Python */
};

/**
 * What a key of config.json is for a known model_type. Local.
 * @param key      "n_layer", or "factor" with `parent` "rope_scaling" or "rope_parameters"
 * @param parent   "" = a key of config.json itself
 * @param nearest  out, for an unknown one: the key that was likely meant, e.g. "n_layer" for "n_layers"; borrowed
 */
enum zinf_model_field zinf_model_field(const char *model_type, const char *parent, const char *key,
                                       const char **nearest);

/** The other spelling of the same value ("num_hidden_layers" of gpt2's "n_layer"); NULL = none. Local. */
const char *zinf_model_alias(const char *model_type, const char *key);

/** transformers' class for a model_type, "GPT2LMHeadModel"; NULL for an unknown one. Local. */
const char *zinf_model_architecture(const char *model_type);

/**
 * Index of a parameter by name: the full name, or without its "transformer." / "model." prefix, behind any number of "module.",
 * "_orig_mod.", "base_model." and "model."; -1 when there is none.
 */
int zinf_model_find(const struct zinf_model *model, const char *name);

/** Names that a weight file may hold besides parameters (buffers, the tied lm_head.weight) and that are left out. */
bool zinf_model_ignores(const struct zinf_model *model, const char *name);

/**
 * Initial values of elements [offset, offset + count) of a parameter. Depends on seed, name and element number only.
 * Distributions: transformers 5 `_init_weights` of the family (normal 0, initializer_range; gpt2's c_proj with / sqrt(2 layers); norms 1; biases 0).
 */
void zinf_model_init_values(const struct zinf_model *model, int param, uint64_t seed, int64_t offset,
                            int64_t count, float *out);

/** Model FLOP of forward and backward for one token: 6 N' + 12 L H Q S (PaLM, appendix B), recomputation not counted. */
double zinf_model_flop_per_token(const struct zinf_model *model, int64_t sequence);

/** 64-bit fingerprint of names, shapes and everything that changes the mathematics: "the same model" for resume. */
uint64_t zinf_model_fingerprint(const struct zinf_model *model);

enum { ZINF_MODEL_TRAITS = 32 };
/** One thing of a model's mathematics, named as its config.json names it: "n_embd" "768". */
struct zinf_model_trait {
    const char *key;
    char value[64];  /* as computed with, defaults filled in */
    bool is_written; /* config.json has it; else it is a default or follows from the others */
};

/**
 * What tells models of a family apart, "model_type" first. Local.
 * @return how many; models with equal fingerprints have equal traits
 */
int zinf_model_traits(const struct zinf_model *model,
                      struct zinf_model_trait traits[ZINF_MODEL_TRAITS]);

/**
 * "n_embd is 16 in the checkpoint, 32 now; n_head is ...": all traits that differ, without those that only follow from others. Local.
 * @param where  how to speak of a and of b, {"in the checkpoint", "now"}
 * @param out    cut where it is full; "" when no trait differs
 */
void zinf_model_differences(const struct zinf_model *a, const struct zinf_model *b,
                            const char *const where[2], char *out, size_t out_bytes);

#ifdef __cplusplus
}
#endif
#endif
