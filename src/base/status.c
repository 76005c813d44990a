/*
 * Codes, error records and the log. See status.h.
 */
#include "base/status.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct zinf_log_options log_options;
static pthread_mutex_t log_mutex = PTHREAD_MUTEX_INITIALIZER;
static void (*log_hook)(void);
static void (*abort_hook)(int exit_code);
static int (*voice_hook)(void);
static atomic_flag spoken = ATOMIC_FLAG_INIT; /* the last words */

int zinf_exit_code(int status)
{
    return status == ZINF_E_NO_SPACE ? 1 : -status;
}

static int error_fill(struct zinf_error *error, int status, const char *format, va_list args)
{
    if (error) {
        error->status = status;
        vsnprintf(error->text, sizeof error->text, format, args);
    }
    return status;
}

static void error_place(struct zinf_error *error, struct zinf_text_place place)
{
    if (!error)
        return;
    snprintf(error->file, sizeof error->file, "%s", place.file ? place.file : "");
    error->line = place.line;
    error->column = place.column;
}

int zinf_error_set(struct zinf_error *error, int status, const char *format, ...)
{
    va_list args;
    error_place(error, (struct zinf_text_place){0});
    va_start(args, format);
    error_fill(error, status, format, args);
    va_end(args);
    return status;
}

int zinf_error_in(struct zinf_error *error, int status, const char *file, const char *format, ...)
{
    va_list args;
    error_place(error, (struct zinf_text_place){file, 0, 0});
    va_start(args, format);
    error_fill(error, status, format, args);
    va_end(args);
    return status;
}

int zinf_error_at(struct zinf_error *error, int status, struct zinf_text_place place,
                  const char *format, ...)
{
    va_list args;
    error_place(error, place);
    va_start(args, format);
    error_fill(error, status, format, args);
    va_end(args);
    return status;
}

void zinf_error_print(const struct zinf_error *error, char *out, size_t out_bytes)
{
    if (!error->file[0])
        snprintf(out, out_bytes, "%s", error->text);
    else if (error->line <= 0)
        snprintf(out, out_bytes, "%s: %s", error->file, error->text);
    else
        snprintf(out, out_bytes, "%s:%d:%d: %s", error->file, error->line, error->column,
                 error->text);
}

void zinf_log_configure(const struct zinf_log_options *options)
{
    pthread_mutex_lock(&log_mutex);
    log_options = *options;
    pthread_mutex_unlock(&log_mutex);
}

void zinf_log_set_file(FILE *file)
{
    pthread_mutex_lock(&log_mutex);
    log_options.file = file;
    pthread_mutex_unlock(&log_mutex);
}

void zinf_log_set_hook(void (*before_line)(void))
{
    log_hook = before_line;
}

static int wanted_on_terminal(enum zinf_log_level level)
{
    if (log_options.rank != 0)
        return level == ZINF_LOG_ERROR;
    if (level == ZINF_LOG_DEBUG)
        return log_options.verbose;
    return level <= ZINF_LOG_WARNING || !log_options.quiet;
}

void zinf_log(enum zinf_log_level level, const char *format, ...)
{
    static const char *const label[] = {"error: ", "warning: ", "", "debug: "};
    char rank[32] = "", text[8192];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    pthread_mutex_lock(&log_mutex);
    FILE *terminal = log_options.terminal ? log_options.terminal : stderr;
    if (log_options.rank != 0)
        snprintf(rank, sizeof rank, "rank %d: ", log_options.rank);
    if (wanted_on_terminal(level)) {
        if (log_hook)
            log_hook();
        fflush(stdout); /* what was printed comes before what is said of it, also in a pipe */
        fprintf(terminal, "%s%s%s\n", rank, label[level], text);
        fflush(terminal);
    }
    if (log_options.file && (level != ZINF_LOG_DEBUG || log_options.verbose)) {
        fprintf(log_options.file, "%s%s%s\n", rank, label[level], text);
        fflush(log_options.file);
    }
    pthread_mutex_unlock(&log_mutex);
}

void zinf_set_abort_hook(void (*hook)(int exit_code))
{
    abort_hook = hook;
    atomic_flag_clear(&spoken);
}

void zinf_abort(int status)
{
    if (abort_hook)
        abort_hook(zinf_exit_code(status));
    _exit(zinf_exit_code(status));
}

void zinf_set_voice_hook(int (*may_speak)(void))
{
    voice_hook = may_speak;
}

static void say_last_words(const char *format, va_list args)
{
    char text[8192];
    if (atomic_flag_test_and_set(&spoken) || (voice_hook && !voice_hook()))
        return;
    vsnprintf(text, sizeof text, format, args);
    zinf_error_log("%s", text);
}

void zinf_last_words(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say_last_words(format, args);
    va_end(args);
}

void zinf_fatal(int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say_last_words(format, args);
    va_end(args);
    zinf_abort(status);
}

void zinf_assert_failed(const char *expression, const char *file, int line)
{
    fprintf(stderr, "rank %d: internal error at %s:%d: %s does not hold\n", log_options.rank, file,
            line, expression);
    zinf_abort(ZINF_E_RUNTIME);
}

static void *checked(void *memory, size_t bytes)
{
    if (!memory && bytes) {
        zinf_error_log("out of memory: %zu bytes were refused", bytes);
        zinf_abort(ZINF_E_RUNTIME);
    }
    return memory;
}

void *zinf_alloc(size_t bytes)
{
    return checked(calloc(1, bytes ? bytes : 1), bytes);
}

void *zinf_realloc(void *old, size_t bytes)
{
    return checked(realloc(old, bytes ? bytes : 1), bytes);
}

char *zinf_strdup(const char *text)
{
    return checked(strdup(text), strlen(text) + 1);
}

char *zinf_format(const char *format, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, format);
    int length = vasprintf(&text, format, args);
    va_end(args);
    return checked(length < 0 ? NULL : text, 1);
}
