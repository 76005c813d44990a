/*
 * Sets of CPUs. See cpus.h. Not cpu_set_t: its size is a matter of macros, and it cannot be sent.
 */
#include "topology/cpus.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"

int zinf_cpus_parse(const char *list, uint64_t *cpus)
{
    int count = 0;
    while (list && *list >= '0' && *list <= '9') {
        char *end;
        long first = strtol(list, &end, 10), last = first;
        if (*end == '-')
            last = strtol(end + 1, &end, 10);
        for (long cpu = first; cpu <= last && cpu < ZINF_CPUS; cpu++, count++)
            zinf_cpus_add(cpus, (int)cpu);
        list = *end == ',' ? end + 1 : end;
    }
    return count;
}

char *zinf_cpus_print(const uint64_t *cpus)
{
    char *text = zinf_strdup("");
    for (int cpu = 0; cpu < ZINF_CPUS; cpu++) {
        int last = cpu;
        if (!zinf_cpus_has(cpus, cpu))
            continue;
        while (last + 1 < ZINF_CPUS && zinf_cpus_has(cpus, last + 1))
            last++;
        const char *comma = *text ? "," : "";
        char *longer = last > cpu ? zinf_format("%s%s%d-%d", text, comma, cpu, last)
                                  : zinf_format("%s%s%d", text, comma, cpu);
        free(text);
        text = longer;
        cpu = last;
    }
    if (!*text) {
        free(text);
        text = zinf_strdup("none");
    }
    return text;
}

void zinf_cpus_add(uint64_t *cpus, int cpu)
{
    cpus[cpu / 64] |= (uint64_t)1 << (cpu % 64);
}

bool zinf_cpus_has(const uint64_t *cpus, int cpu)
{
    return cpus[cpu / 64] >> (cpu % 64) & 1;
}

int zinf_cpus_count(const uint64_t *cpus)
{
    int count = 0;
    for (int i = 0; i < ZINF_CPUS_WORDS; i++)
        count += __builtin_popcountll(cpus[i]);
    return count;
}

bool zinf_cpus_equal(const uint64_t *a, const uint64_t *b)
{
    return !memcmp(a, b, ZINF_CPUS_WORDS * sizeof *a);
}

bool zinf_cpus_overlap(const uint64_t *a, const uint64_t *b)
{
    for (int i = 0; i < ZINF_CPUS_WORDS; i++)
        if (a[i] & b[i])
            return true;
    return false;
}

void zinf_cpus_intersect(uint64_t *a, const uint64_t *b)
{
    for (int i = 0; i < ZINF_CPUS_WORDS; i++)
        a[i] &= b[i];
}

void zinf_cpus_unite(uint64_t *a, const uint64_t *b)
{
    for (int i = 0; i < ZINF_CPUS_WORDS; i++)
        a[i] |= b[i];
}
