/*
 * Version and build, from configure. See version.h.
 */
#include "base/version.h"

#include "config.h"

const char *zinf_version(void)
{
    return PACKAGE_STRING;
}

const char *zinf_build(void)
{
    return PACKAGE_STRING ", " __VERSION__;
}

const char *zinf_build_compiler(void)
{
#ifdef __clang__
    return __VERSION__; /* says "Clang" itself */
#else
    return "gcc " __VERSION__;
#endif
}

const char *zinf_build_flags(void)
{
    return ZINF_FLAGS;
}

const char *zinf_build_options(void)
{
    return ZINF_OPTIONS;
}

const char *zinf_build_libraries(void)
{
    return ZINF_LIBRARIES;
}
