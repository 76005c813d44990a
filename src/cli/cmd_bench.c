/*
 * zinf bench: what this machine gives, in the figures that plans are made with.
 *
 * In a job the collectives are measured by all ranks, everything else by rank 0 while the others
 * sleep: what they burn by waiting as MPI waits would be missing from the figures.
 */
#include "cli/bench.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/words.h"
#include "cli/command.h"
#include "cpu/threads.h"
#include "device/ops.h"

static double number(const struct zinf_json *object, const char *key)
{
    return zinf_json_number(object, key, 0);
}

static void print_io_line(const struct zinf_json *point, const char *mark)
{
    printf("%-9s %-6s %8.0f %6lld %9.3f %10.1f%s%s\n", zinf_json_string(point, "engine", ""),
           zinf_json_string(point, "pattern", ""), number(point, "block_bytes") / 1024,
           (long long)zinf_json_integer(point, "queue_depth", 0),
           number(point, "bytes_per_s") / 1e9, 100 * number(point, "cpu_s_per_gb"),
           zinf_json_bool(point, "registered", false) ? "" : "  not registered", mark);
}

static void print_io(const struct zinf_json *result)
{
    const struct zinf_json *points = zinf_json_get(result, "points"),
                           *best = zinf_json_get(result, "best");
    printf(
        "io: %s, a file of %.0f MiB, requests of %.0f MiB, %s; mixed is half read, half written\n",
        zinf_json_string(result, "path", ""), number(result, "file_bytes") / 1048576,
        number(result, "request_bytes") / 1048576,
        zinf_json_bool(result, "direct", false) ? "direct" : "through the page cache");
    printf("%-9s %-6s %8s %6s %9s %10s\n", "engine", "", "block KiB", "depth", "GB/s",
           "% core/GB/s");
    for (size_t i = 0; i < points->count; i++)
        print_io_line(points->members[i], "");
    for (size_t i = 0; i < best->count; i++)
        print_io_line(best->members[i], "  <- best");
}

static void print_checkpoint(const struct zinf_json *result)
{
    printf("checkpoint of %.0f MiB in %s, %s: written at %.2f GB/s (%.2f of the drive's %.2f), "
           "checked at %.2f (%.2f), read at %.2f (%.2f of the drive's %.2f)\n",
           number(result, "bytes") / 1048576, zinf_json_string(result, "path", ""),
           zinf_json_bool(result, "direct", false) ? "direct" : "through the page cache",
           number(result, "write_bytes_per_s") / 1e9, number(result, "write_of_drive"),
           number(result, "drive_write_bytes_per_s") / 1e9,
           number(result, "verify_bytes_per_s") / 1e9, number(result, "verify_of_drive"),
           number(result, "load_bytes_per_s") / 1e9, number(result, "load_of_drive"),
           number(result, "drive_read_bytes_per_s") / 1e9);
}

static void print_memory(const struct zinf_json *result)
{
    printf(
        "memory, %lld threads: read %.1f GB/s, triad %.1f GB/s, memcpy %.1f GB/s copied; CRC32C, "
        "one thread: %.1f GB/s\n",
        (long long)zinf_json_integer(result, "threads", 0),
        number(result, "read_bytes_per_s") / 1e9, number(result, "triad_bytes_per_s") / 1e9,
        number(result, "memcpy_bytes_per_s") / 1e9, number(result, "checksum_bytes_per_s") / 1e9);
}

static void print_adam(const struct zinf_json *result)
{
    printf("AdamW fp32, %lld threads, %s: %.0f M parameters/s (%.1f GB/s), stream of the same "
           "bytes %.0f, "
           "ratio %.2f; bf16 in and out %.0f\n",
           (long long)zinf_json_integer(result, "threads", 0),
           zinf_json_string(result, "kernels", ""), number(result, "parameters_per_s") / 1e6,
           number(result, "bytes_per_s") / 1e9, number(result, "stream_parameters_per_s") / 1e6,
           number(result, "of_stream"), number(result, "bf16_parameters_per_s") / 1e6);
}

static void print_gemm(const struct zinf_json *result)
{
    const struct zinf_json *list = zinf_json_get(result, "products");
    printf("products of a GPT-2 layer, %lld tokens, %lld threads, %s:\n",
           (long long)zinf_json_integer(result, "tokens", 0),
           (long long)zinf_json_integer(result, "threads", 0),
           zinf_json_string(result, "library", ""));
    for (size_t i = 0; i < list->count; i++) {
        const struct zinf_json *one = list->members[i];
        printf("  %-10s %-4s %8.1f GF/s, %.2f of fp32 multiply-adds in registers (%.1f GF/s)\n",
               zinf_json_string(one, "product", ""), zinf_json_string(one, "dtype", ""),
               number(one, "flop_per_s") / 1e9, number(one, "of_limit"),
               number(one, "fp32_limit_flop_per_s") / 1e9);
    }
}

static void print_collectives(const struct zinf_json *result)
{
    const struct zinf_json *points = zinf_json_get(result, "points");
    printf("collectives of %lld ranks, %lld on this node; GB/s that a rank receives, of memcpy's "
           "on all ranks at once; kept: of the speed of a computing thread beside%s\n",
           (long long)zinf_json_integer(result, "ranks", 0),
           (long long)zinf_json_integer(result, "ranks_per_node", 0),
           zinf_json_bool(result, "shared", false) ? "" : "; ranks share no memory here");
    printf("%-11s %-9s %9s %8s %8s %10s %11s %6s\n", "", "by", "block KiB", "GB/s", "memcpy",
           "of memcpy", "% core/GB/s", "kept");
    for (size_t i = 0; i < points->count; i++) {
        const struct zinf_json *one = points->members[i];
        printf("%-11s %-9s %9.0f %8.3f %8.3f %10.2f %11.1f %6.2f\n",
               zinf_json_string(one, "operation", ""), zinf_json_string(one, "way", ""),
               number(one, "block_bytes") / 1024, number(one, "bytes_per_s") / 1e9,
               number(one, "memcpy_bytes_per_s") / 1e9, number(one, "of_memcpy"),
               100 * number(one, "cpu_s_per_gb"), number(one, "compute_kept"));
    }
}

static void print_device(const struct zinf_json *result)
{
    const struct zinf_json *points = zinf_json_get(result, "points");
    printf("%s (%s):\n", zinf_json_string(result, "device", ""),
           zinf_json_string(result, "kernels", ""));
    for (size_t i = 0; i < points->count; i++) {
        const struct zinf_json *one = points->members[i];
        const double flop = number(one, "flop_per_s"), product = number(one, "of_product"),
                     copy = number(one, "of_copy"), plain = number(one, "of_plain");
        printf("%-19s %-5s %9.3f ms %9.2f %-8s", zinf_json_string(one, "name", ""),
               zinf_json_string(one, "dtype", ""), 1e3 * number(one, "seconds"),
               flop > 0 ? flop / 1e12 : number(one, "bytes_per_s") / 1e9,
               flop > 0 ? "TFLOP/s" : "GB/s");
        if (product > 0 || copy > 0 || plain > 0)
            printf(" %.2f of the %s",
                   product > 0 ? product
                   : copy > 0  ? copy
                               : plain,
                   product > 0 ? "product"
                   : copy > 0  ? "copy"
                               : "plain copies");
        printf("  (%s)\n", zinf_json_string(one, "shape", ""));
    }
}

static int run_memory(const struct zinf_bench *bench, struct zinf_json *result,
                      struct zinf_error *error)
{
    (void)error;
    zinf_bench_memory(bench, result);
    return 0;
}

static int run_adam(const struct zinf_bench *bench, struct zinf_json *result,
                    struct zinf_error *error)
{
    (void)error;
    zinf_bench_adam(bench, result);
    return 0;
}

static int run_gemm(const struct zinf_bench *bench, struct zinf_json *result,
                    struct zinf_error *error)
{
    (void)error;
    zinf_bench_gemm(bench, result);
    return 0;
}

/* What counts where no option says otherwise. */
struct setting {
    int rounds;
    double seconds;
    int64_t file_bytes;
};

/* What can be measured; `brief` is for all of them in one go. */
static const struct subject {
    const char *name;
    int (*run)(const struct zinf_bench *bench, struct zinf_json *result, struct zinf_error *error);
    void (*print)(const struct zinf_json *result);
    struct setting usual, brief;
    bool by_all_ranks;
    bool alone; /* not among "all" */
} subjects[] = {
    {"memory", run_memory, print_memory, {7, 0, 0}, {3, 0, 0}, false, false},
    {"gemm", run_gemm, print_gemm, {7, 0, 0}, {3, 0, 0}, false, false},
    {"adam", run_adam, print_adam, {7, 0, 0}, {3, 0, 0}, false, false},
    {"io", zinf_bench_io, print_io, {2, 0.5, 1 << 30}, {1, 0.1, 256 << 20}, false, false},
    {"checkpoint",
     zinf_bench_checkpoint,
     print_checkpoint,
     {3, 0, 1 << 30},
     {2, 0, 256 << 20},
     false,
     false},
    {"collectives",
     zinf_bench_collectives,
     print_collectives,
     {7, 0.05, 0},
     {3, 0.02, 0},
     true,
     false},
    {"device", zinf_bench_device, print_device, {5, 0.1, 0}, {5, 0.1, 0}, false, true}};
enum { SUBJECTS = sizeof subjects / sizeof *subjects };

static int read_size(const struct zinf_options *options, const char *name, int64_t minimum,
                     int64_t *bytes, struct zinf_error *error)
{
    const char *text = zinf_options_value(options, name, NULL);
    if (!text || (!zinf_size_parse(text, bytes) && *bytes >= minimum))
        return 0;
    return zinf_error_set(error, ZINF_E_USAGE,
                          "%s %s: right is a size of at least %lld bytes, such as 4MiB", name, text,
                          (long long)minimum);
}

static int read_seconds(const struct zinf_options *options, double *seconds,
                        struct zinf_error *error)
{
    const char *text = zinf_options_value(options, "--seconds", NULL);
    char *end;
    if (!text)
        return 0;
    double value = strtod(text, &end);
    if (end == text || *end || !(value > 0 && value < 1e6))
        return zinf_error_set(error, ZINF_E_USAGE, "--seconds %s: right is a number above 0", text);
    *seconds = value;
    return 0;
}

static int read_options(struct zinf_bench *bench, const struct zinf_options *options,
                        struct zinf_error *error)
{
    int64_t rounds = 0;
    int status = read_size(options, "--size", 1 << 20, &bench->file_bytes, error);
    if (!status)
        status = read_size(options, "--block-size", 4096, &bench->block_bytes, error);
    if (!status)
        status = zinf_options_integer(options, "--queue-depth", 1, &bench->queue_depth, error);
    if (!status)
        status = zinf_options_integer(options, "--rounds", 1, &rounds, error);
    if (!status)
        status = read_seconds(options, &bench->seconds, error);
    if (!status && (bench->queue_depth > 4096 || bench->block_bytes > 1 << 30 || rounds > 1000))
        status = zinf_error_set(error, ZINF_E_USAGE,
                                "at most --queue-depth 4096, --block-size 1GiB, --rounds 1000");
    bench->rounds = (int)rounds;
    bench->engine = zinf_options_value(options, "--engine", NULL);
    return status;
}

/* Until rank 0 comes here too. A request that is tested now and then leaves the cores alone. */
static void wait_asleep(struct zinf_comm *comm)
{
    struct zinf_comm_request request = {0};
    char *bytes = comm->ops ? zinf_alloc(2 * (size_t)comm->size) : NULL;
    if (!bytes)
        return;
    comm->ops->exchange(comm, bytes, bytes + comm->size, 1, &request);
    while (!comm->ops->test(comm, &request))
        usleep(2000);
    free(bytes);
}

static int run_subject(const struct subject *subject, const struct zinf_bench *options, bool brief,
                       struct zinf_json *result, struct zinf_error *error)
{
    const struct setting *setting = brief ? &subject->brief : &subject->usual;
    struct zinf_bench bench = *options;
    int status = 0;
    bench.rounds = bench.rounds ? bench.rounds : setting->rounds;
    bench.seconds = bench.seconds > 0 ? bench.seconds : setting->seconds;
    bench.file_bytes = bench.file_bytes ? bench.file_bytes : setting->file_bytes;
    if (subject->by_all_ranks)
        return subject->run(&bench, result, error);
    if (bench.comm->rank == 0)
        status = subject->run(&bench, result, error);
    wait_asleep(bench.comm);
    return zinf_comm_agree(bench.comm, status);
}

/* Collective. Rank 0 prints each as soon as it is known, or keeps it for --json. */
static int run_named(const char *name, const struct zinf_bench *bench, struct zinf_json *results,
                     bool json, struct zinf_error *error)
{
    const bool all = !strcmp(name, "all"), first = bench->comm->rank == 0;
    bool known = all;
    int status = 0;
    for (int i = 0; i < SUBJECTS && !status; i++) {
        const bool named = !strcmp(name, subjects[i].name);
        known = known || named;
        if (all && subjects[i].by_all_ranks && bench->comm->size < 2) {
            zinf_info("%s: left out, one rank has nobody to exchange bytes with; mpiexec -n 4 zinf "
                      "bench %s",
                      subjects[i].name, subjects[i].name);
            continue;
        }
        if (!named && (!all || subjects[i].alone))
            continue;
        struct zinf_json *result = zinf_json_new(ZINF_JSON_OBJECT);
        status = run_subject(&subjects[i], bench, all, result, error);
        if (!status && !json && first) {
            subjects[i].print(result);
            fflush(stdout);
        }
        zinf_json_set(results, subjects[i].name, result);
    }
    if (!known)
        return zinf_error_set(
            error, ZINF_E_USAGE,
            "zinf bench %s: right is io, adam, gemm, memory, collectives, checkpoint, device or "
            "all",
            name);
    return status;
}

static int run(const struct zinf_context *context)
{
    const struct zinf_options *options = context->options;
    struct zinf_bench bench = {.path = options->argument_count > 1 ? options->arguments[1] : ".",
                               .device = "auto",
                               .comm = context->comm};
    struct zinf_error error = {0};
    struct zinf_json *results = zinf_json_new(ZINF_JSON_OBJECT);
    if (options->limits.threads)
        zinf_cpu_set_threads(options->limits.threads);
    for (int i = 0; i < options->override_count; i++)
        if (!strcmp(options->overrides[i].path, "zinf.device"))
            bench.device = options->overrides[i].value;
    bench.threads = zinf_cpu_threads();
    int status = read_options(&bench, options, &error);
    if (!status)
        status = run_named(options->arguments[0], &bench, results, options->json, &error);
    if (status && context->comm->rank == 0) {
        zinf_error_log("%s", error.text);
    } else if (!status && options->json && context->comm->rank == 0) {
        char *text = zinf_json_print(results, 2);
        printf("%s\n", text);
        free(text);
    }
    zinf_json_free(results);
    return status;
}

static const struct zinf_option own_options[] = {
    {"--size", "SIZE", "io, checkpoint: of the file (1GiB)"},
    {"--engine", "NAME", "io: only this one (io_uring, threads)"},
    {"--block-size", "SIZE", "io, collectives: only this one"},
    {"--queue-depth", "N", "io: only this one"},
    {"--seconds", "S", "of one point in one round: io (0.5), collectives (0.05), device (0.1)"},
    {"--rounds", "N", "how often everything is measured in turn; the best counts"},
    {0}};

const struct zinf_command zinf_command_bench = {
    .name = "bench",
    .arguments =
        "io [PATH] | checkpoint [PATH] | adam | gemm | memory | collectives | device | all [PATH]",
    .summary = "measure this machine",
    .help = "io: the drive below PATH (default: here), by each I/O engine, block size and queue "
            "depth, with a nameless\n"
            "file that is gone afterwards; CPU use is in percent of a core for each GB/s. memory: "
            "read, triad and\n"
            "memcpy rates. adam: updates beside a stream that reads and writes the same bytes. "
            "gemm: the products\n"
            "of a GPT-2 layer beside multiply-adds in registers. checkpoint: one written, checked "
            "and read in\n"
            "PATH, and the same bytes without one. collectives, under mpiexec: all_gather and "
            "exchange of blocks\n"
            "of several sizes among all ranks, beside memcpy on all ranks at once. all: these six "
            "with short\n"
            "settings, about half a minute; options that are given count. device: what zinf.device "
            "(--device) gives: products,\n"
            "attention, updates, norms, loss and copies beside the limits measured there. Uses "
            "--threads N "
            "(default: what OpenMP\n"
            "offers).\n",
    .options = own_options,
    .min_arguments = 1,
    .max_arguments = 2,
    .takes_job = true,
    .takes_json = true,
    .run = run,
};
