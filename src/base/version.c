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
