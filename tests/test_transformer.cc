// Forward and backward of whole models: against PyTorch's numbers, finite differences, themselves
// after recomputation and after another cut into micro-batches. The walk over the blocks is that of
// a training step, without ranks.
#include "model/transformer.h"

#include <cmath>
#include <gtest/gtest.h>
#include <ostream>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "data/torch_gradients.h"
#include "model_walk.h"

// What GoogleTest shows of a parameter.
static void PrintTo(const torch_model &model, std::ostream *out)
{
    *out << model.name;
}

namespace
{
const torch_model &torch_model_of(const std::string &name)
{
    for (const torch_model &each : torch_models)
        if (name == each.name)
            return each;
    throw std::runtime_error(name);
}

class Torch : public testing::TestWithParam<torch_model>
{
};

// fp32 against float64: sums of a few hundred terms, a few layers deep: 1e-5 of the tensor's norm.
TEST_P(Torch, LossAndGradientsAgreeInFp32)
{
    Net net(GetParam().config, Options{});
    EXPECT_NEAR(net.step(true), GetParam().loss, 1e-6 * GetParam().loss);
    ASSERT_EQ((size_t)net.model->param_count, GetParam().gradients.size());
    for (const torch_gradient &expected : GetParam().gradients) {
        int param = zinf_model_find(net.model, expected.name);
        ASSERT_GE(param, 0) << expected.name;
        const std::vector<double> &gradient = net.gradients[param];
        const double bound = 1e-5 * expected.norm;
        EXPECT_NEAR(norm(gradient), expected.norm, bound) << expected.name;
        for (size_t i = 0; i < 8; i++)
            EXPECT_NEAR(gradient[(2 * i + 1) * gradient.size() / 16], expected.samples[i], bound)
                << expected.name << i;
    }
}

// In 16 bits each result is rounded where PyTorch rounds (or less often): what is lost is at most
// about what PyTorch loses.
void expect_16_bit(const torch_model &torch, zinf_dtype dtype, double share)
{
    Net exact(torch.config, Options{});
    Options options;
    options.dtype = dtype;
    options.loss_scale = dtype == ZINF_FP16 ? 64 : 1;
    Net rounded(torch.config, options);
    const double loss = exact.step(true);
    EXPECT_NEAR(rounded.step(true), loss, 2e-3 * loss * share);
    double ours = 0, theirs = 0;
    for (const torch_gradient &expected : torch.gradients) {
        int param = zinf_model_find(exact.model, expected.name);
        double lost = difference(rounded.gradients[param], exact.gradients[param]);
        EXPECT_LE(lost, share * (2 * expected.bf16_difference + 2e-3 * expected.norm))
            << expected.name;
        EXPECT_GT(lost, 0) << expected.name;
        ours += lost * lost;
        theirs += expected.bf16_difference * expected.bf16_difference;
    }
    EXPECT_LE(sqrt(ours), 1.2 * share * sqrt(theirs));
}

TEST_P(Torch, Bf16LosesNoMoreThanPyTorchs)
{
    expect_16_bit(GetParam(), ZINF_BF16, 1);
}

// Three bits more. Not the model with ReLU: near its kink a rounding makes a gradient jump, however
// small it is.
TEST_P(Torch, Fp16LosesAnEighthOfIt)
{
    if (std::string(GetParam().name) != "gpt2_relu")
        expect_16_bit(GetParam(), ZINF_FP16, 0.125);
}

TEST_P(Torch, RecomputationGivesTheSameBits)
{
    for (zinf_dtype dtype : {ZINF_FP32, ZINF_BF16}) {
        Options options;
        options.dtype = dtype;
        Net kept(GetParam().config, options);
        options.recompute = true;
        Net recomputed(GetParam().config, options);
        EXPECT_EQ(kept.step(true), recomputed.step(true));
        EXPECT_EQ(kept.gradients, recomputed.gradients);
    }
}

TEST_P(Torch, GradientsOfMicroBatchesAddUp)
{
    Net net(GetParam().config, Options{});
    const double loss = net.step(true);
    const auto whole = net.gradients;
    for (int64_t micro_batch : {1, 2}) {
        EXPECT_NEAR(net.step(true, micro_batch), loss, 1e-6 * loss);
        for (size_t p = 0; p < whole.size(); p++)
            EXPECT_LE(difference(net.gradients[p], whole[p]), 2e-6 * norm(whole[p]))
                << net.model->params[p].name;
    }
}

INSTANTIATE_TEST_SUITE_P(Models, Torch, testing::ValuesIn(torch_models),
                         [](const auto &info) { return info.param.name; });

// Models with every kind of dropout they have: attention-only for llama.
const char dropout_gpt2[] =
    R"({"model_type":"gpt2","vocab_size":61,"n_positions":16,"n_embd":24,"n_layer":2,"n_head":3})";
const char dropout_llama[] =
    R"({"model_type":"llama","vocab_size":61,"hidden_size":24,"num_hidden_layers":2,
    "num_attention_heads":6,"num_key_value_heads":2,"intermediate_size":40,"attention_dropout":0.1,"attention_bias":true})";

/*
 * (loss(w + h d) - loss(w - h d)) / 2h = gradient . d for each parameter tensor, d a unit vector
 * half along the gradient, half random. Error: rounding of the loss (fp32, averaged over tokens)
 * 2e-7 / h, truncation h^2 times a third derivative of about the gradient's size.
 */
void expect_finite_differences(const char *config, bool training)
{
    Options options;
    options.training = training;
    options.batch = 2;
    options.sequence = 8;
    Net net(config, options);
    net.step(true);
    const auto gradients = net.gradients;
    std::mt19937 random(1);
    std::normal_distribution<double> normal;
    const double h = 4e-3;
    for (int p = 0; p < net.model->param_count; p++) {
        const size_t n = gradients[p].size();
        const double length = norm(gradients[p]);
        ASSERT_GT(length, 0);
        std::vector<double> direction(n);
        double along = 0;
        for (size_t e = 0; e < n; e++)
            direction[e] = gradients[p][e] / length + normal(random) / sqrt((double)n);
        const double direction_length = norm(direction);
        const std::vector<float> before = net.weights[p];
        double losses[2];
        for (int side = 0; side < 2; side++) {
            for (size_t e = 0; e < n; e++)
                net.weights[p][e] =
                    (float)(before[e] + (side ? -h : h) * direction[e] / direction_length);
            losses[side] = net.step(false);
        }
        net.weights[p] = before;
        for (size_t e = 0; e < n; e++)
            along += gradients[p][e] * direction[e] / direction_length;
        EXPECT_NEAR((losses[0] - losses[1]) / (2 * h), along, 2e-4 + 1e-3 * length)
            << net.model->params[p].name;
    }
}

TEST(Layers, GradientsAgreeWithFiniteDifferences)
{
    expect_finite_differences(torch_model_of("gpt2_plain").config, false);
    expect_finite_differences(torch_model_of("gpt2_options").config, false);
    expect_finite_differences(torch_model_of("llama_grouped").config, false);
}

TEST(Dropout, GradientsAgreeWithFiniteDifferencesUnderAFixedMask)
{
    expect_finite_differences(dropout_gpt2, true);
    expect_finite_differences(dropout_llama, true);
}

TEST(Dropout, IsOffOutsideTraining)
{
    Options options;
    options.training = false;
    Net off(dropout_gpt2, options);
    const std::string config(dropout_gpt2);
    Net none(config.substr(0, config.size() - 1) +
                 R"(,"attn_pdrop":0,"resid_pdrop":0,"embd_pdrop":0})",
             Options{});
    Net on(dropout_gpt2, Options{});
    const double loss = off.step(true);
    EXPECT_EQ(loss, none.step(true));
    EXPECT_EQ(off.gradients, none.gradients);
    EXPECT_GT(fabs(on.step(true) - loss), 1e-3);
}

TEST(Dropout, EveryPlaceIsDroppedApart)
{
    const std::string base =
        R"({"model_type":"gpt2","vocab_size":61,"n_positions":16,"n_embd":24,"n_layer":2,"n_head":3,)";
    std::vector<double> losses;
    for (const char *rates : {R"("attn_pdrop":0,"resid_pdrop":0,"embd_pdrop":0)",
                              R"("attn_pdrop":0.1,"resid_pdrop":0,"embd_pdrop":0)",
                              R"("attn_pdrop":0,"resid_pdrop":0.1,"embd_pdrop":0)",
                              R"("attn_pdrop":0,"resid_pdrop":0,"embd_pdrop":0.1)"})
        losses.push_back(Net(base + rates + "}", Options{}).step(false));
    for (size_t i = 0; i < losses.size(); i++)
        for (size_t j = 0; j < i; j++)
            EXPECT_NE(losses[i], losses[j]) << i << " " << j;
}

// The mask belongs to the sample of the global batch, not to its place in a micro-batch; another
// step has another mask.
TEST(Dropout, MaskDoesNotDependOnTheMicroBatch)
{
    for (const char *config : {dropout_gpt2, dropout_llama}) {
        Net net(config, Options{});
        const double loss = net.step(true);
        const auto whole = net.gradients;
        for (int64_t micro_batch : {1, 2}) {
            EXPECT_NEAR(net.step(true, micro_batch), loss, 1e-6 * loss);
            for (size_t p = 0; p < whole.size(); p++)
                EXPECT_LE(difference(net.gradients[p], whole[p]), 3e-6 * norm(whole[p]))
                    << net.model->params[p].name;
        }
        net.pass.step++;
        EXPECT_GT(fabs(net.step(false) - loss), 1e-4);
    }
}

TEST(Dropout, RecomputationGivesTheSameBits)
{
    Options options;
    Net kept(dropout_gpt2, options);
    options.recompute = true;
    Net recomputed(dropout_gpt2, options);
    EXPECT_EQ(kept.step(true), recomputed.step(true));
    EXPECT_EQ(kept.gradients, recomputed.gradients);
}

// torch's padding_idx: the row gets no gradient as an input. The config's twin without it differs
// there and nowhere else.
TEST(Embedding, ThePaddingRowHasNoGradient)
{
    std::string config = torch_model_of("llama_grouped").config;
    Net plain(config, Options{});
    config.insert(config.size() - 1, R"(, "pad_token_id": )" + std::to_string(plain.inputs[4]));
    Net padded(config, Options{});
    const int64_t columns = plain.model->hidden, row = plain.inputs[4];
    EXPECT_EQ(plain.step(true), padded.step(true));
    for (int64_t e = 0; e < columns; e++) {
        EXPECT_NE(plain.gradients[0][row * columns + e], 0);
        EXPECT_EQ(padded.gradients[0][row * columns + e], 0);
        plain.gradients[0][row * columns + e] = 0;
    }
    EXPECT_EQ(plain.gradients, padded.gradients);
}

TEST(Embedding, TilesGiveWhatOneTileGives)
{
    // a vocabulary and positions of several tiles: 12 * 8 * 8 + ... elements a layer hold 109 rows
    // of 8
    const char config[] =
        R"({"model_type":"gpt2","vocab_size":1000,"n_positions":300,"n_embd":8,"n_layer":1,"n_head":2,
        "resid_pdrop":0,"embd_pdrop":0,"attn_pdrop":0})";
    Options options;
    options.sequence = 250;
    options.batch = 2;
    Net net(config, options);
    EXPECT_GE(net.model->embedding_block_count, 5);
    EXPECT_GE(net.model->position_block_count, 2);
    net.step(true);
    // positions: gradient beyond the sequence is zero, before it is not; the whole against finite
    // differences below
    const auto &positions = net.gradients[1];
    for (int64_t e = 0; e < 300 * 8; e++)
        EXPECT_EQ(positions[e] == 0, e >= 250 * 8) << e;
    const auto table = net.gradients[0];
    std::vector<double> direction(table.size());
    const double h = 1e-2 / norm(table);
    double along = 0, losses[2];
    const auto before = net.weights[0];
    for (int side = 0; side < 2; side++) {
        for (size_t e = 0; e < table.size(); e++)
            net.weights[0][e] = (float)(before[e] + (side ? -h : h) * table[e]);
        losses[side] = net.step(false);
    }
    for (double value : table)
        along += value * value;
    EXPECT_NEAR((losses[0] - losses[1]) / (2 * h), along, 2e-3 * along);
}

// So many tokens that a tile is cut into strips: logits, loss and gradients against sums in double,
// whether logits are kept or made again.
TEST(Head, StripsGiveTheLossAndGradientsOfTheWhole)
{
    Options options;
    options.batch = 21;
    options.sequence = 100;
    Net net(
        R"({"model_type":"gpt2","vocab_size":4171,"n_positions":100,"n_embd":8,"n_inner":4000,"n_layer":1,"n_head":1,"tie_word_embeddings":false})",
        options);
    const zinf_model *model = net.model;
    ASSERT_EQ(model->head_block_count, 1);
    const zinf_block &block = model->blocks[model->first_head_block];
    const int64_t tokens = 2100, rows = 4171, columns = 8;
    Memory scratch, weights, y, dy, dweights, numbers, logits_kept, dy_kept, dweights_kept;
    scratch.resize(zinf_scratch_bytes(model, ZINF_FP32, options.batch, options.sequence));
    weights.resize(rows * columns * 4);
    y.resize(tokens * columns * 4);
    dy.resize(tokens * columns * 4);
    dweights.resize(rows * columns * 4);
    dy_kept.resize(dy.size);
    dweights_kept.resize(dweights.size);
    logits_kept.resize(zinf_head_logits_bytes(model, ZINF_FP32, tokens));
    numbers.resize(3 * tokens * 4);
    float *w = (float *)weights.data(), *h = (float *)y.data(), *state = (float *)numbers.data();
    for (int64_t e = 0; e < rows * columns; e++)
        w[e] = (float)hashed(1, e) / 16384 - 2;
    for (int64_t e = 0; e < tokens * columns; e++)
        h[e] = (float)hashed(2, e) / 16384 - 2;
    net.pass.targets = net.targets.data();
    net.pass.scratch = scratch.data();
    zinf_loss loss = {state, state + tokens, state + 2 * tokens, nullptr};
    zinf_loss_begin(&net.pass, &loss);
    zinf_head_forward(&net.pass, &block, w, h, &loss);
    int64_t counted;
    const double sum = zinf_loss_end(&net.pass, &loss, &counted);
    EXPECT_EQ(counted, net.counted);
    const zinf_head_gradients tile = {1.0f / 4096, true, (float *)dy.data(), dweights.data()};
    zinf_head_backward(&net.pass, &block, w, h, &loss, &tile);
    const zinf_head_gradients tile_kept = {1.0f / 4096, true, (float *)dy_kept.data(),
                                           dweights_kept.data()};
    loss.logits = logits_kept.data();
    zinf_loss_begin(&net.pass, &loss);
    zinf_head_forward(&net.pass, &block, w, h, &loss);
    EXPECT_EQ(zinf_loss_end(&net.pass, &loss, &counted), sum);
    zinf_head_backward(&net.pass, &block, w, h, &loss, &tile_kept);
    EXPECT_EQ(dy_kept.bytes, dy.bytes);
    EXPECT_EQ(dweights_kept.bytes, dweights.bytes);

    double expected = 0;
    std::vector<double> logits(rows), dw(rows * columns);
    for (int64_t t = 0; t < tokens; t++) {
        double total = 0, dh[8] = {};
        const int32_t target = net.targets[t];
        for (int64_t r = 0; r < rows; r++) {
            logits[r] = 0;
            for (int64_t c = 0; c < columns; c++)
                logits[r] += (double)w[r * columns + c] * h[t * columns + c];
            total += exp(logits[r]);
        }
        if (target != -100)
            expected += log(total) - logits[target];
        for (int64_t r = 0; r < rows && target != -100; r++) {
            const double d = (exp(logits[r]) / total - (r == target)) / 4096;
            for (int64_t c = 0; c < columns; c++) {
                dh[c] += d * w[r * columns + c];
                dw[r * columns + c] += d * h[t * columns + c];
            }
        }
        for (int64_t c = 0; c < columns; c++)
            ASSERT_NEAR(((float *)dy.data())[t * columns + c], dh[c], 2e-9)
                << t; // 1/4096 * 4 * 2^-24 * a few
    }
    EXPECT_NEAR(sum, expected, 1e-6 * expected);
    for (int64_t e = 0; e < rows * columns; e++) // sums of 2100 terms in fp32
        EXPECT_NEAR(((float *)dweights.data())[e], dw[e], 1e-5 * norm(dw)) << e;
}
} // namespace
