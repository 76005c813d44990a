/*
 * Elementary functions on vectors, within about 2 units in the last place of fp32
 * (tests/test_cpu_math.cc holds them against libm's doubles). Own polynomials: libm's vector
 * variants are not there on every machine and differ between instruction sets. The coefficients
 * were fitted for zinf by weighted least squares iterated to the smallest largest relative error
 * (Lawson's method), 40 digits, and rounded to fp32.
 */
#ifndef ZINF_CPU_VMATH_H
#define ZINF_CPU_VMATH_H

#include "cpu/vec.h"

/**
 * e^x. x = n ln2 + r, |r| <= ln2 / 2; e^r = 1 + r + r^2 q(r); times 2^n in two factors, so that
 * subnormal results come out too. Error of the polynomial 0.05 ulp. Above 88.73 infinity, below
 * -103.98 zero, NaN stays.
 */
INLINE vfloat vexp(vfloat x)
{
    x = vmin(vmax(x, all(-104.0f)), all(89.0f));
    /* adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits */
    vfloat shifted = x * 0x1.715476p+0f + 0x1.8p23f;
    vfloat n = shifted - 0x1.8p23f;
    vfloat r =
        x - n * 0x1.62e400p-1f; /* ln2 in two parts, the first with 15 bits: n times it is exact */
    r = r - n * 0x1.7f7d1cp-20f;
    vfloat q = 0.0013814467238262296f * r + 0.008368780836462975f;
    q = q * r + 0.04166839271783829f;
    q = q * r + 0.1666651964187622f;
    q = q * r + 0.4999999403953552f;
    vfloat y = (q * (r * r) + r) + 1.0f;
    vint exponent = (vint)shifted - 0x4b400000;
    vint half = exponent >> 1;
    y = y * (vfloat)((half + 127) << 23);
    return y * (vfloat)((exponent - half + 127) << 23);
}

/** 1 / (1 + e^-x); below -88 zero. */
INLINE vfloat vsigmoid(vfloat x)
{
    return 1.0f / (1.0f + vexp(-x));
}

INLINE vfloat with_sign_of(vfloat magnitude, vfloat sign)
{
    return (vfloat)((vuint)magnitude | ((vuint)sign & 0x80000000u));
}

/** |x| < 0.55: x + x s P(s), s = x^2; else 1 - 2 / (e^2|x| + 1) with the sign of x. */
INLINE vfloat vtanh(vfloat x)
{
    vfloat t = vabs(x), s = x * x;
    vfloat p = -0.0062742396257817745f * s + 0.021071678027510643f;
    p = p * s - 0.05385230854153633f;
    p = p * s + 0.13332585990428925f;
    p = p * s - 0.33333316445350647f;
    vfloat small = x + x * (s * p);
    vfloat large = 1.0f - 2.0f / (vexp(t + t) + 1.0f);
    return choose(t < 0.55f, small, with_sign_of(large, x));
}

/** |x| < 0.9: x + x P(x^2); else 1 - e^(-x Q(x)) with the sign of x. */
INLINE vfloat verf(vfloat x)
{
    vfloat t = vabs(x), s = x * x;
    vfloat p = -0.0006090360111556947f * s + 0.005011962726712227f;
    p = p * s - 0.02677890844643116f;
    p = p * s + 0.11282140761613846f;
    p = p * s - 0.3761252462863922f;
    p = p * s + 0.12837915122509003f;
    vfloat small = x + x * p;
    t = vmin(t, all(4.0f)); /* 1 - erf(4) = 1.5e-8: already 1 in fp32 */
    vfloat q = -0.0002145949547411874f * t + 0.0032199749257415533f;
    q = q * t - 0.022906029596924782f;
    q = q * t + 0.1052868515253067f;
    q = q * t + 0.6356993913650513f;
    q = q * t + 1.1285200119018555f;
    vfloat large = 1.0f - vexp(-(t * q));
    return choose(vabs(x) < 0.9f, small, with_sign_of(large, x));
}

#endif
