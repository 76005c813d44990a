// ds.json: what the keys become: batch, precision, optimizers, schedulers, overrides,
// defaults, the effective configuration.
#include "tests/config_text.h"

namespace
{

TEST(Config, TwoOfThreeBatchNumbersGiveTheThird)
{
    struct {
        const char *members;
        int ranks;
        int64_t micro, accumulation, global;
    } cases[] = {
        {"\"train_batch_size\": 32, \"train_micro_batch_size_per_gpu\": 2", 4, 2, 4, 32},
        {"\"train_batch_size\": 256, \"gradient_accumulation_steps\": 4", 8, 8, 4, 256},
        {"\"train_micro_batch_size_per_gpu\": 3, \"gradient_accumulation_steps\": 5", 7, 3, 5, 105},
        {"\"train_batch_size\": 12", 4, 3, 1, 12},
        {"\"train_micro_batch_size_per_gpu\": 3", 4, 3, 1, 12},
        {"\"train_batch_size\": 24, \"train_micro_batch_size_per_gpu\": 3, "
         "\"gradient_accumulation_steps\": 2",
         4, 3, 2, 24},
        {"\"train_batch_size\": \"auto\", \"train_micro_batch_size_per_gpu\": \"auto\", "
         "\"gradient_accumulation_steps\": \"auto\"",
         2, 8, 1, 16},
        {"\"train_batch_size\": \"auto\", \"train_micro_batch_size_per_gpu\": 4, "
         "\"gradient_accumulation_steps\": 2",
         2, 4, 2, 16},
        {"\"train_batch_size\": 64, \"train_micro_batch_size_per_gpu\": \"auto\"", 2, 32, 1, 64},
        {"\"train_micro_batch_size_per_gpu\": \"auto\", \"gradient_accumulation_steps\": 4", 2, 8,
         4, 64},
    };
    for (auto &c : cases) {
        Config config(std::string("{") + c.members + "}", {}, c.ranks);
        ASSERT_EQ(config.status, 0) << c.members << config.error();
        EXPECT_EQ(config.config->batch.micro, c.micro) << c.members;
        EXPECT_EQ(config.config->batch.accumulation, c.accumulation) << c.members;
        EXPECT_EQ(config.config->batch.global, c.global) << c.members;
    }
}

TEST(Config, AnEvaluationTakesTheMicroBatchUnlessTold)
{
    Config same("{\"train_batch_size\": 12}", {}, 4);
    ASSERT_EQ(same.status, 0) << same.error();
    EXPECT_EQ(same.config->train.eval_micro_batch, 3);
    Config own("{\"train_batch_size\": 12, \"zinf\": {\"train\": {\"eval_micro_batch\": 5}}}", {},
               4);
    ASSERT_EQ(own.status, 0) << own.error();
    EXPECT_EQ(own.config->train.eval_micro_batch, 5);
}

TEST(Config, BatchesThatDoNotFitNameWhatWould)
{
    struct {
        const char *members;
        int ranks;
        const char *says;
    } cases[] = {
        {"\"train_batch_size\": 10", 4,
         "10 cannot be divided by gradient_accumulation_steps 1 x 4 ranks; right would be "
         "train_batch_size 8 or 12"},
        {"\"train_batch_size\": 24, \"train_micro_batch_size_per_gpu\": 5", 2,
         "right would be train_batch_size 20 or 30, or train_micro_batch_size_per_gpu 4 or 6"},
        {"\"train_batch_size\": 3", 4, "right would be train_batch_size 4"},
        {"\"gradient_accumulation_steps\": 4", 1,
         "missing; right is train_batch_size or train_micro_batch_size_per_gpu"},
        {"", 1, "missing"},
        {"\"train_batch_size\": 0", 1, "0 is wrong; right is a whole number of at least 1"},
        {"\"train_batch_size\": 64, \"train_micro_batch_size_per_gpu\": 3, "
         "\"gradient_accumulation_steps\": 5",
         2, "= 30; right would be train_batch_size 30"},
        {"\"train_batch_size\": 99999999999", 1, "too large"},
        {"\"train_micro_batch_size_per_gpu\": 2147483647, \"gradient_accumulation_steps\": "
         "2147483647",
         8, "micro-batch 2147483647 x accumulation 2147483647 x 8 ranks is too large a batch"},
        {"\"train_batch_size\": 1, \"train_micro_batch_size_per_gpu\": 2147483647, "
         "\"gradient_accumulation_steps\": 2147483647",
         8, "is too large a batch"},
        {"\"train_micro_batch_size_per_gpu\": 1073741824", 2, "is too large a batch"},
    };
    for (auto &c : cases) {
        Config config(std::string("{") + c.members + "}", {}, c.ranks);
        EXPECT_EQ(config.status, ZINF_E_USAGE) << c.members;
        expect_in(config.all(config.report.errors), c.says);
    }
}

TEST(Config, PrecisionFollowsItsKeys)
{
    Config c(
        with("\"fp16\": {\"enabled\": true, \"loss_scale\": 128, \"hysteresis\": 3, "
             "\"initial_scale_power\": 8, "
             "\"loss_scale_window\": 50, \"min_loss_scale\": 4, \"consecutive_hysteresis\": true}, "
             "\"data_types\": {\"grad_accum_dtype\": \"fp32\"}, \"communication_data_type\": "
             "\"bfloat16\""));
    ASSERT_EQ(c.status, 0) << c.error();
    auto &p = c.config->precision;
    EXPECT_EQ(p.dtype, ZINF_FP16);
    EXPECT_EQ(p.accumulation, ZINF_FP32);
    EXPECT_EQ(p.communication, ZINF_BF16);
    EXPECT_EQ(p.loss_scale.loss_scale, 128);
    EXPECT_EQ(p.loss_scale.hysteresis, 3);
    EXPECT_EQ(p.loss_scale.initial_scale_power, 8);
    EXPECT_EQ(p.loss_scale.loss_scale_window, 50);
    EXPECT_EQ(p.loss_scale.min_loss_scale, 4);
    EXPECT_TRUE(p.loss_scale.consecutive_hysteresis);
    Config plain(with("\"bf16\": {\"enabled\": true}"));
    EXPECT_EQ(plain.config->precision.accumulation, ZINF_BF16) << "as DeepSpeed: the model's type";
    EXPECT_EQ(plain.config->precision.communication, ZINF_BF16);
    EXPECT_EQ(Config(with("")).config->precision.dtype, ZINF_FP32);
}

TEST(Config, Fp16AndBf16TogetherAreAnError)
{
    Config c(with("\"fp16\": {\"enabled\": true},\n\"bf16\": {\"enabled\": true}"));
    ASSERT_EQ(c.report.errors.count, 1u);
    EXPECT_EQ(c.error(),
              "ds.json:4:21: bf16.enabled: fp16 and bf16 are both enabled; right is one of them");
    expect_in(
        Config(with("\"bf16\": {\"enabled\": true}, \"data_types\": {\"param_dtype\": \"fp16\"}"))
            .error(),
        "right is \"bf16\"");
}

TEST(Config, OptimizersAndTheirParameters)
{
    auto load = [](const std::string &text) {
        return "{\"train_batch_size\": 1, \"optimizer\": " + text + "}";
    };
    Config adam(load("{\"type\": \"adam\", \"params\": {\"lr\": 2e-5, \"betas\": [0.8, 0.99], "
                     "\"eps\": 1e-6, \"weight_decay\": 0.1}}"));
    ASSERT_EQ(adam.status, 0) << adam.error();
    EXPECT_STREQ(adam.config->optimizer.name, "Adam");
    EXPECT_TRUE(adam.config->optimizer.decoupled_decay) << "DeepSpeed's Adam is AdamW";
    EXPECT_TRUE(adam.config->optimizer.bias_correction);
    EXPECT_EQ(adam.config->optimizer.learning_rate, 2e-5);
    EXPECT_EQ(adam.config->optimizer.beta1, 0.8);
    EXPECT_EQ(adam.config->optimizer.beta2, 0.99);
    EXPECT_EQ(adam.config->optimizer.epsilon, 1e-6);
    EXPECT_EQ(adam.config->optimizer.weight_decay, 0.1);
    Config l2(load(
        "{\"type\": \"Adam\", \"params\": {\"adam_w_mode\": false, \"bias_correction\": false}}"));
    EXPECT_FALSE(l2.config->optimizer.decoupled_decay);
    EXPECT_FALSE(l2.config->optimizer.bias_correction);
    EXPECT_TRUE(Config(load("{\"type\": \"AdamW\", \"params\": {\"adam_w_mode\": false}}"))
                    .config->optimizer.decoupled_decay);
    Config adagrad(load("{\"type\": \"Adagrad\"}"));
    EXPECT_EQ(adagrad.config->optimizer.kind, ZINF_ADAGRAD);
    EXPECT_EQ(adagrad.config->optimizer.learning_rate, 1e-2);
    EXPECT_EQ(adagrad.config->optimizer.epsilon, 1e-10);
    EXPECT_FALSE(adagrad.config->schedule.optimizer_has_betas);
    Config lion(load("{\"type\": \"Lion\"}"));
    EXPECT_EQ(lion.config->optimizer.kind, ZINF_LION);
    EXPECT_EQ(lion.config->optimizer.beta2, 0.999);
    Config sgd(load("{\"type\": \"SGD\", \"params\": {\"momentum\": 0.9, \"nesterov\": true}}"));
    EXPECT_EQ(sgd.config->optimizer.kind, ZINF_SGD);
    EXPECT_TRUE(sgd.config->optimizer.nesterov);
    EXPECT_EQ(sgd.config->optimizer.momentum, 0.9);
}

TEST(Config, WrongOptimizersAndParametersAreNamed)
{
    auto error = [](const std::string &text) {
        return Config("{\"train_batch_size\": 1, \"optimizer\": " + text + "}").error();
    };
    expect_in(error("{\"type\": \"Lamb\"}"), "\"Lamb\" is not supported; right is Adam, AdamW");
    expect_in(error("{\"type\": \"AdamX\"}"), "right is Adam, AdamW, Adagrad, Lion, SGD");
    expect_in(error("{\"params\": {\"lr\": 1}}"), "has no \"type\"");
    expect_in(error("{\"type\": \"Lion\", \"params\": {\"eps\": 1}}"),
              "Lion has no such parameter; it has lr, betas, weight_decay");
    expect_in(error("{\"type\": \"AdamW\", \"params\": {\"max_grad_norm\": 1}}"),
              "right is \"gradient_clipping\"");
    expect_in(error("{\"type\": \"AdamW\", \"params\": {\"amsgrad\": true}}"),
              "amsgrad: true would change the results");
    expect_in(error("{\"type\": \"AdamW\", \"params\": {\"betas\": [0.9]}}"),
              "a list of two numbers");
    expect_in(error("{\"type\": \"AdamW\", \"params\": {\"betas\": [0.9, 1.0]}}"),
              "from 0 to below 1");
    expect_in(error("{\"type\": \"SGD\", \"params\": {\"nesterov\": true}}"),
              "right is momentum above 0 and dampening 0");
}

TEST(Config, AllSchedulersFillTheirOptions)
{
    auto load = [](const std::string &type, const std::string &params) {
        return with("\"scheduler\": {\"type\": \"" + type + "\", \"params\": {" + params + "}}");
    };
    Config warmup(
        load("WarmupLR",
             "\"warmup_num_steps\": 100, \"warmup_type\": \"linear\", \"warmup_max_lr\": 0.25"));
    EXPECT_EQ(warmup.config->schedule.type, ZINF_SCHEDULE_WARMUP_LR);
    EXPECT_EQ(warmup.config->schedule.warmup_num_steps, 100);
    EXPECT_EQ(warmup.config->schedule.warmup_max_lr, 0.25);
    EXPECT_TRUE(warmup.config->schedule.warmup_linear);
    EXPECT_TRUE(std::isnan(Config(load("WarmupLR", "")).config->schedule.warmup_max_lr))
        << "the optimizer's lr";
    Config decay(load("WarmupDecayLR", "\"total_num_steps\": 500"));
    EXPECT_EQ(decay.config->schedule.total_num_steps, 500);
    EXPECT_EQ(decay.config->schedule.warmup_max_lr, 0.001);
    Config cosine(
        load("WarmupCosineLR",
             "\"total_num_steps\": 500, \"cos_min_ratio\": 0.1, \"warmup_min_ratio\": 0.2"));
    EXPECT_EQ(cosine.config->schedule.cos_min_ratio, 0.1);
    EXPECT_EQ(cosine.config->schedule.warmup_min_ratio, 0.2);
    Config cycle(load("OneCycle", "\"cycle_min_lr\": 0.1, \"cycle_max_lr\": 0.9, "
                                  "\"cycle_momentum\": false, \"cycle_first_step_size\": 10, "
                                  "\"cycle_second_stair_count\": 3, \"decay_step_size\": 4"));
    ASSERT_EQ(cycle.status, 0) << cycle.error();
    EXPECT_EQ(cycle.config->schedule.type, ZINF_SCHEDULE_ONE_CYCLE);
    EXPECT_EQ(cycle.config->schedule.cycle_max_lr, 0.9);
    EXPECT_FALSE(cycle.config->schedule.cycle_momentum);
    EXPECT_EQ(cycle.config->schedule.cycle_first_step_size, 10);
    EXPECT_EQ(cycle.config->schedule.cycle_second_stair_count, 3);
    Config range(
        load("LRRangeTest", "\"lr_range_test_step_size\": 7, \"lr_range_test_staircase\": true"));
    EXPECT_EQ(range.config->schedule.lr_range_test_step_size, 7);
    EXPECT_TRUE(range.config->schedule.lr_range_test_staircase);
    EXPECT_EQ(Config(with("")).config->schedule.type, ZINF_SCHEDULE_CONSTANT);
}

TEST(Config, EveryLoadedScheduleIsOneTheScheduleTakes)
{
    for (auto params :
         {"WarmupLR\", \"params\": {}", "WarmupLR\", \"params\": {\"warmup_num_steps\": \"auto\"}",
          "WarmupDecayLR\", \"params\": {\"total_num_steps\": 10}",
          "WarmupCosineLR\", \"params\": {\"total_num_steps\": 10}",
          "OneCycle\", \"params\": {\"cycle_min_lr\": 1, \"cycle_max_lr\": 2}",
          "LRRangeTest\", \"params\": {}"}) {
        Config c(with(std::string("\"scheduler\": {\"type\": \"") + params + "}"));
        ASSERT_EQ(c.status, 0) << c.error();
        zinf_schedule schedule;
        zinf_error error;
        EXPECT_EQ(zinf_schedule_init(&schedule, &c.config->schedule, &error), 0)
            << params << error.text;
    }
}

TEST(Config, SchedulersMissWhatTheyNeed)
{
    auto error = [](const char *type, const char *params) {
        return Config(with(std::string("\"scheduler\": {\"type\": \"") + type +
                           "\", \"params\": {" + params + "}}"))
            .error();
    };
    expect_in(error("WarmupDecayLR", ""),
              "scheduler.params.total_num_steps: missing; WarmupDecayLR needs it");
    expect_in(error("OneCycle", "\"cycle_min_lr\": 1"), "cycle_max_lr: missing");
    expect_in(error("WarmupLR", "\"total_num_steps\": 5"),
              "WarmupLR has no such parameter; it has warmup_min_lr");
    expect_in(error("StepLR", ""), "right is WarmupLR, WarmupDecayLR");
    // what is there and wrong is not missing as well
    Config wrong(with("\"scheduler\": {\"type\": \"OneCycle\", \"params\": {\"cycle_min_lr\": -1, "
                      "\"cycle_max_lr\": [1, 2]}}"));
    EXPECT_EQ(wrong.report.errors.count, 2u) << wrong.all(wrong.report.errors);
}

TEST(Config, AListOfOneIsTheValueOfTheOneParameterGroup)
{
    auto load = [](const char *type, const char *params) {
        return std::string("\"scheduler\": {\"type\": \"") + type + "\", \"params\": {" + params +
               "}}";
    };
    Config warmup(with(load("WarmupLR", "\"warmup_max_lr\": [0.25], \"warmup_min_lr\": [1e-4]")));
    ASSERT_EQ(warmup.status, 0) << warmup.error();
    EXPECT_EQ(warmup.config->schedule.warmup_max_lr, 0.25);
    EXPECT_EQ(warmup.config->schedule.warmup_min_lr, 1e-4);
    Config test(with(load("LRRangeTest", "\"lr_range_test_min_lr\": [0.5]")));
    ASSERT_EQ(test.status, 0) << test.error();
    EXPECT_EQ(test.config->schedule.lr_range_test_min_lr, 0.5);
    EXPECT_NE(Config(with(load("WarmupLR", "\"warmup_num_steps\": [5]"))).status, 0)
        << "no list in DeepSpeed either";
    EXPECT_NE(Config(with(load("WarmupLR", "\"warmup_max_lr\": [\"x\"]"))).status, 0);
    expect_in(Config(with(load("WarmupLR", "\"warmup_max_lr\": [0.1, 0.2]"))).error(),
              "one value for each parameter group, and this one has 2");
}

TEST(Config, ASetWinsOverTheFileWhateverSpelling)
{
    Config c(with("\"bfloat16\": {\"enabled\": true}, \"zero_optimization\": {\"stage\": 1, "
                  "\"stage3_max_live_parameters\": 5}"),
             {"bf16.enabled=false", "zero_optimization.stage=3",
              "zero_optimization.max_live_parameters=6", "grad_accum_dtype=fp32",
              "zinf.model.config={\"model_type\": \"gpt2\", \"n_layer\": 2}",
              "zinf.run.dir=a/b=c"});
    ASSERT_EQ(c.status, 0) << c.error();
    EXPECT_EQ(c.config->precision.dtype, ZINF_FP32);
    EXPECT_EQ(c.config->zero.stage, 3);
    EXPECT_EQ(c.config->zero.max_live_parameters, 6);
    EXPECT_EQ(c.config->precision.accumulation, ZINF_FP32);
    EXPECT_STREQ(c.config->run_dir, "a/b=c");
    EXPECT_EQ(zinf_json_integer(c.config->model.config, "n_layer", 0), 2);
    EXPECT_EQ(c.report.warnings.count, 1u);
    expect_begin(
        c.line(c.report.warnings, 0),
        "--set grad_accum_dtype: stands in the wrong place, where DeepSpeed does not look");
}

TEST(Config, AnObjectOfASetReplacesTheFilesObject)
{
    Config c(with(""), {"optimizer={\"type\": \"SGD\"}"});
    EXPECT_STREQ(c.config->optimizer.name, "SGD");
    Config fields(with("\"zinf\": {\"model\": {\"config\": {\"model_type\": \"gpt2\", \"n_layer\": "
                       "1, \"n_head\": 2}}}"),
                  {"zinf.model.config={\"model_type\": \"gpt2\", \"n_layer\": 3}"});
    EXPECT_EQ(zinf_json_get(fields.config->model.config, "n_head"), nullptr);
    Config one(with("\"zinf\": {\"model\": {\"config\": {\"model_type\": \"gpt2\", \"n_layer\": 1, "
                    "\"n_head\": 6}}}"),
               {"zinf.model.config.n_layer=3"});
    EXPECT_EQ(zinf_json_integer(one.config->model.config, "n_head", 0), 6);
    EXPECT_EQ(zinf_json_integer(one.config->model.config, "n_layer", 0), 3);
}

TEST(Config, ErrorsOfASetNameItAsTheirPlace)
{
    Config c(with(""), {"zero_optimization.stage=4", "zero_optimization.stagee=1", "zinf..x=1"});
    ASSERT_EQ(c.report.errors.count, 3u);
    std::string all = c.all(c.report.errors);
    expect_in(all, "--set zero_optimization.stage: 4 is wrong; right is");
    expect_in(all,
              "--set zero_optimization.stagee: unknown key; did you mean zero_optimization.stage?");
    expect_in(all, "--set zinf..x: is no path");
}

TEST(Config, TheLastSetWins)
{
    EXPECT_EQ(
        Config(with(""), {"gradient_clipping=1", "gradient_clipping=2"}).config->gradient_clipping,
        2);
}

TEST(Config, ARunNamesEverythingItMisses)
{
    Config c("{\"train_batch_size\": 1}", {}, 1, ZINF_CONFIG_TRAIN);
    std::string all = c.all(c.report.errors);
    EXPECT_EQ(c.report.errors.count, 5u) << all;
    expect_in(all, "--set 'optimizer={\"type\":\"AdamW\",\"params\":{\"lr\":1e-4}}'");
    expect_in(all, "--set zinf.model.path=FOLDER");
    expect_in(all, "--set zinf.data.train=FILE");
    expect_in(all, "--set zinf.train.steps=N");
    expect_in(all, "--set zinf.data.tokenizer=bytes");
    Config check("{\"train_batch_size\": 1}");
    EXPECT_EQ(check.status, 0);
    EXPECT_EQ(check.report.notes.count, 5u);
    Config eval("{\"train_batch_size\": 1}", {}, 1, ZINF_CONFIG_EVAL);
    EXPECT_EQ(eval.report.errors.count, 3u) << eval.all(eval.report.errors);
}

TEST(Config, MoreEpochsThanStepsCanBeCountedAreAnError)
{
    expect_in(Config(with("\"zinf\": {\"train\": {\"epochs\": 1e300}}")).error(),
              "epochs: 1e+300 is wrong; right is a number from 0 to 1e+09");
}

TEST(Config, StepsAndEpochsTogetherAreAnError)
{
    expect_in(Config(with("\"zinf\": {\"train\": {\"steps\": 1, \"epochs\": 1}}")).error(),
              "exactly one of them");
    EXPECT_EQ(Config(with("\"zinf\": {\"train\": {\"steps\": 1, \"epochs\": null}}")).status, 0);
}

TEST(Config, RemotePathsSayHowToStageTheData)
{
    Config c(with("\"zinf\": {\"data\": {\"train\": [\"a.txt\", \"s3://bucket/b.txt\"]}, "
                  "\"model\": {\"path\": \"hf://x\"}}"));
    EXPECT_EQ(c.report.errors.count, 2u);
    expect_in(c.error(0), "zinf.data.train: \"s3://bucket/b.txt\" is a remote address");
    expect_in(c.error(0), "copy it first");
}

TEST(Config, VariablesInPathsAreReplaced)
{
    setenv("ZINF_TEST_A", "/data", 1);
    unsetenv("ZINF_TEST_B");
    Config c(with("\"zinf\": {\"data\": {\"train\": [\"${ZINF_TEST_A}/x.txt\", "
                  "\"${ZINF_TEST_B:-/d}/${ZINF_TEST_A:-e}.txt\"]}, "
                  "\"run\": {\"dir\": \"r${ZINF_TEST_B:-}\"}}"));
    ASSERT_EQ(c.status, 0) << c.error();
    ASSERT_EQ(c.config->data.train.count, 2);
    EXPECT_STREQ(c.config->data.train.items[0], "/data/x.txt");
    EXPECT_STREQ(c.config->data.train.items[1], "/d//data.txt");
    EXPECT_STREQ(c.config->run_dir, "r");
    Config missing(with("\"zinf\": {\"run\": {\"dir\": \"${ZINF_TEST_B}/x\"}}"));
    expect_in(missing.error(), "the environment variable ZINF_TEST_B is not set; set it, or write "
                               "${ZINF_TEST_B:-default}");
    Config open(with("\"zinf\": {\"run\": {\"dir\": \"${ZINF_TEST_A\"}}"));
    expect_in(open.error(), "a } is missing");
}

TEST(Config, DefaultsOfTheContract)
{
    Config c(with(""));
    auto *config = c.config;
    EXPECT_STREQ(config->run_dir, "runs/ds");
    EXPECT_EQ(config->steps_per_print, 10);
    EXPECT_EQ(config->data.sequence_length, 1024);
    EXPECT_STREQ(config->data.packing, "concat");
    EXPECT_TRUE(config->data.shuffle);
    EXPECT_EQ(config->train.seed, 42);
    EXPECT_EQ(config->train.max_nonfinite, 25);
    EXPECT_EQ(config->train.eval_every, 0);
    EXPECT_EQ(config->checkpoint.every_steps, 0);
    EXPECT_EQ(config->checkpoint.num_to_keep, 2);
    EXPECT_STREQ(config->checkpoint.score_attribute, "eval_loss");
    EXPECT_FALSE(config->checkpoint.score_max);
    EXPECT_STREQ(config->checkpoint.resume, "auto");
    EXPECT_EQ(config->memory.device_bytes, -1);
    EXPECT_EQ(config->watchdog_s, 600);
    EXPECT_TRUE(config->log_jsonl);
}

TEST(Config, MemorySizesAreBytes)
{
    Config c(with("\"zinf\": {\"memory\": {\"device\": \"6GB\", \"host\": 4096}}"));
    EXPECT_EQ(c.config->memory.device_bytes, 6000000000);
    EXPECT_EQ(c.config->memory.host_bytes, 4096);
    expect_in(Config(with("\"zinf\": {\"memory\": {\"host\": \"six\"}}")).error(),
              "a size such as \"6GB\"");
}

TEST(Config, TheSequenceLengthFollowsTheModel)
{
    auto model = [](const std::string &length) {
        return with("\"zinf\": {\"model\": {\"config\": {\"model_type\": \"gpt2\", "
                    "\"n_positions\": 128}}, \"data\": {" +
                    length + "}}");
    };
    EXPECT_EQ(Config(model("")).config->data.sequence_length, 128);
    EXPECT_EQ(Config(model("\"sequence_length\": 64")).config->data.sequence_length, 64);
    expect_in(Config(model("\"sequence_length\": 129")).error(),
              "129 is more than the model's 128 positions");
}

TEST(Config, TheFoldersConfigIsReadAndTheInlineOneWins)
{
    char folder[] = "/tmp/zinf_model_XXXXXX";
    ASSERT_NE(mkdtemp(folder), nullptr);
    std::string file = std::string(folder) + "/config.json";
    std::ofstream(file) << "{\"model_type\": \"gpt2\", \"n_layer\": 12, \"n_positions\": 64}";
    Config c(with(std::string("\"zinf\": {\"model\": {\"path\": \"") + folder +
                  "\", \"config\": {\"n_layer\": 3}}}"));
    ASSERT_EQ(c.status, 0) << c.error();
    EXPECT_EQ(zinf_json_integer(c.config->model.config, "n_layer", 0), 3);
    EXPECT_STREQ(zinf_json_string(c.config->model.config, "model_type", ""), "gpt2");
    EXPECT_EQ(c.config->model.config_source, file);
    EXPECT_EQ(c.config->data.sequence_length, 64);
    EXPECT_STREQ(c.config->data.tokenizer, folder);
    std::ofstream(file) << "{\"model_type\": \"gpt2\",}";
    Config damaged(with(std::string("\"zinf\": {\"model\": {\"path\": \"") + folder + "\"}}"));
    EXPECT_EQ(damaged.status, ZINF_E_DATA);
    expect_begin(damaged.error(), file + ":1:22: ");
    unlink(file.c_str());
    Config gone(with(std::string("\"zinf\": {\"model\": {\"path\": \"") + folder + "\"}}"));
    EXPECT_EQ(gone.status, 0) << "a look at the file alone";
    Config run(with(std::string("\"zinf\": {\"model\": {\"path\": \"") + folder +
                    "\"}, \"data\": {\"train\": \"x\", \"tokenizer\": \"bytes\"}, \"train\": "
                    "{\"steps\": 1}}"),
               {}, 1, ZINF_CONFIG_TRAIN);
    EXPECT_EQ(run.status, ZINF_E_DATA) << run.all(run.report.errors);
    rmdir(folder);
}

TEST(Config, AModelPathThatIsNotThereIsNoReasonToTrainFromRandomWeights)
{
    const std::string text = with("\"zinf\": {\"model\": {\"path\": \"/no/folder\", \"config\": "
                                  "{\"model_type\": \"gpt2\"}}, \"data\": {\"train\": \"x\", "
                                  "\"tokenizer\": \"bytes\"}, \"train\": {\"steps\": 1}}");
    Config run(text, {}, 1, ZINF_CONFIG_TRAIN);
    EXPECT_EQ(run.status, ZINF_E_DATA);
    EXPECT_EQ(run.report.errors.count, 1u);
    expect_in(run.error(), "zinf.model.path: /no/folder: No such file or directory");
    Config check(text);
    EXPECT_EQ(check.status, 0) << "a look at the file alone";
    expect_in(check.all(check.report.notes), "/no/folder");
}

TEST(Config, FormatsToComeAreKnownByTheirEnding)
{
    Config c(with("\"zinf\": {\"data\": {\"train\": [\"a.txt\", \"b.csv\"]}}"));
    expect_in(c.all(c.report.not_yet), "zinf.data.train: \"b.csv\"");
    EXPECT_EQ(Config(with("\"zinf\": {\"data\": {\"train\": \"b.csv\", \"format\": \"text\"}}"))
                  .report.not_yet.count,
              0u);
}

TEST(Config, TheEffectiveConfigurationIsAFixedPoint)
{
    const char *texts[] = {
        "\"scheduler\": {\"type\": \"WarmupCosineLR\", \"params\": {\"total_num_steps\": "
        "\"auto\"}}, \"fp16\": {\"enabled\": true}, \"zinf\": {\"train\": {\"steps\": 5}}",
        "\"zero_optimization\": true, \"gradient_clipping\": true, \"grad_accum_dtype\": \"fp32\", "
        "\"wall_clock_breakdown\": false",
        "\"scheduler\": {\"type\": \"OneCycle\", \"params\": {\"cycle_min_lr\": 1e-5, "
        "\"cycle_max_lr\": 1e-3}}"};
    for (auto text : texts) {
        Config first(with(text), {}, 3);
        ASSERT_EQ(first.status, 0) << first.error();
        char *printed = zinf_json_print(first.config->effective, 2);
        Config second(printed, {}, 3);
        ASSERT_EQ(second.status, 0) << second.all(second.report.errors) << printed;
        EXPECT_EQ(second.report.warnings.count, 0u) << second.all(second.report.warnings);
        EXPECT_EQ(second.report.filled.count, 0u);
        char *again = zinf_json_print(second.config->effective, 2);
        zinf_json *a, *b;
        zinf_error_list none = {};
        zinf_json_options strict = {"effective", true, ZINF_E_USAGE, false};
        EXPECT_EQ(zinf_json_parse(&a, printed, strlen(printed), &strict, &none), 0);
        EXPECT_EQ(zinf_json_parse(&b, again, strlen(again), &strict, &none), 0);
        size_t count;
        const zinf_key *keys = zinf_keys(&count);
        for (size_t i = 0; i < count; i++) {
            bool leaf = keys[i].type != ZINF_KEY_OBJECT;
            EXPECT_TRUE(!leaf || first.effective(keys[i].path) == second.effective(keys[i].path))
                << keys[i].path;
        }
        zinf_json_free(a);
        zinf_json_free(b);
        free(printed);
        free(again);
    }
}

TEST(Config, EveryWorkingKeyStandsInTheEffectiveConfiguration)
{
    Config c(with("\"scheduler\": {\"type\": \"WarmupLR\"}"));
    size_t count;
    const zinf_key *keys = zinf_keys(&count);
    for (size_t i = 0; i < count; i++) {
        bool leaf =
            keys[i].type != ZINF_KEY_OBJECT && keys[i].otherwise && keys[i].state == ZINF_KEY_WORKS;
        bool applies = !keys[i].only || zinf_key_list_has(keys[i].only, "AdamW") ||
                       zinf_key_list_has(keys[i].only, "WarmupLR");
        EXPECT_FALSE(leaf && applies && c.effective(keys[i].path) == "absent") << keys[i].path;
    }
}
} // namespace

TEST(Config, TensorFloatsCountInFp32OnAGpuOnly)
{
    const std::string on = "\"zinf\": {\"tf32\": true";
    Config fp32(with(on + "}"));
    EXPECT_TRUE(fp32.config->precision.tf32);
    EXPECT_EQ(fp32.report.no_effect.count, 0u) << fp32.all(fp32.report.no_effect);
    Config half(with("\"bf16\": {\"enabled\": true}, " + on + "}"));
    EXPECT_FALSE(half.config->precision.tf32);
    expect_in(half.all(half.report.no_effect), "zinf.tf32");
    Config cpu(with(on + ", \"device\": \"cpu\"}"));
    expect_in(cpu.all(cpu.report.no_effect), "zinf.tf32");
    Config off(with("\"bf16\": {\"enabled\": true}, \"zinf\": {\"tf32\": false}"));
    EXPECT_EQ(off.report.no_effect.count, 0u) << off.all(off.report.no_effect);
}
