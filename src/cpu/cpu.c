/*
 * The CPU backend's list of instruction sets and the choice among them.
 */
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "base/status.h"
#include "device/ops.h"

extern const struct zinf_ops zinf_plain_ops;
#if defined(__x86_64__)
extern const struct zinf_ops zinf_avx2_ops, zinf_avx512_ops;
#endif

static bool plain_runs(void)
{
    return true;
}

#if defined(__x86_64__)
/* clang 14's __builtin_cpu_supports() does not know "f16c". */
static bool converts_fp16(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static bool avx2_runs(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && converts_fp16();
}

static bool avx512_runs(void)
{
    return avx2_runs() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

/* Widest first. */
static const struct instruction_set {
    const char *name;
    bool (*runs)(void);
    const struct zinf_ops *ops;
} instruction_sets[] = {
#if defined(__x86_64__)
    {"avx512", avx512_runs, &zinf_avx512_ops},
    {"avx2", avx2_runs, &zinf_avx2_ops},
#endif
    {"plain", plain_runs, &zinf_plain_ops},
};

enum { SET_COUNT = sizeof instruction_sets / sizeof *instruction_sets };

const struct zinf_ops *const *zinf_cpu_ops_all(void)
{
    static const struct zinf_ops *all[SET_COUNT + 1];
    int count = 0;
    for (int i = 0; i < SET_COUNT; i++)
        if (instruction_sets[i].runs())
            all[count++] = instruction_sets[i].ops; /* the same values whoever else writes them */
    return all;
}

/** Position of the set that ZINF_ISA names; 0 without the variable. */
static int widest_allowed(void)
{
    const char *name = getenv("ZINF_ISA");
    if (!name || !*name)
        return 0;
    for (int i = 0; i < SET_COUNT; i++)
        if (!strcmp(name, instruction_sets[i].name))
            return i;
    zinf_warn("ZINF_ISA=%s is none of avx512, avx2, plain: ignored", name);
    return 0;
}

const struct zinf_ops *zinf_cpu_ops(void)
{
    static const struct zinf_ops *chosen;
    const struct zinf_ops *ops = __atomic_load_n(&chosen, __ATOMIC_ACQUIRE);
    if (ops)
        return ops;
    int i = widest_allowed();
    while (!instruction_sets[i].runs())
        i++;
    __atomic_store_n(&chosen, instruction_sets[i].ops, __ATOMIC_RELEASE);
    return instruction_sets[i].ops;
}
