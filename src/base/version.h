/*
 * Which zinf this is.
 */
#ifndef ZINF_BASE_VERSION_H
#define ZINF_BASE_VERSION_H

#ifdef __cplusplus
extern "C" {
#endif

/** "zinf 0.1.0" */
const char *zinf_version(void);
/** Version and compiler: two ranks whose builds differ must not run together. */
const char *zinf_build(void);

#ifdef __cplusplus
}
#endif
#endif
