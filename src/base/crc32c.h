/*
 * CRC32C (Castagnoli), the checksum of every byte zinf stores. Check value: "123456789" -> 0xe3069283.
 */
#ifndef ZINF_BASE_CRC32C_H
#define ZINF_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** CRC of `bytes` more bytes behind those that `crc` stands for (0 at the start). SSE4.2 where the CPU has it, else tables. */
uint32_t zinf_crc32c(uint32_t crc, const void *data, size_t bytes);

/** The same by tables only: what machines without SSE4.2 use, and the twin that tests hold the fast one against. */
uint32_t zinf_crc32c_portable(uint32_t crc, const void *data, size_t bytes);

/** CRC of A followed by B from crc(A), crc(B) and the length of B. O(log bytes_b). */
uint32_t zinf_crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t bytes_b);

#ifdef __cplusplus
}
#endif
#endif
