/*
 * The products of a pass, found by rehearsing it: the layer's and the head's own functions run with
 * a table of operations that do nothing, but for the product, which is told. So there is no second
 * list of shapes that could differ from what a step does. Nothing is read or written: every operand
 * stands at one address that no program has.
 */
#include "model/products.h"

#include "model/transformer.h"

enum { NOWHERE = 1 << 20 };

static _Thread_local struct {
    void (*found)(void *context, const struct zinf_matmul *op);
    void *context;
} audience;

static void matmul(const struct zinf_matmul *op)
{
    audience.found(audience.context, op);
}

#define UNUSED __attribute__((unused))

static void bias_backward(const struct zinf_column_sum *op UNUSED, const void *dy UNUSED,
                          void *dbias UNUSED)
{
}

static void norm_forward(const struct zinf_norm *op UNUSED, void *y UNUSED)
{
}

static void norm_backward(const struct zinf_norm *op UNUSED, const void *dy UNUSED,
                          const void *residual UNUSED, void *dx UNUSED, void *dweight UNUSED,
                          void *dbias UNUSED)
{
}

static void attention_forward(const struct zinf_attention *op UNUSED, void *y UNUSED)
{
}

static void attention_backward(const struct zinf_attention *op UNUSED, const void *dy UNUSED,
                               void *dqkv UNUSED)
{
}

static void rope(const struct zinf_rope *op UNUSED, void *x UNUSED)
{
}

static void activation_forward(const struct zinf_activate *op UNUSED, void *y UNUSED)
{
}

static void activation_backward(const struct zinf_activate *op UNUSED, const void *dy UNUSED,
                                void *dx UNUSED)
{
}

static void dropout_add(const struct zinf_dropout_add *op UNUSED, const void *x UNUSED,
                        const void *residual UNUSED, void *y UNUSED)
{
}

static void loss_tile_forward(const struct zinf_loss_tile *op UNUSED, const void *logits UNUSED)
{
}

static void loss_tile_backward(const struct zinf_loss_tile *op UNUSED, void *logits UNUSED)
{
}

static const struct zinf_ops idle = {
    .name = "rehearsal",
    .matmul = matmul,
    .bias_backward = bias_backward,
    .norm_forward = norm_forward,
    .norm_backward = norm_backward,
    .attention_forward = attention_forward,
    .attention_backward = attention_backward,
    .rope = rope,
    .activation_forward = activation_forward,
    .activation_backward = activation_backward,
    .dropout_add = dropout_add,
    .loss_tile_forward = loss_tile_forward,
    .loss_tile_backward = loss_tile_backward,
    .gated_forward = activation_forward,
    .gated_backward = activation_backward,
};

/* The head's tiles are blocks of different lengths; the backward pass begins with the last. */
static void rehearse_head(const struct zinf_pass *pass, char *anywhere)
{
    const struct zinf_model *model = pass->model;
    struct zinf_loss loss = {(float *)anywhere, (float *)anywhere, (float *)anywhere, NULL};
    for (int i = 0; i < model->head_block_count; i++) {
        const struct zinf_block *block = &model->blocks[model->first_head_block + i];
        const struct zinf_head_gradients gradients = {1, i == model->head_block_count - 1,
                                                      (float *)anywhere, anywhere};
        zinf_head_forward(pass, block, anywhere, anywhere, &loss);
        if (pass->training)
            zinf_head_backward(pass, block, anywhere, anywhere, &loss, &gradients);
    }
}

void zinf_model_products(const struct zinf_products_pass *shape,
                         void (*found)(void *context, const struct zinf_matmul *op), void *context)
{
    char *anywhere = (char *)(uintptr_t)NOWHERE;
    const struct zinf_pass pass = {.model = shape->model,
                                   .ops = &idle,
                                   .dtype = shape->dtype,
                                   .batch = shape->batch,
                                   .sequence = shape->sequence,
                                   .training = shape->training,
                                   .scratch = anywhere};
    const struct zinf_gradients gradients = {anywhere, anywhere, anywhere};
    audience.found = found;
    audience.context = context;
    zinf_layer_forward(&pass, 0, anywhere, anywhere, anywhere, anywhere);
    if (shape->training)
        zinf_layer_backward(&pass, 0, anywhere, anywhere, anywhere, &gradients);
    rehearse_head(&pass, anywhere);
}
