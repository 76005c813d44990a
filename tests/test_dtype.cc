// Element types: roundings are held against arithmetic in double, over all 65536 patterns and
// around every boundary between two.
#include "base/dtype.h"

#include <cmath>
#include <cstring>
#include <gtest/gtest.h>
#include <limits>
#include <vector>

namespace
{
struct Format {
    uint16_t (*from)(float);
    float (*to)(uint16_t);
    int mantissa, bias;
};
const Format formats[] = {{zinf_fp16_from_float, zinf_fp16_to_float, 10, 15},
                          {zinf_bf16_from_float, zinf_bf16_to_float, 7, 127}};

bool infinite(const Format &f, uint16_t bits)
{
    return (bits & 0x7fff) >> f.mantissa == 2 * f.bias + 1;
}

// The value of a pattern from the definition of the format.
double value_of(const Format &f, uint16_t bits)
{
    int exponent = (bits & 0x7fff) >> f.mantissa, mantissa = bits & ((1 << f.mantissa) - 1);
    double size = exponent
                      ? std::ldexp(mantissa + (1 << f.mantissa), exponent - f.bias - f.mantissa)
                      : std::ldexp(mantissa, 1 - f.bias - f.mantissa);
    if (exponent == 2 * f.bias + 1)
        size = mantissa ? NAN : INFINITY;
    return bits & 0x8000 ? -size : size;
}

TEST(Dtype, EveryPatternHasTheValueOfItsFormatAndComesBack)
{
    for (const Format &f : formats)
        for (int bits = 0; bits < 65536; bits++) {
            double expected = value_of(f, bits);
            float value = f.to(bits);
            if (std::isnan(expected)) {
                ASSERT_TRUE(std::isnan(value)) << bits;
                ASSERT_TRUE(std::isnan(f.to(f.from(value)))) << bits;
                ASSERT_EQ(f.from(value) & 0x8000, bits & 0x8000);
            } else {
                ASSERT_EQ(value, (float)expected) << bits;
                ASSERT_EQ(std::signbit(value), (bits & 0x8000) != 0);
                ASSERT_EQ(f.from(value), bits);
            }
        }
}

// Between two neighbours the middle goes to the even one, a float below it down, above it up.
TEST(Dtype, RoundsToNearestTiesToEvenBetweenAllNeighbours)
{
    for (const Format &f : formats)
        for (int low = 0; !infinite(f, low); low++) {
            double next = infinite(f, low + 1) ? std::ldexp(1.0, f.bias + 1) : value_of(f, low + 1);
            float middle = (float)((value_of(f, low) + next) / 2);
            int even = low % 2 ? low + 1 : low;
            ASSERT_EQ(f.from(middle), even) << low;
            ASSERT_EQ(f.from(-middle), even | 0x8000) << low;
            ASSERT_EQ(f.from(std::nextafter(middle, 0.0f)), low) << low;
            ASSERT_EQ(f.from(std::nextafter(middle, INFINITY)), low + 1) << low;
        }
}

TEST(Dtype, NanKeepsBeingNanWhateverItsPayload)
{
    for (uint32_t bits : {0x7f800001u, 0x7fc00000u, 0xffffffffu, 0xff800001u, 0x7f810000u}) {
        float value;
        std::memcpy(&value, &bits, 4);
        for (const Format &f : formats)
            EXPECT_TRUE(std::isnan(f.to(f.from(value)))) << std::hex << bits;
    }
}

TEST(Dtype, OverflowIsInfinityAndUnderflowIsSignedZero)
{
    for (const Format &f : formats) {
        EXPECT_TRUE(std::isinf(f.to(f.from(std::numeric_limits<float>::max()))));
        EXPECT_TRUE(std::isinf(f.to(f.from(-INFINITY))));
        EXPECT_EQ(f.from(-0.0f), 0x8000);
    }
    EXPECT_EQ(zinf_fp16_from_float(1e-30f), 0);
    EXPECT_EQ(zinf_fp16_from_float(-1e-30f), 0x8000);
}

TEST(Dtype, NamesParseBothWaysAndNothingElse)
{
    for (int i = 0; i < 3; i++) {
        enum zinf_dtype dtype;
        ASSERT_EQ(zinf_dtype_parse(zinf_dtype_name((enum zinf_dtype)i), &dtype), 0);
        EXPECT_EQ(dtype, i);
    }
    enum zinf_dtype dtype = ZINF_FP32;
    EXPECT_EQ(zinf_dtype_parse("bfloat16", &dtype), 0);
    EXPECT_EQ(dtype, ZINF_BF16);
    for (const char *wrong : {"", "fp8", "FP32", "float", "half"})
        EXPECT_EQ(zinf_dtype_parse(wrong, &dtype), -1) << wrong;
    EXPECT_EQ(dtype, ZINF_BF16) << "out-parameters change only on success";
}

TEST(Dtype, ConvertIsTheElementConversionForAllPairs)
{
    std::vector<float> source = {0, 1, -2.5f, 3.14159f, 70000, 1e-6f, INFINITY};
    for (int from = 0; from < 3; from++)
        for (int to = 0; to < 3; to++) {
            std::vector<float> a(source.size()), b(source.size()), back(source.size());
            auto type = [](int i) { return (enum zinf_dtype)i; };
            zinf_dtype_convert(a.data(), type(from), source.data(), ZINF_FP32, source.size());
            zinf_dtype_convert(b.data(), type(to), a.data(), type(from), source.size());
            zinf_dtype_convert(back.data(), ZINF_FP32, b.data(), type(to), source.size());
            for (size_t i = 0; i < source.size(); i++) {
                auto round = [&](int t, float x) {
                    return t == 0 ? x : formats[t - 1].to(formats[t - 1].from(x));
                };
                EXPECT_EQ(back[i], round(to, round(from, source[i]))) << from << to << i;
            }
        }
}
} // namespace
