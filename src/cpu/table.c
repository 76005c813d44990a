/*
 * The table of one instruction set.
 */
#include "cpu/kernels.h"

#define ZINF_TEXT_OF(isa) #isa
#define ZINF_TEXT(isa)    ZINF_TEXT_OF(isa)

#define OWN(operation) .operation = KERNEL(operation),

const struct zinf_ops KERNEL(ops) = {.name = "cpu " ZINF_TEXT(ZINF_ISA), ZINF_OPERATIONS(OWN)};
