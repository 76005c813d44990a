/*
 * The map of ranks as text. See rankmap.h.
 */
#include "topology/rankmap.h"

#include <stdlib.h>
#include <string.h>

enum { EACH_RANK_HAS_A_LINE = 16 };

char *zinf_rankmap_summary(const struct zinf_rankmap *map)
{
    const char *why = "";
    int kinds[3] = {0};
    for (int i = 0; i < map->size; i++) {
        kinds[map->rows[i].place.kind]++;
        if (!*why)
            why = map->rows[i].place.why;
    }
    int left = kinds[ZINF_BINDING_LEFT], bound = kinds[ZINF_BINDING_BOUND];
    const char *name = zinf_bind_name(map->bind);
    if (bound == map->size)
        return zinf_format("%s: each rank bound to %s of one NUMA node", name,
                           map->bind == ZINF_BIND_NUMA ? "the CPUs" : "cores");
    if (left == map->size)
        return zinf_format("%s: ranks keep the CPUs they were given", name);
    if (kinds[ZINF_BINDING_FREE] == map->size)
        return *why ? zinf_format("%s: not bound: %s", name, why)
                    : zinf_format("%s: not bound", name);
    return zinf_format("%s: %d ranks bound, %d keep the CPUs they were given, %d not bound%s%s",
                       name, bound, left, kinds[ZINF_BINDING_FREE], *why ? ": " : "", why);
}

/* Ranks first .. last are those of one host. */
struct span {
    int first, last;
    uint64_t cpus[ZINF_CPUS_WORDS]; /* of all of them */
    int numa_first, numa_last;      /* -1: unknown */
    int paths;                      /* different ones in a row */
    int devices;                    /* ranks that have one */
};

static struct span host_span(const struct zinf_rankmap *map, int first)
{
    struct span span = {.first = first, .last = first, .numa_first = map->rows[first].place.numa};
    span.numa_last = span.numa_first;
    for (int i = first; i < map->size && !strcmp(map->rows[i].host, map->rows[first].host); i++) {
        const struct zinf_rankmap_row *row = &map->rows[i];
        span.last = i;
        zinf_cpus_unite(span.cpus, row->place.cpus);
        if (row->place.numa < span.numa_first)
            span.numa_first = row->place.numa;
        if (row->place.numa > span.numa_last)
            span.numa_last = row->place.numa;
        span.devices += *row->device != '\0';
        span.paths += *row->path && (i == first || strcmp(row->path, row[-1].path) != 0);
    }
    return span;
}

static bool alike(const struct zinf_rankmap *map, const struct span *a, const struct span *b)
{
    return a->last - a->first == b->last - b->first && zinf_cpus_equal(a->cpus, b->cpus) &&
           a->numa_first == b->numa_first && a->numa_last == b->numa_last && a->paths == b->paths &&
           a->devices == b->devices && map->rows[a->first].threads == map->rows[b->first].threads;
}

static char *numa_text(int first, int last)
{
    if (first < 0)
        return zinf_strdup("-");
    return first == last ? zinf_format("%d", first) : zinf_format("%d-%d", first, last);
}

/* Takes over `text` and every part. */
static char *append(char *text, char *line)
{
    char *longer = *text ? zinf_format("%s\n%s", text, line) : zinf_strdup(line);
    free(text);
    free(line);
    return longer;
}

/* Columns that some rank has something in. */
struct columns {
    bool devices, paths;
};

static char *rank_line(const struct zinf_rankmap *map, int rank, const struct columns *columns)
{
    const struct zinf_rankmap_row *row = &map->rows[rank];
    char *cpus = zinf_cpus_print(row->place.cpus),
         *numa = numa_text(row->place.numa, row->place.numa);
    char *device = columns->devices ? zinf_format("  %-16s", row->device) : zinf_strdup("");
    char *line =
        zinf_format("%6d  %-16s %4s  %7d%s  %s%s%s", rank, row->host, numa, row->threads, device,
                    cpus, columns->paths ? "  " : "", columns->paths ? row->path : "");
    free(device);
    free(cpus);
    free(numa);
    return line;
}

/* Nodes that look alike, from the ranks of the first to those of the last. */
static char *span_line(const struct zinf_rankmap *map, const struct span *first, int last_rank,
                       int nodes)
{
    const struct zinf_rankmap_row *row = &map->rows[first->first];
    char *cpus = zinf_cpus_print(first->cpus);
    char *numa = numa_text(first->numa_first, first->numa_last);
    char *ranks = zinf_format("%d-%d", first->first, last_rank);
    char *hosts =
        nodes > 1 ? zinf_format("%s ... %s, %d nodes", row->host, map->rows[last_rank].host, nodes)
                  : zinf_strdup(row->host);
    char *line = zinf_format("%-11s %s: %d ranks x %d threads%s, NUMA %s, CPUs %s", ranks, hosts,
                             first->last - first->first + 1, row->threads, nodes > 1 ? " each" : "",
                             numa, cpus);
    char *more = first->devices ? zinf_format("%s, %d with a device", line, first->devices)
                                : zinf_strdup(line);
    char *all =
        first->paths ? zinf_format("%s, %d nvme paths", more, first->paths) : zinf_strdup(more);
    free(more);
    free(cpus);
    free(numa);
    free(ranks);
    free(hosts);
    free(line);
    return all;
}

static char *compressed(const struct zinf_rankmap *map)
{
    char *text = zinf_strdup("");
    for (int rank = 0; rank < map->size;) {
        struct span first = host_span(map, rank), last = first;
        int nodes = 1;
        while (last.last + 1 < map->size) {
            struct span next = host_span(map, last.last + 1);
            if (!alike(map, &first, &next))
                break;
            last = next;
            nodes++;
        }
        text = append(text, span_line(map, &first, last.last, nodes));
        rank = last.last + 1;
    }
    return text;
}

char *zinf_rankmap_table(const struct zinf_rankmap *map)
{
    struct columns columns = {false, false};
    for (int i = 0; i < map->size; i++) {
        columns.devices = columns.devices || *map->rows[i].device;
        columns.paths = columns.paths || *map->rows[i].path;
    }
    if (map->size > EACH_RANK_HAS_A_LINE)
        return compressed(map);
    char *text = zinf_format("%6s  %-16s %4s  %7s%s  %s%s", "rank", "node", "NUMA", "threads",
                             columns.devices ? "  device          " : "", "CPUs",
                             columns.paths ? "  nvme_path" : "");
    for (int i = 0; i < map->size; i++)
        text = append(text, rank_line(map, i, &columns));
    return text;
}
