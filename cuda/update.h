/*
 * One element's update by each optimizer (docs/optimizers.md), with every multiply-add and rounding spelled out: the device and a host whose
 * compiler does not fuse on its own give the same bits. It is also what gcc and clang make of src/cpu/optimizer.c on machines with fused
 * multiply-add, so that ranks with and without a GPU agree; tests/test_ops_update.cc holds the two against each other.
 */
#ifndef ZINF_CUDA_UPDATE_H
#define ZINF_CUDA_UPDATE_H

#include "cuda/index.h"
#include "device/update.h"

namespace zinf_cuda
{

HD float fused(float a, float b, float c) /* a b + c, rounded once */
{
#if defined(__CUDA_ARCH__)
    return __fmaf_rn(a, b, c);
#else
    return fmaf(a, b, c);
#endif
}

HD float times(float a, float b)
{
#if defined(__CUDA_ARCH__)
    return __fmul_rn(a, b); /* never fused with an addition */
#else
    return a * b;
#endif
}

HD float divided(float a, float b)
{
#if defined(__CUDA_ARCH__)
    return __fdiv_rn(a, b);
#else
    return a / b;
#endif
}

HD float root(float x)
{
#if defined(__CUDA_ARCH__)
    return __fsqrt_rn(x);
#else
    return sqrtf(x);
#endif
}

HD float adam(const zinf_coefficients &c, float w, float g, float &m, float &v)
{
    g = fused(c.l2, w, g);
    m = fused(c.beta1, m, times(c.one_minus_beta1, g));
    v = fused(c.beta2, v, times(c.one_minus_beta2, times(g, g)));
    const float denominator = fused(root(v), c.root_factor, c.epsilon);
    w = fused(-c.shrink, w, w);
    return fused(-c.step_size, divided(m, denominator), w);
}

HD float adagrad(const zinf_coefficients &c, float w, float g, float &sum)
{
    g = fused(c.l2, w, g);
    sum = fused(g, g, sum);
    return fused(-c.learning_rate, divided(g, root(sum) + c.epsilon), w);
}

HD float lion(const zinf_coefficients &c, float w, float g, float &m)
{
    const float move = fused(c.beta1, m, times(c.one_minus_beta1, g));
    m = fused(c.beta2, m, times(c.one_minus_beta2, g));
    w = fused(-c.shrink, w, w);
    return w - (move > 0.0f ? c.learning_rate : move < 0.0f ? -c.learning_rate : move - move); /* 0, or NaN */
}

HD float sgd(const zinf_coefficients &c, float w, float g, float &buffer)
{
    g = fused(c.l2, w, g);
    if (c.momentum == 0.0f)
        return fused(-c.learning_rate, g, w);
    buffer = c.first_step ? g : fused(c.momentum, buffer, times(c.one_minus_dampening, g));
    return fused(-c.learning_rate, c.nesterov ? fused(c.momentum, buffer, g) : buffer, w);
}

/** state0: exp_avg, sum, exp_avg or momentum_buffer; state1: exp_avg_sq of Adam. */
template <zinf_optimizer OPTIMIZER>
HD float update_element(const zinf_coefficients &c, float w, float g, float &state0, float &state1)
{
    g = times(g, c.gradient_scale);
    return OPTIMIZER == ZINF_ADAM      ? adam(c, w, g, state0, state1)
           : OPTIMIZER == ZINF_ADAGRAD ? adagrad(c, w, g, state0)
           : OPTIMIZER == ZINF_LION    ? lion(c, w, g, state0)
                                       : sgd(c, w, g, state0);
}

} // namespace zinf_cuda

#endif
