/*
 * Activation functions, gated units and rotary embedding: elementwise, a thread takes 16 bytes of one tensor.
 */
#include "cuda/kernel.h"

namespace zinf_cuda
{
namespace activation
{

constexpr int THREADS = 256;

/** f(x), and f'(x) in *slope. Hendrycks and Gimpel 2016 (GELU), Elfwing et al. 2017 (SiLU). */
template <zinf_activation KIND> __device__ __forceinline__ float activate(float x, float *slope)
{
    if (KIND == ZINF_RELU) {
        *slope = x > 0.0f ? 1.0f : 0.0f;
        return x < 0.0f ? 0.0f : x; /* NaN stays */
    }
    if (KIND == ZINF_SILU) {
        const float s = 1.0f / (1.0f + expf(-x));
        *slope = s * (1.0f + x * (1.0f - s));
        return x * s;
    }
    if (KIND == ZINF_GELU_ERF) {
        const float half = 0.5f * (1.0f + erff(x * 0.70710678f));
        *slope = half + x * 0.39894228f * expf(-0.5f * x * x); /* Phi + x phi; 1 / sqrt(2 pi) */
        return x * half;
    }
    const float outer = 0.79788456f, inner = 0.044715f; /* sqrt(2 / pi) */
    const float t = tanhf(outer * (x + inner * (x * x * x)));
    *slope = 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * (outer * (1.0f + 3.0f * inner * (x * x)));
    return 0.5f * x * (1.0f + t);
}

/** y = f(x), or with dy: y = f'(x) dy. */
template <zinf_activation KIND, typename T, int N>
__global__ void __launch_bounds__(THREADS) flat_kernel(int64_t count, const T *x, const T *dy, T *y)
{
    const int64_t first = thread_number() * N;
    for (int64_t i = first; i < first + N && i < count; i += N) {
        if (i + N > count) { /* the end, shorter than a vector */
            for (; i < count; i++) {
                float slope;
                const float f = activate<KIND>(widen(x[i]), &slope);
                y[i] = narrow<T>(dy ? slope * widen(dy[i]) : f);
            }
            return;
        }
        Pack<T, N> v = load<N>(x + i), g;
        if (dy)
            g = load<N>(dy + i);
#pragma unroll
        for (int j = 0; j < N; j++) {
            float slope;
            const float f = activate<KIND>(widen(v.item[j]), &slope);
            v.item[j] = narrow<T>(dy ? slope * widen(g.item[j]) : f);
        }
        store(y + i, v);
    }
}

struct Gated {
    int64_t total, packs, features; /* packs: vectors in a row of `features`; total: of all rows */
    const void *gate_up, *dy;
    void *out;
};

/** A vector of gate, the vector of up of the same features, and back. f is rounded before the product, as PyTorch's two operations do. */
template <zinf_activation KIND, typename T, int N, bool BACKWARD>
__global__ void __launch_bounds__(THREADS) gated_kernel(Gated op)
{
    const int64_t thread = thread_number();
    if (thread >= op.total)
        return;
    const int64_t row = thread / op.packs, i = thread % op.packs * N;
    const int64_t gate_at = row * 2 * op.features + i, up_at = gate_at + op.features, at = row * op.features + i;
    const Pack<T, N> gate = load<N>((const T *)op.gate_up + gate_at), up = load<N>((const T *)op.gate_up + up_at);
    Pack<T, N> first, second;
    if (BACKWARD)
        second = load<N>((const T *)op.dy + at);
#pragma unroll
    for (int j = 0; j < N; j++) {
        float slope;
        const float f = activate<KIND>(widen(gate.item[j]), &slope);
        if (BACKWARD) {
            const float dy = widen(second.item[j]);
            first.item[j] = narrow<T>(dy * widen(up.item[j]) * slope);
            second.item[j] = narrow<T>(dy * rounded<T>(f));
        } else {
            first.item[j] = narrow<T>(rounded<T>(f) * widen(up.item[j]));
        }
    }
    store((T *)op.out + (BACKWARD ? gate_at : at), first);
    if (BACKWARD)
        store((T *)op.out + up_at, second);
}

template <typename F> void with_kind(enum zinf_activation kind, F call);

template <zinf_activation KIND> struct Kind {
    static constexpr zinf_activation value = KIND;
};

template <typename F> void with_kind(enum zinf_activation kind, F call)
{
    switch (kind) {
    case ZINF_GELU_TANH:
        call(Kind<ZINF_GELU_TANH>());
        break;
    case ZINF_GELU_ERF:
        call(Kind<ZINF_GELU_ERF>());
        break;
    case ZINF_RELU:
        call(Kind<ZINF_RELU>());
        break;
    case ZINF_SILU:
        call(Kind<ZINF_SILU>());
        break;
    }
}

/** dy: NULL = forward. */
void flat(const zinf_activate &op, const void *dy, void *out)
{
    const int64_t count = op.rows * op.features;
    const bool wide = aligned(op.x, 0, 16) && aligned(dy, 0, 16) && aligned(out, 0, 16);
    with_vectors(op.dtype, wide, [&](auto tag, auto width) {
        with_kind(op.kind, [&](auto constant) {
            typedef decltype(tag) T;
            constexpr int N = decltype(width)::value;
            LAUNCH((flat_kernel<decltype(constant)::value, T, N>),
                   Shape(ceil_div(ceil_div(count, N), THREADS), THREADS), count, (const T *)op.x, (const T *)dy,
                   (T *)out);
        });
    });
}

template <bool BACKWARD> void gated(const zinf_activate &op, const void *dy, void *out)
{
    const int64_t features = op.features, row_bytes = features * (op.dtype == ZINF_FP32 ? 4 : 2);
    const bool wide = aligned(op.x, row_bytes, 16) && aligned(dy, row_bytes, 16) && aligned(out, row_bytes, 16);
    with_vectors(op.dtype, wide, [&](auto tag, auto width) {
        with_kind(op.kind, [&](auto constant) {
            typedef decltype(tag) T;
            constexpr int N = decltype(width)::value;
            const Gated cut = {op.rows * (features / N), features / N, features, op.x, dy, out};
            LAUNCH((gated_kernel<decltype(constant)::value, T, N, BACKWARD>),
                   Shape(ceil_div(cut.total, THREADS), THREADS), cut);
        });
    });
}

struct Rope {
    int64_t total, packs; /* packs: vectors in half a head */
    int64_t sequence, heads, head_size, row;
    const float *cosine, *sine;
    void *x;
    float sign;
};

/** A thread turns N pairs (i, i + D / 2). Su et al. 2021 (RoFormer), pairs as in Hugging Face's Llama. */
template <typename T, int N> __global__ void __launch_bounds__(THREADS) rope_kernel(Rope op)
{
    const int64_t thread = thread_number();
    if (thread >= op.total)
        return;
    const int64_t half = op.head_size / 2, i = thread % op.packs * N, head = thread / op.packs % op.heads;
    const int64_t token = thread / op.packs / op.heads, angle = token % op.sequence * half + i;
    T *x = (T *)op.x + token * op.row + head * op.head_size + i;
    Pack<T, N> a = load<N>(x), b = load<N>(x + half);
#pragma unroll
    for (int j = 0; j < N; j++) {
        const float c = op.cosine[angle + j], s = op.sine[angle + j] * op.sign;
        const float low = widen(a.item[j]), high = widen(b.item[j]);
        a.item[j] = narrow<T>(low * c - high * s);
        b.item[j] = narrow<T>(high * c + low * s);
    }
    store(x, a);
    store(x + half, b);
}

} // namespace activation
} // namespace zinf_cuda

using namespace zinf_cuda;

void zinf_cuda_activation_forward(const struct zinf_activate *op, void *y)
{
    activation::flat(*op, nullptr, y);
}

void zinf_cuda_activation_backward(const struct zinf_activate *op, const void *dy, void *dx)
{
    activation::flat(*op, dy, dx);
}

void zinf_cuda_gated_forward(const struct zinf_activate *op, void *y)
{
    activation::gated<false>(*op, nullptr, y);
}

void zinf_cuda_gated_backward(const struct zinf_activate *op, const void *dy, void *dx)
{
    activation::gated<true>(*op, dy, dx);
}

void zinf_cuda_rope(const struct zinf_rope *options, void *x)
{
    using namespace zinf_cuda::activation;
    const int64_t size = options->dtype == ZINF_FP32 ? 4 : 2, half = options->head_size / 2;
    const bool wide = aligned(x, options->row * size, 16) && half * size % 16 == 0;
    with_vectors(options->dtype, wide, [&](auto tag, auto width) {
        typedef decltype(tag) T;
        constexpr int N = decltype(width)::value;
        Rope op = {0, half / N, options->sequence, options->heads, options->head_size, options->row,
                   options->cosine, options->sine, x, options->backward ? -1.0f : 1.0f};
        op.total = options->batch * options->sequence * options->heads * op.packs;
        LAUNCH((rope_kernel<T, N>), Shape(ceil_div(op.total, THREADS), THREADS), op);
    });
}
