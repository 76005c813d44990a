/*
 * What this process may use of its node. See machine.h.
 *
 * CPUs come from /proc/self/status (the same set as sched_getaffinity), quota and memory limit from
 * every control group between ours and the root, since the tightest one counts; version 2 and
 * version 1 of control groups, each where it is mounted. sysconf() is not used: it knows no control
 * groups.
 */
#include "topology/machine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"

/* A whole small file, NUL-terminated; NULL when it cannot be read. Owned by the caller. Files of
 * proc have no length before they are read. */
static char *slurp(const char *root, const char *path)
{
    char *name = zinf_format("%s%s", root, path);
    FILE *file = fopen(name, "re");
    size_t room = 65536, used = 0, got;
    free(name);
    if (!file)
        return NULL;
    char *text = zinf_alloc(room + 1);
    while ((got = fread(text + used, 1, room - used, file)) > 0) {
        used += got;
        if (used == room)
            text = zinf_realloc(text, (room *= 2) + 1);
    }
    fclose(file);
    text[used] = '\0';
    return text;
}

/* What stands behind `label` at the start of a line, blanks and colon skipped; NULL when there is
 * no such line. Borrowed from text. */
static const char *field(const char *text, const char *label)
{
    size_t length = strlen(label);
    for (const char *line = text; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (!strncmp(line, label, length) && strchr(" \t:", line[length]))
            return line + length + strspn(line + length, " \t:");
    }
    return NULL;
}

static int64_t number_field(const char *text, const char *label)
{
    const char *value = text ? field(text, label) : NULL;
    return value ? strtoll(value, NULL, 10) : 0;
}

/* The number in a file of its own; -1 for "max", a missing file, or nothing sensible. */
static int64_t number_file(const char *root, const char *path)
{
    char *text = slurp(root, path), *end = text;
    int64_t number = text ? strtoll(text, &end, 10) : -1;
    if (end == text)
        number = -1;
    free(text);
    return number;
}

static void copy_line(char *out, size_t out_bytes, const char *line)
{
    snprintf(out, out_bytes, "%.*s", (int)strcspn(line, "\n"), line);
}

static void read_cpu(struct zinf_machine *machine, const char *root)
{
    static const char *const wanted[] = {
        "sse4_2",   "avx",      "f16c",        "fma",      "avx2",        "avx512f",     "avx512bw",
        "avx512dq", "avx512vl", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_tile",
        "amx_bf16", "amx_int8", "asimd",       "asimdhp",  "sve",         "sve2",        "bf16",
    };
    char *info = slurp(root, "/proc/cpuinfo"), *status = slurp(root, "/proc/self/status");
    const char *name = info ? field(info, "model name") : NULL;
    const char *flags = info ? field(info, "flags") : NULL;
    if (info && !flags)
        flags = field(info, "Features"); /* ARM */
    copy_line(machine->cpu_name, sizeof machine->cpu_name, name ? name : "unknown CPU");
    char *line = zinf_format(" %.*s ", flags ? (int)strcspn(flags, "\n") : 0, flags ? flags : "");
    size_t used = (size_t)snprintf(machine->cpu_flags, sizeof machine->cpu_flags, " ");
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        char word[32];
        snprintf(word, sizeof word, " %s ", wanted[i]);
        if (strstr(line, word))
            used += (size_t)snprintf(machine->cpu_flags + used, sizeof machine->cpu_flags - used,
                                     "%s ", wanted[i]);
    }
    free(line);
    const char *list = status ? field(status, "Cpus_allowed_list") : NULL;
    machine->cpu_count = zinf_cpus_parse(list, machine->cpus);
    free(info);
    free(status);
}

/* One control group: its quota and memory limit, if tighter than what is known. */
static void tighten(struct zinf_machine *machine, double quota, int64_t limit, int64_t left)
{
    if (quota > 0 && (machine->cpu_quota <= 0 || quota < machine->cpu_quota))
        machine->cpu_quota = quota;
    if (limit <= 0)
        return;
    if (!machine->memory_limit || limit < machine->memory_limit)
        machine->memory_limit = limit;
    if (left < machine->memory_available)
        machine->memory_available = left > 0 ? left : 0;
}

static int64_t group_number(const char *root, const char *folder, const char *name)
{
    char *path = zinf_format("%s/%s", folder, name);
    int64_t number = number_file(root, path);
    free(path);
    return number;
}

static int64_t group_field(const char *root, const char *folder, const char *name,
                           const char *label)
{
    char *path = zinf_format("%s/%s", folder, name), *text = slurp(root, path);
    int64_t number = number_field(text, label);
    free(path);
    free(text);
    return number;
}

/* CPUs of a control group; a file that is missing or empty restricts nothing. */
static void restrict_cpus(struct zinf_machine *machine, const char *root, const char *folder,
                          const char *name)
{
    uint64_t cpus[ZINF_CPUS_WORDS] = {0};
    char *path = zinf_format("%s/%s", folder, name), *list = slurp(root, path);
    if (zinf_cpus_parse(list, cpus) > 0)
        zinf_cpus_intersect(machine->offered, cpus);
    free(path);
    free(list);
}

static void read_group_v2(struct zinf_machine *machine, const char *root, const char *folder)
{
    double quota = 0, period = 100000, max;
    char *path = zinf_format("%s/cpu.max", folder), *text = slurp(root, path);
    if (text && sscanf(text, "%lf %lf", &max, &period) >= 1 && period > 0)
        quota = max / period; /* "max 100000" reads as no number */
    free(path);
    free(text);
    int64_t limit = group_number(root, folder, "memory.max");
    int64_t used = group_number(root, folder, "memory.current");
    int64_t cache = group_field(root, folder, "memory.stat", "inactive_file");
    tighten(machine, quota, limit, limit - (used > 0 ? used - cache : 0));
    restrict_cpus(machine, root, folder, "cpuset.cpus.effective");
}

static void read_group_v1_cpuset(struct zinf_machine *machine, const char *root, const char *folder)
{
    restrict_cpus(machine, root, folder, "cpuset.effective_cpus");
    restrict_cpus(machine, root, folder, "cpuset.cpus");
}

static void read_group_v1_cpu(struct zinf_machine *machine, const char *root, const char *folder)
{
    int64_t quota = group_number(root, folder, "cpu.cfs_quota_us");
    int64_t period = group_number(root, folder, "cpu.cfs_period_us");
    if (quota > 0 && period > 0)
        tighten(machine, (double)quota / (double)period, 0, 0);
}

static void read_group_v1_memory(struct zinf_machine *machine, const char *root, const char *folder)
{
    int64_t limit = group_number(root, folder, "memory.limit_in_bytes");
    int64_t used = group_number(root, folder, "memory.usage_in_bytes");
    int64_t cache = group_field(root, folder, "memory.stat", "total_inactive_file");
    if (limit > 0 && limit < (int64_t)1 << 60) /* v1 writes "none" as the largest number of pages */
        tighten(machine, 0, limit, limit - (used > 0 ? used - cache : 0));
}

typedef void group_fn(struct zinf_machine *machine, const char *root, const char *folder);

/* Read the group at mount + path and all above it. In a container the path may be one of the
 * host's, not seen here: then only the mount. */
static void climb(struct zinf_machine *machine, const char *root, const char *mount,
                  const char *path, group_fn *read_group)
{
    char *folder = zinf_format("%s%.*s", mount, (int)strcspn(path, "\n"), path);
    for (;;) {
        size_t length = strlen(folder);
        while (length > strlen(mount) && folder[length - 1] == '/')
            folder[--length] = '\0';
        read_group(machine, root, folder);
        if (length <= strlen(mount))
            break;
        *strrchr(folder, '/') = '\0';
    }
    free(folder);
}

/* Is `name` one of the comma-separated controllers of a line "4:cpu,cpuacct:/path"? */
static bool has_controller(const char *line, const char *name)
{
    const char *begin = strchr(line, ':'), *end = begin ? strchr(begin + 1, ':') : NULL;
    size_t length = strlen(name);
    for (const char *word = begin; word && word < end; word = strpbrk(word + 1, ",:"))
        if (!strncmp(word + 1, name, length) && strchr(",:", word[1 + length]))
            return true;
    return false;
}

static void read_groups(struct zinf_machine *machine, const char *root)
{
    char *groups = slurp(root, "/proc/self/cgroup");
    for (const char *line = groups; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        const char *path = strchr(line, ':');
        path = path ? strchr(path + 1, ':') : NULL;
        if (!path++)
            continue;
        if (!strncmp(line, "0::", 3)) {
            climb(machine, root, "/sys/fs/cgroup", path, read_group_v2);
            climb(machine, root, "/sys/fs/cgroup/unified", path, read_group_v2);
        }
        if (has_controller(line, "cpu"))
            climb(machine, root, "/sys/fs/cgroup/cpu", path, read_group_v1_cpu);
        if (has_controller(line, "cpuset"))
            climb(machine, root, "/sys/fs/cgroup/cpuset", path, read_group_v1_cpuset);
        if (has_controller(line, "memory"))
            climb(machine, root, "/sys/fs/cgroup/memory", path, read_group_v1_memory);
    }
    free(groups);
}

void zinf_machine_read(struct zinf_machine *machine, const char *root)
{
    memset(machine, 0, sizeof *machine);
    char *memory = slurp(root, "/proc/meminfo"), *limits = slurp(root, "/proc/self/limits");
    char *host = slurp(root, "/proc/sys/kernel/hostname");
    char *process = slurp(root, "/proc/self/status");
    copy_line(machine->host, sizeof machine->host, host ? host : "unknown");
    read_cpu(machine, root);
    machine->memory_total = 1024 * number_field(memory, "MemTotal");
    machine->memory_free = 1024 * number_field(memory, "MemAvailable");
    machine->memory_available = machine->memory_free;
    machine->limit_data = number_field(limits, "Max data size"); /* "unlimited" reads as 0 */
    machine->limit_address_space = number_field(limits, "Max address space");
    machine->data_in_use = 1024 * number_field(process, "VmData");
    machine->mapped = 1024 * number_field(process, "VmSize");
    char *online = slurp(root, "/sys/devices/system/cpu/online");
    if (zinf_cpus_parse(online, machine->offered) == 0)
        memcpy(machine->offered, machine->cpus, sizeof machine->cpus);
    free(online);
    free(host);
    free(process);
    free(memory);
    free(limits);
    read_groups(machine, root);
    machine->cores = machine->cpu_count > 0 ? machine->cpu_count : 1;
    if (machine->cpu_quota > 0 && machine->cpu_quota < machine->cores)
        machine->cores = (int)fmax(1, floor(machine->cpu_quota + 0.5));
}

bool zinf_machine_has(const struct zinf_machine *machine, const char *flag)
{
    char word[64];
    snprintf(word, sizeof word, " %s ", flag);
    return strstr(machine->cpu_flags, word) != NULL;
}

int zinf_machine_sharers(const struct zinf_machine *machine, struct zinf_comm *comm)
{
    struct zinf_machine *all = zinf_alloc((size_t)comm->size * sizeof *all);
    int sharers = 0;
    zinf_comm_gather_small(comm, machine, sizeof *machine, all);
    for (int rank = 0; rank < comm->size; rank++) {
        bool overlap = zinf_cpus_overlap(machine->cpus, all[rank].cpus);
        sharers += overlap && !strcmp(machine->host, all[rank].host);
    }
    free(all);
    return sharers > 0 ? sharers : 1;
}

int zinf_machine_threads_default(const struct zinf_machine *machine, int sharers)
{
    int threads = machine->cores / (sharers > 1 ? sharers : 1);
    return threads > 1 ? threads : 1;
}
