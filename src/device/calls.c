/*
 * Calls of operations as bytes. See calls.h.
 *
 * A call is a head, which names the operation by the function that issues it again, and the
 * operation's struct behind it. Adding an operation to ops.h means adding it here: the size of the
 * table is asserted.
 */
#include "device/calls.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"

enum { POINTERS = 5 }; /* the most that an operation is given beside its struct */

struct call {
    void (*issue)(const struct call *call);
    void *pointers[POINTERS];
    size_t bytes; /* of head and struct, a multiple of 8 */
};

static const struct zinf_ops *own; /* the backend's table */
static _Thread_local struct zinf_calls *collecting;

/* Room for a struct of so many bytes, zeroed, behind a head; NULL: the caller issues it itself. */
static void *keep(void (*issue)(const struct call *call), size_t bytes,
                  const void *const pointers[POINTERS])
{
    struct zinf_calls *calls = collecting;
    struct call head = {.issue = issue, .bytes = sizeof head + (bytes + 7) / 8 * 8};
    if (!calls || calls->spilled)
        return NULL;
    if (calls->used + head.bytes > calls->room) {
        calls->spilled = true;
        zinf_calls_issue(calls->bytes, calls->used);
        return NULL;
    }
    char *to = calls->bytes + calls->used;
    memcpy(head.pointers, pointers, sizeof head.pointers);
    memcpy(to, &head, sizeof head);
    memset(to + sizeof head, 0, head.bytes - sizeof head);
    calls->used += head.bytes;
    calls->count++;
    return to + sizeof head;
}

#if defined(__has_builtin)
#if __has_builtin(__builtin_clear_padding)
#define CLEAR_PADDING(op) __builtin_clear_padding(op)
#endif
#endif
#ifndef CLEAR_PADDING
#define CLEAR_PADDING(op) (void)(op)
#endif

/* What an operation is given beside its struct: none to five pointers, a to e. */
#define GIVEN0
#define GIVEN1 , c->pointers[0]
#define GIVEN2 GIVEN1, c->pointers[1]
#define GIVEN3 GIVEN2, c->pointers[2]
#define GIVEN5 GIVEN3, c->pointers[3], c->pointers[4]
#define TAKEN0
#define TAKEN1 , a
#define TAKEN2 TAKEN1, b
#define TAKEN3 TAKEN2, c
#define TAKEN5 TAKEN3, d, e
#define KEPT0  NULL
#define KEPT1  a
#define KEPT2  KEPT1, b
#define KEPT3  KEPT2, c
#define KEPT5  KEPT3, d, e

/* An operation that is kept or goes through; `...`: its parameters behind the struct. */
#define OPERATION(name, type, count, ...)                                                          \
    static void issue_##name(const struct call *c)                                                 \
    {                                                                                              \
        own->name((const struct type *)(c + 1) GIVEN##count);                                      \
    }                                                                                              \
    static void name(const struct type *op __VA_ARGS__)                                            \
    {                                                                                              \
        const void *const given[POINTERS] = {KEPT##count};                                         \
        struct type *copy = keep(issue_##name, sizeof *op, given);                                 \
        if (!copy) {                                                                               \
            own->name(op TAKEN##count);                                                            \
            return;                                                                                \
        }                                                                                          \
        *copy = *op;                                                                               \
        CLEAR_PADDING(copy);                                                                       \
    }

#define COMMA ,
#define TO    COMMA void *a
#define FROM  COMMA const void *a
#define BOTH  FROM COMMA void *b

OPERATION(matmul, zinf_matmul, 0)
OPERATION(bias_backward, zinf_column_sum, 2, BOTH)
OPERATION(norm_forward, zinf_norm, 1, TO)
OPERATION(norm_backward, zinf_norm, 5, FROM COMMA const void *b, void *c, void *d, void *e)
OPERATION(attention_forward, zinf_attention, 1, TO)
OPERATION(attention_backward, zinf_attention, 2, BOTH)
OPERATION(rope, zinf_rope, 1, TO)
OPERATION(activation_forward, zinf_activate, 1, TO)
OPERATION(activation_backward, zinf_activate, 2, BOTH)
OPERATION(gated_forward, zinf_activate, 1, TO)
OPERATION(gated_backward, zinf_activate, 2, BOTH)
OPERATION(dropout_add, zinf_dropout_add, 3, FROM COMMA const void *b, void *c)
OPERATION(embedding_forward, zinf_embedding, 2, BOTH)
OPERATION(embedding_backward, zinf_embedding, 2, BOTH)
OPERATION(position_forward, zinf_embedding, 2, BOTH)
OPERATION(position_backward, zinf_embedding, 2, BOTH)
OPERATION(loss_tile_forward, zinf_loss_tile, 1, FROM)
OPERATION(loss_tile_backward, zinf_loss_tile, 1, TO)
OPERATION(cast, zinf_cast, 2, BOTH)
OPERATION(accumulate, zinf_accumulate, 2, BOTH)
OPERATION(reduce, zinf_reduce, 2, BOTH)
OPERATION(scale, zinf_scale, 1, TO)
OPERATION(update, zinf_update_op, 0)

/* The two that give the host a result cannot wait. */
static double square_sum(const struct zinf_scan *op, const void *x)
{
    ZINF_ASSERT(!collecting);
    return own->square_sum(op, x);
}

static int64_t first_nonfinite(const struct zinf_scan *op, const void *x)
{
    ZINF_ASSERT(!collecting);
    return own->first_nonfinite(op, x);
}

#define OWN(operation) .operation = operation,
#define ONE(operation) +1
_Static_assert(sizeof(struct zinf_ops) == (1 ZINF_OPERATIONS(ONE)) * sizeof(void *),
               "ZINF_OPERATIONS() has every operation");

const struct zinf_ops *zinf_calls_operations(const struct zinf_ops *inner)
{
    static struct zinf_ops table;
    own = inner;
    table = (struct zinf_ops){.name = inner->name, ZINF_OPERATIONS(OWN)};
    return &table;
}

void zinf_calls_open(struct zinf_calls *calls, size_t room)
{
    *calls = (struct zinf_calls){.bytes = zinf_alloc(room + 1), .room = room};
}

void zinf_calls_close(struct zinf_calls *calls)
{
    free(calls->bytes);
    *calls = (struct zinf_calls){0};
}

void zinf_calls_collect(struct zinf_calls *calls)
{
    collecting = calls;
    if (!calls)
        return;
    calls->used = 0;
    calls->count = 0;
    calls->spilled = false;
}

void zinf_calls_issue(const char *bytes, size_t used)
{
    for (size_t at = 0; at < used;) {
        const struct call *call = (const struct call *)(bytes + at);
        call->issue(call);
        at += call->bytes;
    }
}
