// ds.json: what a file leaves open, by "auto", by null or by nothing; and the schema, which takes
// the same.
#include "tests/config_text.h"

namespace
{

TEST(Config, AutoIsFilledAsHuggingFaceDoesAndSaid)
{
    Config c("{\"train_micro_batch_size_per_gpu\": \"auto\", \"gradient_accumulation_steps\": "
             "\"auto\", \"train_batch_size\": \"auto\", "
             "\"gradient_clipping\": \"auto\", \"fp16\": {\"enabled\": \"auto\", "
             "\"loss_scale_window\": \"auto\"}, \"bf16\": {\"enabled\": \"auto\"},"
             "\"optimizer\": {\"type\": \"AdamW\", \"params\": {\"lr\": \"auto\", \"betas\": "
             "\"auto\", \"eps\": \"auto\", \"weight_decay\": \"auto\"}},"
             "\"scheduler\": {\"type\": \"WarmupDecayLR\", \"params\": {\"warmup_min_lr\": "
             "\"auto\", \"warmup_max_lr\": \"auto\", "
             "\"warmup_num_steps\": \"auto\", \"total_num_steps\": \"auto\"}},"
             "\"zero_optimization\": {\"stage\": 3, \"reduce_bucket_size\": \"auto\", "
             "\"stage3_prefetch_bucket_size\": \"auto\"},"
             "\"zinf\": {\"train\": {\"steps\": 70}}}",
             {}, 2);
    ASSERT_EQ(c.status, 0) << c.error();
    auto *config = c.config;
    EXPECT_EQ(config->batch.global, 16);
    EXPECT_EQ(config->gradient_clipping, 1.0);
    EXPECT_EQ(config->precision.dtype, ZINF_FP32);
    EXPECT_EQ(config->precision.loss_scale.loss_scale_window, 1000);
    EXPECT_EQ(config->optimizer.learning_rate, 5e-5);
    EXPECT_EQ(config->optimizer.beta2, 0.999);
    EXPECT_EQ(config->optimizer.epsilon, 1e-8);
    EXPECT_EQ(config->optimizer.weight_decay, 0);
    EXPECT_EQ(config->schedule.warmup_max_lr, 5e-5);
    EXPECT_EQ(config->schedule.total_num_steps, 70);
    EXPECT_FALSE(config->schedule_total_auto);
    EXPECT_EQ(config->zero.prefetch_bucket_size, 50000000);
    EXPECT_EQ(c.report.filled.count, 17u) << c.all(c.report.filled);
    expect_in(c.all(c.report.filled), "optimizer.params.lr: 5e-05");
    expect_in(c.all(c.report.filled), "scheduler.params.warmup_max_lr: 5e-05");
}

TEST(Config, TotalStepsOfARunInEpochsAreFilledLater)
{
    Config c(with("\"scheduler\": {\"type\": \"WarmupDecayLR\", \"params\": {\"total_num_steps\": "
                  "\"auto\"}}, \"zinf\": {\"train\": {\"epochs\": 3}}"));
    ASSERT_EQ(c.status, 0) << c.error();
    EXPECT_TRUE(c.config->schedule_total_auto);
    EXPECT_EQ(c.config->train.epochs, 3);
    EXPECT_EQ(c.config->train.steps, 0);
}

TEST(Config, AutoWhereItMeansNothingIsAnError)
{
    expect_in(Config(with("\"steps_per_print\": \"auto\"")).error(), "\"auto\" is wrong");
    expect_in(Config(with("\"zinf\": {\"train\": {\"steps\": \"auto\"}}")).error(),
              "\"auto\" is wrong");
}

TEST(Config, AutoThatDeepSpeedDropsIsTheDefaultAndSaid)
{
    Config c(
        with("\"zero_optimization\": {\"stage\": \"auto\", \"offload_optimizer\": {\"device\": "
             "\"auto\", \"nvme_path\": \"auto\"}}"));
    ASSERT_EQ(c.status, 0) << c.error();
    EXPECT_EQ(c.config->zero.stage, 0);
    EXPECT_EQ(c.config->offload.optimizer, ZINF_CONFIG_DEVICE_NONE);
    EXPECT_EQ(c.effective("zero_optimization.offload_optimizer.device"), "\"none\"");
    EXPECT_EQ(c.effective("zero_optimization.offload_optimizer.nvme_path"), "null");
    std::string all = c.all(c.report.filled);
    expect_in(all, "zero_optimization.stage: 0");
    expect_in(all, "offload_optimizer.device: \"none\"");
    expect_in(all, "offload_optimizer.nvme_path: null");
}

TEST(Config, AnOptimizerOfNothingIsNone)
{
    for (const char *nothing : {"null", "{}"}) {
        Config c(std::string("{\"train_batch_size\": 1, \"optimizer\": ") + nothing + "}", {}, 1,
                 ZINF_CONFIG_TRAIN);
        expect_in(c.all(c.report.errors), "this run still needs an optimizer: --set 'optimizer=");
    }
    for (const char *object : {"optimizer", "scheduler"})
        expect_in(Config(std::string("{\"train_batch_size\": 1, \"") + object +
                         "\": {\"type\": null, \"params\": {}}}")
                      .error(),
                  std::string(object) + ": has no \"type\"");
}

TEST(Config, TheSchemaHasEveryKey)
{
    zinf_json *schema = zinf_keys_schema();
    size_t count;
    const zinf_key *keys = zinf_keys(&count);
    for (size_t i = 0; i < count; i++) {
        std::string path = "properties." + std::string(keys[i].path);
        for (size_t dot = path.find('.', 11); dot != std::string::npos;
             dot = path.find('.', dot + 12))
            path.replace(dot, 1, ".properties.");
        EXPECT_NE(zinf_json_path(schema, path.c_str()), nullptr) << path;
    }
    zinf_json_free(schema);
}

// An editor must not underline what the reader takes.
TEST(Config, TheSchemaTakesAutoAndNullWhereTheReaderDoes)
{
    zinf_json *schema = zinf_keys_schema();
    auto takes = [&](const char *object, const char *key, const char *kind, const char *word) {
        std::string path = std::string("properties.") + object + ".properties." + key + "." + kind;
        const zinf_json *list = zinf_json_path(schema, path.c_str());
        bool found = false;
        for (size_t i = 0; list && i < list->count; i++)
            found |= word ? list->members[i]->type == ZINF_JSON_STRING &&
                                !strcmp(list->members[i]->string, word)
                          : list->members[i]->type == ZINF_JSON_NULL;
        return found;
    };
    Config c(with("\"zero_optimization\": {\"stage\": \"auto\", \"reduce_bucket_size\": \"auto\", "
                  "\"overlap_comm\": \"auto\", \"offload_param\": null, \"offload_optimizer\": "
                  "{\"device\": \"auto\"}}, \"scheduler\": null"));
    EXPECT_EQ(c.status, 0) << c.error();
    for (const char *key : {"stage", "reduce_bucket_size", "overlap_comm"})
        EXPECT_TRUE(takes("zero_optimization", key, "type", "string")) << key;
    EXPECT_TRUE(takes("zero_optimization", "offload_param", "type", "null"));
    EXPECT_TRUE(takes("zero_optimization.properties.offload_optimizer", "device", "enum", "auto"));
    EXPECT_TRUE(takes("zinf.properties.memory", "activations", "enum", "auto"));
    EXPECT_FALSE(takes("zinf.properties.train", "seed", "type", "string"));
    EXPECT_FALSE(takes("zinf.properties.data", "format", "enum", nullptr));
    zinf_json_free(schema);
}
} // namespace
