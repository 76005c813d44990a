/*
 * Updates of fp32 weights: one fused pass over weights, state and gradient, 4 elements a thread. The formulas: update.h.
 */
#include "cuda/kernel.h"
#include "cuda/update.h"

namespace zinf_cuda
{
namespace optimizer
{

constexpr int THREADS = 256, N = 4;

struct Operands {
    int64_t count;
    float *weights, *state0, *state1; /* NULL: this optimizer has none */
    const void *gradient;
    void *low;
    int low_dtype;
    bool low_only;
    zinf_coefficients coefficients;
};

template <int W> __device__ __forceinline__ void store_low(const Operands &op, int64_t at, const Pack<float, W> &w)
{
    if (op.low_dtype == ZINF_BF16) {
        Pack<bf16, W> low;
#pragma unroll
        for (int i = 0; i < W; i++)
            low.item[i] = narrow<bf16>(w.item[i]);
        store((bf16 *)op.low + at, low);
    } else if (op.low_dtype == ZINF_FP16) {
        Pack<fp16, W> low;
#pragma unroll
        for (int i = 0; i < W; i++)
            low.item[i] = narrow<fp16>(w.item[i]);
        store((fp16 *)op.low + at, low);
    } else {
        store((float *)op.low + at, w);
    }
}

template <zinf_optimizer OPTIMIZER, typename G, int W>
__device__ __forceinline__ void update(const Operands &op, int64_t at)
{
    Pack<float, W> w = load<W>(op.weights + at), m, v;
    const Pack<G, W> g = load<W>((const G *)op.gradient + at);
#pragma unroll
    for (int i = 0; i < W; i++)
        m.item[i] = v.item[i] = 0.0f;
    if (op.state0)
        m = load<W>(op.state0 + at);
    if (OPTIMIZER == ZINF_ADAM)
        v = load<W>(op.state1 + at);
#pragma unroll
    for (int i = 0; i < W; i++)
        w.item[i] = update_element<OPTIMIZER>(op.coefficients, w.item[i], widen(g.item[i]), m.item[i], v.item[i]);
    if (op.low)
        store_low<W>(op, at, w);
    if (op.low_only)
        return;
    store(op.weights + at, w);
    if (op.state0)
        store(op.state0 + at, m);
    if (OPTIMIZER == ZINF_ADAM)
        store(op.state1 + at, v);
}

template <zinf_optimizer OPTIMIZER, typename G, bool WIDE>
__global__ void __launch_bounds__(THREADS) update_kernel(Operands op)
{
    const int64_t first = thread_number() * N;
    if (WIDE && first + N <= op.count)
        update<OPTIMIZER, G, N>(op, first);
    else
        for (int64_t i = first; i < first + N && i < op.count; i++)
            update<OPTIMIZER, G, 1>(op, i);
}

template <zinf_optimizer OPTIMIZER> void run(const Operands &op, enum zinf_dtype gradient_dtype)
{
    const int low_bytes = op.low_dtype == ZINF_FP32 ? 16 : 8;
    const bool wide = aligned(op.weights, 0, 16) && aligned(op.state0, 0, 16) && aligned(op.state1, 0, 16) &&
                      aligned(op.gradient, 0, gradient_dtype == ZINF_FP32 ? 16 : 8) &&
                      aligned(op.low, 0, low_bytes);
    const Shape shape(ceil_div(ceil_div(op.count, N), THREADS), THREADS);
    with_type(gradient_dtype, [&](auto tag) {
        typedef decltype(tag) G;
        if (wide)
            LAUNCH((update_kernel<OPTIMIZER, G, true>), shape, op);
        else
            LAUNCH((update_kernel<OPTIMIZER, G, false>), shape, op);
    });
}

} // namespace optimizer
} // namespace zinf_cuda

using namespace zinf_cuda;

void zinf_cuda_update(const struct zinf_update_op *op)
{
    const struct zinf_update *options = &op->options;
    const bool stateless = options->optimizer == ZINF_SGD && options->momentum == 0.0;
    const optimizer::Operands operands = {op->count,
                                          op->weights,
                                          stateless ? nullptr : op->state[0],
                                          options->optimizer == ZINF_ADAM ? op->state[1] : nullptr,
                                          op->gradient,
                                          op->low,
                                          (int)op->low_dtype,
                                          op->low_only,
                                          zinf_coefficients_of(options)};
    switch (options->optimizer) {
    case ZINF_ADAM:
        optimizer::run<ZINF_ADAM>(operands, op->gradient_dtype);
        break;
    case ZINF_ADAGRAD:
        optimizer::run<ZINF_ADAGRAD>(operands, op->gradient_dtype);
        break;
    case ZINF_LION:
        optimizer::run<ZINF_LION>(operands, op->gradient_dtype);
        break;
    case ZINF_SGD:
        optimizer::run<ZINF_SGD>(operands, op->gradient_dtype);
        break;
    }
}
