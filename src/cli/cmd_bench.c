/*
 * zinf bench: what this machine gives, in the figures that plans are made with.
 */
#include "cli/bench.h"

#include <stdlib.h>
#include <string.h>

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
    printf("memory, %lld threads: read %.1f GB/s, triad %.1f GB/s, memcpy %.1f GB/s copied\n",
           (long long)zinf_json_integer(result, "threads", 0),
           number(result, "read_bytes_per_s") / 1e9, number(result, "triad_bytes_per_s") / 1e9,
           number(result, "memcpy_bytes_per_s") / 1e9);
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

/* What can be measured. `rounds`: how often, unless --rounds says. Without `run`: still to come. */
static const struct subject {
    const char *name;
    int (*run)(const struct zinf_bench *bench, struct zinf_json *result, struct zinf_error *error);
    void (*print)(const struct zinf_json *result);
    int rounds;
} subjects[] = {
    {"io", zinf_bench_io, print_io, 2}, {"adam", run_adam, print_adam, 7},
    {"gemm", run_gemm, print_gemm, 7},  {"memory", run_memory, print_memory, 7},
    {"collectives", NULL, NULL, 0},     {"checkpoint", zinf_bench_checkpoint, print_checkpoint, 3}};
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

static int run_subject(const struct subject *subject, const struct zinf_bench *options,
                       struct zinf_json *results, bool json, struct zinf_error *error)
{
    if (!subject->run)
        return zinf_error_set(error, ZINF_E_USAGE, "zinf bench %s: not yet in this version",
                              subject->name);
    struct zinf_bench bench = *options;
    if (!bench.rounds)
        bench.rounds = subject->rounds;
    struct zinf_json *result = zinf_json_new(ZINF_JSON_OBJECT);
    int status = subject->run(&bench, result, error);
    if (!status && !json)
        subject->print(result);
    zinf_json_set(results, subject->name, result);
    return status;
}

static int run_named(const char *name, const struct zinf_bench *bench, struct zinf_json *results,
                     bool json, struct zinf_error *error)
{
    bool all = !strcmp(name, "all"), known = all;
    int status = 0;
    for (int i = 0; i < SUBJECTS && !status; i++) {
        bool named = !strcmp(name, subjects[i].name);
        known = known || named;
        if (named || (all && subjects[i].run))
            status = run_subject(&subjects[i], bench, results, json, error);
    }
    if (!known)
        return zinf_error_set(
            error, ZINF_E_USAGE,
            "zinf bench %s: right is io, adam, gemm, memory, collectives, checkpoint or all", name);
    return status;
}

static int run(const struct zinf_context *context)
{
    const struct zinf_options *options = context->options;
    struct zinf_bench bench = {.path = options->argument_count > 1 ? options->arguments[1] : ".",
                               .file_bytes = (int64_t)1 << 30,
                               .seconds = 0.5};
    struct zinf_error error = {0};
    struct zinf_json *results = zinf_json_new(ZINF_JSON_OBJECT);
    if (options->limits.threads)
        zinf_cpu_set_threads(options->limits.threads);
    bench.threads = zinf_cpu_threads();
    int status = read_options(&bench, options, &error);
    if (!status)
        status = run_named(options->arguments[0], &bench, results, options->json, &error);
    if (status) {
        zinf_error_log("%s", error.text);
    } else if (options->json) {
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
    {"--block-size", "SIZE", "io: only this one"},
    {"--queue-depth", "N", "io: only this one"},
    {"--seconds", "S", "io: of one point in one round (0.5)"},
    {"--rounds", "N", "how often everything is measured in turn; the best counts"},
    {0}};

const struct zinf_command zinf_command_bench = {
    .name = "bench",
    .arguments = "io [PATH] | checkpoint [PATH] | adam | gemm | memory | all",
    .summary = "measure this machine",
    .help = "io: the drive below PATH (default: here), by each I/O engine, block size and queue "
            "depth, with a nameless\n"
            "file that is gone afterwards; CPU use is in percent of a core for each GB/s. memory: "
            "read, triad and\n"
            "memcpy rates. adam: updates beside a stream that reads and writes the same bytes. "
            "gemm: the products\n"
            "of a GPT-2 layer beside multiply-adds in registers. all: these five. Uses --threads N "
            "(default: what\n"
            "OpenMP offers).\n"
            "checkpoint: one written, checked and read in PATH, and the same bytes without one.\n",
    .options = own_options,
    .min_arguments = 1,
    .max_arguments = 2,
    .takes_json = true,
    .run = run,
};
