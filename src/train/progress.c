/*
 * Progress bar and step line. See progress.h.
 *
 * The bar is drawn by the thread of the loop and wiped by whoever logs, so both hold the mutex;
 * drawing never logs, so that the log's own lock is always the outer one.
 */
#include "train/progress.h"

#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/status.h"
#include "train/terminal.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct {
    FILE *terminal;       /* NULL: no bar */
    int64_t total, first; /* first: step the run began with, for the time that is left */
    double began_s, drawn_s;
    bool is_drawn, is_utf8;
} bar;

static void wipe(void)
{
    if (bar.terminal && bar.is_drawn) {
        fputs("\r\033[K", bar.terminal);
        fflush(bar.terminal);
        bar.is_drawn = false;
    }
}

static void wipe_locked(void)
{
    pthread_mutex_lock(&mutex);
    wipe();
    pthread_mutex_unlock(&mutex);
}

void zinf_progress_open(FILE *terminal, int64_t total_steps)
{
    const char *kind = getenv("TERM");
    if (!isatty(fileno(terminal)) || !kind || !strcmp(kind, "dumb"))
        return;
    pthread_mutex_lock(&mutex);
    bar.terminal = terminal;
    bar.total = total_steps;
    bar.first = -1;
    bar.drawn_s = 0;
    bar.is_drawn = false;
    bar.is_utf8 = zinf_terminal_is_utf8();
    pthread_mutex_unlock(&mutex);
    zinf_log_set_hook(wipe_locked);
}

void zinf_progress_close(void)
{
    pthread_mutex_lock(&mutex);
    wipe();
    bar.terminal = NULL;
    pthread_mutex_unlock(&mutex);
    zinf_log_set_hook(NULL);
}

static void draw_cells(double done, int cells)
{
    const int full = (int)(done * cells);
    for (int i = 0; i < cells; i++)
        if (bar.is_utf8)
            fputs(i < full ? "\u2588" : "\u2591", bar.terminal);
        else
            fputc(i < full ? '#' : '.', bar.terminal);
}

static void draw(const struct zinf_metrics *m, double now_s)
{
    char text[160], rate[ZINF_SHORT_BYTES], left[ZINF_SHORT_BYTES] = "?";
    const double done = bar.total > 0 ? fmin(1, (double)m->step / (double)bar.total) : 0;
    if (m->step > bar.first)
        zinf_short_time((now_s - bar.began_s) / (double)(m->step - bar.first) *
                            (double)(bar.total - m->step),
                        left);
    const int length =
        snprintf(text, sizeof text, " %3.0f%%  step %lld/%lld  loss %.4f  %s tok/s  %s left",
                 floor(100 * done), (long long)m->step, (long long)bar.total, m->loss,
                 zinf_short_number(m->tokens_per_s, rate), left);
    const int columns = zinf_terminal_columns(bar.terminal) - 1; /* the last column would wrap */
    const int cells = columns - length > 40 ? 40 : columns - length;
    fputs("\r\033[K", bar.terminal);
    draw_cells(done, cells);
    fprintf(bar.terminal, "%.*s", columns, text);
    fflush(bar.terminal);
    bar.is_drawn = true;
}

void zinf_progress_step(const struct zinf_metrics *metrics)
{
    const double now_s = zinf_clock_s();
    pthread_mutex_lock(&mutex);
    if (bar.terminal && bar.first < 0) {
        bar.first = metrics->step;
        bar.began_s = now_s;
    }
    if (bar.terminal && (now_s - bar.drawn_s >= 0.1 || !bar.is_drawn)) {
        draw(metrics, now_s);
        bar.drawn_s = now_s;
    }
    pthread_mutex_unlock(&mutex);
}

static void add(char line[ZINF_PROGRESS_LINE_BYTES], const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void add(char line[ZINF_PROGRESS_LINE_BYTES], const char *format, ...)
{
    const size_t used = strlen(line);
    va_list args;
    va_start(args, format);
    vsnprintf(line + used, ZINF_PROGRESS_LINE_BYTES - used, format, args);
    va_end(args);
}

void zinf_progress_line(const struct zinf_metrics *m, int64_t total_steps, bool show_scale,
                        char line[ZINF_PROGRESS_LINE_BYTES])
{
    char rate[ZINF_SHORT_BYTES];
    const int width = snprintf(NULL, 0, "%lld", (long long)total_steps);
    snprintf(line, ZINF_PROGRESS_LINE_BYTES, "step %*lld/%lld | epoch %.2f", width,
             (long long)m->step, (long long)total_steps, m->epoch);
    add(line, isfinite(m->loss) ? " | loss %.4f" : " | loss %f", m->loss);
    add(line, " | lr %.2e", m->lr);
    if (isfinite(m->grad_norm))
        add(line, " | grad norm %.3f", m->grad_norm);
    else
        add(line, " | step skipped: gradient not finite");
    add(line, " | %s tok/s", zinf_short_number(m->tokens_per_s, rate));
    add(line, " | %s TFLOP/s", zinf_short_number(m->tflops, rate));
    add(line, " | MFU %.1f%%", 100 * m->mfu);
    add(line, m->step_s < 1 ? " | %.3f s" : " | %.2f s", m->step_s);
    if (m->skipped || show_scale)
        add(line, " | skipped %lld", (long long)m->skipped);
    if (show_scale)
        add(line, " | loss scale %.0f", m->loss_scale);
}
