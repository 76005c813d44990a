/*
 * The fault seam. See fault.h for the language of ZINF_FAULT.
 *
 * The rule is parsed once, before threads start, and is read-only afterwards; only the call counter
 * changes, atomically, so the seam may be asked from any thread.
 */
#include "base/fault.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/status.h"

static struct {
    char operation[16];
    long n;           /* the call that fails, from 1; 0 = every call */
    int error;        /* errno, 0 = none */
    long short_bytes; /* -1 = not cut */
    long delay_us;
    long rank; /* -1 = all */
    bool kill;
} rule;
static bool active;
static atomic_long calls;

static const char *const operations[] = {"open",     "read",   "write",     "fsync",
                                         "rename",   "unlink", "fallocate", "gather",
                                         "exchange", "agree",  "transfer",  "update"};

static const struct {
    const char *name;
    int value;
} errors[] = {{"EIO", EIO},       {"ENOSPC", ENOSPC},         {"EDQUOT", EDQUOT},
              {"EACCES", EACCES}, {"EINTR", EINTR},           {"EAGAIN", EAGAIN},
              {"ENOENT", ENOENT}, {"EROFS", EROFS},           {"EMFILE", EMFILE},
              {"EFBIG", EFBIG},   {"EOPNOTSUPP", EOPNOTSUPP}, {"EINVAL", EINVAL},
              {"ENOMEM", ENOMEM}};

static int parse_count(const char *value, long *out)
{
    char *end;
    errno = 0;
    long number = strtol(value, &end, 10);
    if (errno || end == value || *end || number < 0)
        return -1;
    *out = number;
    return 0;
}

static int parse_error(const char *value)
{
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (!strcmp(value, errors[i].name)) {
            rule.error = errors[i].value;
            return 0;
        }
    return -1;
}

static int parse_operation(const char *value)
{
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
        if (!strcmp(value, operations[i])) {
            strcpy(rule.operation, value);
            return 0;
        }
    return -1;
}

static int parse_pair(char *pair)
{
    char *value = strchr(pair, '=');
    long flag;
    if (!value)
        return -1;
    *value++ = '\0';
    if (!strcmp(pair, "op"))
        return parse_operation(value);
    if (!strcmp(pair, "err"))
        return parse_error(value);
    if (!strcmp(pair, "n"))
        return parse_count(value, &rule.n);
    if (!strcmp(pair, "short"))
        return parse_count(value, &rule.short_bytes);
    if (!strcmp(pair, "delay_us"))
        return parse_count(value, &rule.delay_us);
    if (!strcmp(pair, "rank"))
        return parse_count(value, &rule.rank);
    if (strcmp(pair, "kill") || parse_count(value, &flag) || flag > 1)
        return -1;
    rule.kill = flag;
    return 0;
}

void zinf_fault_init(int rank)
{
    const char *text = getenv("ZINF_FAULT");
    active = false;
    atomic_store(&calls, 0);
    if (!text || !*text)
        return;
    memset(&rule, 0, sizeof rule);
    rule.short_bytes = rule.rank = -1;
    char *copy = zinf_strdup(text), *rest = copy, *pair;
    int failed = 0;
    while (!failed && (pair = strsep(&rest, ",")))
        failed = parse_pair(pair);
    free(copy);
    bool effect = rule.error || rule.short_bytes >= 0 || rule.delay_us || rule.kill;
    if (failed || !rule.operation[0] || !effect) {
        zinf_error_log("ZINF_FAULT=\"%s\" cannot be read; right is e.g. "
                       "\"op=write,n=37,err=EIO,rank=1\" (base/fault.h)",
                       text);
        zinf_abort(ZINF_E_USAGE);
    }
    active = rule.rank < 0 || rule.rank == rank;
}

static bool is_meant(const char *operation)
{
    if (strcmp(rule.operation, "transfer") == 0)
        return strcmp(operation, "read") == 0 || strcmp(operation, "write") == 0;
    return strcmp(operation, rule.operation) == 0;
}

int zinf_fault_timed(const char *operation, size_t *bytes, double *delay_s)
{
    *delay_s = 0;
    if (__builtin_expect(!active, 1) || !is_meant(operation))
        return 0;
    long call = atomic_fetch_add(&calls, 1) + 1;
    if (rule.n && call != rule.n)
        return 0;
    *delay_s = 1e-6 * (double)rule.delay_us;
    if (rule.kill)
        raise(SIGKILL);
    if (bytes && rule.short_bytes >= 0 && *bytes > (size_t)rule.short_bytes)
        *bytes = (size_t)rule.short_bytes;
    return rule.error;
}

int zinf_fault(const char *operation, size_t *bytes)
{
    double delay_s;
    int number = zinf_fault_timed(operation, bytes, &delay_s);
    if (delay_s > 0)
        usleep((useconds_t)rule.delay_us);
    return number;
}
