/*
 * zinf env: what is built in, what this machine has and allows. One report, printed as JSON or for
 * people, so that the two cannot differ.
 */
#include "cli/command.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/version.h"
#include "cli/env.h"
#include "cpu/matmul.h"
#include "io/hdf5_file.h"
#include "topology/rankmap.h"
#include "train/terminal.h"

void zinf_env_set(struct zinf_json *object, const char *name, const char *format, ...)
{
    va_list arguments;
    char text[2048];
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    size_t length = strlen(text);
    while (length > 0 && text[length - 1] == ' ')
        text[--length] = '\0';
    zinf_json_set(object, name, zinf_json_new_string(text));
}

void zinf_env_set_number(struct zinf_json *object, const char *name, int64_t value, int64_t none)
{
    zinf_json_set(object, name,
                  value == none ? zinf_json_new(ZINF_JSON_NULL) : zinf_json_new_integer(value));
}

/* The table of configure: "  NAME        yes    VERSION" a line; version "-" = none is known. */
static void add_found(struct zinf_json *found)
{
    for (const char *line = zinf_build_libraries(); *line;) {
        char name[12] = "", answer[8] = "", version[32] = "";
        int used = (int)strcspn(line, "\n");
        if (used > 14) {
            snprintf(name, sizeof name, "%.11s", line + 2);
            name[strcspn(name, " ") + (strstr(name, "Open MPI") ? 4 : 0)] = '\0';
            sscanf(line + 13, " %7s %31[^\n]", answer, version);
            bool yes = !strcmp(answer, "yes");
            zinf_env_set(found, name, "%s",
                         yes && *version && strcmp(version, "-") ? version : answer);
        }
        line += used + (line[used] == '\n');
    }
}

static void add_build(struct zinf_json *build)
{
    zinf_env_set(build, "version", "%s", zinf_version());
    zinf_env_set(build, "compiler", "%s", zinf_build_compiler());
    zinf_env_set(build, "flags", "%s", zinf_build_flags());
    zinf_env_set(build, "configure", "%s", zinf_build_options());
}

/* What is there when it runs, which need not be what it was built with. */
static void add_libraries(struct zinf_json *libraries, struct zinf_rankmap *map,
                          struct zinf_comm *comm)
{
    char text[512];
    if (comm->ops && comm->ops->describe_library) {
        comm->ops->describe_library(comm, text, sizeof text);
        zinf_env_set(libraries, "mpi", "%s", text);
    }
    zinf_hdf5_version(text, sizeof text);
    zinf_env_set(libraries, "hdf5", "%s", text);
    zinf_env_set(libraries, "matrix_products", "%s", zinf_cpu_matmul_name());
    zinf_env_set(libraries, "kernels", "%s", zinf_cpu_ops()->name);
    if (comm->rank == 0)
        zinf_env_device_libraries(libraries);
    zinf_env_exchange(libraries, map, comm);
    for (int i = 0; zinf_topology_readers()[i]; i++) {
        zinf_topology_readers()[i]->version(text, sizeof text);
        zinf_env_set(libraries, zinf_topology_readers()[i]->name, "%s", text);
    }
}

/* Where the launcher has put the ranks, and their devices. */
static void add_ranks(struct zinf_json *ranks, const struct zinf_rankmap *map)
{
    for (int i = 0; i < map->size; i++) {
        const struct zinf_rankmap_row *row = &map->rows[i];
        struct zinf_json *rank = zinf_json_new(ZINF_JSON_OBJECT);
        char *cpus = zinf_cpus_print(row->place.cpus);
        zinf_json_set(rank, "rank", zinf_json_new_integer(i));
        zinf_env_set(rank, "host", "%s", row->host);
        zinf_env_set(rank, "cpus", "%s", cpus);
        zinf_env_set_number(rank, "numa_node", row->place.numa, -1);
        zinf_json_set(rank, "bound", zinf_json_new_bool(row->place.kind == ZINF_BINDING_LEFT));
        if (*row->device)
            zinf_env_set(rank, "device", "%s", row->device);
        zinf_json_append(ranks, rank);
        free(cpus);
    }
}

static struct zinf_json *member(struct zinf_json *report, const char *name,
                                enum zinf_json_type type)
{
    zinf_json_set(report, name, zinf_json_new(type));
    return zinf_json_get(report, name);
}

/* Nothing is bound here. Collective. */
static int make_report(struct zinf_json *report, const struct zinf_context *context)
{
    struct zinf_rankmap map = {0};
    int status = zinf_rankmap_open(&map, context->comm, ZINF_BIND_NONE, 0);
    if (status)
        return status;
    add_build(member(report, "build", ZINF_JSON_OBJECT));
    add_found(member(report, "configure_found", ZINF_JSON_OBJECT));
    add_libraries(member(report, "libraries", ZINF_JSON_OBJECT), &map, context->comm);
    zinf_env_machine(member(report, "machine", ZINF_JSON_OBJECT));
    struct zinf_json *devices = member(report, "devices", ZINF_JSON_ARRAY);
    if (context->comm->rank == 0)
        zinf_env_devices(devices);
    zinf_env_limits(member(report, "limits", ZINF_JSON_OBJECT));
    struct zinf_json *io = member(report, "io", ZINF_JSON_OBJECT);
    if (context->comm->rank == 0) {
        zinf_env_engines(io);
        if (context->options->argument_count)
            zinf_env_path(io, context->options->arguments[0]);
    }
    zinf_env_kernel(member(report, "kernel", ZINF_JSON_OBJECT));
    zinf_env_variables(member(report, "environment", ZINF_JSON_OBJECT));
    add_ranks(member(report, "ranks", ZINF_JSON_ARRAY), &map);
    zinf_rankmap_release(&map);
    return ZINF_OK;
}

/* Length of a name without its unit, for people. */
static int bare_length(const char *name)
{
    size_t length = strlen(name);
    bool size = length > 6 && !strcmp(name + length - 6, "_bytes");
    return (int)(size ? length - 6 : length);
}

/* One value; what it is measured in stands in its name. */
static void print_value(const char *name, const struct zinf_json *value)
{
    char bytes[ZINF_SHORT_BYTES];
    bool size = name[bare_length(name)] != '\0';
    if (value->type == ZINF_JSON_NULL) {
        printf(size ? "unlimited" : "-");
    } else if (value->type == ZINF_JSON_STRING) {
        printf("%s", value->string);
    } else if (value->type == ZINF_JSON_BOOL) {
        printf(value->boolean ? "yes" : "no");
    } else if (size) {
        printf("%s", zinf_short_bytes(value->number, bytes));
    } else {
        char *text = zinf_json_print(value, -1);
        printf("%s", text);
        free(text);
    }
}

/* "name value, name value" of a small object. */
static void print_row(const struct zinf_json *row)
{
    for (size_t i = 0; i < row->count; i++) {
        printf("%s%.*s ", i ? ", " : "", bare_length(row->keys[i]), row->keys[i]);
        print_value(row->keys[i], row->members[i]);
    }
}

/* The members of an object, one a line; of an array inside it, one line each. */
static void print_object(const struct zinf_json *section)
{
    int width = 12;
    for (size_t i = 0; i < section->count; i++)
        if (bare_length(section->keys[i]) > width)
            width = bare_length(section->keys[i]);
    for (size_t i = 0; i < section->count; i++) {
        const struct zinf_json *value = section->members[i];
        const char *key = section->keys[i];
        size_t lines = value->type == ZINF_JSON_ARRAY ? value->count : 1;
        for (size_t line = 0; line < lines; line++) {
            printf("  %-*.*s  ", width, bare_length(key), key);
            if (value->type == ZINF_JSON_ARRAY)
                print_row(value->members[line]);
            else if (value->type == ZINF_JSON_OBJECT)
                print_row(value);
            else
                print_value(key, value);
            printf("\n");
        }
    }
}

static void print_section(const char *name, const struct zinf_json *section)
{
    printf("%s\n", name);
    if (section->type == ZINF_JSON_OBJECT)
        print_object(section);
    for (size_t i = 0; section->type == ZINF_JSON_ARRAY && i < section->count; i++) {
        printf("  ");
        print_row(section->members[i]);
        printf("\n");
    }
    printf("\n");
}

static void print_report(const struct zinf_json *report, bool json)
{
    if (json) {
        char *text = zinf_json_print(report, 2);
        printf("%s\n", text);
        free(text);
        return;
    }
    for (size_t i = 0; i < report->count; i++)
        if (report->members[i]->count > 0)
            print_section(report->keys[i], report->members[i]);
}

static int run(const struct zinf_context *context)
{
    struct zinf_json *report = zinf_json_new(ZINF_JSON_OBJECT);
    int status = make_report(report, context);
    if (!status && context->comm->rank == 0)
        print_report(report, context->options->json);
    zinf_json_free(report);
    return status;
}

const struct zinf_command zinf_command_env = {
    .name = "env",
    .arguments = "[PATH]",
    .summary = "build, libraries, hardware, limits: what to paste into a bug report",
    .help =
        "Says what this zinf was built with, which libraries it runs with, what the machine has "
        "and what it\n"
        "allows a process: cores, NUMA nodes, memory, control groups, limits, I/O engines. With "
        "PATH (a\n"
        "nvme_path) it tries a swap file of one block there: file system, space, direct I/O. Under "
        "mpiexec or\n"
        "srun it also says where the launcher puts the ranks.\n",
    .max_arguments = 1,
    .parallel = true,
    .takes_json = true,
    .run = run};
