/*
 * Terminals and numbers for people. See terminal.h.
 */
#include "train/terminal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

int zinf_terminal_columns(FILE *file)
{
    struct winsize size;
    const char *text = getenv("COLUMNS");
    if (!ioctl(fileno(file), TIOCGWINSZ, &size) && size.ws_col > 0)
        return size.ws_col;
    const int columns = text ? atoi(text) : 0;
    return columns > 0 ? columns : 80;
}

bool zinf_terminal_is_utf8(void)
{
    static const char *const variables[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) {
        const char *value = getenv(variables[i]);
        if (value && *value)
            return strcasestr(value, "utf-8") || strcasestr(value, "utf8");
    }
    return false;
}

bool zinf_terminal_has_colour(FILE *file)
{
    const char *terminal = getenv("TERM"), *no_colour = getenv("NO_COLOR");
    return isatty(fileno(file)) && terminal && strcmp(terminal, "dumb") != 0 &&
           !(no_colour && *no_colour);
}

const char *zinf_short_number(double value, char text[ZINF_SHORT_BYTES])
{
    static const char units[] = " kMGTPE";
    int unit = 0;
    while (fabs(value) >= 999.5 && units[unit + 1]) {
        value /= 1000;
        unit++;
    }
    const double size = fabs(value);
    if (unit == 0)
        snprintf(text, ZINF_SHORT_BYTES, "%.3g", value);
    else
        snprintf(text, ZINF_SHORT_BYTES, "%.*f%c", size < 9.995 ? 2 : size < 99.95, value,
                 units[unit]);
    return text;
}

const char *zinf_short_bytes(double bytes, char text[ZINF_SHORT_BYTES])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    size_t unit = 0;
    while (bytes >= 1023.5 && unit + 1 < sizeof units / sizeof *units) {
        bytes /= 1024;
        unit++;
    }
    if (unit == 0)
        snprintf(text, ZINF_SHORT_BYTES, "%.0f B", bytes);
    else
        snprintf(text, ZINF_SHORT_BYTES, "%.*f %s", bytes < 9.995 ? 2 : bytes < 99.95, bytes,
                 units[unit]);
    return text;
}

const char *zinf_short_time(double seconds, char text[ZINF_SHORT_BYTES])
{
    const long long s = llround(seconds);
    if (!(seconds >= 0) || seconds > 1e9)
        snprintf(text, ZINF_SHORT_BYTES, "?");
    else if (seconds < 9.95)
        snprintf(text, ZINF_SHORT_BYTES, "%.1f s", seconds);
    else if (s < 60)
        snprintf(text, ZINF_SHORT_BYTES, "%lld s", s);
    else if (s < 3600)
        snprintf(text, ZINF_SHORT_BYTES, "%lld min %02lld s", s / 60, s % 60);
    else if (s < 86400)
        snprintf(text, ZINF_SHORT_BYTES, "%lld h %02lld min", s / 3600, s % 3600 / 60);
    else
        snprintf(text, ZINF_SHORT_BYTES, "%lld d %lld h", s / 86400, s % 86400 / 3600);
    return text;
}
