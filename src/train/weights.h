/*
 * Where the first weights come from: random numbers, or a Hugging Face folder. Every rank makes or reads the elements it owns and no others. In 16 bits
 * the master weights are the rounded values, as those of a model that was cast.
 */
#ifndef ZINF_TRAIN_WEIGHTS_H
#define ZINF_TRAIN_WEIGHTS_H

#include <stdint.h>

#include "base/status.h"
#include "train/config.h"
#include "zero/zero.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Master weights of the owned parts from zinf_model_init_values(). Local. */
void zinf_weights_init(struct zinf_zero *zero, uint64_t seed);

/**
 * Master weights of the owned parts from the safetensors of a folder, names with or without the transformers prefix.
 * Collective: all ranks return the same code.
 * @return 0 or ZINF_E_DATA: a tensor missing or of another shape, a damaged file
 */
int zinf_weights_load(struct zinf_zero *zero, const char *folder, struct zinf_error *error);

/**
 * Does the model's folder hold weights to start from? Weights in another format (pytorch_model.bin, tf_model.h5, *.gguf ...) are those the user means,
 * so that random ones would be wrong without a word. Local.
 * @return 0; ZINF_E_DATA: they are in another format, or "pretrained" and not there
 */
int zinf_weights_find(const struct zinf_config_model *model, int *has_weights,
                      struct zinf_error *error);

#ifdef __cplusplus
}
#endif
#endif
