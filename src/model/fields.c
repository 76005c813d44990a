/*
 * Which keys a config.json may have: those that settings.c reads, and those of transformers that
 * change nothing here. A folder's file may hold any others too, as transformers allows; in the
 * inline object of ds.json, which a person types, they are misspelt.
 */
#include "model/families.h"

#include <limits.h>
#include <string.h>

#include "base/words.h"

/* Read for every family: the class itself, and the ids that the text is cut with. */
static const char *const common[] = {"model_type", "initializer_range", "pad_token_id",
                                     "eos_token_id", NULL};

/*
 * transformers 4.40 to 5.23, PretrainedConfig: attributes of every class that concern saving,
 * generation, other heads or PyTorch.
 */
static const char *const ignored[] = {"architectures",
                                      "auto_map",
                                      "_name_or_path",
                                      "name_or_path",
                                      "_commit_hash",
                                      "_attn_implementation",
                                      "attn_implementation",
                                      "_attn_implementation_autoset",
                                      "transformers_version",
                                      "torch_dtype",
                                      "dtype",
                                      "torchscript",
                                      "use_bfloat16",
                                      "use_cache",
                                      "gradient_checkpointing",
                                      "output_hidden_states",
                                      "output_attentions",
                                      "output_scores",
                                      "return_dict",
                                      "return_dict_in_generate",
                                      "chunk_size_feed_forward",
                                      "is_decoder",
                                      "cross_attention_hidden_size",
                                      "tie_encoder_decoder",
                                      "tf_legacy_loss",
                                      "remove_invalid_values",
                                      "bos_token_id",
                                      "sep_token_id",
                                      "cls_token_id",
                                      "decoder_start_token_id",
                                      "tokenizer_class",
                                      "prefix",
                                      "finetuning_task",
                                      "task_specific_params",
                                      "problem_type",
                                      "num_labels",
                                      "id2label",
                                      "label2id",
                                      "max_length",
                                      "min_length",
                                      "do_sample",
                                      "early_stopping",
                                      "num_beams",
                                      "num_beam_groups",
                                      "diversity_penalty",
                                      "temperature",
                                      "top_k",
                                      "top_p",
                                      "typical_p",
                                      "repetition_penalty",
                                      "length_penalty",
                                      "no_repeat_ngram_size",
                                      "encoder_no_repeat_ngram_size",
                                      "bad_words_ids",
                                      "num_return_sequences",
                                      "forced_bos_token_id",
                                      "forced_eos_token_id",
                                      "exponential_decay_length_penalty",
                                      "suppress_tokens",
                                      "begin_suppress_tokens",
                                      NULL};

/* Of rope_scaling and rope_parameters; what other rope_types have besides is refused with them. */
static const char *const rope[] = {"rope_type",
                                   "type",
                                   "rope_theta",
                                   "factor",
                                   "low_freq_factor",
                                   "high_freq_factor",
                                   "original_max_position_embeddings",
                                   "partial_rotary_factor",
                                   NULL};

/* Walks names and keeps the one that is nearest to `word`. */
struct search {
    const char *word, *nearest;
    int distance;
};

/* True when it is the word itself. */
static bool look(struct search *search, const char *name)
{
    int distance = name ? zinf_word_distance(search->word, name) : INT_MAX;
    if (distance < search->distance) {
        search->distance = distance;
        search->nearest = name;
    }
    return name && !strcmp(search->word, name);
}

static bool look_all(struct search *search, const char *const *names)
{
    bool found = false;
    for (; *names; names++)
        found |= look(search, *names);
    return found;
}

static bool look_family(struct search *search, const struct zinf_family *family)
{
    bool found = look_all(search, common);
    found |= look_all(search, family->others);
    for (const struct zinf_family_integer *field = family->integers; field->key; field++) {
        found |= look(search, field->key);
        found |= look(search, field->alias);
    }
    for (const struct zinf_family_number *field = family->numbers; field->key; field++)
        found |= look(search, field->key);
    for (const struct zinf_family_switch *field = family->switches; field->key; field++)
        found |= look(search, field->key);
    for (const struct zinf_family_refusal *refusal = family->refusals; refusal->key; refusal++)
        found |= look(search, refusal->key);
    found |= look(search, family->activation_key);
    found |= look(search, family->scale_switch);
    return found;
}

bool zinf_family_reads(const struct zinf_family *family, const char *key)
{
    struct search search = {key, NULL, INT_MAX};
    return look_family(&search, family);
}

/* Another family's key of a value that this family spells otherwise: "n_embd" in a llama. */
static const char *translate(const struct zinf_family *family, const char *key)
{
    for (const struct zinf_family *const *other = zinf_family_all(); *other; other++)
        for (const struct zinf_family_integer *theirs = (*other)->integers; theirs->key; theirs++)
            for (const struct zinf_family_integer *ours = family->integers; ours->key; ours++)
                if (theirs->offset == ours->offset && !strcmp(theirs->key, key))
                    return ours->key;
    return NULL;
}

enum zinf_model_field zinf_model_field(const char *model_type, const char *parent, const char *key,
                                       const char **nearest)
{
    const struct zinf_family *family = zinf_family_find(model_type);
    struct search search = {key, NULL, INT_MAX}, other = {key, NULL, INT_MAX};
    if (*parent ? look_all(&search, rope) : look_family(&search, family))
        return ZINF_MODEL_FIELD_READ;
    if (!*parent && (look_all(&other, ignored) || look_all(&other, family->ignored)))
        return ZINF_MODEL_FIELD_IGNORED;
    const char *translated = *parent ? NULL : translate(family, key);
    *nearest = translated ? translated : search.nearest;
    return ZINF_MODEL_FIELD_UNKNOWN;
}

const char *zinf_model_alias(const char *model_type, const char *key)
{
    const struct zinf_family *family = zinf_family_find(model_type);
    for (const struct zinf_family_integer *field = family ? family->integers : NULL;
         field && field->key; field++) {
        if (field->alias && !strcmp(field->key, key))
            return field->alias;
        if (field->alias && !strcmp(field->alias, key))
            return field->key;
    }
    return NULL;
}
