// Inputs of layers: whatever the tier, the number of windows and of layers, the backward pass finds
// what the forward pass made; the bytes are the plan's; what fails or is wrong names layer and
// micro-batch.
#include "set_fault.h"
#include "temporary_folder.hh"
#include "zero/activations.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <string>
#include <tuple>
#include <unistd.h>
#include <vector>

namespace
{
struct Inputs {
    zinf_activations activations = {};
    zinf_pool device = {}, host = {};
    size_t counted[2];

    Inputs(const std::string &folder, zinf_tier tier, int layers, int buffers, size_t bytes,
           size_t window_bytes, const char *engine = nullptr)
    {
        zinf_activations_options options = {};
        options.layers = layers;
        options.input_bytes = bytes;
        options.window_bytes = window_bytes;
        options.tier = tier;
        options.buffers = buffers;
        options.folder = folder.c_str();
        options.checksums = true;
        options.engine = engine;
        options.io.queue_depth = 4;
        options.io.block_bytes = 64 * 1024;
        options.io.threads = 2;
        zinf_error error = {};
        zinf_activations_layout(&activations, &options, &device, &host);
        counted[0] = device.used_bytes;
        counted[1] = host.used_bytes;
        EXPECT_EQ(zinf_pool_open(&device), 0);
        EXPECT_EQ(zinf_pool_open(&host), 0);
        zinf_activations_layout(&activations, &options, &device, &host);
        EXPECT_EQ(zinf_activations_open(&activations, &error), 0) << error.text;
    }
    ~Inputs()
    {
        zinf_activations_close(&activations);
        zinf_pool_close(&device);
        zinf_pool_close(&host);
    }
    Inputs(const Inputs &) = delete;
    Inputs &operator=(const Inputs &) = delete;

    static unsigned char value(int micro, int layer, size_t at)
    {
        return (unsigned char)(17 * (micro + 2) + 31 * layer + at % 251 + at / 4096);
    }
    void make(int micro, int layer, size_t bytes)
    {
        auto *x = (unsigned char *)zinf_activations_make(&activations, layer);
        for (size_t i = 0; i < bytes; i++)
            x[i] = value(micro, layer, i);
        zinf_activations_made(&activations, layer);
    }
    bool right(int micro, int layer, size_t bytes)
    {
        auto *x = (const unsigned char *)zinf_activations_input(&activations, layer);
        for (size_t i = 0; i < bytes; i++)
            if (x[i] != value(micro, layer, i))
                return false;
        return true;
    }
    // As a step does it; the input of a layer must still be there when the layer has made the next.
    void forward(int micro, size_t bytes)
    {
        int layers = activations.options.layers;
        zinf_activations_begin(&activations, micro);
        make(micro, 0, bytes);
        for (int layer = 0; layer < layers; layer++) {
            make(micro, layer + 1, bytes);
            EXPECT_TRUE(right(micro, layer, bytes)) << "forward, layer " << layer;
        }
        EXPECT_TRUE(right(micro, layers, bytes)) << "the final norm's";
    }
    void backward(int micro, size_t bytes)
    {
        EXPECT_TRUE(right(micro, activations.options.layers, bytes)) << "the final norm's";
        for (int layer = activations.options.layers - 1; layer >= 0; layer--) {
            EXPECT_TRUE(right(micro, layer, bytes)) << "micro-batch " << micro << ", " << layer;
            zinf_activations_drop(&activations, layer);
        }
    }
};

class ActivationsTest : public testing::Test
{
  protected:
    void SetUp() override
    {
        set_fault("");
    }
    void TearDown() override
    {
        set_fault("");
    }
    TemporaryFolder folder;
};

using Shape = std::tuple<zinf_tier, int, int>;
class ActivationsShapes : public testing::TestWithParam<Shape>
{
  protected:
    TemporaryFolder folder;
};

TEST_P(ActivationsShapes, BackwardFindsWhatForwardMade)
{
    const size_t bytes = 10000, larger = 30000;
    auto [tier, layers, buffers] = GetParam();
    Inputs inputs(folder.path(), tier, layers, buffers, bytes, larger);
    for (int step = 0; step < 2; step++) {
        for (int micro = 0; micro < 3; micro++) {
            inputs.forward(micro, bytes);
            inputs.backward(micro, bytes);
        }
        inputs.forward(-1, larger); // an evaluation between two steps
    }
    const zinf_activations &a = inputs.activations;
    int windows = std::min(layers, tier == ZINF_TIER_NVME ? std::max(buffers, 2) : layers);
    int64_t moved = tier == ZINF_TIER_NVME ? int64_t(layers - windows) * 12288 : 0;
    EXPECT_EQ(a.window_count, windows);
    EXPECT_EQ(zinf_activations_traffic(&a, 3), 3 * moved);
    EXPECT_EQ(a.read_bytes, 2 * 3 * moved);
    EXPECT_EQ(a.write_bytes, 2 * 3 * moved);
    EXPECT_EQ(a.bytes.nvme, size_t(moved));
    EXPECT_EQ(inputs.device.used_bytes, inputs.counted[0]);
    EXPECT_EQ(inputs.host.used_bytes, inputs.counted[1]);
    EXPECT_EQ(a.bytes.device, inputs.counted[0]);
    EXPECT_EQ(a.bytes.host, inputs.counted[1]);
    EXPECT_EQ(tier == ZINF_TIER_DEVICE, a.bytes.host == 0);
    EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

INSTANTIATE_TEST_SUITE_P(
    All, ActivationsShapes,
    testing::Combine(testing::Values(ZINF_TIER_DEVICE, ZINF_TIER_HOST, ZINF_TIER_NVME),
                     testing::Values(1, 2, 3, 5, 12), testing::Values(1, 2, 3, 4, 7, 20)));

TEST_F(ActivationsTest, AnEvaluationAloneHasTwoWindows)
{
    Inputs inputs(folder.path(), ZINF_TIER_NVME, 12, 4, 0, 5000);
    EXPECT_EQ(inputs.activations.bytes.host, 0u);
    EXPECT_LE(inputs.activations.bytes.device, size_t(3 * 5000 + 3 * 64));
    inputs.forward(-1, 5000);
    EXPECT_EQ(inputs.activations.swap, nullptr);
}

TEST_F(ActivationsTest, ReadsGoAheadOfTheBackwardPassUnlessOneBufferIsAsked)
{
    for (int buffers : {1, 4}) {
        Inputs inputs(folder.path(), ZINF_TIER_NVME, 8, buffers, 4096, 4096);
        inputs.forward(0, 4096);
        EXPECT_EQ(inputs.activations.read_bytes, 0);
        inputs.right(0, 7, 4096);
        zinf_activations_drop(&inputs.activations, 7);
        EXPECT_EQ(inputs.activations.read_bytes, buffers == 1 ? 0 : 4096);
        for (int layer = 6; layer >= 0; layer--) {
            EXPECT_TRUE(inputs.right(0, layer, 4096));
            zinf_activations_drop(&inputs.activations, layer);
        }
    }
}

// The forward pass does not wait for the write that has just begun: with three windows a slow drive
// shows when the fourth input is made, not before.
TEST_F(ActivationsTest, WritesGoBehindTheForwardPass)
{
    Inputs inputs(folder.path(), ZINF_TIER_NVME, 8, 3, 4096, 4096);
    set_fault("op=write,n=1,delay_us=300000");
    zinf_activations_begin(&inputs.activations, 0);
    for (int layer = 0; layer < 3; layer++)
        inputs.make(0, layer, 4096);
    EXPECT_EQ(inputs.activations.waited_s, 0);
    inputs.make(0, 3, 4096);
    EXPECT_GT(inputs.activations.waited_s, 0.1);
    for (int layer = 4; layer <= 8; layer++)
        inputs.make(0, layer, 4096);
    inputs.backward(0, 4096);
}

TEST_F(ActivationsTest, AFailedTransferNamesLayerAndMicroBatch)
{
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    for (const zinf_aio_engine *const *engine = zinf_aio_engines(); *engine; engine++) {
        EXPECT_EXIT(
            {
                Inputs inputs(folder.path(), ZINF_TIER_NVME, 6, 2, 9000, 9000, (*engine)->name);
                inputs.forward(0, 9000);
                inputs.backward(0, 9000);
                set_fault("op=write,n=3,err=EIO");
                inputs.forward(1, 9000);
            },
            testing::ExitedWithCode(1),
            "swap file in .*: write of 12288 bytes at offset 24576 .extent 2: input of layer 2, "
            "micro-batch 1.*Input/output error");
        EXPECT_EXIT(
            {
                Inputs inputs(folder.path(), ZINF_TIER_NVME, 6, 2, 9000, 9000, (*engine)->name);
                inputs.forward(4, 9000);
                set_fault("op=read,n=2,err=EIO");
                inputs.backward(4, 9000);
            },
            testing::ExitedWithCode(1),
            "read of 12288 bytes at offset 24576 .extent 2: input of layer 2, micro-batch 4.*"
            "Input/output error");
    }
}

// The newest nameless file of this process, once more.
int swap_descriptor()
{
    for (int i = 255; i > 2; i--) {
        std::string link = "/proc/self/fd/" + std::to_string(i);
        char target[512] = "";
        if (readlink(link.c_str(), target, sizeof target - 1) > 0 && strstr(target, " (deleted)"))
            return open(link.c_str(), O_RDWR);
    }
    return -1;
}

TEST_F(ActivationsTest, FlippedBytesAreFound)
{
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    EXPECT_EXIT(
        {
            Inputs inputs(folder.path(), ZINF_TIER_NVME, 6, 2, 9000, 9000);
            inputs.forward(3, 9000);
            int descriptor = swap_descriptor();
            if (pwrite(descriptor, "\xff\xff\xff\xff", 4, 12288 + 777) != 4 || fsync(descriptor))
                _exit(9);
            close(descriptor);
            inputs.backward(3, 9000);
        },
        testing::ExitedWithCode(1), "extent 1: input of layer 1, micro-batch 3.*checksum is wrong");
}

TEST_F(ActivationsTest, AFolderThatIsMissingIsTheUsersError)
{
    zinf_activations a = {};
    zinf_activations_options options = {};
    zinf_pool device = {}, host = {};
    std::string missing = folder / "missing";
    options.layers = 6;
    options.input_bytes = options.window_bytes = 4096;
    options.tier = ZINF_TIER_NVME;
    options.buffers = 2;
    options.folder = missing.c_str();
    zinf_error error = {};
    zinf_activations_layout(&a, &options, &device, &host);
    EXPECT_EQ(zinf_activations_open(&a, &error), ZINF_E_USAGE);
    EXPECT_NE(strstr(error.text, "missing"), nullptr) << error.text;
    zinf_activations_close(&a);
}
} // namespace
