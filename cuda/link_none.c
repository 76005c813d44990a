/*
 * In the place of NCCL, where its header was not there when zinf was compiled. See link.h.
 */
#include "cuda/link.h"

static int available(char *out, size_t out_bytes)
{
    snprintf(out, out_bytes,
             "this zinf was compiled without NCCL's header: configure --with-nccl=DIR, where DIR "
             "holds include/nccl.h");
    return ZINF_E_USAGE;
}

static int link_open(struct zinf_device *device, const struct zinf_device_link_options *options,
                     struct zinf_comm *comm, struct zinf_error *error)
{
    char why[256];
    (void)device;
    (void)options;
    (void)comm;
    available(why, sizeof why);
    return zinf_error_set(error, ZINF_E_USAGE, "%s", why);
}

const struct zinf_device_link zinf_cuda_link = {
    .name = "nccl",
    .available = available,
    .open = link_open,
};
