/*
 * How the files of the key table write their rows; see struct zinf_key for the columns. Each file defines KEY for its own paths.
 */
#ifndef ZINF_TRAIN_CONFIG_KEY_ROWS_H
#define ZINF_TRAIN_CONFIG_KEY_ROWS_H

#include "train/config_keys.h"

/* path, type, default, range, unit, state, note */
#define ROW(path, type, ...)                                                                       \
    {                                                                                              \
        path, ZINF_KEY_##type, __VA_ARGS__, NULL, NULL                                             \
    }
/* the same, for certain types of optimizer or scheduler, and what "auto" becomes */
#define OF(path, type, otherwise, range, unit, state, note, only, automatic)                       \
    {                                                                                              \
        path, ZINF_KEY_##type, otherwise, range, unit, state, note, only, automatic                \
    }
#define WORKS     ZINF_KEY_WORKS
#define NO_EFFECT ZINF_KEY_NO_EFFECT
#define REFUSED   ZINF_KEY_REFUSED
#define NOT_YET   ZINF_KEY_NOT_YET

#endif
