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
/** "gcc 12.2.0", the flags it was given, and what ./configure was called with. */
const char *zinf_build_compiler(void);
const char *zinf_build_flags(void);
const char *zinf_build_options(void);
/** What configure found: a line each library, "  HDF5        yes    1.10.8": two blanks, name, yes or no, version. */
const char *zinf_build_libraries(void);

#ifdef __cplusplus
}
#endif
#endif
