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

/* One line for each value of a fact, e.g. "  configuration  ranks 0-2: 4f3a...". */
static void add_fact(char *out, size_t out_bytes, const char *name, const char **values, int size)
{
    bool *seen = zinf_alloc((size_t)size * sizeof *seen);
    for (int rank = 0; rank < size; rank++) {
        if (seen[rank])
            continue;
        char *label = zinf_format("\n  %-16s rank ", rank ? "" : name);
        add(out, out_bytes, label);
        free(label);
        add_ranks(out, out_bytes, values, seen, size, rank);
        char *value = zinf_format(": %.200s", values[rank]);
        add(out, out_bytes, value);
        free(value);
    }
    free(seen);
}

/* Rank 0: the table of what differs. `all` holds every rank's packed text. */
static void log_table(int size, const char *all, const size_t *offsets,
                      const struct zinf_fact *facts, size_t count)
{
    char table[6000] = "";
    const char **values = zinf_alloc((size_t)size * sizeof *values);
    int differing = 0;
    for (size_t i = 0; i < count; i++) {
        bool same = true;
        for (int rank = 0; rank < size; rank++) {
            const char *value =
                value_of(all + offsets[rank], offsets[rank + 1] - offsets[rank], facts[i].name);
            values[rank] = value ? value : "(unknown here)";
            same = same && !strcmp(values[rank], values[0]);
        }
        if (same)
            continue;
        differing++;
        add_fact(table, sizeof table, facts[i].name, values, size);
    }
    free(values);
    zinf_error_log("the ranks do not run the same thing; %d of %zu facts differ (the same program, "
                   "ds.json, data and model must be seen on every node):%s",
                   differing, count, table);
}

int zinf_consistency_check(struct zinf_comm *comm, const struct zinf_fact *facts, size_t count)
{
    size_t bytes, *offsets;
    void *all = NULL;
    char *mine = pack(facts, count, &bytes);
    bool same = zinf_comm_same(comm, hash(mine, bytes));
    if (!same) {
        offsets = zinf_alloc(((size_t)comm->size + 1) * sizeof *offsets);
        zinf_comm_gather_bytes(comm, mine, bytes, &all, offsets);
        if (comm->rank == 0)
            log_table(comm->size, all, offsets, facts, count);
        free(all);
        free(offsets);
    }
    free(mine);
    return same ? 0 : ZINF_E_USAGE;
}
