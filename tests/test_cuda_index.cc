/*
 * Which element a thread of a CUDA kernel touches: every element once, inside its bounds, without
 * bank conflicts. Needs no toolkit.
 */
#include "cuda/index.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

using namespace zinf_cuda;

namespace
{

/** Chunks of a phase: 16-byte columns of the 128-byte line of banks that `count` accesses fall in.
 */
template <typename F> size_t distinct_columns(int count, F offset)
{
    std::set<int> columns;
    for (int i = 0; i < count; i++)
        columns.insert(offset(i) / 16 % 8);
    return columns.size();
}

template <int D> void check_tile()
{
    const int rows = 128, chunks = D / 8;
    std::set<int> seen;
    for (int row = 0; row < rows; row++)
        for (int chunk = 0; chunk < chunks; chunk++) {
            int offset = tile_offset<D>(row, chunk);
            ASSERT_EQ(0, offset % 16);
            ASSERT_GE(offset, row * D * 2) << "a chunk stays in its row";
            ASSERT_LT(offset, (row + 1) * D * 2);
            ASSERT_TRUE(seen.insert(offset).second);
        }
    /* a phase of ldmatrix: the same chunk of eight rows in a row */
    for (int row = 0; row < rows; row += 8)
        for (int chunk = 0; chunk < chunks; chunk++)
            ASSERT_EQ(8u,
                      distinct_columns(8, [&](int i) { return tile_offset<D>(row + i, chunk); }))
                << "D " << D << ", row " << row << ", chunk " << chunk;
    /* a quarter warp that fills a tile: eight chunks one after the other */
    for (int first = 0; first < rows * chunks; first += 8)
        ASSERT_EQ(8u, distinct_columns(8,
                                       [&](int i) {
                                           return tile_offset<D>((first + i) / chunks,
                                                                 (first + i) % chunks);
                                       }))
            << "D " << D << ", chunk " << first;
}

/** The rows and chunks that a warp gives to ldmatrix.x4, matrix by matrix of eight lanes. */
template <typename R, typename C>
void expect_block(R row, C chunk, const std::vector<std::pair<int, int>> &corners)
{
    for (int matrix = 0; matrix < 4; matrix++)
        for (int i = 0; i < 8; i++) {
            EXPECT_EQ(corners[matrix].first + i, row(matrix * 8 + i)) << matrix;
            EXPECT_EQ(corners[matrix].second, chunk(matrix * 8 + i)) << matrix;
        }
}

} // namespace

TEST(CudaIndex, TilesOfEveryHeadSizeAreBijectiveAndWithoutBankConflicts)
{
    check_tile<64>();
    check_tile<96>();
    check_tile<128>();
    check_tile<192>();
    check_tile<256>();
}

TEST(CudaIndex, AccumulatorsCoverSixteenRowsOfEightOnce)
{
    std::set<std::pair<int, int>> seen;
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 4; i++) {
            int row = accumulator_row(lane, i), column = accumulator_column(lane, i);
            EXPECT_TRUE(row >= 0 && row < 16 && column >= 0 && column < 8);
            EXPECT_TRUE(seen.insert({row, column}).second);
        }
    EXPECT_EQ(128u, seen.size());
}

TEST(CudaIndex, LeftFragmentsAreRowsFirst)
{
    expect_block([](int lane) { return a_row(lane, 32); },
                 [](int lane) { return a_chunk(lane, 4); }, {{32, 4}, {40, 4}, {32, 5}, {40, 5}});
}

TEST(CudaIndex, RightFragmentsOfRowsAreDepthFirst)
{
    expect_block([](int lane) { return b_row(lane, 16); },
                 [](int lane) { return b_chunk(lane, 6); }, {{16, 6}, {16, 7}, {24, 6}, {24, 7}});
}

TEST(CudaIndex, RightFragmentsOfColumnsAreDepthFirst)
{
    expect_block([](int lane) { return bt_row(lane, 16); },
                 [](int lane) { return bt_chunk(lane, 6); }, {{16, 6}, {24, 6}, {16, 7}, {24, 7}});
}
