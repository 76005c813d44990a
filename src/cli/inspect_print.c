/*
 * Reports of `zinf inspect` for people. See inspect.h.
 */
#include "cli/inspect.h"

#include "train/metrics.h"
#include "train/terminal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *text_of(const struct zinf_json *object, const char *key)
{
    return zinf_json_string(object, key, "");
}

/* "1024 x 768"; a scalar is "-". */
static void shape_text(const struct zinf_json *shape, char *out, size_t bytes)
{
    size_t at = (size_t)snprintf(out, bytes, shape->count ? "" : "-");
    for (size_t i = 0; i < shape->count && at < bytes; i++)
        at += (size_t)snprintf(out + at, bytes - at, "%s%lld", i ? " x " : "",
                               (long long)shape->members[i]->integer);
}

static int name_width(const struct zinf_json *rows)
{
    size_t widest = 4;
    for (size_t i = 0; i < rows->count; i++) {
        size_t width = strlen(text_of(rows->members[i], "name"));
        widest = width > widest ? width : widest;
    }
    return (int)widest;
}

/* Members of an object that are plain, "name  value", one a line; long and multi-line texts are
 * left out. */
static void print_members(const struct zinf_json *object, const char *indent)
{
    for (size_t i = 0; object && i < object->count; i++) {
        const struct zinf_json *value = object->members[i];
        int nested = value->type == ZINF_JSON_ARRAY || value->type == ZINF_JSON_OBJECT;
        if (nested || (value->type == ZINF_JSON_STRING &&
                       (strlen(value->string) > 100 || strchr(value->string, '\n'))))
            continue;
        char *text = zinf_json_print(value, -1);
        printf("%s%-26s %s\n", indent, object->keys[i],
               value->type == ZINF_JSON_STRING ? value->string : text);
        free(text);
    }
}

static void print_tensors(const struct zinf_json *report)
{
    const struct zinf_json *tensors = zinf_json_get(report, "tensors");
    if (!tensors)
        return;
    char shape[160], number[ZINF_SHORT_BYTES], bytes[ZINF_SHORT_BYTES];
    int width = name_width(tensors);
    printf("\n%-*s  %-5s  %-20s %15s\n", width, "name", "type", "shape", "bytes");
    for (size_t i = 0; i < tensors->count; i++) {
        const struct zinf_json *tensor = tensors->members[i];
        shape_text(zinf_json_get(tensor, "shape"), shape, sizeof shape);
        const char *link = text_of(tensor, "link"), *file = text_of(tensor, "file");
        printf("%-*s  %-5s  %-20s %15lld%s%s%s%s\n", width, text_of(tensor, "name"),
               text_of(tensor, "dtype"), shape, (long long)zinf_json_integer(tensor, "bytes", 0),
               *link ? "  = " : "", link, *file ? "  " : "", file);
    }
    printf("\n%zu tensors, %s parameters, %s\n", tensors->count,
           zinf_short_number(zinf_json_number(report, "parameters", 0), number),
           zinf_short_bytes(zinf_json_number(report, "bytes", 0), bytes));
}

static void print_checkpoints(const struct zinf_json *rows)
{
    char bytes[ZINF_SHORT_BYTES];
    printf("\n%-24s %10s %12s\n", "checkpoint", "step", "size");
    for (size_t i = 0; i < rows->count; i++) {
        const struct zinf_json *row = rows->members[i];
        const char *damaged = text_of(row, "damaged");
        printf("%-24s ", text_of(row, "name"));
        if (*damaged)
            printf("damaged: %s", damaged);
        else
            printf("%10lld %12s", (long long)zinf_json_integer(row, "step", 0),
                   zinf_short_bytes(zinf_json_number(row, "bytes", 0), bytes));
        printf("%s%s%s\n", zinf_json_bool(row, "verified", false) ? "  verified" : "",
               zinf_json_bool(row, "latest", false) ? "  latest" : "",
               zinf_json_bool(row, "best", false) ? "  best" : "");
    }
}

static void print_diff(const struct zinf_json *report)
{
    const struct zinf_json *rows = zinf_json_get(report, "datasets");
    const struct zinf_json *attributes = zinf_json_get(report, "attributes");
    int width = name_width(rows);
    size_t differing = 0;
    for (size_t i = 0; i < attributes->count; i++) {
        char *a = zinf_json_print(zinf_json_get(attributes->members[i], "a"), -1);
        char *b = zinf_json_print(zinf_json_get(attributes->members[i], "b"), -1);
        printf("/run %-26s %s | %s\n", text_of(attributes->members[i], "name"), a, b);
        free(a);
        free(b);
    }
    printf("%-*s %15s %15s %12s %12s\n", width, "name", "elements", "different", "max |a-b|",
           "|a-b|/|a|");
    for (size_t i = 0; i < rows->count; i++) {
        const struct zinf_json *row = rows->members[i];
        const char *where = text_of(row, "only_in");
        int64_t different = zinf_json_integer(row, "different", 0);
        differing += *where || different;
        if (*where)
            printf("%-*s only in %s\n", width, text_of(row, "name"), where);
        else if (different)
            printf("%-*s %15lld %15lld %12.4g %12.4g\n", width, text_of(row, "name"),
                   (long long)zinf_json_integer(row, "elements", 0), (long long)different,
                   zinf_json_number(row, "max_abs", 0), zinf_json_number(row, "l2_relative", 0));
    }
    printf("%zu of %zu datasets differ, %zu attributes of /run: %s\n", differing, rows->count,
           attributes->count, zinf_json_bool(report, "equal", false) ? "equal" : "different");
}

/* "title: N differ", then one line each: name, value of a, value of b. */
static void print_pairs(const struct zinf_json *report, const char *key, const char *title)
{
    const struct zinf_json *rows = zinf_json_get(report, key);
    printf("%s: %zu differ%s\n", title, rows->count, rows->count == 1 ? "s" : "");
    const int width = name_width(rows);
    for (size_t i = 0; i < rows->count; i++) {
        const struct zinf_json *row = rows->members[i];
        char *text[2];
        for (int side = 0; side < 2; side++) {
            const struct zinf_json *value = zinf_json_get(row, side ? "b" : "a");
            text[side] = value->type == ZINF_JSON_STRING ? zinf_strdup(value->string)
                         : value->type == ZINF_JSON_NULL ? zinf_strdup("not set")
                                                         : zinf_json_print(value, -1);
        }
        printf("  %-*s  %s | %s\n", width, text_of(row, "name"), text[0], text[1]);
        free(text[0]);
        free(text[1]);
    }
}

static void print_metric(const struct zinf_json *row)
{
    char a[ZINF_NUMBER_BYTES], b[ZINF_NUMBER_BYTES];
    const int64_t different = zinf_json_integer(row, "different", 0);
    printf("  %-15s %8lld of %-8lld", text_of(row, "name"), (long long)different,
           (long long)zinf_json_integer(row, "lines", 0));
    if (different) {
        zinf_number_print(zinf_json_number(row, "a", NAN), a);
        zinf_number_print(zinf_json_number(row, "b", NAN), b);
        printf("  first at step %lld: %s | %s, relative %.3g; largest %.3g at step %lld",
               (long long)zinf_json_integer(row, "first_step", 0), a, b,
               zinf_json_number(row, "relative", INFINITY),
               zinf_json_number(row, "largest_relative", INFINITY),
               (long long)zinf_json_integer(row, "largest_step", 0));
    }
    printf("\n");
}

static void print_only(const struct zinf_json *lines, const char *key, const char *where)
{
    const struct zinf_json *only = zinf_json_get(lines, key);
    if (zinf_json_integer(only, "lines", 0))
        printf("  %lld lines only in %s, from step %lld\n",
               (long long)zinf_json_integer(only, "lines", 0), where,
               (long long)zinf_json_integer(only, "first_step", 0));
}

static void print_run_diff(const struct zinf_json *report)
{
    const struct zinf_json *lines = zinf_json_get(report, "lines");
    const struct zinf_json *metrics = zinf_json_get(report, "metrics");
    print_pairs(report, "configuration", "configuration");
    print_pairs(report, "provenance", "provenance of the latest checkpoints");
    print_pairs(report, "results", "results");
    printf("metrics.jsonl: %lld lines in both\n",
           (long long)zinf_json_integer(lines, "in_both", 0));
    for (size_t i = 0; i < metrics->count; i++)
        print_metric(metrics->members[i]);
    print_only(lines, "only_in_a", "a");
    print_only(lines, "only_in_b", "b");
    if (zinf_json_bool(report, "equal", false))
        printf("equal: the same numbers at every step\n");
    else
        printf("different from step %lld on\n",
               (long long)zinf_json_integer(report, "first_different_step", 0));
}

void zinf_inspect_print(const struct zinf_json *report)
{
    const char *kind = text_of(report, "kind");
    const struct zinf_json *checkpoints = zinf_json_get(report, "checkpoints");
    if (!strcmp(kind, "diff")) {
        print_diff(report);
        return;
    }
    if (!strcmp(kind, "run diff")) {
        print_run_diff(report);
        return;
    }
    printf("%s: %s\n", text_of(report, "path"), kind);
    for (const char *const *part =
             (const char *const[]){"config", "run", "provenance", "results", NULL};
         *part; part++)
        print_members(zinf_json_get(report, *part), "  ");
    if (checkpoints)
        print_checkpoints(checkpoints);
    print_tensors(report);
    if (zinf_json_get(report, "verified"))
        printf("%s\n", zinf_json_bool(report, "verified", false)
                           ? "verified: every byte matches its checksum"
                           : "DAMAGED");
}
