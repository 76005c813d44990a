/*
 * zinf inspect and zinf export, called as the program calls them: what they write, what they
 * refuse, and that a failure leaves nothing.
 */
#include "cli/command.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "checkpoint_sample.h"
#include "io/safetensors.h"
#include "set_fault.h"

namespace fs = std::filesystem;

class Export : public ::testing::Test
{
  protected:
    fs::path folder, out;
    std::string checkpoint;
    struct zinf_comm comm = {};
    std::string said; /* standard output and error of the last command */

    void SetUp() override
    {
        char name[] = "/tmp/zinf-export-XXXXXX";
        ASSERT_NE(mkdtemp(name), nullptr);
        comm.size = comm.local_size = 1;
        folder = name;
        out = folder / "out";
        checkpoint = (folder / "run/checkpoints/step-00000012.h5").string();
        fs::create_directories(folder / "run/checkpoints");
        fs::create_directories(folder / "source/subfolder");
        for (const char *file : {"vocab.json", "model.safetensors", "pytorch_model.bin",
                                 "config.json", "model.safetensors.index.json", "README.md"})
            std::ofstream(folder / "source" / file) << "content of " << file;
        ASSERT_EQ(save("{\"model_type\": \"gpt2\", \"torch_dtype\": \"bfloat16\", \"n_layer\": 5}"),
                  0);
        fs::create_symlink("step-00000012.h5", folder / "run/checkpoints/latest");
    }
    void TearDown() override
    {
        set_fault("");
        fs::remove_all(folder);
    }
    int save(const char *model_config)
    {
        std::string config =
            "{\"zinf\": {\"model\": {\"path\": \"" + (folder / "source").string() + "\"}}}";
        Sample sample(0, 1, false, config.c_str(), model_config);
        return zinf_checkpoint_save(&comm, checkpoint.c_str(), &sample.checkpoint);
    }
    int run(std::vector<std::string> words)
    {
        std::vector<char *> argv;
        words.insert(words.begin(), "zinf");
        for (std::string &word : words)
            argv.push_back(&word[0]);
        argv.push_back(nullptr);
        struct zinf_options options;
        struct zinf_error error = {};
        int status =
            zinf_options_parse(&options, static_cast<int>(words.size()), argv.data(), &error);
        EXPECT_EQ(status, 0) << error.text;
        struct zinf_context context = {&options, &comm, 1};
        testing::internal::CaptureStdout();
        testing::internal::CaptureStderr();
        if (!status)
            status = options.command->run(&context);
        said = testing::internal::GetCapturedStdout() + testing::internal::GetCapturedStderr();
        zinf_options_release(&options);
        return status;
    }
    static std::string text(const fs::path &path)
    {
        std::ifstream in(path, std::ios::binary);
        return {std::istreambuf_iterator<char>(in), {}};
    }
    bool says(const std::string &part) const
    {
        return said.find(part) != std::string::npos;
    }
    /* Entries of the test's folder: run, source, and what a command left. */
    long entries() const
    {
        return std::distance(fs::directory_iterator(folder), fs::directory_iterator());
    }
    void damage(const char *dataset)
    {
        struct zinf_checkpoint_file *file;
        struct zinf_error error;
        const struct zinf_checkpoint_entry *all;
        ASSERT_EQ(zinf_checkpoint_open(&file, &comm, checkpoint.c_str(), &error), 0);
        int count = zinf_checkpoint_entries(file, &all);
        for (int i = 0; i < count; i++) {
            if (dataset == std::string(all[i].path)) {
                std::fstream at(checkpoint, std::ios::binary | std::ios::in | std::ios::out);
                at.seekp(all[i].file_offset);
                at << "ZINF";
            }
        }
        zinf_checkpoint_close(file);
    }
};

TEST_F(Export, TheFolderHoldsTheModelAndTheOtherFiles)
{
    ASSERT_EQ(run({"export", checkpoint, out.string() + "/", "--dtype", "bf16"}), 0) << said;
    EXPECT_EQ(text(out / "vocab.json"), "content of vocab.json");
    EXPECT_EQ(text(out / "README.md"), "content of README.md");
    EXPECT_EQ(std::distance(fs::directory_iterator(out), fs::directory_iterator()), 4)
        << "and config, weights";
    std::string config = text(out / "config.json");
    EXPECT_NE(config.find("\"torch_dtype\": \"bfloat16\""), std::string::npos) << config;
    EXPECT_EQ(config.find("\"dtype\""), std::string::npos) << config;
    EXPECT_NE(config.find("GPT2LMHeadModel"), std::string::npos) << config;
    EXPECT_NE(config.find("\"n_layer\": 5"), std::string::npos) << config;

    struct zinf_safetensors weights;
    struct zinf_error error;
    ASSERT_EQ(zinf_safetensors_open(&weights, out.c_str(), &error), 0) << error.text;
    EXPECT_EQ(weights.entry_count, 7) << "no optimizer, no tied head";
    EXPECT_EQ(zinf_safetensors_find(&weights, "lm_head.weight"), nullptr);
    const struct zinf_safetensors_entry *table =
        zinf_safetensors_find(&weights, "transformer.wte.weight");
    ASSERT_NE(table, nullptr);
    std::vector<float> values(97 * 13);
    EXPECT_EQ(zinf_safetensors_read(&weights, table, 0, 97 * 13, values.data(), &error), 0);
    for (int64_t i = 0; i < 97 * 13; i++)
        ASSERT_EQ(values[static_cast<size_t>(i)],
                  zinf_bf16_to_float(
                      zinf_bf16_from_float(Sample::value("/model/transformer.wte.weight", i))));
    zinf_safetensors_close(&weights);
}

TEST_F(Export, ARunFolderStandsForItsLatestAndAnEmptyFolderIsTaken)
{
    fs::create_directory(out);
    ASSERT_EQ(run({"export", (folder / "run").string(), out.string(), "--shard-size", "5kB"}), 0)
        << said;
    EXPECT_TRUE(fs::exists(out / "model.safetensors.index.json"));
    EXPECT_EQ(entries(), 3);
}

TEST_F(Export, NothingIsOverwritten)
{
    fs::create_directory(out);
    std::ofstream(out / "mine") << "precious";
    EXPECT_EQ(run({"export", checkpoint, out.string()}), ZINF_E_USAGE);
    EXPECT_TRUE(says("nothing is overwritten")) << said;
    EXPECT_EQ(text(out / "mine"), "precious");
    EXPECT_EQ(run({"export", checkpoint, (out / "mine").string()}), ZINF_E_USAGE);
    EXPECT_EQ(entries(), 3);
}

TEST_F(Export, WrongOptionsAreNamed)
{
    EXPECT_EQ(run({"export", checkpoint, out.string(), "--dtype", "int8"}), ZINF_E_USAGE);
    EXPECT_TRUE(says("fp32, bf16, fp16")) << said;
    EXPECT_EQ(run({"export", checkpoint, out.string(), "--shard-size", "many"}), ZINF_E_USAGE);
    EXPECT_EQ(run({"export", (folder / "none.h5").string(), out.string()}), ZINF_E_USAGE);
    EXPECT_TRUE(says("none.h5")) << said;
    EXPECT_EQ(entries(), 2);
}

TEST_F(Export, ADamagedModelIsNotExportedButDamagedMomentsDoNotMatter)
{
    damage("/optimizer/exp_avg/transformer.wte.weight");
    EXPECT_EQ(run({"export", checkpoint, out.string()}), 0) << said;
    fs::remove_all(out);
    damage("/model/transformer.h.2.attn.c_attn.weight");
    EXPECT_EQ(run({"export", checkpoint, out.string()}), ZINF_E_CHECKPOINT);
    EXPECT_TRUE(says("/model/transformer.h.2.attn.c_attn.weight")) << said;
    EXPECT_EQ(entries(), 2);
}

TEST_F(Export, ASourceThatIsGoneIsAWarning)
{
    fs::remove_all(folder / "source");
    EXPECT_EQ(run({"export", checkpoint, out.string()}), 0);
    EXPECT_TRUE(says("warning: ")) << said;
    EXPECT_TRUE(fs::exists(out / "config.json"));
}

TEST_F(Export, AFailedCallLeavesNothing)
{
    for (const char *operation : {"write", "fsync", "rename", "fallocate"}) {
        int n = 1;
        for (;; n++) {
            set_fault("op=" + std::string(operation) + ",n=" + std::to_string(n) + ",err=ENOSPC");
            int status = run({"export", checkpoint, out.string()});
            set_fault("");
            if (status == 0)
                break;
            EXPECT_EQ(status, ZINF_E_NO_SPACE) << said;
            EXPECT_TRUE(entries() == 2 || (fs::exists(out / "config.json") && entries() == 3))
                << operation << " " << n << said;
            fs::remove_all(out);
            ASSERT_LT(n, 100);
        }
        EXPECT_GT(n, 1) << operation;
        fs::remove_all(out);
    }
}

TEST_F(Export, InspectKnowsEachKind)
{
    ASSERT_EQ(run({"export", checkpoint, out.string()}), 0) << said;
    const struct {
        fs::path path;
        const char *kind;
    } cases[] = {{checkpoint, "checkpoint"},
                 {out, "model"},
                 {out / "model.safetensors", "safetensors"},
                 {folder / "run", "run"}};
    for (const auto &one : cases) {
        EXPECT_EQ(run({"inspect", one.path.string(), "--json", "--verify"}), 0) << said;
        struct zinf_json *report = nullptr;
        struct zinf_error_list errors = {};
        struct zinf_json_options options = {"report", true, ZINF_E_DATA, false};
        ASSERT_EQ(zinf_json_parse(&report, said.data(), said.size(), &options, &errors), 0) << said;
        EXPECT_STREQ(zinf_json_string(report, "kind", ""), one.kind);
        if (strcmp(one.kind, "run"))
            EXPECT_EQ(zinf_json_integer(report, "parameters", 0), 97 * 13 + 5 + 5 * 231)
                << one.kind;
        else
            EXPECT_EQ(zinf_json_get(report, "checkpoints")->count, 1u);
        zinf_json_free(report);
        EXPECT_EQ(run({"inspect", one.path.string()}), 0);
        EXPECT_TRUE(says(one.path.string() + ": " + one.kind)) << said;
    }
    EXPECT_EQ(run({"inspect", (folder / "none").string()}), ZINF_E_USAGE);
    EXPECT_EQ(run({"inspect", (out / "vocab.json").string()}), ZINF_E_USAGE);
}

TEST_F(Export, InspectNamesDamage)
{
    damage("/optimizer/exp_avg_sq/transformer.h.0.ln_1.bias");
    EXPECT_EQ(run({"inspect", checkpoint}), 0) << "headers are whole";
    EXPECT_EQ(run({"inspect", checkpoint, "--verify"}), ZINF_E_CHECKPOINT);
    EXPECT_TRUE(says("/optimizer/exp_avg_sq/transformer.h.0.ln_1.bias is damaged")) << said;
    EXPECT_EQ(run({"inspect", (folder / "run").string(), "--verify"}), ZINF_E_CHECKPOINT);
    EXPECT_TRUE(says("damaged: ")) << said;
}

TEST_F(Export, DiffIsEqualOrNamesWhatDiffers)
{
    std::string other = (folder / "run/checkpoints/other.h5").string();
    fs::copy(checkpoint, other);
    EXPECT_EQ(run({"inspect", "--diff", checkpoint, other}), 0) << said;
    EXPECT_TRUE(says("equal")) << said;
    ASSERT_EQ(save("{}"), 0);
    EXPECT_EQ(run({"inspect", "--diff", checkpoint, other}), 0)
        << "provenance does not count" << said;
    damage("/model/transformer.wte.weight");
    EXPECT_EQ(run({"inspect", "--diff", checkpoint, other}), ZINF_E_RUNTIME);
    EXPECT_TRUE(says("/model/transformer.wte.weight")) << said;
    EXPECT_TRUE(says("1 of 21 datasets differ, 0 attributes")) << said;
    EXPECT_EQ(run({"inspect", "--diff", checkpoint}), ZINF_E_USAGE);
}
