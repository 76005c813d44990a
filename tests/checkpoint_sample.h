/*
 * A small model's checkpoint for tests: arrays of odd shapes whose values follow from name and element, cut among ranks in odd places.
 */
#ifndef ZINF_TESTS_CHECKPOINT_SAMPLE_H
#define ZINF_TESTS_CHECKPOINT_SAMPLE_H

#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "io/checkpoint.h"

struct Sample {
    struct Shape {
        std::string path;
        std::vector<int64_t> dims;
        int64_t count() const
        {
            int64_t n = 1;
            for (int64_t d : dims)
                n *= d;
            return n;
        }
    };
    std::vector<Shape> shapes;
    std::vector<std::vector<float>> data;              /* this rank's values, slices behind each other */
    std::vector<std::vector<struct zinf_slice>> slices;
    std::vector<struct zinf_array> arrays;
    std::vector<struct zinf_attribute> attributes;
    std::vector<struct zinf_text> texts;
    struct zinf_hard_link link;
    struct zinf_checkpoint checkpoint;

    static float value(const std::string &path, int64_t element)
    {
        uint32_t x = static_cast<uint32_t>(std::hash<std::string>()(path)) ^
                     static_cast<uint32_t>(element * 2654435761u);
        return static_cast<float>(static_cast<int32_t>(x * 747796405u) / 65536) / 1024.0f;
    }

    /* @param large  one array of more than two slabs, else some 40 KB in all */
    Sample(int rank, int size, bool large, const char *config = "{\"zinf\": {}}",
           const char *model_config = "{\"model_type\": \"gpt2\"}")
    {
        for (std::string top : {"/model/", "/optimizer/exp_avg/", "/optimizer/exp_avg_sq/"}) {
            shapes.push_back({top + "transformer.wte.weight", {97, 13}});
            shapes.push_back({top + "transformer.h.0.ln_1.bias", {5}});
            for (int i = 0; i < 5; i++)
                shapes.push_back({top + "transformer.h." + std::to_string(i) + ".attn.c_attn.weight",
                                  {7, 3, 11}});
        }
        if (large)
            shapes.push_back({"/model/transformer.wpe.weight", {1531, 1501}});
        for (size_t i = 0; i < shapes.size(); i++)
            cut(rank, size, static_cast<int>(i));
        for (size_t i = 0; i < shapes.size(); i++)
            add_array(i);
        attributes = {{"step", false, 12, 0}, {"lr", true, 0, 6.25e-5}, {"seed", false, -1, 0},
                      {"loss_scale", true, 0, 65536}, {"epoch", true, 0, 0.1}};
        texts = {{"config", config}, {"hosts", "node1\nnode2"}, {"empty", ""}, {"model_config", model_config}};
        link = {"/model/lm_head.weight", "/model/transformer.wte.weight"};
        checkpoint = {arrays.data(),     static_cast<int>(arrays.size()),
                      &link,             1,
                      attributes.data(), static_cast<int>(attributes.size()),
                      texts.data(),      static_cast<int>(texts.size()),
                      nullptr,           nullptr};
    }
    Sample(const Sample &) = delete;

    /* Put 0 everywhere, for a load. */
    void clear()
    {
        for (auto &part : data)
            std::fill(part.begin(), part.end(), -7.0f);
    }

    /* Elements that differ from what was saved. */
    int64_t wrong() const
    {
        int64_t count = 0;
        for (size_t i = 0; i < shapes.size(); i++)
            for (const struct zinf_slice &slice : slices[i])
                for (int64_t e = 0; e < slice.count; e++)
                    count += slice.data[e] != value(shapes[i].path, slice.offset + e);
        return count;
    }

  private:
    /* Even arrays: a run a rank; odd: runs of 3 elements dealt out, so that slabs are mended from many parts; the last: one rank's. */
    void cut(int rank, int size, int index)
    {
        std::vector<struct zinf_slice> mine;
        int64_t n = shapes[index].count(), total = 0;
        auto add = [&](int64_t begin, int64_t end) {
            if (end > begin)
                mine.push_back({begin, end - begin, nullptr});
            total += end > begin ? end - begin : 0;
        };
        if (index % 2 == 0 || size == 1)
            add(n * rank / size, n * (rank + 1) / size);
        else if (n > 100000 || index % 5 == 0)
            add(0, index % size == rank ? n : 0);
        else
            for (int64_t at = 3 * rank; at < n; at += 3 * size)
                add(at, at + 3 < n ? at + 3 : n);
        data.emplace_back(static_cast<size_t>(total));
        float *next = data.back().data();
        for (struct zinf_slice &slice : mine) {
            slice.data = next;
            next += slice.count;
            for (int64_t e = 0; e < slice.count; e++)
                slice.data[e] = value(shapes[index].path, slice.offset + e);
        }
        slices.push_back(mine);
    }

    void add_array(size_t i)
    {
        struct zinf_array array = {};
        array.path = shapes[i].path.c_str();
        array.dim_count = static_cast<int>(shapes[i].dims.size());
        std::copy(shapes[i].dims.begin(), shapes[i].dims.end(), array.shape);
        array.slices = slices[i].data();
        array.slice_count = static_cast<int>(slices[i].size());
        arrays.push_back(array);
    }
};

#endif
