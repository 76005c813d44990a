/*
 * Do all ranks run the same thing? See consistency.h.
 *
 * First one number is compared; only when it differs do the texts travel to rank 0, which makes the
 * table.
 */
#include "topology/consistency.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"

enum { TOLD_BYTES = 200 }; /* of a value */

/* All facts in one text: name NUL value NUL name NUL ... */
static char *pack(const struct zinf_fact *facts, size_t count, size_t *bytes)
{
    size_t used = 0;
    for (size_t i = 0; i < count; i++)
        used += strlen(facts[i].name) + 1 + strlen(facts[i].value ? facts[i].value : "") + 1;
    char *text = zinf_alloc(used);
    *bytes = used;
    used = 0;
    for (size_t i = 0; i < count; i++) {
        const char *value = facts[i].value ? facts[i].value : "";
        memcpy(text + used, facts[i].name, strlen(facts[i].name) + 1);
        used += strlen(facts[i].name) + 1;
        memcpy(text + used, value, strlen(value) + 1);
        used += strlen(value) + 1;
    }
    return text;
}

/* FNV-1a, 64 bits (Fowler, Noll, Vo). */
static uint64_t hash(const char *text, size_t bytes)
{
    uint64_t value = 0xcbf29ce484222325u;
    for (size_t i = 0; i < bytes; i++)
        value = (value ^ (unsigned char)text[i]) * 0x100000001b3u;
    return value;
}

/* The value of fact `name` in a packed text; NULL when it has none. */
static const char *value_of(const char *text, size_t bytes, const char *name)
{
    const char *end = text + bytes;
    while (text < end) {
        const char *value = text + strlen(text) + 1;
        if (!strcmp(text, name))
            return value;
        text = value + strlen(value) + 1;
    }
    return NULL;
}

/* Append, with a cut at the end of `out`. */
static void add(char *out, size_t out_bytes, const char *text)
{
    size_t used = strlen(out);
    snprintf(out + used, out_bytes - used, "%s", text);
}

/* "0-2, 5": the ranks whose value of a fact equals rank `first`'s, marked as seen. */
static void add_ranks(char *out, size_t out_bytes, const char **values, bool *seen, int size,
                      int first)
{
    const char *separator = "";
    for (int rank = first; rank < size; rank++) {
        int last = rank;
        if (strcmp(values[rank], values[first]))
            continue;
        while (last + 1 < size && !strcmp(values[last + 1], values[first]))
            last++;
        char *range = last == rank ? zinf_format("%s%d", separator, rank)
                                   : zinf_format("%s%d-%d", separator, rank, last);
        add(out, out_bytes, range);
        free(range);
        for (; rank < last; rank++)
            seen[rank] = true;
        seen[rank] = true;
        separator = ", ";
    }
}

/* Where the values begin to be told: a little before the first byte that is not the same in all. */
static size_t first_told(const char **values, int size)
{
    size_t same = SIZE_MAX;
    for (int rank = 1; rank < size; rank++) {
        size_t at = 0;
        while (values[rank][at] && values[rank][at] == values[0][at])
            at++;
        if (strcmp(values[rank], values[0]) != 0 && at < same)
            same = at;
    }
    return same > TOLD_BYTES / 2 ? same - TOLD_BYTES / 4 : 0;
}

/* One line for each value of a fact, e.g. "  zinf.train.seed  rank 0-2: 42". */
static void add_fact(char *out, size_t out_bytes, const char *name, const char **values, int size)
{
    bool *seen = zinf_alloc((size_t)size * sizeof *seen);
    const size_t from = first_told(values, size);
    for (int rank = 0; rank < size; rank++) {
        if (seen[rank])
            continue;
        char *label = zinf_format("\n  %-16s rank ", rank ? "" : name);
        add(out, out_bytes, label);
        free(label);
        add_ranks(out, out_bytes, values, seen, size, rank);
        const size_t length = strlen(values[rank]);
        const char *text = values[rank] + (from < length ? from : 0);
        char *value = zinf_format(": %s%.*s%s", from && from < length ? "..." : "", TOLD_BYTES,
                                  text, strlen(text) > TOLD_BYTES ? "..." : "");
        add(out, out_bytes, value);
        free(value);
    }
    free(seen);
}

/* All ranks' packed texts, as rank 0 has them. */
struct gathered {
    int size;
    const char *all;
    const size_t *offsets; /* [size + 1] */
    const char **values;   /* [size] of the fact that is looked at */
};

static const char *value_at(const struct gathered *gathered, int rank, const char *name)
{
    const size_t *offsets = gathered->offsets;
    return value_of(gathered->all + offsets[rank], offsets[rank + 1] - offsets[rank], name);
}

/* Does it differ? Then it stands in the table. */
static bool compare_fact(const struct gathered *gathered, const char *name, char *table,
                         size_t table_bytes)
{
    bool same = true;
    for (int rank = 0; rank < gathered->size; rank++) {
        const char *value = value_at(gathered, rank, name);
        gathered->values[rank] = value ? value : "(unknown here)";
        same = same && !strcmp(gathered->values[rank], gathered->values[0]);
    }
    if (!same)
        add_fact(table, table_bytes, name, gathered->values, gathered->size);
    return !same;
}

/* Facts of one rank that neither rank 0 nor the rank before has; ranks that have all of rank 0's
 * and no others cost one comparison. */
static int compare_others(const struct gathered *gathered, int rank, char *table,
                          size_t table_bytes)
{
    const size_t *offsets = gathered->offsets;
    const char *text = gathered->all + offsets[rank], *end = gathered->all + offsets[rank + 1];
    int differing = 0;
    if ((size_t)(end - text) == offsets[1] && !memcmp(text, gathered->all, offsets[1]))
        return 0;
    while (text < end) {
        const char *value = text + strlen(text) + 1;
        if (!value_at(gathered, 0, text) && !value_at(gathered, rank - 1, text))
            differing += compare_fact(gathered, text, table, table_bytes);
        text = value + strlen(value) + 1;
    }
    return differing;
}

/* Rank 0: the table of what differs. */
static void log_table(const struct gathered *gathered, const struct zinf_fact *facts, size_t count)
{
    char table[6000] = "";
    int differing = 0;
    for (size_t i = 0; i < count; i++)
        differing += compare_fact(gathered, facts[i].name, table, sizeof table);
    for (int rank = 1; rank < gathered->size; rank++)
        differing += compare_others(gathered, rank, table, sizeof table);
    zinf_error_log("the ranks do not run the same thing; %d of %zu facts differ (the same program, "
                   "ds.json, data and model must be seen on every node):%s",
                   differing, count, table);
}

/* After the numbers differed: rank 0 makes the table. */
static void tell(struct zinf_comm *comm, const char *mine, size_t bytes,
                 const struct zinf_fact *facts, size_t count)
{
    size_t *offsets = zinf_alloc(((size_t)comm->size + 1) * sizeof *offsets);
    void *all = NULL;
    zinf_comm_gather_bytes(comm, mine, bytes, &all, offsets);
    if (comm->rank == 0) {
        const char **values = zinf_alloc((size_t)comm->size * sizeof *values);
        const struct gathered gathered = {comm->size, all, offsets, values};
        log_table(&gathered, facts, count);
        free(values);
    }
    free(all);
    free(offsets);
}

int zinf_consistency_check(struct zinf_comm *comm, const struct zinf_fact *facts, size_t count)
{
    size_t bytes;
    char *mine = pack(facts, count, &bytes);
    const bool same = zinf_comm_same(comm, hash(mine, bytes));
    if (!same)
        tell(comm, mine, bytes, facts, count);
    free(mine);
    return same ? 0 : ZINF_E_USAGE;
}
