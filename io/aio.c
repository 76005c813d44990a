/*
 * The list of I/O engines and the choice among them.
 */
#include "config.h"

#include "io/aio.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

extern const struct zinf_aio_engine zinf_aio_uring, zinf_aio_threads;

static const struct zinf_aio_engine *const engines[] = {
#if HAVE_LIBURING
    &zinf_aio_uring,
#endif
    &zinf_aio_threads, NULL};

const struct zinf_aio_engine *const *zinf_aio_engines(void)
{
    return engines;
}

/* What an errno of an engine's start means to a person. */
static const char *reason(int number)
{
    if (number == EPERM || number == EACCES)
        return " (a seccomp filter, or sysctl kernel.io_uring_disabled)";
    if (number == ENOSYS)
        return " (an old kernel, or a sandbox without it)";
    return number == ENOMEM ? " (limit of locked memory: see ulimit -l)" : "";
}

static int unknown_engine(const char *name)
{
    char known[128] = "";
    for (int i = 0; engines[i]; i++) {
        strcat(known, i ? ", " : "");
        strcat(known, engines[i]->name);
    }
    zinf_error_log("\"%s\" is no I/O engine of this build; there are: %s", name, known);
    return ZINF_E_USAGE;
}

/* Once: every thread that moves bytes opens an engine of its own. */
static void say_refused(const char *refused, const char *taken)
{
    static atomic_flag said = ATOMIC_FLAG_INIT;
    if (!atomic_flag_test_and_set(&said))
        zinf_warn("I/O engine %s; the engine \"%s\" does it instead, with more CPU time", refused,
                  taken);
}

int zinf_aio_open(struct zinf_aio *aio, const char *name, const struct zinf_aio_options *options)
{
    char refused[256] = "";
    int tried = 0;
    if (!name)
        name = getenv("ZINF_IO_ENGINE");
    for (int i = 0; engines[i]; i++) {
        if (name && strcmp(name, engines[i]->name) != 0)
            continue;
        struct zinf_aio opened = {.engine = engines[i]};
        *aio = opened;
        int number = engines[i]->open(aio, options);
        if (!number) {
            if (*refused)
                say_refused(refused, engines[i]->name);
            return 0;
        }
        tried++;
        size_t used = strlen(refused);
        snprintf(refused + used, sizeof refused - used, "%s%s: %s%s", used ? "; " : "",
                 engines[i]->name, strerror(number), reason(number));
        *aio = (struct zinf_aio){0};
    }
    if (!tried)
        return unknown_engine(name);
    zinf_error_log("no I/O engine can be started: %s", refused);
    return ZINF_E_RUNTIME;
}

void zinf_aio_close(struct zinf_aio *aio)
{
    if (aio->engine)
        aio->engine->close(aio);
    *aio = (struct zinf_aio){0};
}
