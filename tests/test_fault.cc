// The fault seam: that exactly the asked-for call of the asked-for operation on the asked-for rank
// fails.
#include "base/fault.h"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <gtest/gtest.h>

#include "set_fault.h"

namespace
{
TEST(Fault, WithoutTheVariableNothingFails)
{
    set_fault("");
    size_t bytes = 10;
    for (int i = 0; i < 100; i++)
        EXPECT_EQ(zinf_fault("write", &bytes), 0);
    EXPECT_EQ(bytes, 10u);
}

TEST(Fault, OnlyTheNthCallOfTheOperationFails)
{
    set_fault("op=write,n=3,err=ENOSPC");
    for (int i = 1; i <= 10; i++) {
        EXPECT_EQ(zinf_fault("read", nullptr), 0);
        EXPECT_EQ(zinf_fault("write", nullptr), i == 3 ? ENOSPC : 0);
    }
}

TEST(Fault, WithoutANumberEveryCallFails)
{
    set_fault("op=fsync,err=EIO");
    for (int i = 0; i < 5; i++)
        EXPECT_EQ(zinf_fault("fsync", nullptr), EIO);
}

TEST(Fault, AnotherRankIsLeftAlone)
{
    set_fault("op=read,err=EIO,rank=1", 0);
    EXPECT_EQ(zinf_fault("read", nullptr), 0);
    set_fault("op=read,err=EIO,rank=1", 1);
    EXPECT_EQ(zinf_fault("read", nullptr), EIO);
}

TEST(Fault, ShortTransfersAreCutAndSucceed)
{
    set_fault("op=read,n=2,short=512");
    size_t bytes = 4096;
    EXPECT_EQ(zinf_fault("read", &bytes), 0);
    EXPECT_EQ(bytes, 4096u);
    EXPECT_EQ(zinf_fault("read", &bytes), 0);
    EXPECT_EQ(bytes, 512u);
    set_fault("op=read,short=512");
    bytes = 100;
    EXPECT_EQ(zinf_fault("read", &bytes), 0);
    EXPECT_EQ(bytes, 100u) << "a transfer below the cut stays as it is";
}

TEST(Fault, DelaysTakeTheirTime)
{
    set_fault("op=gather,delay_us=2000");
    auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < 5; i++)
        EXPECT_EQ(zinf_fault("gather", nullptr), 0);
    std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
    EXPECT_GE(spent.count(), 0.010);
}

TEST(Fault, KillEndsTheProcessBySigkill)
{
    EXPECT_EXIT(
        {
            set_fault("op=rename,n=2,kill=1");
            zinf_fault("rename", nullptr);
            zinf_fault("rename", nullptr);
        },
        testing::KilledBySignal(SIGKILL), "");
}

TEST(Fault, WhatCannotBeReadIsAUsageError)
{
    for (const char *wrong :
         {"op=write", "err=EIO", "op=wrong,err=EIO", "op=write,err=EWRONG", "op=write,n=x,err=EIO",
          "op=write,n=-1,err=EIO", "op=write,err", "op=write,what=1", "op=write,kill=2"})
        EXPECT_EXIT(set_fault(wrong), testing::ExitedWithCode(2), "cannot be read") << wrong;
}
} // namespace
