/*
 * What a rank takes of its device's memory beside what zinf asks for: the context of CUDA with the code it has loaded, and the buffers of the
 * library by which ranks exchange. A plan counts with figures that can be argued; a run measures them. Figures are bytes, -1 = not known.
 */
#ifndef ZINF_TRAIN_CARD_H
#define ZINF_TRAIN_CARD_H

#include <stddef.h>
#include <stdint.h>

#include "device/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * What a plan counts for a context with its kernels. It grows with the card's processors: 555 MiB were measured on 188, 107 MiB on 24
 * (ggml-org/llama.cpp#23604, an empty context), so 400 MiB on the 132 of an H100 or H200; the rest is for code that is loaded into it.
 */
static const size_t ZINF_CARD_CONTEXT_BYTES = (size_t)512 << 20;

struct zinf_card {
    int64_t free_before;   /* before any rank on it has opened it */
    int64_t context, link; /* of one rank */
};

/** Before the device is open; then all ranks on it have to meet before the first opens it. Local. */
void zinf_card_look(struct zinf_card *card, const struct zinf_device_backend *backend, int index);
/** All `ranks` that share it have opened it, each with `scratch_bytes` for its streams. Local. */
void zinf_card_opened(struct zinf_card *card, struct zinf_device *device, int ranks,
                      size_t scratch_bytes);
/** The link is open. Local. */
void zinf_card_linked(struct zinf_card *card, struct zinf_device *device);
/** What a rank has of it now, in all. Local. */
int64_t zinf_card_used(const struct zinf_card *card, struct zinf_device *device, int ranks);

#ifdef __cplusplus
}
#endif
#endif
