/*
 * Dropout with residual addition. A thread takes four elements of a sample: one counter of Philox.
 */
#include "cuda/philox.h"

namespace zinf_cuda
{
namespace dropout
{

constexpr int THREADS = 256;

struct Operands {
    Dropout dropout;
    int64_t groups, per_sample, total; /* groups of four elements in a sample; total: groups of all samples */
    const void *x, *residual;
    void *y;
};

template <typename T, int N> __global__ void __launch_bounds__(THREADS) add_kernel(Operands op)
{
    const int64_t thread = thread_number();
    if (thread >= op.total)
        return;
    const int64_t sample = thread / op.groups, group = thread % op.groups, first = group * 4;
    const int64_t at = sample * op.per_sample + first, left = op.per_sample - first;
    const T *x = (const T *)op.x + at, *residual = op.residual ? (const T *)op.residual + at : nullptr;
    T *y = (T *)op.y + at;
    float factor[4] = {1.0f, 1.0f, 1.0f, 1.0f};
    if (op.dropout.on) {
        const Words words = dropout_words(op.dropout, (uint32_t)sample, (uint64_t)group);
#pragma unroll
        for (int i = 0; i < 4; i++)
            factor[i] = dropout_factor(op.dropout, words.word[i]);
    }
#pragma unroll
    for (int i = 0; i < 4; i += N) {
        if (N == 1 && i >= left)
            break;
        Pack<T, N> v = load<N>(x + i), r;
        if (residual)
            r = load<N>(residual + i);
#pragma unroll
        for (int j = 0; j < N; j++) {
            const float dropped = widen(v.item[j]) * factor[i + j];
            /* dropout and addition are two operations in PyTorch: the first is rounded too */
            v.item[j] = narrow<T>(residual ? rounded<T>(dropped) + widen(r.item[j]) : dropped);
        }
        store(y + i, v);
    }
}

} // namespace dropout
} // namespace zinf_cuda

using namespace zinf_cuda;

void zinf_cuda_dropout_add(const struct zinf_dropout_add *op, const void *x, const void *residual, void *y)
{
    using namespace zinf_cuda::dropout;
    const int64_t groups = ceil_div(op->per_sample, 4);
    const Operands operands = {dropout_of(op->dropout), groups, op->per_sample, op->batch * groups, x, residual, y};
    with_type(op->dtype, [&](auto tag) {
        typedef decltype(tag) T;
        const Shape shape(ceil_div(operands.total, THREADS), THREADS);
        const int bytes = 4 * (int)sizeof(T);
        if (op->per_sample % 4 == 0 && aligned(x, 0, bytes) && aligned(y, 0, bytes) && aligned(residual, 0, bytes))
            LAUNCH((add_kernel<T, 4>), shape, operands);
        else
            LAUNCH((add_kernel<T, 1>), shape, operands);
    });
}
