/*
 * NVIDIA's libraries that a machine may or may not have: found when the program runs, so that one program starts with and without them.
 */
#ifndef ZINF_CUDA_LIBRARIES_H
#define ZINF_CUDA_LIBRARIES_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct zinf_cuda_library {
    const char *name;    /* "cuBLASLt" */
    const char *file;    /* "libcublasLt.so.13": the ABI that zinf was compiled for */
    const char *stem;    /* "libcublasLt.so.": other versions are named by it */
    const char *package; /* folder in a Python environment: "nvidia/cu13/lib" */
    int oldest;          /* version that is needed at least, as the library counts; 0 = any of this ABI */
    int (*version)(void *handle); /* as the library counts; -1 = it does not say */
    void *handle;        /* NULL: not opened yet, or not found */
    char path[600];      /* where it was found */
    char why[768];       /* why it cannot be used: where was looked, what was found instead */
};

/**
 * Find and open a library, once; later calls give the same answer. Looks in the folders of ZINF_CUDA_LIBRARIES (separated by ':'), with the
 * loader, in the toolkit that zinf was compiled with, under /usr/local/cuda, and in the packages of Python: of VIRTUAL_ENV, CONDA_PREFIX,
 * PYTHONPATH, each python3 on PATH, ~/.local, and of environments in the usual places (/usr/local, /opt).
 * @return 0, or ZINF_E_RUNTIME with library->why
 */
int zinf_cuda_library_open(struct zinf_cuda_library *library);

/** A function of an open library; NULL when it has none of that name. */
void *zinf_cuda_library_symbol(const struct zinf_cuda_library *library, const char *name);

extern struct zinf_cuda_library zinf_cuda_cublaslt, zinf_cuda_nccl;

#ifdef __cplusplus
}
#endif
#endif
