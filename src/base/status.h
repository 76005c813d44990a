/*
 * The words in which every floor speaks of success and failure: codes, the error record for what a user wrote, the log.
 *
 * Codes are negative and say what the exit code of the program will be, so that the deepest function that knows
 * why something failed also decides how the run ends. Exit codes: contract, section 1.
 */
#ifndef ZINF_BASE_STATUS_H
#define ZINF_BASE_STATUS_H

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

enum zinf_status {
    ZINF_OK = 0,
    ZINF_E_RUNTIME = -1,    /* I/O error, lost rank, hang */
    ZINF_E_USAGE = -2,      /* command line or configuration */
    ZINF_E_DOES_NOT_FIT = -3, /* memory or disk, found before the run starts */
    ZINF_E_DATA = -4,       /* data, tokenizer or model folder */
    ZINF_E_CHECKPOINT = -5, /* damaged checkpoint */
    ZINF_E_NUMERIC = -6,    /* loss scale at its minimum, too many non-finite steps */
    ZINF_E_NO_SPACE = -7,   /* a disk is full: a warning at a scheduled checkpoint, else as ZINF_E_RUNTIME */
    ZINF_E_STOPPED = -75    /* stopped early with a whole checkpoint */
};

/** The exit code of the program for a status: 0 or the contract's number. */
int zinf_exit_code(int status);

/**
 * What is wrong with something a user wrote, and what would be right. Plain data, no release needed.
 * line and column start at 1; 0 = unknown.
 */
struct zinf_error {
    int status;      /* enum zinf_status */
    int line, column;
    char file[512];
    char text[1536]; /* what is wrong, where, and what would be right; no newline at the end */
};

/** Fill `error` (may be NULL) and return `status`, so that `return zinf_error_set(...)` reads as one sentence. */
int zinf_error_set(struct zinf_error *error, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/** A place in a file; borrowed for the call. */
struct zinf_text_place {
    const char *file; /* NULL counts as none */
    int line, column; /* from 1; 0 = unknown */
};

/** The same about a file as a whole, and with a place in it. */
int zinf_error_in(struct zinf_error *error, int status, const char *file, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
int zinf_error_at(struct zinf_error *error, int status, struct zinf_text_place place,
                  const char *format, ...) __attribute__((format(printf, 4, 5)));

/** "file:line:column: text" of an error into `out`; parts that are unknown are left out. */
void zinf_error_print(const struct zinf_error *error, char *out, size_t out_bytes);

enum zinf_log_level { ZINF_LOG_ERROR, ZINF_LOG_WARNING, ZINF_LOG_INFO, ZINF_LOG_DEBUG };

/**
 * The process's log. One per process; not thread-safe to reconfigure, safe to write from any thread.
 * Rank 0 prints INFO and above; other ranks print errors only, with their rank in front, so that a
 * message appears once. Everything that is printed goes to `file` too, if one is open.
 */
struct zinf_log_options {
    int rank;
    int quiet;      /* -q: warnings and errors only on the terminal; the file still gets all */
    int verbose;    /* -v: debug too */
    FILE *terminal; /* borrowed; NULL = stderr. Standard output is for results (--json) only. */
    FILE *file;     /* borrowed; may be NULL */
};
void zinf_log_configure(const struct zinf_log_options *options);
void zinf_log(enum zinf_log_level level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/** From now on everything that is printed goes to `file` too (borrowed; NULL = no longer). */
void zinf_log_set_file(FILE *file);

/**
 * Called at start of every line the log prints on a terminal, so that a progress bar can be wiped first.
 * NULL = none.
 */
void zinf_log_set_hook(void (*before_line)(void));

#define zinf_error_log(...) zinf_log(ZINF_LOG_ERROR, __VA_ARGS__)
#define zinf_warn(...) zinf_log(ZINF_LOG_WARNING, __VA_ARGS__)
#define zinf_info(...) zinf_log(ZINF_LOG_INFO, __VA_ARGS__)
#define zinf_debug(...) zinf_log(ZINF_LOG_DEBUG, __VA_ARGS__)

/** What cannot happen. Always on: prints expression, place and rank, then ends the whole run. */
#define ZINF_ASSERT(expression)                                                                    \
    ((expression) ? (void)0 : zinf_assert_failed(#expression, __FILE__, __LINE__))
void zinf_assert_failed(const char *expression, const char *file, int line)
    __attribute__((noreturn));

/**
 * End all ranks at once with `status`'s exit code after a message was logged: for failures from which ranks can no longer
 * agree (hot path). The communicator installs its hook (MPI_Abort); without one it is _exit().
 */
void zinf_abort(int status) __attribute__((noreturn));
void zinf_set_abort_hook(void (*hook)(int exit_code));

/**
 * Log the error because of which the run ends, where ranks cannot agree first on who speaks: a full disk or a dead drive meets all of them
 * in the same moment. Of the ranks of a node the first one is heard, and of it the first thread; the communicator installs the hook that
 * knows. Without one each process speaks once until an abort hook is set.
 */
void zinf_last_words(const char *format, ...) __attribute__((format(printf, 1, 2)));
/** The same, then zinf_abort(). */
void zinf_fatal(int status, const char *format, ...)
    __attribute__((format(printf, 2, 3), noreturn));
/** may_speak: not 0 for the first caller among the processes that it knows of. */
void zinf_set_voice_hook(int (*may_speak)(void));

/** malloc/calloc/strdup that end the run with one message when memory is out; for small objects only. */
void *zinf_alloc(size_t bytes); /* zeroed */
void *zinf_realloc(void *old, size_t bytes);
char *zinf_strdup(const char *text);
/** A formatted string on the heap; owned by the caller. */
char *zinf_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

#ifdef __cplusplus
}
#endif
#endif
