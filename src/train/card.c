/*
 * Memory of a device that nobody asked for. See card.h.
 *
 * A context cannot be seen by who has made it: what is free is asked through it. So the first look
 * is the monitor's (device.h, unopened_bytes), and ranks that share a card look before any of them
 * opens it and divide what has gone.
 */
#include "train/card.h"

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t free_now(struct zinf_device *device)
{
    if (device->backend->measure)
        device->backend->measure(device);
    return device->properties.free_bytes;
}

void zinf_card_look(struct zinf_card *card, const struct zinf_device_backend *backend, int index)
{
    *card = (struct zinf_card){-1, -1, -1};
    if (backend->unopened_bytes)
        card->free_before = backend->unopened_bytes(index);
}

void zinf_card_opened(struct zinf_card *card, struct zinf_device *device, int ranks,
                      size_t scratch_bytes)
{
    int64_t left = free_now(device);
    if (card->free_before >= 0)
        card->context = larger(0, (card->free_before - left) / ranks - (int64_t)scratch_bytes);
}

void zinf_card_linked(struct zinf_card *card, struct zinf_device *device)
{
    int64_t before = device->properties.free_bytes, left = free_now(device);
    if (device->backend->measure)
        card->link = larger(0, before - left);
}

int64_t zinf_card_used(const struct zinf_card *card, struct zinf_device *device, int ranks)
{
    return card->free_before < 0 ? -1 : (card->free_before - free_now(device)) / ranks;
}
