/*
 * The table of devices: the same life for every backend that is compiled in, and the choice among
 * them. A backend without a device here is skipped, with the reason.
 */
#include "device/device.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace
{

class Devices : public testing::TestWithParam<const zinf_device_backend *>
{
  protected:
    const zinf_device_backend *backend = GetParam();
    zinf_device device = {};

    void SetUp() override
    {
        char why[512];
        zinf_error error = {};
        zinf_device_options options = {};
        options.event_count = 4, options.scratch_bytes = 1 << 20;
        if (backend->list(nullptr, 0, why, sizeof why) == 0)
            GTEST_SKIP() << "no device: " << why;
        ASSERT_EQ(0, backend->open(&device, &options, &error)) << error.text;
        backend->use(&device, ZINF_STREAM_COMPUTE);
    }
    void TearDown() override
    {
        backend->close(&device);
    }
};

std::vector<const zinf_device_backend *> backends()
{
    std::vector<const zinf_device_backend *> all;
    for (int i = 0; zinf_device_backends()[i]; i++)
        all.push_back(zinf_device_backends()[i]);
    return all;
}

std::string name_of(const testing::TestParamInfo<const zinf_device_backend *> &info)
{
    return info.param->name;
}

} // namespace

TEST_P(Devices, SayWhatTheyAre)
{
    EXPECT_STRNE("", device.properties.name);
    EXPECT_EQ(backend, device.backend);
    EXPECT_NE(nullptr, backend->operations()->name);
}

TEST_P(Devices, MemoryIsAlignedAndZero)
{
    for (size_t bytes : {(size_t)1, (size_t)4096, (size_t)100001}) {
        std::vector<char> back(bytes, 'x');
        char *memory = (char *)backend->allocate(&device, bytes);
        ASSERT_NE(nullptr, memory);
        EXPECT_EQ(0u, (uintptr_t)memory % 4096);
        ASSERT_EQ(0, backend->pin(&device, back.data(), bytes));
        backend->copy(&device, ZINF_STREAM_COPY_OUT, back.data(), memory, bytes);
        backend->record(&device, 0, ZINF_STREAM_COPY_OUT);
        backend->wait(&device, ZINF_STREAM_HOST, 0);
        EXPECT_EQ(std::vector<char>(bytes, 0), back);
        backend->close(&device); /* unpins before `back` goes */
        SetUp();
    }
}

TEST_P(Devices, LanesWaitForEachOthersEvents)
{
    const size_t count = 1 << 20;
    std::vector<float> host(count), back(count);
    for (size_t i = 0; i < count; i++)
        host[i] = (float)i;
    float *memory = (float *)backend->allocate(&device, count * sizeof(float));
    ASSERT_EQ(0, backend->pin(&device, host.data(), count * sizeof(float)));
    ASSERT_EQ(0, backend->pin(&device, back.data(), count * sizeof(float)));
    backend->copy(&device, ZINF_STREAM_COPY_IN, memory, host.data(), count * sizeof(float));
    backend->record(&device, 0, ZINF_STREAM_COPY_IN);
    backend->wait(&device, ZINF_STREAM_COMPUTE, 0);
    const zinf_scale twice = {ZINF_FP32, (int64_t)count, 2.0f};
    backend->operations()->scale(&twice, memory);
    backend->record(&device, 1, ZINF_STREAM_COMPUTE);
    backend->wait(&device, ZINF_STREAM_COPY_OUT, 1);
    backend->copy(&device, ZINF_STREAM_COPY_OUT, back.data(), memory, count * sizeof(float));
    backend->record(&device, 2, ZINF_STREAM_COPY_OUT);
    while (!backend->reached(&device, 2))
        std::this_thread::yield();
    for (size_t i = 0; i < count; i++)
        ASSERT_EQ(2.0f * host[i], back[i]);
    EXPECT_TRUE(device.properties.host_addressable || backend->elapsed(&device, 0, 2) >= 0);
    backend->close(&device);
}

TEST_P(Devices, RecordingsDoWhatTheirCallsDid)
{
    struct Work {
        const zinf_device_backend *backend;
        float *memory;
        float factor;
    };
    const auto issue = [](void *context) {
        const auto *work = static_cast<Work *>(context);
        const zinf_scale op = {ZINF_FP32, 1024, work->factor};
        for (int i = 0; i < 3; i++)
            work->backend->operations()->scale(&op, work->memory);
    };
    if (!backend->recorder)
        GTEST_SKIP() << "the " << backend->name << " device records nothing";
    std::vector<float> host(1024, 1), back(1024);
    Work work = {backend, (float *)backend->allocate(&device, 4096), 2};
    zinf_error error = {};
    size_t bytes = 0;
    backend->copy(&device, ZINF_STREAM_COMPUTE, work.memory, host.data(), 4096);
    issue(&work); /* x 8 */
    void *made = backend->recorder->record(&device, issue, &work, &bytes, &error);
    ASSERT_NE(nullptr, made) << error.text;
    work.factor = 100; /* what is recorded stays */
    for (int i = 0; i < 2; i++)
        backend->recorder->launch(&device, made); /* x 64 */
    backend->copy(&device, ZINF_STREAM_COMPUTE, back.data(), work.memory, 4096);
    backend->record(&device, 0, ZINF_STREAM_COMPUTE);
    backend->wait(&device, ZINF_STREAM_HOST, 0);
    EXPECT_EQ(std::vector<float>(1024, 512), back);
    backend->recorder->release(&device, made);
}

TEST_P(Devices, OperationsOfAnotherThreadGoToItsLane)
{
    float *memory = (float *)backend->allocate(&device, 4096);
    const zinf_scan scan = {ZINF_FP32, 1024};
    double sum = -1;
    std::thread([&] {
        backend->use(&device, ZINF_STREAM_COMMUNICATION);
        sum = backend->operations()->square_sum(&scan, memory);
    }).join();
    EXPECT_EQ(0.0, sum);
}

TEST_P(Devices, ASumOfSquaresThatStaysOnTheDeviceIsTheOneTheHostIsGiven)
{
    std::vector<float> x(5000);
    double here = -1;
    for (size_t i = 0; i < x.size(); i++)
        x[i] = std::sin((float)i);
    const zinf_scan scan = {ZINF_FP32, (int64_t)x.size()};
    if (!backend->square_sum)
        GTEST_SKIP() << "the host addresses the memory of " << backend->name;
    float *memory = (float *)backend->allocate(&device, x.size() * sizeof(float));
    double *sum = (double *)backend->allocate(&device, sizeof *sum);
    backend->copy(&device, ZINF_STREAM_COMPUTE, memory, x.data(), x.size() * sizeof(float));
    backend->square_sum(&device, &scan, memory, sum);
    backend->copy(&device, ZINF_STREAM_COMPUTE, &here, sum, sizeof here);
    backend->record(&device, 0, ZINF_STREAM_COMPUTE);
    backend->wait(&device, ZINF_STREAM_HOST, 0);
    EXPECT_EQ(backend->operations()->square_sum(&scan, memory), here);
}

/** Operands of a product on the host, where the CPU makes it, and on the device, as the key has
 * them. */
class Product
{
  public:
    Product(zinf_device *device, zinf_dtype dtype, int epilogue) : device_(device)
    {
        zinf_matmul op = {};
        op.dtype = op.c_dtype = dtype;
        op.m = 40, op.n = 24, op.k = 32, op.lda = op.ldb = 32, op.ldc = 24;
        op.transpose_b = true;
        if (epilogue == ZINF_PRODUCT_BIAS || epilogue == ZINF_PRODUCT_BIAS_GELU)
            op.bias = &op;
        if (epilogue == ZINF_PRODUCT_GELU || epilogue == ZINF_PRODUCT_BIAS_GELU)
            op.activated = &op;
        if (epilogue == ZINF_PRODUCT_SLOPE)
            op.slope_of = &op;
        zinf_product_of(&op, &key);
        for (int32_t &alignment : key.alignment)
            alignment = alignment ? 16 : 0;
        bytes_ = zinf_product_bytes(&key);
        host_.resize((bytes_ + 255) / 256 * 256 + 256);
        base_ = (char *)(((uintptr_t)host_.data() + 255) / 256 * 256);
        device_base_ = (char *)device->backend->allocate(device, bytes_);
        std::mt19937 random(5);
        std::uniform_real_distribution<float> uniform(-1, 1);
        std::vector<float> wide(bytes_ / zinf_dtype_bytes(dtype));
        for (float &x : wide)
            x = uniform(random);
        zinf_dtype_convert(base_, dtype, wide.data(), ZINF_FP32, (int64_t)wide.size());
        copy(device_base_, base_, ZINF_STREAM_COPY_IN);
    }
    zinf_matmul on_host()
    {
        return zinf_product_at(&key, base_);
    }
    zinf_matmul on_device()
    {
        return zinf_product_at(&key, device_base_);
    }
    /** || device - host || / || host || over all operands, those that are only read too */
    double distance(zinf_dtype dtype)
    {
        std::vector<char> back(bytes_);
        std::vector<float> a(bytes_ / zinf_dtype_bytes(dtype)), b(a.size());
        double difference = 0, size = 0;
        device_->backend->record(device_, 0, ZINF_STREAM_COMPUTE);
        device_->backend->wait(device_, ZINF_STREAM_COPY_OUT, 0);
        copy(back.data(), device_base_, ZINF_STREAM_COPY_OUT);
        zinf_dtype_convert(a.data(), ZINF_FP32, back.data(), dtype, (int64_t)a.size());
        zinf_dtype_convert(b.data(), ZINF_FP32, base_, dtype, (int64_t)b.size());
        for (size_t i = 0; i < a.size(); i++)
            difference += std::pow(a[i] - b[i], 2), size += std::pow(b[i], 2);
        return std::sqrt(difference / size);
    }
    zinf_product key;

  private:
    void copy(void *to, const void *from, zinf_stream stream)
    {
        device_->backend->copy(device_, stream, to, from, bytes_);
        device_->backend->record(device_, 1, stream);
        device_->backend->wait(device_, ZINF_STREAM_HOST, 1);
    }
    zinf_device *device_;
    std::vector<char> host_;
    char *base_, *device_base_;
    size_t bytes_;
};

TEST_P(Devices, AProductByTheAlgorithmThatWasChosenIsTheCpus)
{
    if (!backend->products)
        GTEST_SKIP() << "one way to make a product, or no library";
    for (zinf_dtype dtype : {ZINF_FP32, ZINF_FP16, ZINF_BF16})
        for (int epilogue = 0; epilogue < ZINF_PRODUCT_EPILOGUES; epilogue++) {
            Product product(&device, dtype, epilogue);
            zinf_products chosen = {};
            zinf_products_add(&chosen, &product.key);
            backend->products->measure(&device, chosen.items, 1);
            EXPECT_GT(chosen.items[0].bytes, 0);
            EXPECT_GT(chosen.items[0].seconds, 0);
            backend->products->take(&device, &chosen);
            const zinf_matmul here = product.on_host(), there = product.on_device();
            zinf_cpu_ops()->matmul(&here);
            backend->operations()->matmul(&there);
            EXPECT_LE(product.distance(dtype), dtype == ZINF_FP32   ? 1e-5
                                               : dtype == ZINF_FP16 ? 1e-3
                                                                    : 1e-2)
                << zinf_dtype_name(dtype) << ", epilogue " << epilogue
                << (chosen.items[0].fused ? ", fused" : "");
            zinf_products_release(&chosen);
            backend->close(&device); /* its memory */
            SetUp();
        }
}

TEST_P(Devices, ADeviceThatIsNotThereIsRefused)
{
    zinf_device other = {};
    zinf_device_options options = {};
    zinf_error error = {};
    backend->close(&device);
    options.index = 1000;
    EXPECT_NE(0, backend->open(&other, &options, &error));
    EXPECT_NE(nullptr, strstr(error.text, "1000")) << error.text;
}

INSTANTIATE_TEST_SUITE_P(Backends, Devices, testing::ValuesIn(backends()), name_of);

TEST(DeviceChoice, AutoTakesTheFirstBackendThatHasADevice)
{
    const zinf_device_backend *chosen = nullptr;
    zinf_error error = {};
    char why[512];
    ASSERT_EQ(0, zinf_device_choose("auto", &chosen, &error));
    for (const zinf_device_backend *backend : backends()) {
        if (backend == chosen)
            break;
        EXPECT_EQ(0, backend->list(nullptr, 0, why, sizeof why)) << backend->name;
    }
}

TEST(DeviceChoice, CpuIsAlwaysThere)
{
    const zinf_device_backend *chosen = nullptr;
    ASSERT_EQ(0, zinf_device_choose("cpu", &chosen, nullptr));
    EXPECT_EQ(&zinf_cpu_device, chosen);
}

TEST(DeviceChoice, WhatIsAskedForByNameIsThereOrRefusedWithTheReason)
{
    const zinf_device_backend *chosen = nullptr;
    zinf_error error = {};
    int status = zinf_device_choose("cuda", &chosen, &error);
    if (status == 0) {
        EXPECT_STREQ("cuda", chosen->name);
        return;
    }
    EXPECT_EQ(ZINF_E_USAGE, status);
    EXPECT_EQ(nullptr, chosen);
    EXPECT_EQ(0,
              strncmp("zinf.device: \"cuda\", but there is no such device here: ", error.text, 55))
        << error.text;
}

TEST(DeviceChoice, ScratchGrowsWithTheShape)
{
    const size_t floor = (size_t)32 << 20, sums = (size_t)4 * (1 << 20) * 64 * 128;
    zinf_device_shape shape = {128, 64, 2, 100, 2, 32, false};
    EXPECT_EQ(floor, zinf_device_scratch_bytes(&shape));
    shape = {1 << 20, 8192, 64, 50000, 0, 128, false};
    const size_t without = zinf_device_scratch_bytes(&shape);
    EXPECT_GE(without, (size_t)4 * (1 << 20) * 64);
    shape.samples = 1;
    EXPECT_GE(zinf_device_scratch_bytes(&shape), without + sums);
    shape.head_size = 64;
    EXPECT_LT(zinf_device_scratch_bytes(&shape), without + sums);
    shape.drops = true;
    EXPECT_GE(zinf_device_scratch_bytes(&shape), without + sums);
    shape.head_size = 192; /* each sum has one block, which needs no turns */
    EXPECT_EQ(without, zinf_device_scratch_bytes(&shape));
}

TEST(DeviceChoice, StreamsThatDoNotComputeHaveSmallScratch)
{
    const size_t floor = (size_t)32 << 20;
    EXPECT_EQ(ZINF_STREAM_COUNT * floor, zinf_device_streams_scratch(floor));
    EXPECT_EQ((ZINF_STREAM_COUNT + 9) * floor, zinf_device_streams_scratch(10 * floor));
    EXPECT_EQ((size_t)ZINF_STREAM_COUNT << 20, zinf_device_streams_scratch(1 << 20));
}
