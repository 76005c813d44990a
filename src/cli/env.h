/*
 * The parts of `zinf env`: each adds its members to an object. All local. Names ending in _bytes are bytes; null is "no limit" or "unknown".
 */
#ifndef ZINF_CLI_ENV_H
#define ZINF_CLI_ENV_H

#include "base/json.h"
#include "topology/comm.h"
#include "topology/rankmap.h"

#ifdef __cplusplus
extern "C" {
#endif

/** CPU, cores, NUMA nodes, memory and control groups of this node. */
void zinf_env_machine(struct zinf_json *machine);
/** One object a device that this process may use, of every backend that is compiled in; a backend without one says why. */
void zinf_env_devices(struct zinf_json *devices);
/** How ranks with a device each would exchange, and why; rows of the open `map` say which device each would take. Collective. */
void zinf_env_exchange(struct zinf_json *libraries, struct zinf_rankmap *map,
                       struct zinf_comm *comm);
/** Libraries that a backend looks for when it runs (cuBLASLt, NCCL): where they were found, or why not. */
void zinf_env_device_libraries(struct zinf_json *libraries);
/** Resource limits of this process. */
void zinf_env_limits(struct zinf_json *limits);
/** Settings of the kernel that matter to I/O and memory, as they are under /proc and /sys. */
void zinf_env_kernel(struct zinf_json *kernel);
/** Which I/O engines can be started here, and why others cannot. */
void zinf_env_engines(struct zinf_json *io);
/** What a folder for swap files offers: file system, space, direct I/O (tried with one block), NUMA node of its drive. */
void zinf_env_path(struct zinf_json *io, const char *path);
/** Variables of the environment that launchers, Slurm, OpenMP and MPI read, those that are set. */
void zinf_env_variables(struct zinf_json *variables);

/** Add "name": "text" of a format. */
void zinf_env_set(struct zinf_json *object, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/** Add an integer; null where it is `none`. */
void zinf_env_set_number(struct zinf_json *object, const char *name, int64_t value, int64_t none);

#ifdef __cplusplus
}
#endif
#endif
