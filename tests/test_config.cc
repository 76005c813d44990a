// ds.json: places and words of errors, the table of keys, other spellings and places, states.
#include "tests/config_text.h"

namespace
{

TEST(Config, AnErrorHasPlacePathWrongAndRight)
{
    Config c(
        "{\n  \"train_micro_batch_size_per_gpu\": 2,\n  \"zero_optimization\": {\"stage\": 4}\n}");
    ASSERT_EQ(c.report.errors.count, 1u);
    EXPECT_EQ(
        c.error(),
        "ds.json:3:34: zero_optimization.stage: 4 is wrong; right is a whole number from 0 to 3");
    EXPECT_EQ(c.status, ZINF_E_USAGE);
}

TEST(Config, AllProblemsOfAFileComeAtOnceInTheirOrder)
{
    Config c("{\n\"train_micro_batch_size_per_gpu\": \"2\",\n\"zero_optimisation\": "
             "{},\n\"gradient_clipping\": -1,\n"
             "\"optimizer\": {\"type\": \"AdamW\", \"params\": {\"lr\": \"1e-4\", "
             "\"max_grad_norm\": 1}},\n"
             "\"fp16\": {\"enabled\": true},\n\"bf16\": {\"enabled\": true}\n}");
    std::vector<int> lines;
    for (size_t i = 0; i < c.report.errors.count; i++)
        lines.push_back(c.report.errors.items[i].line);
    EXPECT_EQ(lines, (std::vector<int>{2, 3, 4, 5, 5, 7})) << c.all(c.report.errors);
}

TEST(Config, ASyntaxErrorHidesNoOtherProblem)
{
    Config c("{\"train_batch_size\": 8,\n"
             " \"optimizer\": {\"type\": \"AdamW\", \"params\": {\"lr\": 1e-4x, \"lrr\": 3}},\n"
             " \"fp16\": {\"enabled\": True},\n"
             " \"zero_optimization\": {\"stage\": 2, \"stage\": 7},\n"
             " \"zinf\": {\"data\": {\"train\": \"a\" \"eval\": \"b\"}, \"bnd\": 1}}");
    ASSERT_EQ(c.report.errors.count, 7u) << c.all(c.report.errors);
    expect_begin(c.error(0), "ds.json:2:50: optimizer.params.lr: 1e-4x is not a JSON number");
    expect_begin(c.error(1), "ds.json:2:57: optimizer.params.lrr: unknown key");
    expect_begin(c.error(2), "ds.json:3:22: fp16.enabled: True is Python");
    expect_begin(c.error(3), "ds.json:4:36: zero_optimization: key \"stage\" stands twice");
    expect_begin(c.error(4), "ds.json:4:45: zero_optimization.stage: 7 is wrong");
    expect_begin(c.error(5), "ds.json:5:33: zinf.data: ',' or '}'");
    expect_begin(c.error(6), "ds.json:5:47: zinf.bnd: unknown key; did you mean zinf.bind?");
    // what could not be read is not called missing, and where brackets do not match nothing is said
    Config lost("{\"train_batch_size\": 8x, \"optimizer\": {\"type\": Adam, \"params\": {}}}");
    EXPECT_EQ(lost.report.errors.count, 2u) << lost.all(lost.report.errors);
    Config open("{\"train_batch_size\": 8, \"optimizer\": {\"tpye\": \"Adam\"}");
    EXPECT_EQ(open.report.errors.count, 1u) << open.all(open.report.errors);
}

TEST(Config, AMisspeltTypeDoesNotHideItsParameters)
{
    Config misspelt("{\"train_batch_size\": 8, \"optimizer\": {\"type\": \"AdmaW\",\n"
                    "\"params\": {\"lr\": -1, \"lrr\": 3}}}");
    ASSERT_EQ(misspelt.report.errors.count, 3u) << misspelt.all(misspelt.report.errors);
    expect_begin(misspelt.error(1), "ds.json:2:18: optimizer.params.lr: -1 is wrong");
    expect_begin(misspelt.error(2), "ds.json:2:22: optimizer.params.lrr: unknown key");
    Config refused("{\"train_batch_size\": 8, \"optimizer\": {\"type\": \"OneBitAdam\",\n"
                   "\"params\": {\"freeze_step\": 3}}}");
    EXPECT_EQ(refused.report.errors.count, 1u) << refused.all(refused.report.errors);
}

TEST(Config, InlineModelFieldsAreCheckedWithTheirPlace)
{
    Config c(with("\"zinf\": {\"model\": {\"config\": {\"model_type\": \"gpt2\", \"n_layers\": 2,\n"
                  "\"n_layer\": \"3\", \"hidden_size\": 10, \"n_head\": 3,\n"
                  "\"activation_function\": \"geluu\", \"use_cache\": true}}}"));
    EXPECT_EQ(c.status, ZINF_E_USAGE);
    ASSERT_EQ(c.report.errors.count, 4u) << c.all(c.report.errors);
    expect_begin(c.error(0),
                 "ds.json:3:53: zinf.model.config.n_layers: unknown key of gpt2 models; "
                 "the nearest known one is n_layer");
    expect_begin(c.error(1), "ds.json:4:12: zinf.model.config.n_layer: \"3\" is wrong; it must be");
    expect_begin(c.error(2), "ds.json:4:46: zinf.model.config.n_head: 3 is wrong; the hidden size");
    expect_begin(c.error(3), "ds.json:5:24: zinf.model.config.activation_function: \"geluu\"");
    Config heads(with("\"zinf\": {\"model\": {\"config\": {\"model_type\": \"llama\",\n"
                      "\"hidden_size\": 10, \"num_attention_heads\": 3, \"n_embd\": 8,\n"
                      "\"rope_scaling\": {\"rope_type\": \"linear\", \"factr\": 2}}}}"));
    ASSERT_EQ(heads.report.errors.count, 4u) << heads.all(heads.report.errors);
    expect_begin(heads.error(0), "ds.json:4:43: zinf.model.config.num_attention_heads: 3 is wrong");
    expect_begin(heads.error(1), "ds.json:4:46: zinf.model.config.n_embd: unknown key of llama "
                                 "models; the nearest known one is hidden_size");
    expect_begin(heads.error(2), "ds.json:5:17: zinf.model.config.rope_scaling.factor: missing");
    expect_begin(heads.error(3), "ds.json:5:41: zinf.model.config.rope_scaling.factr: unknown key");
    Config none(with("\"zinf\": {\"model\": {\"config\": {\"n_layer\": 2}}}"));
    ASSERT_EQ(none.report.errors.count, 1u);
    expect_begin(none.error(0), "ds.json:3:30: zinf.model.config.model_type: missing; known are");
}

TEST(Config, InlineModelFieldsMayHoldWhatTransformersWrites)
{
    Config c(with("\"zinf\": {\"model\": {\"config\": {\"model_type\": \"gpt2\", \"n_ctx\": 64,\n"
                  "\"architectures\": [\"GPT2LMHeadModel\"], \"torch_dtype\": \"float32\",\n"
                  "\"bos_token_id\": 1, \"eos_token_id\": 1}}}"));
    EXPECT_EQ(c.status, 0) << c.all(c.report.errors);
    EXPECT_EQ(
        c.all(c.report.no_effect),
        "ds.json:3:53: zinf.model.config.n_ctx\nds.json:4:1: zinf.model.config.architectures\n"
        "ds.json:4:39: zinf.model.config.torch_dtype\nds.json:5:1: "
        "zinf.model.config.bos_token_id\n");
    EXPECT_EQ(c.effective("zinf.data.sequence_length"), "1024"); // n_ctx says nothing
}

TEST(Config, AnUnknownKeyNamesTheNearestOne)
{
    expect_begin(Config(with("\"zero_optimisation\": {}")).error(),
                 "ds.json:3:1: zero_optimisation: unknown key; did you mean zero_optimization?");
    expect_in(Config(with("\"fp16\": {\"lossscale\": 1}")).error(),
              "did you mean fp16.loss_scale?");
    expect_in(Config(with("\"zinf\": {\"train\": {\"step\": 1}}")).error(),
              "did you mean zinf.train.steps?");
    expect_in(Config(with("\"zzzzzzzzzzzz\": 1")).error(),
              "zzzzzzzzzzzz: unknown key; the nearest known one is");
}

TEST(Config, AWrongTypeOfEveryWorkingKeyIsOneErrorWithItsPlace)
{
    size_t count, tried = 0;
    const zinf_key *keys = zinf_keys(&count);
    for (size_t i = 0; i < count; i++) {
        std::string path = keys[i].path, value;
        if (keys[i].state == ZINF_KEY_REFUSED || keys[i].type == ZINF_KEY_ANY ||
            path == "optimizer.type")
            continue;
        bool number = keys[i].type == ZINF_KEY_INTEGER || keys[i].type == ZINF_KEY_NUMBER ||
                      keys[i].type == ZINF_KEY_SIZE;
        value = keys[i].type == ZINF_KEY_OBJECT || keys[i].type == ZINF_KEY_OPEN ? "7"
                : number                                                         ? "{\"x\": 1}"
                                                                                 : "{\"y\": 1}";
        // nested objects, one a line, so that the value's place is known
        std::string open, close;
        std::vector<std::string> parts;
        std::string rest = path;
        for (size_t dot; (dot = rest.find('.')) != std::string::npos; rest = rest.substr(dot + 1))
            parts.push_back(rest.substr(0, dot));
        std::string type;
        if (keys[i].only)
            type = std::string(keys[i].only).substr(0, std::string(keys[i].only).find('|'));
        for (auto &part : parts) {
            open += "\"" + part + "\": {";
            if (part == "optimizer")
                open += "\"type\": \"" + (type.empty() ? "SGD" : type) + "\", ";
            if (part == "scheduler" && rest != "type")
                open += "\"type\": \"" + (type.empty() ? "WarmupLR" : type) + "\", ";
            close += "}";
        }
        bool batch = path.find("batch_size") != std::string::npos && parts.empty();
        std::string text =
            "{" + std::string(batch ? "" : "\"train_micro_batch_size_per_gpu\": 2,\n") +
            (path.rfind("optimizer", 0) == 0 ? "" : "\"optimizer\": {\"type\": \"SGD\"},\n") +
            open + "\n\"" + rest + "\": " + value + close + "}";
        Config c(text);
        std::string messages = c.all(c.report.errors);
        size_t about = 0;
        for (size_t e = 0; e < c.report.errors.count; e++) {
            std::string line = c.line(c.report.errors, e);
            if (line.find(" " + path + ": ") == std::string::npos ||
                line.find("missing") != std::string::npos)
                continue;
            about++;
            EXPECT_GT(c.report.errors.items[e].line, 0);
            EXPECT_EQ(c.report.errors.items[e].column, (int)rest.size() + 5) << path << messages;
        }
        EXPECT_EQ(about, 1u) << path << "\n" << text << "\n" << messages;
        tried++;
    }
    EXPECT_GT(tried, 200u);
}

TEST(Config, EveryKeyWithItsDefaultIsAccepted)
{
    size_t count;
    const zinf_key *keys = zinf_keys(&count);
    for (size_t i = 0; i < count; i++) {
        if (!keys[i].otherwise)
            continue;
        std::string path = keys[i].path;
        std::vector<std::string> sets = {"train_micro_batch_size_per_gpu=2"};
        std::string type =
            keys[i].only ? std::string(keys[i].only).substr(0, std::string(keys[i].only).find('|'))
                         : "";
        sets.push_back("optimizer.type=" +
                       (path.rfind("optimizer", 0) == 0 && !type.empty() ? type : "SGD"));
        if (path.rfind("scheduler", 0) == 0) {
            sets.push_back("scheduler.type=" + (type.empty() ? std::string("WarmupLR") : type));
            for (auto required : {"total_num_steps=100", "cycle_min_lr=1", "cycle_max_lr=2"}) {
                const zinf_key *other;
                std::string key = std::string("scheduler.params.") + required;
                key = key.substr(0, key.find('='));
                if (zinf_key_find(key.c_str(), type.c_str(), &other) && !type.empty())
                    sets.push_back(std::string("scheduler.params.") + required);
            }
        }
        sets.push_back(path + "=" + keys[i].otherwise);
        Config c("{}", sets);
        EXPECT_EQ(c.status, 0) << path << c.all(c.report.errors);
        EXPECT_EQ(c.report.not_yet.count, 0u) << path << c.all(c.report.not_yet);
        EXPECT_EQ(c.report.warnings.count, 0u) << path << c.all(c.report.warnings);
    }
}

TEST(Config, EveryRefusedKeyIsRefusedByName)
{
    std::map<std::string, std::string> other = {{"sequence_parallel_size", "2"}};
    size_t count, refused = 0;
    const zinf_key *keys = zinf_keys(&count);
    for (size_t i = 0; i < count; i++) {
        if (keys[i].state != ZINF_KEY_REFUSED)
            continue;
        std::string path = keys[i].path, value = other.count(path) ? other[path] : "1";
        if (keys[i].type == ZINF_KEY_BOOL)
            value = std::string(keys[i].otherwise) == "true" ? "false" : "true";
        if (keys[i].type == ZINF_KEY_OPEN)
            value = "{\"enabled\": true}";
        std::string only = keys[i].only ? keys[i].only : "AdamW";
        Config c("{}", {"train_micro_batch_size_per_gpu=2",
                        "optimizer.type=" + only.substr(0, only.find('|')), path + "=" + value});
        EXPECT_EQ(c.report.errors.count, 1u) << path << c.all(c.report.errors);
        expect_begin(c.error(), "--set " + path + ": ");
        refused++;
    }
    EXPECT_GT(refused, 20u);
}

TEST(Config, EveryKeyHasARowOfItsOwnAndAParent)
{
    size_t count;
    const zinf_key *keys = zinf_keys(&count);
    EXPECT_GT(count, 280u);
    for (size_t i = 0; i < count; i++) {
        std::string path = keys[i].path;
        size_t dot = path.rfind('.');
        if (dot != std::string::npos) {
            const zinf_key *parent = zinf_key_find(path.substr(0, dot).c_str(), nullptr, nullptr);
            ASSERT_NE(parent, nullptr) << path;
            EXPECT_EQ(parent->type, ZINF_KEY_OBJECT) << path;
        }
        for (size_t j = 0; j < i; j++)
            EXPECT_TRUE(path != keys[j].path || (keys[i].only && keys[j].only)) << path;
        EXPECT_TRUE(keys[i].type != ZINF_KEY_CHOICE || *keys[i].range) << path;
    }
}

TEST(Config, MisplacedKeysAreAppliedWithAWarning)
{
    Config c(with("\"grad_accum_dtype\": \"bf16\",\n\"offload_param\": {\"device\": "
                  "\"cpu\"},\n\"stage\": 3,\n\"lr\": 0.5"));
    ASSERT_EQ(c.status, 0) << c.error();
    ASSERT_EQ(c.report.warnings.count, 4u) << c.all(c.report.warnings);
    expect_begin(c.line(c.report.warnings, 0),
                 "ds.json:3:1: grad_accum_dtype: stands in the wrong place");
    expect_in(c.line(c.report.warnings, 0), "applied as data_types.grad_accum_dtype");
    expect_in(c.line(c.report.warnings, 1), "applied as zero_optimization.offload_param");
    EXPECT_EQ(c.config->precision.accumulation, ZINF_BF16);
    EXPECT_EQ(c.effective("zero_optimization.offload_param.device"), "\"cpu\"");
    EXPECT_EQ(c.config->zero.stage, 3);
    EXPECT_EQ(c.config->optimizer.learning_rate, 0.5);
    EXPECT_EQ(c.config->offload.parameters, ZINF_CONFIG_DEVICE_CPU);
    Config own(with("\"zinf\": {\"seed\": 3}")); // DeepSpeed looks at none of these
    ASSERT_EQ(own.status, 0) << own.error();
    expect_in(own.line(own.report.warnings, 0),
              "zinf.seed: stands in the wrong place; it is applied as zinf.train.seed");
}

TEST(Config, AMisplacedKeyThatIsThereAlreadyIsAnError)
{
    Config c(
        with("\"data_types\": {\"grad_accum_dtype\": \"fp32\"}, \"grad_accum_dtype\": \"bf16\""));
    ASSERT_EQ(c.report.errors.count, 1u);
    expect_in(c.error(),
              "grad_accum_dtype: belongs to data_types.grad_accum_dtype, which the file has too");
}

TEST(Config, AKeyThatCouldBelongToSeveralPlacesIsNotMoved)
{
    Config c(with("\"device\": \"cpu\""));
    ASSERT_EQ(c.report.errors.count, 1u);
    expect_in(c.error(), "device: unknown key");
}

TEST(Config, AKeyWithADotIsNotPassedOver)
{
    Config c(with("\"zinf.train.steps\": 3,\n\"zinf\": {\"train.steps\": 4}"));
    ASSERT_EQ(c.report.errors.count, 2u) << c.all(c.report.errors);
    expect_in(c.error(0),
              "ds.json:3:1: zinf.train.steps: a key holds no dots; right is an object in "
              "an object, \"zinf\": {\"train.steps\": ...}");
    expect_in(c.error(1),
              "ds.json:4:10: zinf.train.steps: a key holds no dots; right is an object in "
              "an object, \"train\": {\"steps\": ...}");
}

TEST(Config, BareZeroOptimizationIsStageOneOrZero)
{
    Config on(with("\"zero_optimization\": true")), off(with("\"zero_optimization\": false"));
    EXPECT_EQ(on.config->zero.stage, 1);
    EXPECT_EQ(off.config->zero.stage, 0);
    EXPECT_EQ(on.report.warnings.count, 1u);
}

TEST(Config, OldCpuOffloadKeysAreMapped)
{
    Config c(with(
        "\"zero_optimization\": {\"stage\": 3, \"cpu_offload\": true, \"cpu_offload_param\": true, "
        "\"cpu_offload_use_pin_memory\": true}"));
    ASSERT_EQ(c.status, 0) << c.error();
    EXPECT_EQ(c.report.warnings.count, 3u);
    EXPECT_EQ(c.effective("zero_optimization.offload_optimizer.device"), "\"cpu\"");
    EXPECT_EQ(c.effective("zero_optimization.offload_param.pin_memory"), "true");
    Config both(with("\"zero_optimization\": {\"stage\": 3, \"cpu_offload\": true, "
                     "\"offload_optimizer\": {\"device\": \"cpu\"}}"));
    ASSERT_EQ(both.report.errors.count, 1u);
    expect_in(both.error(), "cpu_offload: is another spelling of");
}

TEST(Config, OtherSpellingsOfKeysAreAsGood)
{
    Config c(
        with("\"bfloat16\": {\"enabled\": true}, \"zero_optimization\": {\"stage\": 3, "
             "\"prefetch_bucket_size\": 5e6, "
             "\"max_live_parameters\": 7, \"stage3_gather_fp16_weights_on_model_save\": true}"));
    ASSERT_EQ(c.status, 0) << c.error();
    EXPECT_EQ(c.config->precision.dtype, ZINF_BF16);
    EXPECT_EQ(c.config->zero.prefetch_bucket_size, 5000000);
    EXPECT_EQ(c.config->zero.max_live_parameters, 7);
    EXPECT_EQ(c.effective("zero_optimization.stage3_gather_16bit_weights_on_model_save"), "true");
    Config both(with("\"bf16\": {}, \"bfloat16\": {}"));
    expect_in(both.error(), "bfloat16: is another spelling of bf16");
}

TEST(Config, ThreeSpellingsOfTheAioThreadCount)
{
    for (auto name : {"intra_op_parallelism", "thread_count", "num_threads"}) {
        Config c(with(std::string("\"aio\": {\"") + name + "\": 4, \"single_submit\": \"false\"}"));
        ASSERT_EQ(c.status, 0) << c.error();
        EXPECT_EQ(c.effective("aio.intra_op_parallelism"), "4");
        EXPECT_EQ(c.effective("aio.single_submit"), "false");
        EXPECT_EQ(c.report.warnings.count, std::string(name) == "intra_op_parallelism" ? 1u : 2u);
    }
    Config two(with("\"aio\": {\"thread_count\": 4, \"num_threads\": 4}"));
    EXPECT_EQ(two.report.errors.count, 1u);
}

std::string offload(const std::string &param, const std::string &optimizer,
                    const std::string &rest = "")
{
    return with("\"zero_optimization\": {\"stage\": 3, \"offload_param\": {" + param +
                "}, \"offload_optimizer\": {" + optimizer + "}}" + rest);
}

TEST(Config, DefaultsThatAreNotDeepSpeedsAreSaidWhereTheyCount)
{
    const char nvme[] = "\"device\": \"nvme\", \"nvme_path\": \"/tmp\"";
    Config both(offload(nvme, nvme));
    EXPECT_EQ(both.config->offload.max_in_cpu, 0);
    EXPECT_EQ(both.config->offload.block_bytes, 8388608);
    std::string all = both.all(both.report.filled);
    expect_in(all, "offload_param.max_in_cpu: 0 (DeepSpeed: 1000000000)");
    expect_in(all, "aio.block_size: 8388608 (DeepSpeed: 1048576)");
    Config optimizer(offload("\"device\": \"cpu\"", nvme));
    EXPECT_EQ(optimizer.report.filled.count, 1u) << optimizer.all(optimizer.report.filled);
    Config none(offload("\"device\": \"cpu\"", "\"device\": \"cpu\""));
    EXPECT_EQ(none.report.filled.count, 0u) << none.all(none.report.filled);
    Config given(offload(std::string(nvme) + ", \"max_in_cpu\": 1e9", nvme,
                         ", \"aio\": {\"block_size\": 1048576}"));
    ASSERT_EQ(given.status, 0) << given.error();
    EXPECT_EQ(given.report.filled.count, 0u) << given.all(given.report.filled);
    EXPECT_EQ(given.config->offload.max_in_cpu, 1000000000);
    EXPECT_EQ(given.config->offload.block_bytes, 1048576);
}

TEST(Config, AioAndOffloadKeysActOrSayThatTheyDoNot)
{
    Config c(
        offload("\"device\": \"nvme\", \"nvme_path\": \"/tmp\", \"buffer_count\": 7, "
                "\"buffer_size\": 1e6, \"pin_memory\": false",
                "\"device\": \"cpu\", \"buffer_count\": 3, \"pin_memory\": true",
                ", \"aio\": {\"queue_depth\": 32, \"thread_count\": 2, \"single_submit\": true, "
                "\"overlap_events\": false, \"use_gds\": true}"));
    ASSERT_EQ(c.status, 0) << c.error();
    EXPECT_EQ(c.config->offload.parameter_buffers, 7);
    EXPECT_EQ(c.config->offload.optimizer_buffers, 3);
    EXPECT_EQ(c.config->offload.queue_depth, 32);
    EXPECT_EQ(c.config->offload.io_threads, 2);
    expect_in(c.all(c.report.warnings), "aio.thread_count: is ignored by DeepSpeed since 2025; it "
                                        "is applied as aio.intra_op_parallelism");
    std::string all = c.all(c.report.no_effect);
    for (auto key :
         {"offload_param.buffer_size", "offload_param.pin_memory", "offload_optimizer.pin_memory",
          "aio.single_submit", "aio.overlap_events", "aio.use_gds"})
        expect_in(all, key);
    EXPECT_EQ(c.report.no_effect.count, 6u) << all;
    // what only a drive would need is told where there is none
    Config idle(
        offload("\"device\": \"cpu\", \"buffer_count\": 7, \"max_in_cpu\": 1e9",
                "\"device\": \"none\", \"nvme_path\": \"/tmp\"",
                ", \"aio\": {\"queue_depth\": 32, \"thread_count\": 2, \"block_size\": 8388608}"));
    std::string none = idle.all(idle.report.no_effect);
    for (auto key : {"offload_param.buffer_count", "offload_param.max_in_cpu",
                     "offload_optimizer.nvme_path", "aio.queue_depth", "aio.intra_op_parallelism"})
        expect_in(none, key);
    EXPECT_EQ(idle.report.no_effect.count, 5u) << none;
    Config inputs(offload("", "\"device\": \"none\", \"nvme_path\": \"/tmp\"",
                          ", \"aio\": {\"queue_depth\": 32}, "
                          "\"zinf\": {\"memory\": {\"activations\": \"nvme\"}}"));
    EXPECT_EQ(inputs.report.no_effect.count, 0u) << inputs.all(inputs.report.no_effect);
}

TEST(Config, KeysOfAnEvaluationSayWhenThereIsNone)
{
    const std::string keys = "\"train\": {\"eval_every\": 5, \"eval_batches\": 2}, "
                             "\"checkpoint\": {\"score_order\": \"max\"}";
    Config none(with("\"zinf\": {" + keys + "}"));
    EXPECT_EQ(none.report.no_effect.count, 3u) << none.all(none.report.no_effect);
    Config some(with("\"zinf\": {" + keys + ", \"data\": {\"eval\": \"x\"}}"));
    EXPECT_EQ(some.report.no_effect.count, 0u) << some.all(some.report.no_effect);
}

TEST(Config, SuperOffloadIsTakenAndSaysWhereItHasNoEffect)
{
    Config absent(offload("", "\"device\": \"cpu\""));
    EXPECT_EQ(absent.config->offload.super, ZINF_SUPER_OFFLOAD_AUTO);
    EXPECT_EQ(absent.effective("zero_optimization.offload_optimizer.super_offload"), "null");
    Config off(offload("", "\"device\": \"cpu\", \"super_offload\": false"));
    EXPECT_EQ(off.config->offload.super, ZINF_SUPER_OFFLOAD_OFF);
    Config on(offload("", "\"device\": \"cpu\", \"super_offload\": true"));
    EXPECT_EQ(on.config->offload.super, ZINF_SUPER_OFFLOAD_ON);
    EXPECT_EQ(on.report.errors.count + on.report.no_effect.count, 0u);
    Config nowhere(offload("", "\"device\": \"none\", \"super_offload\": true"));
    expect_in(nowhere.all(nowhere.report.no_effect), "offload_optimizer.super_offload");
}

TEST(Config, PartialOffloadIsTakenAndSaysWhereItHasNoEffect)
{
    Config part(offload("", "\"device\": \"cpu\", \"ratio\": 0.4"));
    EXPECT_EQ(part.status, 0);
    EXPECT_EQ(part.config->offload.ratio, 0.4);
    EXPECT_EQ(part.report.no_effect.count, 0u);
    Config all(offload("", "\"device\": \"cpu\""));
    EXPECT_EQ(all.config->offload.ratio, 1.0);
    Config nowhere(offload("", "\"device\": \"none\", \"ratio\": 0.4"));
    expect_in(nowhere.all(nowhere.report.no_effect), "offload_optimizer.ratio");
    Config drive(offload("\"device\": \"nvme\", \"nvme_path\": \"/tmp\"",
                         "\"device\": \"cpu\", \"ratio\": 0.4"));
    EXPECT_EQ(drive.report.errors.count + drive.report.no_effect.count, 0u);
}

TEST(Config, GradientClippingTrueMeansOne)
{
    EXPECT_EQ(Config(with("\"gradient_clipping\": true")).config->gradient_clipping, 1.0);
    EXPECT_EQ(Config(with("\"gradient_clipping\": 0.5")).config->gradient_clipping, 0.5);
    EXPECT_EQ(Config(with("")).config->gradient_clipping, 1.0)
        << "DeepSpeed's default since 2026-06";
}

TEST(Config, IntegralFloatsAreIntegersAndOthersAreNot)
{
    Config c(with("\"zero_optimization\": {\"stage3_prefetch_bucket_size\": 5e8, "
                  "\"reduce_bucket_size\": 2e8}"));
    EXPECT_EQ(c.config->zero.prefetch_bucket_size, 500000000);
    EXPECT_EQ(c.effective("zero_optimization.reduce_bucket_size"), "200000000");
    Config fraction(with("\"zero_optimization\": {\"stage3_prefetch_bucket_size\": 15099494.4}"));
    expect_in(fraction.error(), "15099494.4 is wrong; right is a whole number of at least 0");
}

TEST(Config, NumbersInQuotesSaySo)
{
    expect_in(Config(with("\"gradient_clipping\": \"1.0\"")).error(),
              "\"1.0\" is wrong; right is a number of at least 0, without the quotes");
}

TEST(Config, NotYetIsListedByACheckAndRefusedByARun)
{
    std::string run =
        "\"zinf\": {\"model\": {\"config\": {\"model_type\": \"gpt2\"}}, \"data\": {\"train\": "
        "\"x.txt\", \"tokenizer\": \"bytes\"}, "
        "\"train\": {\"steps\": 1},\n\"schedule\": \"vertical\"},\n\"tensorboard\": {\"enabled\": "
        "true}";
    Config check(with(run));
    EXPECT_EQ(check.status, 0);
    EXPECT_EQ(check.report.not_yet.count, 2u) << check.all(check.report.not_yet);
    Config refused(with(run), {}, 1, ZINF_CONFIG_TRAIN);
    EXPECT_EQ(refused.report.errors.count, 2u);
    expect_begin(refused.error(0),
                 "ds.json:4:13: zinf.schedule: \"vertical\": not yet in this version");
    expect_begin(refused.error(1),
                 "ds.json:5:28: tensorboard.enabled: true: not yet in this version");
}

TEST(Config, NoEffectKeysAreListedOnce)
{
    Config c(with("\"wall_clock_breakdown\": true, \"flops_profiler\": {\"enabled\": true, "
                  "\"detailed\": false}, "
                  "\"zero_optimization\": {\"overlap_comm\": true}, \"offload_optimizer\": "
                  "{\"pin_memory\": false}"));
    ASSERT_EQ(c.status, 0) << c.error();
    std::string all = c.all(c.report.no_effect);
    EXPECT_EQ(c.report.no_effect.count, 4u) << all;
    expect_in(all, ": flops_profiler\n");
    expect_in(all, ": zero_optimization.overlap_comm\n");
}

TEST(Config, OffloadNeedsItsStageAndPath)
{
    expect_in(
        Config(
            with("\"zero_optimization\": {\"stage\": 2, \"offload_param\": {\"device\": \"cpu\"}}"))
            .error(),
        "needs ZeRO stage 3");
    expect_in(Config(with("\"zero_optimization\": {\"stage\": 0, \"offload_optimizer\": "
                          "{\"device\": \"cpu\"}}"))
                  .error(),
              "needs ZeRO stage 1 or above");
    expect_in(Config(with("\"zero_optimization\": {\"stage\": 3, \"offload_optimizer\": "
                          "{\"device\": \"nvme\"}}"))
                  .error(),
              "needs nvme_path");
    for (const char *path : {"[]", "\"\"", "3", "[\"a\", 1]"}) {
        Config wrong(
            with(std::string("\"zero_optimization\": {\"stage\": 3, \"offload_optimizer\": "
                             "{\"device\": \"nvme\", \"nvme_path\": ") +
                 path + "}}"));
        EXPECT_EQ(wrong.report.errors.count, 1u) << wrong.all(wrong.report.errors);
        expect_in(wrong.error(), "nvme_path: ");
    }
    Config typed(with("\"zero_optimization\": {\"stage\": \"3\", \"offload_param\": "
                      "{\"device\": \"cpu\"}}"));
    EXPECT_EQ(typed.report.errors.count, 1u) << typed.all(typed.report.errors);
    expect_in(typed.error(), "zero_optimization.stage: \"3\"");
    expect_in(Config(with("\"zero_optimization\": {\"stage\": 3, \"offload_param\": {\"device\": "
                          "\"nvme\", \"nvme_path\": []}}"))
                  .error(),
              "an empty list is wrong");
}

TEST(Config, ActivationsOnNvmeNeedAFolderOfEitherOffload)
{
    const std::string nvme = "\"zinf\": {\"memory\": {\"activations\": \"nvme\"}}";
    Config none(with(nvme));
    expect_in(none.error(), "zinf.memory.activations: \"nvme\" needs a folder");
    expect_in(none.error(), "zero_optimization.offload_optimizer.nvme_path");
    for (auto object : {"offload_optimizer", "offload_param"}) {
        Config c(with(nvme + ", \"zero_optimization\": {\"" + object +
                      "\": {\"nvme_path\": \"/tmp\"}}"));
        ASSERT_EQ(c.status, 0) << c.error();
        EXPECT_EQ(c.config->memory.activations, ZINF_ACTIVATIONS_NVME);
        EXPECT_EQ(c.config->offload.optimizer, ZINF_CONFIG_DEVICE_NONE);
    }
}

TEST(Config, CpuCheckpointingMeansActivationsInHostMemory)
{
    const std::string cpu = "\"activation_checkpointing\": {\"cpu_checkpointing\": true, "
                            "\"number_checkpoints\": 4}";
    Config c(with(cpu));
    ASSERT_EQ(c.status, 0) << c.error();
    EXPECT_EQ(c.config->memory.activations, ZINF_ACTIVATIONS_CPU);
    expect_in(c.all(c.report.filled), "zinf.memory.activations: \"cpu\"");
    expect_in(c.all(c.report.no_effect), "activation_checkpointing.number_checkpoints");
    Config own(with(cpu), {"zinf.memory.activations=keep"});
    ASSERT_EQ(own.status, 0) << own.error();
    EXPECT_EQ(own.config->memory.activations, ZINF_ACTIVATIONS_KEEP);
    expect_in(own.all(own.report.warnings), "zinf.memory.activations is \"keep\", which counts");
    EXPECT_EQ(Config(with("\"activation_checkpointing\": {\"cpu_checkpointing\": false}"))
                  .config->memory.activations,
              ZINF_ACTIVATIONS_AUTO);
}

TEST(Config, WhatIsNoConfigurationIsRefused)
{
    EXPECT_EQ(Config("").status, ZINF_E_USAGE);
    expect_in(Config("[1]").error(), "a configuration is an object");
    expect_in(Config("{\"train_batch_size\": 1, \"fp16\": 1}").error(),
              "1 is wrong; right is an object");
    zinf_config *config;
    zinf_config_report report = {};
    zinf_config_options options = {};
    options.file = "/nonexistent/ds.json";
    options.ranks = 1;
    EXPECT_EQ(zinf_config_load(&config, &options, &report), ZINF_E_USAGE);
    EXPECT_STREQ(report.errors.items[0].text,
                 "/nonexistent/ds.json: cannot be read: No such file or directory");
    zinf_config_report_release(&report);
}

TEST(Config, HjsonIsRead)
{
    Config c("{ // micro-batch\n  train_micro_batch_size_per_gpu: 2 # here\n  optimizer: {type: "
             "\"AdamW\",}\n  /* end */\n}");
    EXPECT_EQ(c.status, 0) << c.error();
}
} // namespace
