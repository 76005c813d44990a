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

/**
 * The name of a file that holds weights in a format zinf does not read (pytorch_model.bin, *.pt, tf_model.h5, *.msgpack, *.gguf ...), the first by
 * name; what transformers' Trainer keeps beside a model (training_args.bin, optimizer.pt ...) is none. Local.
 * @return owned by the caller; NULL: there is none, or the folder cannot be read
 */
char *zinf_weights_of_other_format(const char *folder);

#ifdef __cplusplus
}
#endif
#endif
