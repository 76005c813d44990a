/*
 * The NCCL communicator as the link of tests/late_device.c: for programs that are linked with both.
 * With tests/fake_nccl.c as the library it runs on any machine.
 */
#include "cuda/link.h"

const struct zinf_device_link *zinf_late_link(void);

const struct zinf_device_link *zinf_late_link(void)
{
    return &zinf_cuda_link;
}
