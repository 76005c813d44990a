/*
 * The table of products: keys, text and agreement. See products.h. Nothing here knows a library or
 * a device. A table has some tens of rows: they are searched one after the other.
 */
#include "device/products.h"

#include <stdlib.h>
#include <string.h>

enum { PLACE = 256 }; /* operands begin at multiples, as a device's allocations do */

static const char *const epilogues[ZINF_PRODUCT_EPILOGUES] = {"plain", "bias", "gelu", "bias+gelu",
                                                              "gelu-slope"};

/* ---- a product ---- */

/* The largest power of two up to 16 that divides a matrix's address and the bytes of a row. */
static int32_t alignment_of(const void *matrix, int64_t ld, int32_t dtype)
{
    uint64_t bits = (uint64_t)(uintptr_t)matrix |
                    (uint64_t)ld * zinf_dtype_bytes((enum zinf_dtype)dtype) |
                    ZINF_PRODUCT_ALIGNMENT;
    return (int32_t)(bits & (~bits + 1));
}

/* cuBLASLt's rules: its second matrix has c's type and rows of a multiple of 8 elements. */
static bool may_be_fused(const struct zinf_matmul *op)
{
    const bool one = !op->activated != !op->slope_of && !(op->slope_of && op->bias);
    return one && op->activation == ZINF_GELU_TANH && op->c_dtype == op->dtype &&
           op->ldc == op->n && op->n % 8 == 0 && !op->accumulate;
}

void zinf_product_of(const struct zinf_matmul *op, struct zinf_product *product)
{
    memset(product, 0, sizeof *product);
    product->m = op->m, product->n = op->n, product->k = op->k;
    product->lda = op->lda, product->ldb = op->ldb, product->ldc = op->ldc;
    product->dtype = (int32_t)op->dtype, product->c_dtype = (int32_t)op->c_dtype;
    product->transpose_a = op->transpose_a, product->transpose_b = op->transpose_b;
    product->accumulate = op->accumulate;
    product->alignment[0] = alignment_of(op->a, op->lda, product->dtype);
    product->alignment[1] = alignment_of(op->b, op->ldb, product->dtype);
    product->alignment[2] = alignment_of(op->c, op->ldc, product->c_dtype);
    product->epilogue = op->bias ? ZINF_PRODUCT_BIAS : ZINF_PRODUCT_PLAIN;
    if (op->bias)
        product->alignment[3] = alignment_of(op->bias, 0, product->dtype);
    if (!may_be_fused(op))
        return;
    const void *other = op->activated ? op->activated : op->slope_of;
    product->alignment[4] = alignment_of(other, op->ldc, product->c_dtype);
    product->epilogue = op->slope_of ? ZINF_PRODUCT_SLOPE
                        : op->bias   ? ZINF_PRODUCT_BIAS_GELU
                                     : ZINF_PRODUCT_GELU;
}

bool zinf_product_activates(const struct zinf_product *product)
{
    return product->epilogue >= ZINF_PRODUCT_GELU;
}

static bool has_bias(const struct zinf_product *p)
{
    return p->epilogue == ZINF_PRODUCT_BIAS || p->epilogue == ZINF_PRODUCT_BIAS_GELU;
}

struct operand {
    int64_t rows, ld;
    int32_t dtype;
};

static struct operand operand_of(const struct zinf_product *p, int which)
{
    const struct operand all[ZINF_PRODUCT_OPERANDS] = {
        {p->transpose_a ? p->k : p->m, p->lda, p->dtype},
        {p->transpose_b ? p->n : p->k, p->ldb, p->dtype},
        {p->m, p->ldc, p->c_dtype},
        {has_bias(p), p->n, p->dtype},
        {zinf_product_activates(p) ? p->m : 0, p->ldc, p->c_dtype}};
    return all[which];
}

/* Where operand `which` begins in memory that holds all of them; behind the last: the sum. */
static size_t place_of(const struct zinf_product *p, int which)
{
    size_t at = 0;
    for (int i = 0; i < which; i++) {
        const struct operand o = operand_of(p, i);
        size_t bytes = (size_t)(o.rows * o.ld) * zinf_dtype_bytes((enum zinf_dtype)o.dtype);
        at += (bytes + ZINF_PRODUCT_ALIGNMENT + PLACE - 1) / PLACE * PLACE;
    }
    return at;
}

size_t zinf_product_bytes(const struct zinf_product *product)
{
    return place_of(product, ZINF_PRODUCT_OPERANDS);
}

/* As badly aligned as the product's own. */
static void *address_of(const struct zinf_product *p, char *memory, int which)
{
    int32_t alignment = p->alignment[which];
    return memory + place_of(p, which) + (alignment < ZINF_PRODUCT_ALIGNMENT ? alignment : 0);
}

struct zinf_matmul zinf_product_at(const struct zinf_product *product, char *memory)
{
    const bool slope = product->epilogue == ZINF_PRODUCT_SLOPE;
    void *other = zinf_product_activates(product) ? address_of(product, memory, 4) : NULL;
    return (struct zinf_matmul){.dtype = (enum zinf_dtype)product->dtype,
                                .c_dtype = (enum zinf_dtype)product->c_dtype,
                                .m = product->m,
                                .n = product->n,
                                .k = product->k,
                                .a = address_of(product, memory, 0),
                                .lda = product->lda,
                                .transpose_a = product->transpose_a,
                                .b = address_of(product, memory, 1),
                                .ldb = product->ldb,
                                .transpose_b = product->transpose_b,
                                .c = address_of(product, memory, 2),
                                .ldc = product->ldc,
                                .bias = has_bias(product) ? address_of(product, memory, 3) : NULL,
                                .accumulate = product->accumulate,
                                .activation = ZINF_GELU_TANH,
                                .activated = slope ? NULL : other,
                                .slope_of = slope ? other : NULL};
}

void zinf_product_name(const struct zinf_product *p, char *out, size_t bytes)
{
    snprintf(out, bytes, "%s -> %s %lld x %lld x %lld, a%s b%s%s%s%s",
             zinf_dtype_name((enum zinf_dtype)p->dtype),
             zinf_dtype_name((enum zinf_dtype)p->c_dtype), (long long)p->m, (long long)p->n,
             (long long)p->k, p->transpose_a ? "^T" : "", p->transpose_b ? "^T" : "",
             p->accumulate ? ", added" : "", p->epilogue ? ", " : "",
             p->epilogue ? epilogues[p->epilogue] : "");
}

/* ---- the table ---- */

const struct zinf_product_choice *zinf_products_find(const struct zinf_products *products,
                                                     const struct zinf_product *product)
{
    for (int i = 0; i < products->count; i++)
        if (!memcmp(&products->items[i].product, product, sizeof *product))
            return &products->items[i];
    return NULL;
}

struct zinf_product_choice *zinf_products_add(struct zinf_products *products,
                                              const struct zinf_product *product)
{
    const struct zinf_product_choice *known = zinf_products_find(products, product);
    if (known)
        return &products->items[known - products->items];
    products->items =
        zinf_realloc(products->items, (size_t)(products->count + 1) * sizeof *products->items);
    struct zinf_product_choice *made = &products->items[products->count++];
    memset(made, 0, sizeof *made);
    made->product = *product;
    return made;
}

void zinf_products_release(struct zinf_products *products)
{
    free(products->items);
    memset(products, 0, sizeof *products);
}

/* ---- text ---- */

static char *print_row(const struct zinf_product_choice *choice)
{
    const struct zinf_product *p = &choice->product;
    char data[2 * ZINF_PRODUCT_ALGORITHM_BYTES + 1] = "";
    for (int i = 0; i < choice->bytes; i++)
        snprintf(data + 2 * (size_t)i, 3, "%02x", choice->algorithm[i]);
    return zinf_format(
        "%s %s m %lld n %lld k %lld ld %lld %lld %lld transposed %d %d added %d %s "
        "aligned %d %d %d %d %d fused %d algorithm %d of %d %s\n",
        zinf_dtype_name((enum zinf_dtype)p->dtype), zinf_dtype_name((enum zinf_dtype)p->c_dtype),
        (long long)p->m, (long long)p->n, (long long)p->k, (long long)p->lda, (long long)p->ldb,
        (long long)p->ldc, p->transpose_a, p->transpose_b, p->accumulate, epilogues[p->epilogue],
        p->alignment[0], p->alignment[1], p->alignment[2], p->alignment[3], p->alignment[4],
        choice->fused, choice->candidate, choice->candidates, choice->bytes ? data : "-");
}

char *zinf_products_print(const struct zinf_products *products)
{
    char *text = zinf_format("%s\n", products->source);
    for (int i = 0; i < products->count; i++) {
        char *row = print_row(&products->items[i]), *longer = zinf_format("%s%s", text, row);
        free(row);
        free(text);
        text = longer;
    }
    return text;
}

/* The data of an algorithm; whole bytes, nothing behind them. */
static bool parse_data(const char *text, struct zinf_product_choice *choice)
{
    size_t digits = strlen(text);
    if (!strcmp(text, "-"))
        return true;
    if (digits % 2 || digits / 2 > ZINF_PRODUCT_ALGORITHM_BYTES ||
        strspn(text, "0123456789abcdef") != digits)
        return false;
    choice->bytes = (int32_t)(digits / 2);
    for (int i = 0; i < choice->bytes; i++) {
        unsigned value = 0;
        sscanf(text + 2 * (size_t)i, "%2x", &value);
        choice->algorithm[i] = (unsigned char)value;
    }
    return true;
}

static bool is_aligned(const struct zinf_product *p)
{
    for (int i = 0; i < ZINF_PRODUCT_OPERANDS; i++) {
        int32_t a = p->alignment[i];
        bool power = a > 0 && a <= ZINF_PRODUCT_ALIGNMENT && !(a & (a - 1));
        bool absent = (i == 3 && !has_bias(p)) || (i == 4 && !zinf_product_activates(p));
        if (absent ? a != 0 : !power)
            return false;
    }
    return true;
}

static bool parse_row(const char *line, struct zinf_product_choice *choice)
{
    struct zinf_product *p = &choice->product;
    char dtype[8], c_dtype[8], epilogue[16], data[2 * ZINF_PRODUCT_ALGORITHM_BYTES + 2], end;
    long long m, n, k, lda, ldb, ldc;
    enum zinf_dtype type, c_type;
    memset(choice, 0, sizeof *choice);
    if (sscanf(line,
               "%7s %7s m %lld n %lld k %lld ld %lld %lld %lld transposed %d %d added %d %15s "
               "aligned %d %d %d %d %d fused %d algorithm %d of %d %129s %c",
               dtype, c_dtype, &m, &n, &k, &lda, &ldb, &ldc, &p->transpose_a, &p->transpose_b,
               &p->accumulate, epilogue, &p->alignment[0], &p->alignment[1], &p->alignment[2],
               &p->alignment[3], &p->alignment[4], &choice->fused, &choice->candidate,
               &choice->candidates, data, &end) != 21)
        return false;
    p->m = m, p->n = n, p->k = k, p->lda = lda, p->ldb = ldb, p->ldc = ldc;
    p->epilogue = -1;
    for (int i = 0; i < ZINF_PRODUCT_EPILOGUES; i++)
        if (!strcmp(epilogue, epilogues[i]))
            p->epilogue = i;
    if (p->epilogue < 0 || zinf_dtype_parse(dtype, &type) || zinf_dtype_parse(c_dtype, &c_type))
        return false;
    p->dtype = (int32_t)type, p->c_dtype = (int32_t)c_type;
    return is_aligned(p) && (!choice->fused || zinf_product_activates(p)) &&
           parse_data(data, choice);
}

int zinf_products_parse(struct zinf_products *products, const char *text, struct zinf_error *error)
{
    const char *line = text;
    for (int number = 1; *line; number++) {
        size_t length = strcspn(line, "\n");
        char *own = zinf_format("%.*s", (int)length, line);
        struct zinf_product_choice row;
        bool good = number > 1 ? parse_row(own, &row) : length < sizeof products->source;
        if (good && number > 1)
            *zinf_products_add(products, &row.product) = row;
        else if (good)
            strcpy(products->source, own);
        free(own);
        if (!good) {
            zinf_products_release(products);
            return zinf_error_set(error, ZINF_E_CHECKPOINT,
                                  "/provenance/products: line %d is no matrix product as this zinf "
                                  "writes one",
                                  number);
        }
        line += length + (line[length] == '\n');
    }
    return ZINF_OK;
}

/* ---- agreement ---- */

int zinf_products_other_source(struct zinf_comm *comm, const char *source, char theirs[320])
{
    enum { BYTES = 320 };
    char mine[BYTES] = "", *all = zinf_alloc((size_t)comm->size * BYTES);
    int other = -1;
    strncat(mine, source, BYTES - 1);
    zinf_comm_gather_small(comm, mine, BYTES, all);
    for (int i = comm->size - 1; i > 0; i--)
        if (strcmp(all, all + (size_t)i * BYTES) != 0)
            other = i;
    if (other > 0)
        memcpy(theirs, all + (size_t)other * BYTES, BYTES);
    free(all);
    return other;
}

void zinf_products_share(struct zinf_products *products, struct zinf_comm *comm)
{
    zinf_comm_broadcast(comm, 0, products->source, sizeof products->source);
    zinf_comm_broadcast(comm, 0, &products->count, sizeof products->count);
    if (products->count == 0)
        return;
    size_t bytes = (size_t)products->count * sizeof *products->items;
    if (comm->rank != 0)
        products->items = zinf_realloc(products->items, bytes);
    zinf_comm_broadcast(comm, 0, products->items, bytes);
}
