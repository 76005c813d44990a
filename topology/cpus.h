/*
 * Sets of CPUs, one bit a CPU by the kernel's number, ZINF_CPUS bits. Plain data: they are sent between ranks. All functions are local.
 */
#ifndef ZINF_TOPOLOGY_CPUS_H
#define ZINF_TOPOLOGY_CPUS_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { ZINF_CPUS = 4096, ZINF_CPUS_WORDS = ZINF_CPUS / 64 }; /* highest CPU number + 1 that is looked at */

/** Add "0-3,8,10-11" (and what follows it up to anything else). @return CPUs named */
int zinf_cpus_parse(const char *list, uint64_t *cpus);
/** "0-3,8,10-11"; "none" of an empty set. Owned by the caller. */
char *zinf_cpus_print(const uint64_t *cpus);

void zinf_cpus_add(uint64_t *cpus, int cpu);
bool zinf_cpus_has(const uint64_t *cpus, int cpu);
int zinf_cpus_count(const uint64_t *cpus);
bool zinf_cpus_equal(const uint64_t *a, const uint64_t *b);
bool zinf_cpus_overlap(const uint64_t *a, const uint64_t *b);
/** a &= b */
void zinf_cpus_intersect(uint64_t *a, const uint64_t *b);
/** a |= b */
void zinf_cpus_unite(uint64_t *a, const uint64_t *b);

#ifdef __cplusplus
}
#endif
#endif
