/*
 * Near words and sizes. See words.h.
 */
#include "base/words.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { WORD_MAX = 96 }; /* longer words are cut: nobody misspells them by a letter or two */

static int smallest(int a, int b, int c)
{
    int d = a < b ? a : b;
    return d < c ? d : c;
}

int zinf_word_distance(const char *a, const char *b)
{
    int rows[3][WORD_MAX + 1], n = (int)strnlen(a, WORD_MAX), m = (int)strnlen(b, WORD_MAX);
    int *before = rows[0], *last = rows[1], *now = rows[2];
    for (int j = 0; j <= m; j++)
        last[j] = before[j] = j;
    for (int i = 1; i <= n; i++) {
        int ca = tolower((unsigned char)a[i - 1]), *rotated = before;
        now[0] = i;
        for (int j = 1; j <= m; j++) {
            int cb = tolower((unsigned char)b[j - 1]);
            now[j] = smallest(last[j] + 1, now[j - 1] + 1, last[j - 1] + (ca != cb));
            if (i > 1 && j > 1 && ca == tolower((unsigned char)b[j - 2]) &&
                cb == tolower((unsigned char)a[i - 2]) && before[j - 2] + 1 < now[j])
                now[j] = before[j - 2] + 1;
        }
        before = last;
        last = now;
        now = rotated;
    }
    return last[m];
}

int zinf_word_is_near(const char *word, int distance)
{
    return distance <= 1 + (int)strnlen(word, WORD_MAX) / 4;
}

static double unit_of(const char *text)
{
    static const struct {
        const char *name;
        double bytes;
    } units[] = {{"", 1},         {"B", 1},        {"K", 0x1p10},   {"M", 0x1p20},  {"G", 0x1p30},
                 {"T", 0x1p40},   {"KB", 1e3},     {"MB", 1e6},     {"GB", 1e9},    {"TB", 1e12},
                 {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40}};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (!strcasecmp(text, units[i].name))
            return units[i].bytes;
    return -1;
}

int zinf_size_parse(const char *text, int64_t *bytes)
{
    char *end;
    if (!isdigit((unsigned char)*text) || strpbrk(text, "xX"))
        return -1;
    double number = strtod(text, &end);
    end += *end == ' ';
    double size = number * unit_of(end);
    if (!isfinite(size) || size < 0 || size >= 0x1p63)
        return -1;
    *bytes = (int64_t)size;
    return 0;
}
