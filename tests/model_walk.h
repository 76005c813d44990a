// A model on the plain walk of a training step, without ranks: memory of exactly the asked sizes,
// poisoned between calls; weights and tokens by the formula of tests/oracle/torch_gradients.py.
// Used by tests/test_transformer.cc.
#ifndef ZINF_TESTS_MODEL_WALK_H
#define ZINF_TESTS_MODEL_WALK_H

#include "model/transformer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <gtest/gtest.h>
#include <stdexcept>
#include <string>
#include <vector>

// Memory of exactly the asked size with a guard behind it; begins as NaN in every dtype.
struct Memory {
    std::vector<unsigned char> bytes;
    size_t size = 0;
    void resize(size_t asked)
    {
        size = asked;
        bytes.assign(asked + 64, 0xFF);
        memset(bytes.data() + asked, 0xA5, 64);
    }
    void poison()
    {
        memset(bytes.data(), 0xFF, size);
    }
    void *data()
    {
        return bytes.data();
    }
    bool intact() const
    {
        for (size_t i = size; i < bytes.size(); i++)
            if (bytes[i] != 0xA5)
                return false;
        return true;
    }
    ~Memory()
    {
        EXPECT_TRUE(intact()) << "written behind the end";
    }
};

// The formula of tests/oracle/torch_gradients.py.
inline uint32_t hashed(uint32_t stream, uint64_t element)
{
    uint32_t h = (uint32_t)(element * 2654435761u + (stream + 1) * 40503u);
    h ^= h >> 15;
    h *= 2246822519u;
    return h >> 16;
}

struct Options {
    zinf_dtype dtype = ZINF_FP32;
    int64_t batch = 4, sequence = 12;
    bool training = true, recompute = false;
    float loss_scale = 1;
};

// A model with weights, and one step over a batch, cut into micro-batches at will.
struct Net {
    zinf_model *model = nullptr;
    Options options;
    zinf_pass pass = {};
    std::vector<float> cosine, sine;
    std::vector<int32_t> inputs, targets;
    int64_t counted = 0;                        // of the whole batch
    std::vector<std::vector<float>> weights;    // by parameter, fp32
    std::vector<std::vector<double>> gradients; // by parameter
    std::vector<Memory> blocks;

    Net(const std::string &config, Options o) : options(o)
    {
        zinf_json_options json = {"config.json", true, ZINF_E_DATA, false};
        zinf_error_list errors = {};
        zinf_error error = {};
        zinf_json *value = nullptr;
        if (zinf_json_parse(&value, config.data(), config.size(), &json, &errors) ||
            zinf_model_new(&model, value, "config.json", &error))
            throw std::runtime_error(error.text);
        zinf_json_free(value);
        weights.resize(model->param_count);
        for (int p = 0; p < model->param_count; p++)
            for (int64_t e = 0; e < model->params[p].count; e++)
                weights[p].push_back((model->params[p].init == ZINF_INIT_ONE ? 1.0f : 0.0f) +
                                     0.25f * ((float)hashed(p, e) / 32768 - 1));
        for (int64_t t = 0; t < options.batch * options.sequence; t++) {
            inputs.push_back((int32_t)(hashed(1000, t) % model->vocab));
            targets.push_back(t % 7 == 3 ? -100 : (int32_t)(hashed(1001, t) % model->vocab));
            counted += targets.back() != -100;
        }
        pass = {model,
                zinf_cpu_ops(),
                options.dtype,
                options.batch,
                options.sequence,
                nullptr,
                nullptr,
                nullptr,
                nullptr,
                zinf_rng_key(3, "dropout"),
                5,
                0,
                nullptr,
                options.training,
                nullptr};
        if (model->rotary) {
            cosine.resize(options.sequence * model->head_size / 2);
            sine.resize(cosine.size());
            zinf_rope_table(model, options.sequence, cosine.data(), sine.data());
            pass.cosine = cosine.data();
            pass.sine = sine.data();
        }
    }
    ~Net()
    {
        zinf_model_free(model);
    }
    Net(const Net &) = delete;

    size_t element() const
    {
        return zinf_dtype_bytes(options.dtype);
    }

    void fill_blocks()
    {
        blocks.resize(model->block_count);
        for (int b = 0; b < model->block_count; b++) {
            const zinf_block &block = model->blocks[b];
            blocks[b].resize(block.element_count * element());
            memset(blocks[b].data(), 0, blocks[b].size);
            for (int i = 0; i < block.piece_count; i++)
                zinf_dtype_convert(
                    blocks[b].bytes.data() + block.pieces[i].block_offset * element(),
                    options.dtype,
                    weights[block.pieces[i].param].data() + block.pieces[i].param_offset, ZINF_FP32,
                    block.pieces[i].count);
        }
    }

    // Adds a block's gradient to `gradients`; what lies between the pieces must be zero.
    void collect(int b, Memory &gradient)
    {
        const zinf_block &block = model->blocks[b];
        std::vector<float> values(block.element_count);
        zinf_dtype_convert(values.data(), ZINF_FP32, gradient.data(), options.dtype,
                           block.element_count);
        int64_t end = 0;
        for (int i = 0; i < block.piece_count; i++) {
            const zinf_piece &piece = block.pieces[i];
            for (; end < piece.block_offset; end++)
                EXPECT_EQ(values[end], 0) << "gap of block " << b;
            for (int64_t e = 0; e < piece.count; e++)
                gradients[piece.param][piece.param_offset + e] += values[end++];
        }
        gradient.poison();
    }

    // Mean loss of the batch; gradients too if asked.
    double step(bool backward, int64_t micro_batch = 0)
    {
        micro_batch = micro_batch ? micro_batch : options.batch;
        fill_blocks();
        gradients.assign(model->param_count, {});
        for (int p = 0; p < model->param_count; p++)
            gradients[p].resize(model->params[p].count);
        double loss = 0;
        for (int64_t sample = 0; sample < options.batch; sample += micro_batch) {
            pass.batch = micro_batch;
            pass.first_sample = (uint32_t)sample;
            pass.inputs = inputs.data() + sample * options.sequence;
            pass.targets = targets.data() + sample * options.sequence;
            loss += micro_step(backward);
        }
        for (auto &gradient : gradients)
            for (double &value : gradient)
                value /= options.loss_scale;
        return loss / (double)counted;
    }

    double micro_step(bool backward)
    {
        const int64_t tokens = pass.batch * pass.sequence;
        const size_t row_bytes = tokens * model->hidden * element();
        Memory scratch, normed, loss_memory, statistics, logits;
        std::vector<Memory> x(model->layers + 1), saved(model->layers);
        scratch.resize(zinf_scratch_bytes(model, options.dtype, pass.batch, pass.sequence));
        pass.scratch = scratch.data();
        normed.resize(row_bytes);
        loss_memory.resize(3 * tokens * sizeof(float));
        statistics.resize(2 * tokens * sizeof(float));
        for (Memory &each : x)
            each.resize(row_bytes);
        for (Memory &each : saved)
            each.resize(zinf_layer_saved_bytes(model, options.dtype, pass.batch, pass.sequence));

        for (int b = 0; b < model->first_layer_block; b++)
            zinf_embedding_forward(&pass, &model->blocks[b], blocks[b].data(), x[0].data());
        zinf_embedding_dropout(&pass, x[0].data());
        for (int layer = 0; layer < model->layers; layer++) {
            scratch.poison(); // nothing may be expected to survive there
            zinf_layer_forward(&pass, layer, blocks[model->first_layer_block + layer].data(),
                               x[layer].data(), x[layer + 1].data(), saved[layer].data());
        }
        scratch.poison();
        zinf_final_norm_forward(&pass, blocks[model->final_norm_block].data(),
                                x[model->layers].data(), normed.data(), (float *)statistics.data());
        float *numbers = (float *)loss_memory.data();
        if (!options.recompute)
            logits.resize(zinf_head_logits_bytes(model, options.dtype, tokens));
        zinf_loss loss = {numbers, numbers + tokens, numbers + 2 * tokens,
                          options.recompute ? nullptr : logits.data()};
        zinf_loss_begin(&pass, &loss);
        for (int i = 0; i < model->head_block_count; i++) {
            const int b = model->first_head_block + i;
            zinf_head_forward(&pass, &model->blocks[b], blocks[b].data(), normed.data(), &loss);
            scratch.poison();
        }
        int64_t here = 0;
        double sum = zinf_loss_end(&pass, &loss, &here);
        if (backward)
            walk_back(scratch, normed, statistics, loss, x, saved);
        return sum;
    }

    void walk_back(Memory &scratch, Memory &normed, Memory &statistics, const zinf_loss &loss,
                   std::vector<Memory> &x, std::vector<Memory> &saved)
    {
        Memory gradient, dy, dx;
        int64_t largest = 0;
        for (int b = 0; b < model->block_count; b++)
            largest = std::max(largest, model->blocks[b].element_count);
        gradient.resize(largest * element());
        dy.resize(pass.batch * pass.sequence * model->hidden * sizeof(float));
        dx.resize(x[0].size);
        for (int i = 0; i < model->head_block_count; i++) {
            const int b = model->first_head_block + i;
            const zinf_head_gradients tile = {options.loss_scale / (float)counted, i == 0,
                                              (float *)dy.data(), gradient.data()};
            zinf_head_backward(&pass, &model->blocks[b], blocks[b].data(), normed.data(), &loss,
                               &tile);
            collect(b, gradient);
            scratch.poison();
        }
        zinf_head_backward_end(&pass, (const float *)dy.data(), normed.data());
        const zinf_gradients norm = {normed.data(), dx.data(), gradient.data()};
        zinf_final_norm_backward(&pass, blocks[model->final_norm_block].data(),
                                 x[model->layers].data(), (const float *)statistics.data(), &norm);
        collect(model->final_norm_block, gradient);
        for (int layer = (int)model->layers - 1; layer >= 0; layer--) {
            const int b = model->first_layer_block + layer;
            if (options.recompute) {
                Memory before = saved[layer];
                saved[layer].poison();
                zinf_layer_forward(&pass, layer, blocks[b].data(), x[layer].data(), normed.data(),
                                   saved[layer].data());
                EXPECT_EQ(memcmp(normed.data(), x[layer + 1].data(), normed.size), 0)
                    << "layer " << layer;
            }
            scratch.poison();
            const zinf_gradients in_place = {dx.data(), dx.data(), gradient.data()};
            zinf_layer_backward(&pass, layer, blocks[b].data(), x[layer].data(),
                                saved[layer].data(), &in_place);
            collect(b, gradient);
        }
        zinf_embedding_dropout(&pass, dx.data());
        for (int b = 0; b < model->first_layer_block; b++) {
            zinf_embedding_backward(&pass, &model->blocks[b], dx.data(), gradient.data());
            collect(b, gradient);
        }
    }
};

inline double norm(const std::vector<double> &values)
{
    double sum = 0;
    for (double value : values)
        sum += value * value;
    return sqrt(sum);
}

inline double difference(const std::vector<double> &a, const std::vector<double> &b)
{
    std::vector<double> both(a.size());
    for (size_t i = 0; i < a.size(); i++)
        both[i] = a[i] - b[i];
    return norm(both);
}

#endif
