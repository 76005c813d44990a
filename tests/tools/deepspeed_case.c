/*
 * The C side of tests/oracle: makes the models and the text from the same formulas as formulas.py,
 * takes the ds.json out of a stored case, and holds a run folder of zinf against the numbers of
 * DeepSpeed in it.
 *
 *   deepspeed_case fixture DATA_DIR OUT_DIR    OUT_DIR/corpus.txt, OUT_DIR/MODEL/config.json and
 * model.safetensors deepspeed_case ds CASE.json OUT.json       writes the configuration, prints the
 * number of ranks deepspeed_case compare CASE.json RUN_DIR   one line "PASS name: figures" or "FAIL
 * ..."; exit 0 or 1
 *
 * The whole final tensors would be 100 KB a case. A sketch of 24 dot products with +-1 vectors is
 * stored instead: the mean square of the differences of two tensors' dot products estimates the
 * squared L2 norm of their difference (relative deviation of the norm: 14 %).
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/json.h"
#include "base/status.h"
#include "io/checkpoint.h"
#include "topology/comm_mpi.h"
#include "train/metrics.h"

enum { SKETCH_SIZE = 24, MAX_STEPS = 1000 };
static const double SKETCH_UNIT = 1e-5;

/* Tolerances: issue and README of tests/oracle. The 16-bit ones on norms and weights only stop what
 * is grossly wrong. */
struct tolerance {
    double loss, signed_loss, grad_norm, tensor, key_bias;
};
static const struct tolerance fp32_tolerance = {1e-5, 1e-5, 1e-4, 1e-3, 2e-2};
static const struct tolerance half_tolerance = {1e-2, 1e-3, 1e-2, 2e-2, 1};

static void fail(const char *what, const char *name)
{
    fprintf(stderr, "deepspeed_case: %s: %s\n", what, name);
    exit(2);
}

/* Formulas, see formulas.py. */

static uint64_t fnv1a(const char *text)
{
    uint64_t value = 0xcbf29ce484222325u;
    for (; *text; text++)
        value = (value ^ (unsigned char)*text) * 0x100000001b3u;
    return value;
}

static uint64_t splitmix(uint64_t start, uint64_t index)
{
    uint64_t z = start + (index + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* offset + h * 2^exponent, h in [-1, 1) with 20 bits: exact in float. */
static float weight(uint64_t hash, int64_t index, double offset, int exponent)
{
    int64_t bits = (int64_t)(splitmix(hash, (uint64_t)index) >> 44) - (1 << 19);
    return (float)(offset + ldexp((double)bits, exponent - 19));
}

static uint32_t draw(uint32_t *state, uint32_t limit)
{
    *state = (1103515245u * *state + 12345u) & 0x7fffffffu;
    return (*state >> 16) % limit;
}

static char *corpus(size_t bytes)
{
    static const char *const words[] = {
        "the",   "of",    "and",     "a",     "to",     "in",    "he",   "was",   "that",
        "it",    "his",   "her",     "with",  "as",     "had",   "she",  "for",   "on",
        "at",    "by",    "which",   "not",   "be",     "from",  "but",  "they",  "were",
        "one",   "all",   "this",    "have",  "there",  "their", "him",  "been",  "would",
        "when",  "more",  "no",      "out",   "so",     "said",  "what", "water", "light",
        "house", "river", "morning", "stone", "garden", "letter"};
    uint32_t count = sizeof words / sizeof *words, state = 20240607;
    char *text = zinf_alloc(bytes + 64);
    size_t used = 0;
    while (used < bytes) {
        int length = 4 + (int)draw(&state, 9);
        for (int place = 0; place < length && used < bytes; place++) {
            uint32_t first = draw(&state, count), second = draw(&state, count);
            const char *word = words[first < second ? first : second];
            size_t start = used;
            used += (size_t)sprintf(text + used, "%s%c", word, place == length - 1 ? '.' : ' ');
            if (place == 0)
                text[start] = (char)(text[start] - 'a' + 'A');
        }
        if (used < bytes)
            text[used++] = draw(&state, 4) == 0 ? '\n' : ' ';
    }
    return text;
}

/* Files. */

static struct zinf_json *read_json(const char *path)
{
    struct zinf_json_options options = {.file = path, .strict = true, .status = ZINF_E_USAGE};
    struct zinf_error_list errors = {0};
    struct zinf_json *value = NULL;
    if (zinf_json_read(&value, path, &options, &errors))
        fail(errors.count ? errors.items[0].text : "not readable", path);
    return value;
}

static void write_file(const char *path, const void *bytes, size_t count)
{
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(bytes, 1, count, file) != count || fclose(file))
        fail("cannot write", path);
}

static void write_json(const char *path, const struct zinf_json *value)
{
    char *text = zinf_json_print(value, 2);
    write_file(path, text, strlen(text));
    free(text);
}

static int64_t element_count(const struct zinf_json *shape)
{
    int64_t count = 1;
    for (size_t i = 0; i < shape->count; i++)
        count *= shape->members[i]->integer;
    return count;
}

/* safetensors: 8 bytes length of the header, JSON header, tensors behind each other. */
static void write_weights(const char *path, const struct zinf_json *table)
{
    struct zinf_json *header = zinf_json_new(ZINF_JSON_OBJECT);
    int64_t total = 0;
    for (size_t i = 0; i < table->count; i++) {
        const struct zinf_json *shape = table->members[i]->members[0];
        struct zinf_json *entry = zinf_json_new(ZINF_JSON_OBJECT);
        struct zinf_json *offsets = zinf_json_new(ZINF_JSON_ARRAY);
        zinf_json_append(offsets, zinf_json_new_integer(4 * total));
        total += element_count(shape);
        zinf_json_append(offsets, zinf_json_new_integer(4 * total));
        zinf_json_set(entry, "dtype", zinf_json_new_string("F32"));
        zinf_json_set(entry, "shape", zinf_json_copy(shape));
        zinf_json_set(entry, "data_offsets", offsets);
        zinf_json_set(header, table->keys[i], entry);
    }
    char *text = zinf_json_print(header, -1);
    uint64_t text_bytes = (strlen(text) + 7) / 8 * 8;
    size_t bytes = 8 + text_bytes + 4 * (size_t)total;
    unsigned char *file = zinf_alloc(bytes);
    memset(file + 8, ' ', text_bytes);
    memcpy(file, &text_bytes, 8);
    memcpy(file + 8, text, strlen(text));
    float *out = (float *)(file + 8 + text_bytes);
    for (size_t i = 0; i < table->count; i++) {
        const struct zinf_json *row = table->members[i];
        uint64_t hash = fnv1a(table->keys[i]);
        int64_t count = element_count(row->members[0]);
        for (int64_t k = 0; k < count; k++)
            *out++ = weight(hash, k, row->members[1]->number, (int)row->members[2]->integer);
    }
    write_file(path, file, bytes);
    free(file);
    free(text);
    zinf_json_free(header);
}

static int fixture(const char *data, const char *out)
{
    static const char *const models[] = {"gpt2", "llama", "llama3"};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char *source = zinf_format("%s/model-%s.json", data, models[i]);
        char *folder = zinf_format("%s/%s", out, models[i]);
        char *config = zinf_format("%s/config.json", folder);
        char *weights = zinf_format("%s/model.safetensors", folder);
        char *text_file = zinf_format("%s/corpus.txt", out);
        struct zinf_json *model = read_json(source);
        mkdir(out, 0777);
        mkdir(folder, 0777);
        write_json(config, zinf_json_get(model, "config"));
        write_weights(weights, zinf_json_get(model, "tensors"));
        size_t bytes = (size_t)zinf_json_integer(model, "corpus_bytes", 0);
        char *text = corpus(bytes);
        write_file(text_file, text, bytes);
        zinf_json_free(model);
        free(text);
        free(source);
        free(folder);
        free(config);
        free(weights);
        free(text_file);
    }
    return 0;
}

static int ds(const char *case_path, const char *out)
{
    struct zinf_json *stored = read_json(case_path);
    write_json(out, zinf_json_get(stored, "ds"));
    printf("%d\n", (int)zinf_json_integer(stored, "ranks", 0));
    zinf_json_free(stored);
    return 0;
}

/* Comparison. */

struct verdict {
    double loss, signed_loss, lr, grad_norm, tensor, key_bias;
    const char *worst_tensor;
    int scaler; /* steps whose loss scale or number of skipped steps differ */
    double first_loss, last_loss;
    int clipped;
};

static void keep_max(double *worst, double value)
{
    if (!(value <= *worst)) /* NAN is the worst */
        *worst = value;
}

static double number_at(const struct zinf_json *stored, const char *key, int step)
{
    const struct zinf_json *value = zinf_json_get(stored, key)->members[step];
    return value->type == ZINF_JSON_NULL ? NAN : value->number;
}

static double relative(double value, double wanted)
{
    return value == wanted ? 0 : fabs(value - wanted) / fmax(fabs(wanted), 1e-300);
}

static void compare_step(struct verdict *verdict, const struct zinf_json *stored, int step,
                         const double *got)
{
    double loss = number_at(stored, "loss", step), norm = number_at(stored, "grad_norm", step);
    keep_max(&verdict->loss, relative(got[ZINF_METRIC_LOSS], loss));
    verdict->signed_loss += (got[ZINF_METRIC_LOSS] - loss) / loss;
    keep_max(&verdict->lr, relative(got[ZINF_METRIC_LR], number_at(stored, "lr", step)));
    if (!isnan(norm))
        keep_max(&verdict->grad_norm, relative(got[ZINF_METRIC_GRAD_NORM], norm));
    verdict->clipped +=
        norm > zinf_json_number(zinf_json_get(stored, "ds"), "gradient_clipping", 0);
    verdict->scaler += got[ZINF_METRIC_SKIPPED] != number_at(stored, "skipped", step);
    if (zinf_json_path(stored, "ds.fp16"))
        verdict->scaler += got[ZINF_METRIC_LOSS_SCALE] != number_at(stored, "loss_scale", step);
    if (getenv("ZINF_TEST_VERBOSE"))
        printf("  %2d loss %.9g %.9g lr %.9g grad_norm %.9g %.9g\n", step + 1,
               got[ZINF_METRIC_LOSS], loss, got[ZINF_METRIC_LR], got[ZINF_METRIC_GRAD_NORM], norm);
    if (step == 0)
        verdict->first_loss = got[ZINF_METRIC_LOSS];
    verdict->last_loss = got[ZINF_METRIC_LOSS];
}

static void compare_metrics(struct verdict *verdict, const struct zinf_json *stored,
                            const char *run)
{
    char *path = zinf_format("%s/metrics.jsonl", run);
    FILE *file = fopen(path, "r");
    if (!file)
        fail("cannot read", path);
    int steps = (int)zinf_json_get(stored, "loss")->count, seen = 0;
    char line[4 * ZINF_METRICS_LINE_BYTES];
    while (fgets(line, sizeof line, file)) {
        double got[ZINF_METRIC_COUNT];
        if (!zinf_metrics_parse(line, got) || seen >= steps || got[ZINF_METRIC_STEP] != seen + 1)
            fail("a line that is not the next step", path);
        compare_step(verdict, stored, seen++, got);
    }
    if (seen != steps)
        fail("fewer steps than stored", path);
    verdict->signed_loss = fabs(verdict->signed_loss / steps);
    fclose(file);
    free(path);
}

/* Estimated L2 norm of the difference to the stored tensor, relative to the stored norm. */
static double sketch_difference(const struct zinf_json *sketch, const float *values, int64_t count)
{
    double dots[SKETCH_SIZE] = {0}, sum = 0;
    uint64_t hash = fnv1a("sketch");
    for (int64_t i = 0; i < count; i++) {
        uint64_t bits = splitmix(hash, (uint64_t)i);
        for (int k = 0; k < SKETCH_SIZE; k++)
            dots[k] += bits >> k & 1 ? -(double)values[i] : (double)values[i];
    }
    double norm = sketch->members[0]->number;
    ZINF_ASSERT(sketch->count == SKETCH_SIZE + 1);
    for (int k = 0; k < SKETCH_SIZE; k++) {
        double delta = dots[k] / norm - (double)sketch->members[k + 1]->integer * SKETCH_UNIT;
        sum += delta * delta;
    }
    return sqrt(sum / SKETCH_SIZE);
}

/* A stored part: a tensor, or "name:q", ":k", ":v", a third of c_attn.bias. */
static void compare_part(struct verdict *verdict, const struct zinf_json *sketches, size_t part,
                         struct zinf_checkpoint_file *file, const struct zinf_json *table)
{
    const char *name = sketches->keys[part], *colon = strchr(name, ':');
    int length = colon ? (int)(colon - name) : (int)strlen(name);
    char *tensor = zinf_format("%.*s", length, name);
    char *path = zinf_format("/model/%s", tensor);
    const struct zinf_json *row = zinf_json_get(table, tensor);
    if (!row)
        fail("no such tensor in the model's table", tensor);
    struct zinf_array array = {.path = path, .dim_count = (int)row->members[0]->count};
    for (int i = 0; i < array.dim_count; i++)
        array.shape[i] = row->members[0]->members[i]->integer;
    int64_t count = element_count(row->members[0]) / (colon ? 3 : 1);
    struct zinf_slice slice = {.count = count, .data = zinf_alloc(4 * (size_t)count)};
    slice.offset = colon ? count * (int64_t)(strchr("qkv", colon[1]) - "qkv") : 0;
    array.slices = &slice;
    array.slice_count = 1;
    struct zinf_error error = {0};
    if (zinf_checkpoint_load(file, &array, 1, &error))
        fail(error.text, path);
    double difference = sketch_difference(sketches->members[part], slice.data, count);
    if (colon && colon[1] == 'k') { /* relative to the whole bias: this third is small */
        double squares = 0;
        for (int i = -1; i <= 1; i++)
            squares += pow(sketches->members[(int)part + i]->members[0]->number, 2);
        keep_max(&verdict->key_bias,
                 difference * sketches->members[part]->members[0]->number / sqrt(squares));
    } else if (!(difference <= verdict->tensor)) {
        verdict->tensor = difference;
        verdict->worst_tensor = name;
    }
    free(slice.data);
    free(tensor);
    free(path);
}

static void compare_weights(struct verdict *verdict, const struct zinf_json *stored,
                            const char *case_path, const char *run, struct zinf_comm *comm)
{
    const char *slash = strrchr(case_path, '/');
    char *model_path = zinf_format("%.*smodel-%s.json", slash ? (int)(slash - case_path + 1) : 0,
                                   case_path, zinf_json_string(stored, "model", ""));
    char *path = zinf_format("%s/checkpoints/latest", run);
    struct zinf_json *model = read_json(model_path);
    struct zinf_checkpoint_file *file;
    struct zinf_error error = {0};
    if (zinf_checkpoint_open(&file, comm, path, &error))
        fail(error.text, path);
    const struct zinf_json *sketches = zinf_json_get(stored, "tensors");
    for (size_t i = 0; i < sketches->count; i++)
        compare_part(verdict, sketches, i, file, zinf_json_get(model, "tensors"));
    zinf_checkpoint_close(file);
    zinf_json_free(model);
    free(path);
    free(model_path);
}

static int compare(const char *case_path, const char *run, struct zinf_comm *comm)
{
    struct zinf_json *stored = read_json(case_path);
    bool half = zinf_json_path(stored, "ds.fp16") || zinf_json_path(stored, "ds.bf16");
    bool lion =
        !strcmp(zinf_json_string(zinf_json_path(stored, "ds.optimizer"), "type", ""), "Lion");
    struct tolerance tolerance = half ? half_tolerance : fp32_tolerance;
    if (lion) /* the step is lr times a sign, of rounding noise too: the key bias is not defined */
        tolerance.key_bias = INFINITY;
    struct verdict verdict = {0};
    compare_metrics(&verdict, stored, run);
    compare_weights(&verdict, stored, case_path, run, comm);
    bool good = verdict.loss <= tolerance.loss && verdict.signed_loss <= tolerance.signed_loss &&
                verdict.lr == 0 && verdict.grad_norm <= tolerance.grad_norm &&
                verdict.tensor <= tolerance.tensor && verdict.key_bias <= tolerance.key_bias &&
                verdict.scaler == 0;
    printf("%s %s: loss %.4f -> %.4f, difference %.1e (mean %.1e), lr %.1e, grad_norm %.1e, "
           "weights %.1e (%s), key bias %.1e, clipped %d",
           good ? "PASS" : "FAIL", zinf_json_string(stored, "name", "?"), verdict.first_loss,
           verdict.last_loss, verdict.loss, verdict.signed_loss, verdict.lr, verdict.grad_norm,
           verdict.tensor, verdict.worst_tensor ? verdict.worst_tensor : "none", verdict.key_bias,
           verdict.clipped);
    printf(verdict.scaler ? ", loss scale or skipped steps differ at %d places\n" : "\n",
           verdict.scaler);
    zinf_json_free(stored);
    return good ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc == 4 && !strcmp(argv[1], "fixture"))
        return fixture(argv[2], argv[3]);
    if (argc == 4 && !strcmp(argv[1], "ds"))
        return ds(argv[2], argv[3]);
    if (argc == 4 && !strcmp(argv[1], "compare")) {
        struct zinf_comm comm = {0};
        if (zinf_comm_mpi_open(&comm, &argc, &argv))
            return 2;
        int status = compare(argv[2], argv[3], &comm);
        comm.ops->close(&comm);
        return status;
    }
    fprintf(stderr, "usage: deepspeed_case fixture DATA OUT | ds CASE OUT | compare CASE RUN\n");
    return 2;
}
