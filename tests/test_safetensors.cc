/*
 * safetensors: a file of the reference library, hostile headers, folders with an index, and what we
 * write read back.
 */
#include "io/safetensors.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "base/json.h"
#include "set_fault.h"

namespace fs = std::filesystem;

static struct zinf_comm alone = [] {
    struct zinf_comm comm = {};
    comm.size = comm.local_size = 1;
    return comm;
}();

/* Written by safetensors.torch.save_file 0.5: a.weight F32, b BF16, c F16, d I64, e empty, f a
 * scalar. */
static const std::string reference_header =
    R"({"__metadata__":{"format":"pt"},"d":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},)"
    R"("f":{"dtype":"F64","shape":[],"data_offsets":[8,16]},)"
    R"("a.weight":{"dtype":"F32","shape":[2,2],"data_offsets":[16,32]},)"
    R"("e":{"dtype":"F32","shape":[0,3],"data_offsets":[32,32]},)"
    R"("b":{"dtype":"BF16","shape":[3],"data_offsets":[32,38]},)"
    R"("c":{"dtype":"F16","shape":[2],"data_offsets":[38,42]}}      )";
static const unsigned char reference_data[] = {
    0x07, 0,    0,    0,    0,    0,    0,    0,    0,    0,    0, 0,    0,    0,
    0x04, 0x40, 0,    0,    0x80, 0x3f, 0,    0,    0x20, 0xc0, 0, 0,    0x50, 0x40,
    0x77, 0xcc, 0x2b, 0x32, 0x80, 0x3f, 0x49, 0xc0, 0x80, 0x7f, 0, 0x38, 0xff, 0x7b};

static std::string with_length(const std::string &header, const std::string &data)
{
    uint64_t length = header.size();
    return std::string(reinterpret_cast<char *>(&length), 8) + header + data;
}

static std::string one(const std::string &tensor, size_t bytes)
{
    return with_length("{" + tensor + "}", std::string(bytes, '\1'));
}

class Safetensors : public ::testing::Test
{
  protected:
    fs::path folder;
    struct zinf_error error = {};
    struct zinf_safetensors weights = {};

    void SetUp() override
    {
        char name[] = "/tmp/zinf-safetensors-XXXXXX";
        ASSERT_NE(mkdtemp(name), nullptr);
        folder = name;
    }
    void TearDown() override
    {
        set_fault("");
        zinf_safetensors_close(&weights);
        fs::remove_all(folder);
    }
    fs::path put(const std::string &name, const std::string &content)
    {
        fs::remove(folder / name); /* ext4 brings a file to disk that is cut and written again */
        std::ofstream(folder / name, std::ios::binary) << content;
        return folder / name;
    }
    int open(const fs::path &path)
    {
        zinf_safetensors_close(&weights);
        return zinf_safetensors_open(&weights, path.c_str(), &error);
    }
    std::vector<float> read(const char *name, int64_t offset, int64_t count)
    {
        std::vector<float> out(static_cast<size_t>(count), -99.0f);
        const struct zinf_safetensors_entry *entry = zinf_safetensors_find(&weights, name);
        EXPECT_NE(entry, nullptr) << name;
        EXPECT_EQ(entry ? zinf_safetensors_read(&weights, entry, offset, count, out.data(), &error)
                        : -1,
                  0)
            << error.text;
        return out;
    }
    bool says(const char *text) const
    {
        return strstr(error.text, text) != nullptr;
    }
};

TEST_F(Safetensors, AFileOfTheReferenceLibraryIsRead)
{
    ASSERT_EQ(open(put("x.safetensors",
                       with_length(reference_header,
                                   std::string(reinterpret_cast<const char *>(reference_data),
                                               sizeof reference_data)))),
              0)
        << error.text;
    EXPECT_EQ(weights.entry_count, 6);
    EXPECT_EQ(read("a.weight", 0, 4), (std::vector<float>{1.0f, -2.5f, 3.25f, 1e-8f}));
    EXPECT_EQ(read("a.weight", 1, 2), (std::vector<float>{-2.5f, 3.25f}));
    EXPECT_EQ(read("b", 0, 3), (std::vector<float>{1.0f, -3.140625f, INFINITY}));
    EXPECT_EQ(read("c", 0, 2), (std::vector<float>{0.5f, 65504.0f}));
    EXPECT_EQ(read("f", 0, 1), (std::vector<float>{2.5f}));
    EXPECT_EQ(read("e", 0, 0), (std::vector<float>{}));
    float out;
    EXPECT_EQ(
        zinf_safetensors_read(&weights, zinf_safetensors_find(&weights, "d"), 0, 1, &out, &error),
        ZINF_E_DATA);
    EXPECT_TRUE(says("I64")) << error.text;
    EXPECT_EQ(zinf_safetensors_find(&weights, "a.weigh"), nullptr);
    EXPECT_EQ(zinf_safetensors_find(&weights, "f")->dim_count, 0);
}

TEST_F(Safetensors, HostileHeadersAreRefusedByName)
{
    const std::string four = R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
    std::string deep(200, '[');
    const struct {
        std::string content;
        const char *expected;
    } cases[] = {
        {"", "too short"},
        {std::string("\1\0\0\0", 4), "too short"},
        {std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10), "has a header of"},
        {std::string("\0\0\0\0\0\0\0\x80{}", 10), "has a header of"},
        {std::string("\x64\0\0\0\0\0\0\0{}", 10), "has a header of 100 bytes"},
        {std::string("\0\0\0\0\0\0\0\0", 8), "has a header of 0 bytes"},
        {with_length(" {}", ""), "does not begin with '{'"},
        {with_length("[]", ""), "does not begin with '{'"},
        {with_length("{\"a\":" + deep, ""), ""},
        {with_length("{\"a\":1", ""), ""},
        {with_length("{\"a\xff\":1}", ""), ""},
        {with_length("{\"a\":" + four + ",\"a\":" + four + "}", "1234"), ""},
        {with_length("{/* */}", ""), ""},
        {with_length("{\"a\":1}", ""), "tensor a has a dtype"},
        {with_length("{\"__metadata__\":{\"n\":1}}", ""), "__metadata__"},
        {with_length("{\"__metadata__\":[]}", ""), "__metadata__"},
        {one(R"("a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]})", 4), "dtype"},
        {one(R"("a":{"dtype":"F32","data_offsets":[0,4]})", 4), "no shape"},
        {one(R"("a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]})", 4),
         "8 dimensions"},
        {one(R"("a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]})", 4), "impossible shape"},
        {one(R"("a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]})", 4), "impossible shape"},
        {one(R"("a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]})", 0),
         "impossible shape"},
        {one(R"("a":{"dtype":"F32","shape":[576460752303423488],"data_offsets":[0,0]})", 0),
         "do not fit"},
        {one(R"("a":{"dtype":"F32","shape":[1]})", 4), "no data_offsets"},
        {one(R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]})", 4), "no data_offsets"},
        {one(R"("a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]})", 4), "outside the file"},
        {one(R"("a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]})", 4), "outside the file"},
        {one(R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})", 4), "outside the file"},
        {one(R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]})", 4), "do not fit"},
        {one(R"("a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]})", 1), "do not fit"},
        {one(R"("a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]})", 8), "hole"},
        {one(R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]})", 8),
         "behind its last tensor"},
        {one(R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
             R"("b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]})",
             8),
         "overlaps"},
        {one(R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
             R"("b":{"dtype":"F32","shape":[0],"data_offsets":[2,2]})",
             4),
         "overlaps"},
        {one("\"" + std::string(257, 'n') + "\":" + four, 4), "256 bytes"},
    };
    for (const auto &one_case : cases) {
        fs::path path = put("x.safetensors", one_case.content);
        error.text[0] = '\0';
        EXPECT_EQ(open(path), ZINF_E_DATA) << one_case.content.substr(0, 200);
        EXPECT_TRUE(says(one_case.expected)) << one_case.expected << " / " << error.text;
        EXPECT_EQ(std::string(error.file), path.string());
        EXPECT_NE(error.text[0], '\0');
    }
}

/* Any damage to a header is refused or leaves tensors that lie inside the file. */
TEST_F(Safetensors, RandomDamageNeverLeadsOutsideTheFile)
{
    const std::string good =
        with_length(reference_header, std::string(reinterpret_cast<const char *>(reference_data),
                                                  sizeof reference_data));
    unsigned seed = std::random_device()();
    std::mt19937 random(seed);
    for (int round = 0; round < 500; round++) {
        std::string bad = good;
        for (unsigned i = 0; i <= random() % 3; i++)
            bad[random() % (8 + reference_header.size())] =
                static_cast<char>(random() % 4 ? ' ' + random() % 95 : random());
        if (open(put("x.safetensors", bad)))
            continue;
        for (int i = 0; i < weights.entry_count; i++) {
            const struct zinf_safetensors_entry &entry = weights.entries[i];
            ASSERT_GE(entry.offset, 8) << seed;
            ASSERT_LE(entry.offset + entry.bytes, static_cast<int64_t>(bad.size())) << seed;
        }
    }
}

TEST_F(Safetensors, AMissingFileAndAFolderWithoutWeightsAreExplained)
{
    EXPECT_EQ(open(folder / "none.safetensors"), ZINF_E_DATA);
    EXPECT_TRUE(says("No such file")) << error.text;
    EXPECT_EQ(open(folder), ZINF_E_DATA);
    EXPECT_TRUE(says("holds neither")) << error.text;
    EXPECT_FALSE(zinf_safetensors_folder_has_weights(folder.c_str()));
    put("pytorch_model.bin", "PK");
    EXPECT_EQ(open(folder), ZINF_E_DATA);
    EXPECT_TRUE(says("save_pretrained")) << error.text;
    EXPECT_FALSE(zinf_safetensors_folder_has_weights(folder.c_str()));
}

TEST_F(Safetensors, AnIndexStaysInItsFolder)
{
    const std::string a = one(R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]})", 4);
    put("1.safetensors", a);
    auto index = [&](const std::string &map) {
        put("model.safetensors.index.json",
            "{\"metadata\":{\"total_size\":4},\"weight_map\":" + map + "}");
        error.text[0] = '\0';
        return open(folder);
    };
    EXPECT_EQ(index(R"({"a":"1.safetensors"})"), 0) << error.text;
    EXPECT_TRUE(zinf_safetensors_folder_has_weights(folder.c_str()));
    for (const char *map : {R"({"a":"../1.safetensors"})", R"({"a":"/etc/passwd"})",
                            R"({"a":".."})", R"({"a":""})", R"({"a":1})"}) {
        EXPECT_EQ(index(map), ZINF_E_DATA) << map;
        EXPECT_TRUE(says("without / and ..")) << error.text;
    }
    EXPECT_EQ(index(R"({"a":"2.safetensors"})"), ZINF_E_DATA);
    EXPECT_EQ(index(R"([])"), ZINF_E_DATA);
    EXPECT_EQ(index(R"({"a":"1.safetensors","b":"1.safetensors"})"), ZINF_E_DATA);
    EXPECT_TRUE(says("b is not in the file")) << error.text;
    put("2.safetensors", a);
    EXPECT_EQ(index(R"({"a":"1.safetensors","b":"2.safetensors"})"), ZINF_E_DATA);
    EXPECT_TRUE(says("a stands in two files")) << error.text;
}

/* ---- writing ---- */

struct Source {
    std::vector<std::string> names;
    std::vector<struct zinf_export_tensor> tensors;
    int fail_at = -1;

    static float value(int index, int64_t element)
    {
        return static_cast<float>(index + 1) * 0.37f + static_cast<float>(element) * 0.0113f;
    }
    static int read(void *context, int index, int64_t offset, int64_t count, float *out,
                    struct zinf_error *error)
    {
        if (index == static_cast<Source *>(context)->fail_at)
            return zinf_error_set(error, ZINF_E_CHECKPOINT, "tensor %d is damaged", index);
        for (int64_t i = 0; i < count; i++)
            out[i] = value(index, offset + i);
        return 0;
    }
    Source()
    {
        names = {"transformer.wte.weight", "transformer.h.0.ln.bias", "a \"quoted\" name", "z"};
        const int64_t shapes[][2] = {{600, 700}, {9, 1}, {3, 5}, {100, 100}};
        for (size_t i = 0; i < names.size(); i++)
            tensors.push_back(
                {names[i].c_str(), i == 1 ? 1 : 2, {shapes[i][0], shapes[i][1]}, read, this});
    }
};

class Write : public Safetensors
{
  protected:
    Source source;
    int write(enum zinf_dtype dtype, int64_t shard_bytes)
    {
        const struct zinf_safetensors_content content = {
            source.tensors.data(), static_cast<int>(source.tensors.size()), dtype, shard_bytes};
        return zinf_safetensors_write(&alone, folder.c_str(), &content, &error);
    }
    void expect_equal(enum zinf_dtype dtype)
    {
        ASSERT_EQ(open(folder), 0) << error.text;
        ASSERT_EQ(weights.entry_count, 4);
        for (size_t i = 0; i < source.names.size(); i++) {
            int64_t count = source.tensors[i].shape[0] *
                            (source.tensors[i].dim_count > 1 ? source.tensors[i].shape[1] : 1);
            std::vector<float> got = read(source.names[i].c_str(), 0, count);
            int64_t wrong = 0;
            for (int64_t e = 0; e < count; e++) {
                float expected = Source::value(static_cast<int>(i), e);
                if (dtype == ZINF_BF16)
                    expected = zinf_bf16_to_float(zinf_bf16_from_float(expected));
                if (dtype == ZINF_FP16)
                    expected = zinf_fp16_to_float(zinf_fp16_from_float(expected));
                wrong += got[static_cast<size_t>(e)] != expected;
            }
            EXPECT_EQ(wrong, 0) << source.names[i];
        }
    }
    long files() const
    {
        return std::distance(fs::directory_iterator(folder), fs::directory_iterator());
    }
};

TEST_F(Write, WhatIsWrittenReadsBackInEveryType)
{
    for (enum zinf_dtype dtype : {ZINF_FP32, ZINF_FP16, ZINF_BF16}) {
        ASSERT_EQ(write(dtype, INT64_C(5000000000)), 0) << error.text;
        EXPECT_EQ(files(), 1);
        expect_equal(dtype);
        uint64_t length;
        std::ifstream(folder / "model.safetensors", std::ios::binary)
            .read(reinterpret_cast<char *>(&length), 8);
        EXPECT_EQ(length % 8, 0u);
    }
}

TEST_F(Write, ShardsCloseGreedilyInTheOrderGiven)
{
    /* fp32 sizes: 1680000, 36, 60, 40000: the first is over the limit and stays alone */
    ASSERT_EQ(write(ZINF_FP32, 40060), 0) << error.text;
    EXPECT_EQ(files(), 4);
    expect_equal(ZINF_FP32);
    EXPECT_STREQ(
        fs::path(weights.files[zinf_safetensors_find(&weights, "z")->file]).filename().c_str(),
        "model-00003-of-00003.safetensors");
    EXPECT_EQ(zinf_safetensors_find(&weights, "a \"quoted\" name")->file,
              zinf_safetensors_find(&weights, "transformer.h.0.ln.bias")->file);
    struct zinf_json *index = nullptr;
    struct zinf_error_list errors = {};
    std::string path = (folder / "model.safetensors.index.json").string();
    struct zinf_json_options options = {path.c_str(), true, ZINF_E_DATA, false};
    ASSERT_EQ(zinf_json_read(&index, path.c_str(), &options, &errors), 0);
    EXPECT_EQ(zinf_json_integer(zinf_json_get(index, "metadata"), "total_size", 0),
              1680000 + 36 + 60 + 40000);
    zinf_json_free(index);
}

TEST_F(Write, AFailureLeavesNothing)
{
    source.fail_at = 2;
    EXPECT_EQ(write(ZINF_BF16, 40060), ZINF_E_CHECKPOINT);
    EXPECT_TRUE(says("tensor 2 is damaged"));
    EXPECT_EQ(files(), 0);
    source.fail_at = -1;
    for (const char *operation : {"open", "fallocate", "write", "fsync", "rename"})
        for (int n = 1;; n++) {
            set_fault("op=" + std::string(operation) + ",n=" + std::to_string(n) + ",err=ENOSPC");
            for (const auto &old : fs::directory_iterator(folder))
                fs::remove(old.path());
            int status = write(ZINF_FP32, 40060);
            if (!status)
                break;
            EXPECT_EQ(status, ZINF_E_NO_SPACE);
            EXPECT_EQ(files(), 0) << operation << " " << n;
            ASSERT_LT(n, 100);
        }
    set_fault("");
    expect_equal(ZINF_FP32);
}
