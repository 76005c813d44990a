/*
 * The thread of the update lane, and the records that pass through the ring. See updates.h.
 *
 * Everything but the ring stands under the lock of the lanes; the ring and its engine are the
 * thread's alone while it has something to do, and the caller's after zinf_updates_drain(). What
 * the thread does next is looked up anew after every piece of work: a record is milliseconds, a
 * look over all records microseconds.
 */
#include "zero/updates_internal.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/trace.h"
#include "zero/staged.h"

static bool is_serial(const struct zinf_updates *u)
{
    return u->zero->update_ring.options.buffer_count == 1;
}

static int number_of(const struct zinf_updates *u, const struct zinf_ring_item *item)
{
    return (int)(item - u->zero->update_items);
}

static bool has_spare(const struct zinf_updates *u, int record)
{
    return u->zero->records[record].has_spare;
}

/* Is it in memory or on the drive as the last update left it, neither read nor being written? */
static bool is_at_rest(const struct zinf_updates *u, int record)
{
    return u->records[record].stored == u->records[record].started;
}

/* The record to read ahead, -1: none. Of those that this step has not released the first that is
 * not released soon: one that would be released before it is read lets the ring fall behind the
 * backward pass, until at its end the first blocks, needed at once, stand last in line. What is
 * left out so is read behind the backward pass; its weights are needed late. early: only of those
 * that are released before DECIDE. */
static int choose_ahead(const struct zinf_updates *u, bool early)
{
    const int lead = early ? u->zero->update_ring.options.buffer_count * 3 / 4 : 0;
    int soon = -1, to_come = 0;
    for (int i = 0; i < u->order_count; i++) {
        int r = u->order[i];
        const struct zinf_update_progress *p = &u->records[r];
        if (p->released == u->step || (early && !has_spare(u, r)))
            continue;
        if (p->started < u->step && is_at_rest(u, r)) {
            if (to_come >= lead)
                return r;
            soon = soon < 0 ? r : soon;
        }
        to_come++;
    }
    return soon;
}

/* The record to read next, -1: none. What an earlier step has released comes first, then what this
 * step will release early, then what it has released. */
static int choose(const struct zinf_updates *u)
{
    int oldest = -1, ahead = -1;
    bool waiting = false, behind = false; /* for a buffer; since an earlier step */
    for (int r = 0; r < u->zero->record_count; r++) {
        const struct zinf_update_progress *p = &u->records[r];
        if (p->released <= p->started || !zinf_zero_passes(u->zero, r))
            continue;
        waiting = true;
        behind = behind || p->released < u->step;
        if (is_at_rest(u, r) && (oldest < 0 || p->released < u->records[oldest].released))
            oldest = r;
    }
    if (u->deciding && !is_serial(u) && !behind) {
        if (u->early)
            ahead = choose_ahead(u, true);
        if (ahead < 0 && !waiting)
            ahead = choose_ahead(u, false);
    }
    return ahead >= 0 ? ahead : oldest;
}

static void count_moved(struct zinf_updates *u, int64_t step, struct zinf_update_moved before)
{
    const struct zinf_ring *ring = &u->zero->update_ring;
    struct zinf_update_moved *moved = &u->moved[zinf_updates_parity(step)];
    moved->read_bytes += ring->read_bytes - before.read_bytes;
    moved->write_bytes += ring->write_bytes - before.write_bytes;
}

static struct zinf_update_moved ring_bytes(const struct zinf_updates *u)
{
    return (struct zinf_update_moved){u->zero->update_ring.read_bytes,
                                      u->zero->update_ring.write_bytes};
}

/* Each of these does one piece of work if there is one. The lock is held, and given back
 * meanwhile. */

static bool start_read(struct zinf_updates *u)
{
    struct zinf_zero *zero = u->zero;
    int record = choose(u);
    if (record < 0 || !zinf_ring_has_room(&zero->update_ring))
        return false;
    struct zinf_update_progress *p = &u->records[record];
    p->started = p->released > p->started ? p->released : u->step;
    int64_t step = p->started;
    u->in_ring++;
    zinf_lanes_unlock(zero->lanes);
    struct zinf_update_moved before = ring_bytes(u);
    zinf_ring_add(&zero->update_ring, &zero->update_items[record]);
    zinf_lanes_lock(zero->lanes);
    count_moved(u, step, before);
    return true;
}

static void name_update(const struct zinf_updates *u, int record, int64_t step, const char *what,
                        char out[192])
{
    char block[96];
    zinf_plan_block_name(u->zero->options.model, u->zero->records[record].block, block,
                         sizeof block);
    snprintf(out, 192, "%s, record %d, step %lld%s", block, record + 1, (long long)step, what);
}

double zinf_updates_trace_begin(const struct zinf_updates *u, int record, int64_t step,
                                const char *what)
{
    char text[192];
    if (!zinf_trace_on())
        return zinf_clock_s();
    name_update(u, record, step, what, text);
    return zinf_trace_begin(text);
}

void zinf_updates_trace_end(const struct zinf_updates *u, int record, int64_t step, double begin_s,
                            const char *what)
{
    char text[192];
    if (!zinf_trace_on())
        return;
    name_update(u, record, step, what, text);
    zinf_trace_end(ZINF_TRACE_UPDATE, text, begin_s);
}

static void store(struct zinf_updates *u, int record, bool spare)
{
    struct zinf_ring *ring = &u->zero->update_ring;
    struct zinf_ring_item to = u->zero->update_items[record];
    if (spare)
        memcpy(to.extent, u->zero->records[record].spare, sizeof to.extent);
    zinf_ring_release_to(ring, &to);
}

static bool update_head(struct zinf_updates *u)
{
    struct zinf_zero *zero = u->zero;
    const struct zinf_ring_item *head = u->in_ring ? zinf_ring_head(&zero->update_ring) : NULL;
    int record = head ? number_of(u, head) : -1;
    if (!head || u->records[record].released == u->records[record].updated)
        return false;
    struct zinf_update_progress *p = &u->records[record];
    int64_t step = p->released;
    bool early = u->deciding && step == u->step;
    struct zinf_update update = u->update[zinf_updates_parity(step)];
    u->current = record;
    zinf_lanes_unlock(zero->lanes);
    double begin_s = zinf_clock_s();
    char *buffer = zinf_ring_next(&zero->update_ring);
    double read_s = zinf_updates_trace_begin(u, record, step, "");
    struct zinf_update_moved before = ring_bytes(u);
    zinf_zero_update_record(zero, record, buffer, &update, early);
    store(u, record, early);
    double end_s = zinf_clock_s();
    zinf_updates_trace_end(u, record, step, read_s, "");
    zinf_lanes_lock(zero->lanes);
    count_moved(u, step, before);
    u->totals.records++;
    u->totals.early_records += early;
    u->totals.read_wait_s += read_s - begin_s;
    u->totals.busy_s += end_s - read_s;
    u->current = -1;
    p->updated = step;
    p->spare_taken = early;
    if (early && (step < u->step || !u->deciding) && !u->undo) { /* decided meanwhile */
        zinf_zero_take_spare(zero, record);
        p->spare_taken = false;
    }
    zinf_lanes_changed(zero->lanes);
    return true;
}

static bool collect(struct zinf_updates *u, bool wait)
{
    struct zinf_zero *zero = u->zero;
    const struct zinf_ring_item *item;
    /* Without the lock nothing may be overlooked: it is given back only when there is work. */
    if (!u->in_ring || zero->update_ring.finished == zero->update_ring.position)
        return false;
    if (wait) {
        zinf_lanes_unlock(zero->lanes);
        item = zinf_ring_collect(&zero->update_ring, true);
        zinf_lanes_lock(zero->lanes);
    } else {
        item = zinf_ring_collect(&zero->update_ring, false);
    }
    if (!item)
        return false;
    struct zinf_update_progress *p = &u->records[number_of(u, item)];
    p->stored = p->started;
    u->in_ring--;
    zinf_lanes_changed(zero->lanes);
    return true;
}

/* The step is skipped: drop what was read and written for it, give the weights back. */
static bool undo_step(struct zinf_updates *u)
{
    struct zinf_zero *zero = u->zero;
    if (!u->undo)
        return false;
    zinf_lanes_unlock(zero->lanes);
    if (zero->update_length > 0)
        zinf_ring_begin(&zero->update_ring, NULL, NULL, 0);
    for (int r = 0; r < zero->record_count; r++)
        if (u->records[r].spare_taken)
            zinf_zero_undo_record(zero, r);
    zinf_updates_undo_ahead(u);
    zinf_lanes_lock(zero->lanes);
    for (int r = 0; r < zero->record_count; r++)
        u->records[r] =
            (struct zinf_update_progress){u->step, u->step, u->step, u->step, false, 0, 0};
    u->in_ring = 0;
    u->undo = false;
    zinf_lanes_changed(zero->lanes);
    return true;
}

static void *carry_out(void *argument)
{
    struct zinf_updates *u = argument;
    zinf_trace_thread("update");
    if (!zinf_staged(u->zero))
        zinf_cpu_thread_alone(); /* the cores are the compute lane's */
    zinf_lanes_lock(u->zero->lanes);
    while (!u->stop)
        if (!undo_step(u) && !collect(u, false) && !start_read(u) &&
            !zinf_updates_work_in_memory(u) && !update_head(u) && !collect(u, true))
            zinf_lanes_sleep(u->zero->lanes, false);
    zinf_lanes_unlock(u->zero->lanes);
    return NULL;
}

/* Those without spare extents are not released before DECIDE, whatever the plan allows. */
static void find_order(struct zinf_updates *u, const struct zinf_plan *plan)
{
    for (int64_t i = 0; i < plan->count[ZINF_LANE_UPDATE]; i++) {
        const struct zinf_block_state *block =
            &u->zero->blocks[plan->operations[ZINF_LANE_UPDATE][i].block];
        for (int r = 0; r < block->record_count; r++)
            if (has_spare(u, block->first_record + r))
                u->order[u->order_count++] = block->first_record + r;
    }
    for (int r = 0; r < u->zero->record_count; r++)
        if (!has_spare(u, r) && zinf_zero_passes(u->zero, r))
            u->order[u->order_count++] = r;
    zinf_updates_find_in_memory(u, plan);
}

int zinf_updates_new(struct zinf_updates **out, struct zinf_zero *zero)
{
    struct zinf_updates *u = zinf_alloc(sizeof *u);
    sigset_t all, old;
    u->zero = zero;
    u->current = -1;
    u->records = zinf_alloc((size_t)zero->record_count * sizeof *u->records);
    u->order = zinf_alloc((size_t)zero->record_count * sizeof *u->order);
    u->in_memory = zinf_alloc((size_t)zero->record_count * sizeof *u->in_memory);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int number = pthread_create(&u->thread, NULL, carry_out, u);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (number) {
        zinf_error_log("rank %d: the update thread cannot be started: %s", zero->rank,
                       strerror(number));
        free(u->records);
        free(u->order);
        free(u->in_memory);
        free(u);
        return ZINF_E_RUNTIME;
    }
    *out = u;
    return ZINF_OK;
}

void zinf_updates_free(struct zinf_updates *u)
{
    if (!u)
        return;
    zinf_updates_drain(u);
    zinf_lanes_lock(u->zero->lanes);
    u->stop = true;
    zinf_lanes_changed(u->zero->lanes);
    zinf_lanes_unlock(u->zero->lanes);
    pthread_join(u->thread, NULL);
    free(u->records);
    free(u->order);
    free(u->in_memory);
    free(u);
}

void zinf_updates_begin(struct zinf_updates *u, const struct zinf_update *early,
                        double square_limit)
{
    zinf_lanes_lock(u->zero->lanes);
    ZINF_ASSERT(!u->deciding);
    if (u->step == 0)
        find_order(u, u->zero->plan);
    u->step++;
    u->deciding = true;
    u->early = early && !is_serial(u);
    zinf_updates_begin_ahead(u, u->early, square_limit);
    if (early)
        u->update[zinf_updates_parity(u->step)] = *early;
    u->moved[zinf_updates_parity(u->step)] = (struct zinf_update_moved){0, 0};
    zinf_lanes_changed(u->zero->lanes);
    zinf_lanes_unlock(u->zero->lanes);
}

void zinf_updates_reduced(struct zinf_updates *u, int block)
{
    const struct zinf_block_state *state = &u->zero->blocks[block];
    zinf_lanes_lock(u->zero->lanes);
    for (int r = state->first_record; r < state->first_record + state->record_count; r++) {
        /* The accumulator was free: the mover has waited for the last update that reads it. */
        ZINF_ASSERT(u->records[r].updated == u->records[r].released);
        if (u->deciding && u->early && has_spare(u, r))
            u->records[r].released = u->step;
    }
    if (u->deciding)
        zinf_updates_reduced_ahead(u, block);
    zinf_lanes_changed(u->zero->lanes);
    zinf_lanes_unlock(u->zero->lanes);
}

/* Seconds until `done` holds. The lock is held. */
static double wait_until(struct zinf_updates *u, bool (*done)(struct zinf_updates *u, int index),
                         int index)
{
    double begin_s = zinf_clock_s();
    if (done(u, index))
        return 0;
    zinf_lanes_changed(u->zero->lanes); /* the watchdog counts from here */
    while (!done(u, index))
        zinf_lanes_sleep(u->zero->lanes, true);
    return zinf_clock_s() - begin_s;
}

static bool is_undone(struct zinf_updates *u, int ignored)
{
    (void)ignored;
    return !u->undo;
}

static bool is_idle(struct zinf_updates *u, int ignored)
{
    (void)ignored;
    for (int r = 0; r < u->zero->record_count; r++)
        if (u->records[r].updated != u->records[r].released)
            return false;
    return u->in_ring == 0;
}

static bool block_has_weights(struct zinf_updates *u, int block)
{
    const struct zinf_block_state *state = &u->zero->blocks[block];
    for (int r = state->first_record; r < state->first_record + state->record_count; r++)
        if (!zinf_updates_has_weights(&u->records[r]))
            return false;
    return true;
}

static bool block_is_updated(struct zinf_updates *u, int block)
{
    const struct zinf_block_state *state = &u->zero->blocks[block];
    for (int r = state->first_record; r < state->first_record + state->record_count; r++)
        if (u->records[r].updated != u->records[r].released)
            return false;
    return true;
}

static bool record_is_stored(struct zinf_updates *u, int record)
{
    const struct zinf_update_progress *p = &u->records[record];
    return p->updated == p->released && p->stored >= p->updated;
}

double zinf_updates_decide(struct zinf_updates *u, const struct zinf_update *update)
{
    double waited_s = 0;
    zinf_lanes_lock(u->zero->lanes);
    ZINF_ASSERT(u->deciding);
    u->deciding = false;
    u->undo = !update;
    zinf_updates_decide_ahead(u, update);
    for (int r = 0; update && r < u->zero->record_count; r++) {
        if (u->records[r].spare_taken)
            zinf_zero_take_spare(u->zero, r);
        u->records[r].spare_taken = false;
        u->records[r].released = u->step;
    }
    if (update)
        u->update[zinf_updates_parity(u->step)] = *update;
    zinf_lanes_changed(u->zero->lanes);
    if (!update)
        waited_s = wait_until(u, is_undone, 0);
    else if (is_serial(u))
        waited_s = wait_until(u, is_idle, 0);
    zinf_lanes_unlock(u->zero->lanes);
    return waited_s;
}

void zinf_updates_wait(struct zinf_updates *u, int block)
{
    zinf_lanes_lock(u->zero->lanes);
    wait_until(u, block_has_weights, block);
    zinf_lanes_unlock(u->zero->lanes);
}

void zinf_updates_wait_for_rest(struct zinf_updates *u, int block)
{
    zinf_lanes_lock(u->zero->lanes);
    wait_until(u, block_is_updated, block);
    zinf_lanes_unlock(u->zero->lanes);
}

bool zinf_updates_readable(struct zinf_updates *u, int record, bool wait)
{
    zinf_lanes_lock(u->zero->lanes);
    if (wait)
        wait_until(u, record_is_stored, record);
    bool readable = record_is_stored(u, record);
    zinf_lanes_unlock(u->zero->lanes);
    return readable;
}

double zinf_updates_drain(struct zinf_updates *u)
{
    zinf_lanes_lock(u->zero->lanes);
    ZINF_ASSERT(!u->deciding);
    double waited_s = wait_until(u, is_idle, 0);
    zinf_lanes_unlock(u->zero->lanes);
    return waited_s;
}

struct zinf_updates_totals zinf_updates_totals(struct zinf_updates *u)
{
    zinf_lanes_lock(u->zero->lanes);
    struct zinf_updates_totals totals = u->totals;
    zinf_lanes_unlock(u->zero->lanes);
    return totals;
}

void zinf_updates_bytes(struct zinf_updates *u, bool before, int64_t *read_bytes,
                        int64_t *write_bytes)
{
    zinf_lanes_lock(u->zero->lanes);
    const struct zinf_update_moved *moved = &u->moved[zinf_updates_parity(u->step - before)];
    *read_bytes = moved->read_bytes;
    *write_bytes = moved->write_bytes;
    zinf_lanes_unlock(u->zero->lanes);
}

void zinf_updates_describe(const struct zinf_updates *u, char *out, size_t out_bytes)
{
    const struct zinf_ring_item *head = zinf_ring_head(&u->zero->update_ring);
    int record = u->current >= 0 ? u->current : head ? number_of(u, head) : -1;
    char block[96];
    out[0] = '\0';
    if (record < 0)
        return;
    zinf_plan_block_name(u->zero->options.model, u->zero->records[record].block, block,
                         sizeof block);
    snprintf(out, out_bytes, "%s %s, record %d of %d", u->current >= 0 ? "update of" : "waits for",
             block, record + 1, u->zero->record_count);
}
