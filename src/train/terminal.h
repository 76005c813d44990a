/*
 * What the terminal can show: its width, UTF-8, colour; and numbers for people.
 */
#ifndef ZINF_TRAIN_TERMINAL_H
#define ZINF_TRAIN_TERMINAL_H

#include <stdbool.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Columns of the terminal behind `file`; 80 when it is none, or $COLUMNS. */
int zinf_terminal_columns(FILE *file);
/** By LC_ALL, LC_CTYPE, LANG: the first that is set decides. */
bool zinf_terminal_is_utf8(void);
/** A terminal, not "dumb", and NO_COLOR is not set (no-color.org). */
bool zinf_terminal_has_colour(FILE *file);

enum { ZINF_SHORT_BYTES = 32 };

/** "41.2k", "3.10M", "950", "0.0123": three digits. */
const char *zinf_short_number(double value, char text[ZINF_SHORT_BYTES]);
/** "1.50 GiB" */
const char *zinf_short_bytes(double bytes, char text[ZINF_SHORT_BYTES]);
/** "12 s", "3 min 05 s", "2 h 10 min", "1 d 4 h" */
const char *zinf_short_time(double seconds, char text[ZINF_SHORT_BYTES]);

#ifdef __cplusplus
}
#endif
#endif
