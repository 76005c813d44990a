/*
 * cuBLASLt and NCCL by dlopen. See libraries.h.
 *
 * Not linked: libcublasLt alone has half a gigabyte, a CPU node has neither, and a program that
 * needs a library to start cannot say that it is missing. RTLD_LOCAL, so that a Python package's
 * copy and the system's never mix. Only the file of the right ABI is opened; one of another ABI
 * that lies where we look is named in the message, because that is what people have when it "is
 * there".
 */
#include "cuda/libraries.h"

#include <dlfcn.h>
#include <glob.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cublasLt.h>

#include "base/status.h"
#include "config.h"

#define TEXT_OF(x) #x
#define TEXT(x)    TEXT_OF(x)

static int cublaslt_version(void *handle)
{
    size_t (*get)(void) = NULL;
    *(void **)&get = dlsym(handle, "cublasLtGetVersion");
    return get ? (int)get() : -1;
}

static int nccl_version(void *handle)
{
    int (*get)(int *) = NULL, version = -1;
    *(void **)&get = dlsym(handle, "ncclGetVersion");
    return get && get(&version) == 0 ? version : -1;
}

struct zinf_cuda_library zinf_cuda_cublaslt = {.name = "cuBLASLt",
                                               .file = "libcublasLt.so." TEXT(CUBLAS_VER_MAJOR),
                                               .stem = "libcublasLt.so.",
                                               .package = "nvidia/cu" TEXT(CUBLAS_VER_MAJOR) "/lib",
                                               .version = cublaslt_version};

/* 2.19 brought ncclMemAlloc and ncclCommRegister. */
struct zinf_cuda_library zinf_cuda_nccl = {.name = "NCCL",
                                           .file = "libnccl.so.2",
                                           .stem = "libnccl.so.",
                                           .package = "nvidia/nccl/lib",
                                           .oldest = 21900,
                                           .version = nccl_version};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/** Try one file; a name without '/' is looked up by the loader. */
static int try_file(struct zinf_cuda_library *library, const char *path)
{
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        if (strchr(path, '/') && !access(path, F_OK))
            snprintf(library->why, sizeof library->why, "%s in %.200s cannot be loaded: %.400s",
                     library->name, path, dlerror());
        return -1;
    }
    int version = library->version(handle);
    if (version < library->oldest) {
        snprintf(library->why, sizeof library->why,
                 "%s %d in %.300s is too old: %d or newer is needed; install one, or set "
                 "ZINF_CUDA_LIBRARIES to the folder of one",
                 library->name, version, path, library->oldest);
        dlclose(handle);
        return -1;
    }
    library->handle = handle;
    snprintf(library->path, sizeof library->path, "%s", path);
    return 0;
}

/** Try the library in a folder; if another ABI lies there, remember its name. */
static int try_folder(struct zinf_cuda_library *library, const char *folder, char *other,
                      size_t other_bytes)
{
    char pattern[600];
    glob_t found;
    snprintf(pattern, sizeof pattern, "%s/%s", folder, library->file);
    if (!try_file(library, pattern))
        return 0;
    snprintf(pattern, sizeof pattern, "%s/%s[0-9]*", folder, library->stem);
    if (!glob(pattern, 0, NULL, &found)) {
        if (!*other)
            snprintf(other, other_bytes, "%s", found.gl_pathv[0]);
        globfree(&found);
    }
    return -1;
}

/** Folders of a list that ':' separates. */
static int try_folders(struct zinf_cuda_library *library, const char *list, char *other,
                       size_t other_bytes)
{
    while (list && *list) {
        char folder[512];
        int length = (int)strcspn(list, ":");
        snprintf(folder, sizeof folder, "%.*s", length, list);
        if (length > 0 && !try_folder(library, folder, other, other_bytes))
            return 0;
        list += length + (list[length] == ':');
    }
    return -1;
}

/** Try the package's folder below each folder that `pattern`, a glob, names. */
static int try_packages(struct zinf_cuda_library *library, const char *pattern, char *other,
                        size_t other_bytes)
{
    char whole[700];
    glob_t found;
    int status = -1;
    snprintf(whole, sizeof whole, "%.600s/%s", pattern, library->package);
    if (glob(whole, 0, NULL, &found))
        return -1;
    for (size_t i = 0; status && i < found.gl_pathc; i++)
        status = try_folder(library, found.gl_pathv[i], other, other_bytes);
    globfree(&found);
    return status;
}

/** The packages of the Python installed under `prefix`, e.g. /opt/conda; a glob. */
static int try_prefix(struct zinf_cuda_library *library, const char *prefix, char *other,
                      size_t other_bytes)
{
    char pattern[600];
    snprintf(pattern, sizeof pattern, "%.500s/lib/python3*/*-packages", prefix);
    return try_packages(library, pattern, other, other_bytes);
}

/** The Pythons that a list of folders like $PATH leads to. In a virtual environment python3 is a
 * link to another installation, but its packages lie beside the link. */
static int try_path(struct zinf_cuda_library *library, const char *list, char *other,
                    size_t other_bytes)
{
    while (list && *list) {
        char folder[512], python[520];
        int length = (int)strcspn(list, ":");
        snprintf(folder, sizeof folder, "%.*s", length, list);
        snprintf(python, sizeof python, "%s/python3", folder);
        char *slash = strrchr(folder, '/');
        if (slash > folder && !access(python, X_OK)) {
            *slash = '\0';
            if (!try_prefix(library, folder, other, other_bytes))
                return 0;
        }
        list += length + (list[length] == ':');
    }
    return -1;
}

/** The folders of packages of the Pythons on this machine: a machine without a toolkit often has
 * the libraries there. First the one that the user is in, then those on $PATH, then where images
 * and people put one. No Python is started: it may take seconds, on every rank. */
static int try_python(struct zinf_cuda_library *library, char *other, size_t other_bytes)
{
    static const char *const variables[] = {"VIRTUAL_ENV", "CONDA_PREFIX"};
    static const char *const homes[] = {".local", "*"}; /* of the user's */
    static const char *const prefixes[] = {"/usr/local",  "/usr",          "/opt/*", "/opt/*/.venv",
                                           "/opt/*/venv", "/opt/*/envs/*", "/venv"};
    const char *value = getenv("PYTHONPATH"), *home = getenv("HOME");
    char folder[512];
    for (size_t v = 0; v < sizeof variables / sizeof *variables; v++) {
        const char *prefix = getenv(variables[v]);
        if (prefix && *prefix && !try_prefix(library, prefix, other, other_bytes))
            return 0;
    }
    while (value && *value) {
        int length = (int)strcspn(value, ":");
        snprintf(folder, sizeof folder, "%.*s", length, value);
        if (length > 0 && !try_packages(library, folder, other, other_bytes))
            return 0;
        value += length + (value[length] == ':');
    }
    if (!try_path(library, getenv("PATH"), other, other_bytes))
        return 0;
    for (size_t i = 0; home && *home && i < sizeof homes / sizeof *homes; i++) {
        snprintf(folder, sizeof folder, "%.400s/%s", home, homes[i]);
        if (!try_prefix(library, folder, other, other_bytes))
            return 0;
    }
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (!try_prefix(library, prefixes[i], other, other_bytes))
            return 0;
    return -1;
}

static void find(struct zinf_cuda_library *library)
{
    char other[512] = "";
    const char *configured = getenv("ZINF_CUDA_LIBRARIES");
    int status = try_folders(library, configured, other, sizeof other);
    if (status && *library->why)
        return; /* what the user points at is taken or refused, never passed over */
    if (!status || !try_file(library, library->file) ||
        !try_folders(library, ZINF_CUDA_FOLDERS, other, sizeof other) ||
        !try_folders(library, "/usr/local/cuda/lib64:/usr/local/cuda/lib", other, sizeof other) ||
        !try_python(library, other, sizeof other)) {
        library->why[0] = '\0';
        return;
    }
    if (*other && !*library->why)
        snprintf(library->why, sizeof library->why,
                 "%s has another ABI than the %s that zinf was compiled for; set "
                 "ZINF_CUDA_LIBRARIES to a folder that holds %s",
                 other, library->file, library->file);
    else if (!*library->why)
        snprintf(library->why, sizeof library->why,
                 "no %s in ZINF_CUDA_LIBRARIES (%.200s), on the loader's path, in the toolkit or "
                 "in a Python environment; install %s or set ZINF_CUDA_LIBRARIES to its folder",
                 library->file, configured ? configured : "not set", library->name);
}

int zinf_cuda_library_open(struct zinf_cuda_library *library)
{
    pthread_mutex_lock(&lock);
    if (!library->handle && !*library->why)
        find(library);
    pthread_mutex_unlock(&lock);
    return library->handle ? ZINF_OK : ZINF_E_RUNTIME;
}

void *zinf_cuda_library_symbol(const struct zinf_cuda_library *library, const char *name)
{
    return library->handle ? dlsym(library->handle, name) : NULL;
}
