/*
 * The table of products: keys that say all an algorithm depends on, a text that comes back whole,
 * and the rehearsal that lists a model's products.
 */
#include "device/products.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "model/products.h"

namespace
{

zinf_matmul an_op()
{
    zinf_matmul op = {};
    op.dtype = op.c_dtype = ZINF_BF16;
    op.m = 96, op.n = 40, op.k = 24;
    op.lda = op.ldb = 24, op.ldc = 40, op.transpose_b = true;
    op.a = (const void *)4096, op.b = (const void *)8192, op.c = (void *)16384;
    return op;
}

zinf_product product_of(const zinf_matmul &op)
{
    zinf_product product;
    zinf_product_of(&op, &product);
    return product;
}

bool same(const zinf_product &a, const zinf_product &b)
{
    return memcmp(&a, &b, sizeof a) == 0;
}

std::string text_of(const zinf_products &products)
{
    char *text = zinf_products_print(&products);
    std::string copy = text;
    free(text);
    return copy;
}

struct Table {
    zinf_products products = {};
    ~Table()
    {
        zinf_products_release(&products);
    }
};

} // namespace

TEST(Products, EverythingAnAlgorithmDependsOnMakesAnotherKey)
{
    const zinf_product first = product_of(an_op());
    std::vector<zinf_matmul> others(14, an_op());
    others[0].m++, others[1].n++, others[2].k++, others[3].lda += 8, others[4].ldb += 8;
    others[5].ldc += 8, others[6].dtype = ZINF_FP16, others[7].c_dtype = ZINF_FP32;
    others[8].transpose_a = true, others[9].transpose_b = false, others[10].accumulate = true;
    others[11].bias = (const void *)4096;
    others[12].a = (const void *)(4096 + 4), others[13].ldb = 26;
    for (size_t i = 0; i < others.size(); i++)
        EXPECT_FALSE(same(first, product_of(others[i]))) << i;
    zinf_matmul fused = an_op(), slope = an_op(), biased = an_op();
    fused.activated = biased.activated = (void *)32768, slope.slope_of = (void *)32768;
    biased.bias = (const void *)4096;
    for (const zinf_matmul &op : {fused, slope, biased}) {
        const zinf_product key = product_of(op);
        EXPECT_TRUE(zinf_product_activates(&key));
        EXPECT_FALSE(same(first, product_of(op)));
        for (int i = 0; i < 4; i++) { /* what no library makes in one is listed by its product */
            zinf_matmul other = op, plain = op;
            if (i == 0)
                other.activation = ZINF_RELU;
            else if (i == 1)
                other.n = other.ldc = plain.n = plain.ldc = 42;
            else if (i == 2)
                other.ldc = plain.ldc = 48;
            else
                other.c_dtype = plain.c_dtype = ZINF_FP32;
            plain.activated = nullptr, plain.slope_of = nullptr;
            EXPECT_TRUE(same(product_of(plain), product_of(other))) << i;
        }
    }
    EXPECT_FALSE(same(product_of(fused), product_of(slope)));
    zinf_matmul elsewhere = an_op();
    elsewhere.a = (const void *)(4096 + 64), elsewhere.c = (void *)65536;
    EXPECT_TRUE(same(first, product_of(elsewhere)));
}

TEST(Products, OperandsMadeForAKeyHaveThatKeyAndDoNotOverlap)
{
    for (int low : {2, 4, 8, 16})
        for (int bits = 0; bits < 6; bits++)
            for (zinf_dtype c_dtype : {ZINF_BF16, ZINF_FP32}) {
                const bool bias = bits & 1;
                zinf_matmul op = an_op();
                op.a = (const void *)(uintptr_t)(4096 + low), op.transpose_a = low == 4;
                op.lda = 104, op.c_dtype = c_dtype;
                op.bias = bias ? (const void *)(uintptr_t)(8192 + low) : nullptr;
                if (bits >= 2 && !(bias && bits >= 4))
                    (bits < 4 ? op.activated : (void *&)op.slope_of) =
                        (void *)(uintptr_t)(65536 + low);
                const zinf_product key = product_of(op);
                const zinf_matmul made = zinf_product_at(&key, (char *)(uintptr_t)(1 << 20));
                EXPECT_TRUE(same(key, product_of(made))) << low;
                const char *end = (const char *)(uintptr_t)(1 << 20) + zinf_product_bytes(&key);
                EXPECT_GE((const char *)made.b,
                          (const char *)made.a + 2 * 104 * (op.transpose_a ? op.k : op.m));
                EXPECT_GE((const char *)made.c, (const char *)made.b + 2 * op.n * op.ldb);
                const char *last =
                    (const char *)made.c + (int64_t)zinf_dtype_bytes(c_dtype) * op.m * op.ldc;
                if (bias) {
                    EXPECT_GE((const char *)made.bias, last);
                    last = (const char *)made.bias + 2 * op.n;
                }
                const char *other = (const char *)(made.activated ? made.activated : made.slope_of);
                EXPECT_EQ(other != nullptr, zinf_product_activates(&key));
                if (other) {
                    EXPECT_GE(other, last);
                    last = other + 2 * op.m * op.n;
                }
                EXPECT_GE(end, last);
            }
}

TEST(Products, ATableComesBackFromItsText)
{
    Table table, back;
    snprintf(table.products.source, sizeof table.products.source, "cuBLASLt 130100, a card, x");
    for (int i = 0; i < 3; i++) {
        zinf_matmul op = an_op();
        op.m += i, op.bias = i ? (const void *)4096 : nullptr;
        op.activated = i == 2 ? (void *)32768 : nullptr;
        const zinf_product key = product_of(op);
        zinf_product_choice *row = zinf_products_add(&table.products, &key);
        EXPECT_EQ(row, zinf_products_add(&table.products, &key));
        row->candidate = i, row->candidates = 2 * i, row->bytes = 32 * i, row->fused = i == 2;
        for (int j = 0; j < row->bytes; j++)
            row->algorithm[j] = (unsigned char)(j * 7 + i);
    }
    zinf_error error = {};
    const std::string text = text_of(table.products);
    ASSERT_EQ(0, zinf_products_parse(&back.products, text.c_str(), &error)) << error.text;
    ASSERT_EQ(3, back.products.count);
    EXPECT_STREQ(table.products.source, back.products.source);
    EXPECT_EQ(0,
              memcmp(table.products.items, back.products.items, 3 * sizeof *table.products.items));
    EXPECT_EQ(text, text_of(back.products));
}

TEST(Products, ATextThatNoZinfWroteIsRefusedWithItsLine)
{
    Table table;
    snprintf(table.products.source, sizeof table.products.source, "a library");
    const zinf_product key = product_of(an_op());
    zinf_products_add(&table.products, &key)->bytes = 2;
    const std::string good = text_of(table.products);
    std::vector<std::string> bad = {good + "x\n", std::string(400, 'x')};
    for (const char *part : {"bf16 bf16", "plain", "m 96", "aligned 16", "fused 0", "0000\n"}) {
        std::string text = good;
        size_t at = text.find(part);
        ASSERT_NE(std::string::npos, at) << text;
        bad.push_back(text.replace(at, strlen(part), "zzz"));
    }
    bad.push_back(std::string(good).replace(good.find("0000\n"), 5, "000\n"));
    bad.push_back(std::string(good).replace(good.find("0000\n"), 5, std::string(130, '0') + "\n"));
    bad.push_back(std::string(good).replace(good.find("aligned 16"), 10, "aligned 3"));
    bad.push_back(std::string(good).replace(good.find("fused 0"), 7, "fused 1"));
    for (const std::string &text : bad) {
        Table read;
        zinf_error error = {};
        EXPECT_EQ(ZINF_E_CHECKPOINT, zinf_products_parse(&read.products, text.c_str(), &error))
            << text;
        EXPECT_NE(nullptr, strstr(error.text, "line")) << error.text;
        EXPECT_EQ(0, read.products.count);
    }
}

TEST(Products, ARehearsalListsWhatAPassIsMadeOf)
{
    const char *config = "{\"model_type\": \"gpt2\", \"vocab_size\": 257, \"n_positions\": 32, "
                         "\"n_embd\": 16, \"n_layer\": 3, \"n_head\": 4}";
    const zinf_json_options json = {"config", true, ZINF_E_USAGE, false};
    zinf_error_list errors = {};
    zinf_error error = {};
    zinf_json *tree = nullptr;
    zinf_model *model = nullptr;
    ASSERT_EQ(0, zinf_json_parse(&tree, config, strlen(config), &json, &errors));
    ASSERT_EQ(0, zinf_model_new(&model, tree, "config", &error)) << error.text;
    auto rehearse = [&](bool training, Table &table) {
        const zinf_products_pass pass = {model, ZINF_BF16, 2, 16, training};
        zinf_model_products(
            &pass,
            [](void *context, const zinf_matmul *op) {
                zinf_product product;
                zinf_product_of(op, &product);
                zinf_products_add((zinf_products *)context, &product);
            },
            &table.products);
    };
    Table forward, both;
    rehearse(false, forward);
    rehearse(true, both);
    /* qkv, out, up, down; the head's tiles */
    std::set<int64_t> widths;
    for (int i = 0; i < forward.products.count; i++) {
        EXPECT_EQ(32, forward.products.items[i].product.m);
        widths.insert(forward.products.items[i].product.n);
        EXPECT_NE(nullptr, zinf_products_find(&both.products, &forward.products.items[i].product));
    }
    for (int64_t width : {48, 16, 64})
        EXPECT_EQ(1u, widths.count(width)) << width;
    EXPECT_GT(both.products.count, forward.products.count + 4);
    int accumulated = 0;
    for (int i = 0; i < both.products.count; i++)
        accumulated += both.products.items[i].product.accumulate;
    EXPECT_EQ(model->head_block_count > 1, accumulated > 0);
    int activations[2] = {0, 0};
    for (int i = 0; i < both.products.count; i++) {
        activations[0] += both.products.items[i].product.epilogue == ZINF_PRODUCT_BIAS_GELU;
        activations[1] += both.products.items[i].product.epilogue == ZINF_PRODUCT_SLOPE;
    }
    EXPECT_EQ(1, activations[0]);
    EXPECT_EQ(1, activations[1]);
    zinf_model_free(model);
    zinf_json_free(tree);
    zinf_error_list_release(&errors);
}

TEST(Products, OneRankHasNoOtherSource)
{
    zinf_comm alone = {};
    char theirs[320] = "";
    alone.size = 1;
    EXPECT_EQ(-1, zinf_products_other_source(&alone, "a library", theirs));
}
