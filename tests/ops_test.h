/*
 * What the tests of operations share: every test body runs for every table of operations (the CPU's
 * instruction sets, the CUDA kernels emulated on the CPU, every device that is compiled in) in every
 * element type, against a plain reference in double on the same rounded inputs. A device that is not
 * there is skipped, with the reason.
 *
 * Tolerances come from the types: an output is rounded once to its type (unit roundoff u: half a
 * unit in the last place) and is computed in fp32 from terms whose absolute values add up to
 * `size`; so |error| <= u |value| + c u32 size, c a small number that grows with the number of
 * operations on the way.
 */
#ifndef ZINF_TESTS_OPS_TEST_H
#define ZINF_TESTS_OPS_TEST_H

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "device/device.h"
#include "tests/cuda_emulated.h"
#include "tests/device_memory.h"

namespace ops_test
{

const double u32 = std::ldexp(1.0, -24);

inline double roundoff(zinf_dtype dtype)
{
    return dtype == ZINF_FP32 ? u32 : std::ldexp(1.0, dtype == ZINF_BF16 ? -8 : -11);
}

/** Half the distance of subnormal numbers: what rounding may cost near zero. */
inline double smallest(zinf_dtype dtype)
{
    return dtype == ZINF_FP16 ? std::ldexp(1.0, -25) : std::ldexp(1.0, -133);
}

/** A matrix or vector in the memory of an operation. Guard elements behind it show writes past the
 * end. */
class Array
{
  public:
    Array(zinf_dtype dtype, size_t count) : dtype_(dtype), count_(count)
    {
        bytes_.assign((count + guard) * zinf_dtype_bytes(dtype), 0x5a);
    }
    Array(zinf_dtype dtype, const std::vector<double> &values) : Array(dtype, values.size())
    {
        for (size_t i = 0; i < values.size(); i++)
            set(i, values[i]);
    }
    void *data()
    {
        return bytes_.data();
    }
    const void *data() const
    {
        return bytes_.data();
    }
    size_t size() const
    {
        return count_;
    }
    zinf_dtype dtype() const
    {
        return dtype_;
    }
    void set(size_t i, double value)
    {
        float narrow = (float)value;
        zinf_dtype_convert(bytes_.data() + i * zinf_dtype_bytes(dtype_), dtype_, &narrow, ZINF_FP32,
                           1);
    }
    double operator[](size_t i) const
    {
        float wide;
        zinf_dtype_convert(&wide, ZINF_FP32, bytes_.data() + i * zinf_dtype_bytes(dtype_), dtype_,
                           1);
        return wide;
    }
    bool guard_is_whole() const
    {
        for (size_t i = count_ * zinf_dtype_bytes(dtype_); i < bytes_.size(); i++)
            if (bytes_[i] != 0x5a)
                return false;
        return true;
    }
    bool operator==(const Array &other) const
    {
        return bytes_ == other.bytes_;
    }

  private:
    static const size_t guard = 64;
    zinf_dtype dtype_;
    size_t count_;
    Vector<unsigned char> bytes_;
};

inline Array normal(zinf_dtype dtype, size_t count, unsigned seed, double std_deviation = 1.0)
{
    std::mt19937 generator(seed);
    std::normal_distribution<double> distribution(0.0, std_deviation);
    Array array(dtype, count);
    for (size_t i = 0; i < count; i++)
        array.set(i, distribution(generator));
    return array;
}

inline std::vector<double> values(const Array &array)
{
    std::vector<double> wide(array.size());
    for (size_t i = 0; i < wide.size(); i++)
        wide[i] = array[i];
    return wide;
}

/** What a test runs with. */
struct Backend {
    const zinf_ops *ops;
    zinf_dtype dtype;
    const zinf_device_backend *device; /* NULL: an instruction set of the CPU, or the emulation */
    bool half_products; /* 16-bit attention rounds probabilities to its type, as tensor cores need */
};

inline std::string backend_name(const testing::TestParamInfo<Backend> &info)
{
    std::string name = std::string(info.param.ops->name) + "_" + zinf_dtype_name(info.param.dtype);
    for (char &c : name)
        if (!isalnum((unsigned char)c))
            c = '_';
    return name;
}

/** What dropout multiplies an element with: rng.h's definition, word by word. */
inline double dropout_factor(const zinf_dropout &d, uint64_t sample, uint64_t element)
{
    if (d.p == 0.0f)
        return 1.0;
    uint64_t group = element / 4;
    uint32_t counter[4] = {(uint32_t)group, ((uint32_t)(group >> 32) & 0xfff) | d.place << 12,
                           d.sample + (uint32_t)sample, d.step};
    uint32_t word[4];
    zinf_rng_philox(counter, d.key, word);
    return word[element % 4] >= (uint64_t)((double)d.p * 4294967296.0) ? 1.0 / (1.0 - d.p) : 0.0;
}

inline std::vector<Backend> all_backends(const std::vector<Backend> &more = {})
{
    std::vector<Backend> backends;
    for (zinf_dtype dtype : {ZINF_FP32, ZINF_FP16, ZINF_BF16}) {
        for (const zinf_ops *const *ops = zinf_cpu_ops_all(); *ops; ops++)
            backends.push_back({*ops, dtype, nullptr, false});
        backends.push_back({cuda_emulated_ops(), dtype, nullptr, dtype != ZINF_FP32});
        for (const zinf_device_backend *const *d = zinf_device_backends(); *d; d++)
            if (*d != &zinf_cpu_device)
                backends.push_back({(*d)->operations(), dtype, *d, dtype != ZINF_FP32});
    }
    backends.insert(backends.end(), more.begin(), more.end());
    return backends;
}

class Ops : public testing::TestWithParam<Backend>
{
  protected:
    const zinf_ops *ops = GetParam().ops;
    zinf_dtype dtype = GetParam().dtype;

    void SetUp() override
    {
        if (GetParam().device && !DeviceMemory::instance().why_not(GetParam().device).empty())
            GTEST_SKIP() << DeviceMemory::instance().why_not(GetParam().device);
    }

    /** |got - value| <= u |value| + c u32 size */
    void expect_near(const Array &got, size_t i, double value, double size, double c = 8.0) const
    {
        double bound =
            roundoff(got.dtype()) * std::fabs(value) + c * u32 * size + smallest(got.dtype());
        ASSERT_LE(std::fabs(got[i] - value), bound)
            << "element " << i << ": " << got[i] << " is not " << value;
    }
};

/** True for the first file of a program that asks: tests/test_gpu has several of these files, whose tests are all of the suite Ops and want
 * the tables once. */
inline bool first_of_program()
{
    static bool asked;
    bool first = !asked;
    asked = true;
    return first;
}

} // namespace ops_test

/** On all backends, and on those that are named here. */
#define INSTANTIATE_OPS_TESTS(...)                                                                 \
    static const std::vector<ops_test::Backend> ops_backends =                                     \
        ops_test::first_of_program() ? ops_test::all_backends({__VA_ARGS__})                       \
                                     : std::vector<ops_test::Backend>();                           \
    INSTANTIATE_TEST_SUITE_P(Backends, Ops, testing::ValuesIn(ops_backends),                       \
                             ops_test::backend_name)

#endif
