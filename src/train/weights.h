/*
 * Where the first weights come from: random numbers, or a Hugging Face folder. Every rank makes or reads the elements it owns and no others. In 16 bits
 * the master weights are the rounded values, as those of a model that was cast.
 */
#ifndef ZINF_TRAIN_WEIGHTS_H
#define ZINF_TRAIN_WEIGHTS_H

#include <stdint.h>

#include "base/status.h"
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

#ifdef __cplusplus
}
#endif
#endif
