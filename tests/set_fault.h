/*
 * The fault seam (base/fault.h) from inside a test program.
 */
#ifndef ZINF_TESTS_SET_FAULT_H
#define ZINF_TESTS_SET_FAULT_H

#include <cstdlib>
#include <string>

#include "base/fault.h"

/** From now on, and counted from now, the faults of `rules` as ZINF_FAULT has them on `rank`; "":
 * none. */
inline void set_fault(const std::string &rules, int rank = 0)
{
    if (rules.empty())
        unsetenv("ZINF_FAULT");
    else
        setenv("ZINF_FAULT", rules.c_str(), 1);
    zinf_fault_init(rank);
}

#endif
