/*
 * The update lane's records in host memory: what zinf.memory.cache keeps of the NVMe tier, and,
 * beside a device with memory of its own, all states of offload_optimizer "cpu".
 *
 * The latter are updated in two halves where the step's update is known before DECIDE but for what
 * only the norm of the whole gradient can tell. *Ahead*, as soon as the gradient of a block is
 * complete, in the middle of the backward pass, the lane makes the new weights of a record from
 * master, moments and gradient, as if the gradient were not clipped, and stores nothing else.
 * DECIDE then either says the same update: the weights stand and go out with the next gathers, and
 * the *rest*, the ordinary update of master and moments, is carried out under the next forward
 * pass. Or it says another: then the ordinary update follows, as without all this, and writes the
 * weights again; a step that is skipped rounds them from the master again, which has not changed.
 * Same operation on the same operands either way, so the bits are those of the plain order. Source:
 * speculation of SuperOffload (arXiv:2509.21271); its rollback by arithmetic is not exact.
 *
 * Where the weights are written: in 16 bits to the place that the update writes to anyway. Nobody
 * reads a block's weights between its last gradient and DECIDE, so it takes no memory; in fp32 the
 * master gets a place of its own.
 *
 * What is made ahead in vain costs memory traffic in a time when the host's cores are idle. A sum
 * of squares above the limit proves that the gradient will be clipped, and no more is made ahead in
 * this step. After REFUSALS steps in a row none is; the first step that would have been right
 * begins again.
 *
 * Order: what somebody waits for comes first. Whole updates in the order of the next forward pass;
 * then the rest of committed ones in the order of the next backward pass, since a new gradient has
 * no other place than the old one's; then what can be made ahead, as gradients arrive. A lane that
 * cannot keep up makes less ahead by itself.
 *
 * On a CPU rank none of this pays: the cores are the compute lane's, and 44 bytes of traffic an
 * element would take the place of 28.
 */
#include "zero/updates_internal.h"

#include <math.h>

#include "base/clock.h"
#include "base/fault.h"

enum { REFUSALS = 3 };

void zinf_updates_find_in_memory(struct zinf_updates *u, const struct zinf_plan *plan)
{
    for (int64_t i = 0; i < plan->count[ZINF_LANE_UPDATE]; i++) {
        const struct zinf_block_state *block =
            &u->zero->blocks[plan->operations[ZINF_LANE_UPDATE][i].block];
        for (int r = block->first_record; r < block->first_record + block->record_count; r++)
            if (!zinf_zero_passes(u->zero, r))
                u->in_memory[u->in_memory_count++] = r;
    }
}

void zinf_updates_begin_ahead(struct zinf_updates *u, bool early, double square_limit)
{
    u->ahead = early && u->zero->options.offload.ahead && u->refused_in_a_row < REFUSALS;
    u->square_sum = 0;
    u->square_limit = square_limit;
}

void zinf_updates_reduced_ahead(struct zinf_updates *u, int block)
{
    const struct zinf_block_state *state = &u->zero->blocks[block];
    for (int r = state->first_record; r < state->first_record + state->record_count; r++)
        u->records[r].reduced = u->step;
    u->square_sum += state->square_sum;
    if (!isfinite(u->square_sum) || u->square_sum > u->square_limit)
        u->ahead = false;
}

/* Of what was made ahead some may be in the lane's hands now: finish_ahead() sees to it. */
void zinf_updates_decide_ahead(struct zinf_updates *u, const struct zinf_update *update)
{
    float known = u->update[zinf_updates_parity(u->step)].gradient_scale;
    bool same = u->early && update && update->gradient_scale == known;
    u->ahead = false;
    u->refused_in_a_row = same ? 0 : u->refused_in_a_row + 1;
    if (same)
        u->committed = u->step;
    for (int i = 0; i < u->in_memory_count; i++) {
        struct zinf_update_progress *p = &u->records[u->in_memory[i]];
        if (p->output != u->step)
            continue;
        u->totals.early_records += same;
        u->totals.refused_records += !same;
        if (!same && update)
            p->output = 0;
    }
}

void zinf_updates_undo_ahead(struct zinf_updates *u)
{
    for (int i = 0; i < u->in_memory_count; i++)
        if (u->records[u->in_memory[i]].output == u->step)
            zinf_zero_restore_output(u->zero, u->in_memory[i]);
}

bool zinf_updates_has_weights(const struct zinf_update_progress *p)
{
    return p->updated == p->released || p->output == p->released;
}

/* The record whose whole update is wanted first, -1: none. */
static int next_whole(const struct zinf_updates *u)
{
    for (int r = 0; r < u->zero->record_count; r++)
        if (!zinf_updates_has_weights(&u->records[r]) && !zinf_zero_passes(u->zero, r))
            return r;
    return -1;
}

static int next_rest(const struct zinf_updates *u)
{
    for (int i = 0; i < u->in_memory_count; i++) {
        const struct zinf_update_progress *p = &u->records[u->in_memory[i]];
        if (p->updated != p->released)
            return u->in_memory[i];
    }
    return -1;
}

static int next_ahead(const struct zinf_updates *u)
{
    for (int i = 0; u->deciding && u->ahead && i < u->in_memory_count; i++) {
        const struct zinf_update_progress *p = &u->records[u->in_memory[i]];
        if (p->reduced == u->step && p->output != u->step)
            return u->in_memory[i];
    }
    return -1;
}

/* The new weights of a record stand; DECIDE may have fallen meanwhile, and the next step begun. */
static void finish_ahead(struct zinf_updates *u, int record, int64_t step)
{
    bool open = u->deciding && u->step == step, same = u->committed == step;
    u->records[record].output = open || u->undo || same ? step : 0;
    if (open)
        return;
    u->totals.early_records += same;
    u->totals.refused_records += !same;
}

enum half { WHOLE, AHEAD, REST };

static void carry_out(struct zinf_updates *u, int record, enum half half)
{
    static const char *const names[] = {"", ", ahead", ", rest"};
    struct zinf_zero *zero = u->zero;
    struct zinf_update_progress *p = &u->records[record];
    int64_t step = half == AHEAD ? u->step : p->released;
    struct zinf_update update = u->update[zinf_updates_parity(step)];
    u->current = record;
    zinf_lanes_unlock(zero->lanes);
    double begin_s = zinf_updates_trace_begin(u, record, step, names[half]);
    ZINF_ASSERT(zinf_fault("update", NULL) == 0);
    if (half == WHOLE)
        zinf_zero_update_record(zero, record, NULL, &update, false);
    else if (half == AHEAD)
        zinf_zero_update_ahead(zero, record, &update);
    else
        zinf_zero_update_rest(zero, record, &update);
    double end_s = zinf_clock_s();
    zinf_updates_trace_end(u, record, step, begin_s, names[half]);
    zinf_lanes_lock(zero->lanes);
    u->current = -1;
    u->totals.busy_s += end_s - begin_s;
    if (half == AHEAD) {
        finish_ahead(u, record, step);
    } else {
        u->totals.records++;
        p->started = p->updated = p->stored = p->released;
    }
    zinf_lanes_changed(zero->lanes);
}

bool zinf_updates_work_in_memory(struct zinf_updates *u)
{
    int record;
    if ((record = next_whole(u)) >= 0)
        carry_out(u, record, WHOLE);
    else if ((record = next_rest(u)) >= 0)
        carry_out(u, record, REST);
    else if ((record = next_ahead(u)) >= 0)
        carry_out(u, record, AHEAD);
    return record >= 0;
}
