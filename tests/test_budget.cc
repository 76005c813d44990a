// What a rank may use: the formula of memory.host "auto", the file's limits, what is exceeded.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "train/budget.h"

namespace
{

const int64_t GiB = int64_t{1} << 30;

struct zinf_machine machine_with(int64_t available)
{
    struct zinf_machine machine;
    std::memset(&machine, 0, sizeof machine);
    machine.memory_available = available;
    return machine;
}

struct zinf_config_memory file(int64_t device, int64_t host, int64_t nvme = -1)
{
    struct zinf_config_memory memory;
    std::memset(&memory, 0, sizeof memory);
    memory.device_bytes = device;
    memory.host_bytes = host;
    memory.nvme_bytes = nvme;
    return memory;
}

std::string exceeded(const struct zinf_budget &budget, size_t device, size_t host, size_t nvme = 0)
{
    char *text = zinf_budget_exceeded(&budget, device, host, nvme);
    std::string copy = text ? text : "";
    std::free(text);
    return copy;
}

struct zinf_budget of_run(const struct zinf_machine &machine, int ranks,
                          const struct zinf_config_memory &memory)
{
    return zinf_budget_of_run(&machine, ranks, &memory);
}

TEST(Budget, NineTenthsOfARanksShareOfTheNode)
{
    auto budget = of_run(machine_with(20 * GiB), 4, file(-1, -1));
    EXPECT_EQ(budget.both, static_cast<size_t>(0.9 * 5 * GiB));
    EXPECT_STREQ(budget.both_source, "0.9 x available memory / 4 ranks on this node");
    EXPECT_EQ(budget.device, SIZE_MAX);
    EXPECT_EQ(budget.host, SIZE_MAX);
    EXPECT_EQ(budget.nvme, SIZE_MAX);
}

TEST(Budget, LimitsOfTheProcessCountWithoutWhatIsInUse)
{
    auto machine = machine_with(20 * GiB);
    machine.limit_data = 3 * GiB;
    machine.data_in_use = GiB;
    EXPECT_EQ(of_run(machine, 1, file(-1, -1)).both, static_cast<size_t>(0.9 * 2 * GiB));
    EXPECT_STREQ(of_run(machine, 1, file(-1, -1)).both_source, "0.9 x (RLIMIT_DATA - data in use)");
    machine.limit_address_space = 4 * GiB;
    machine.mapped = 3 * GiB;
    EXPECT_EQ(of_run(machine, 1, file(-1, -1)).both, static_cast<size_t>(0.9 * GiB));
    EXPECT_STREQ(of_run(machine, 1, file(-1, -1)).both_source, "0.9 x (RLIMIT_AS - mapped)");
    machine.mapped = 5 * GiB;
    EXPECT_EQ(of_run(machine, 1, file(-1, -1)).both, 0u);
}

TEST(Budget, WhatTheFileGivesLimitsItsPoolAndNeverExceedsTheMachine)
{
    auto machine = machine_with(10 * GiB);
    auto small = of_run(machine, 1, file(GiB, 2 * GiB, 3 * GiB));
    EXPECT_EQ(small.device, static_cast<size_t>(GiB));
    EXPECT_EQ(small.host, static_cast<size_t>(2 * GiB));
    EXPECT_EQ(small.nvme, static_cast<size_t>(3 * GiB));
    EXPECT_EQ(small.both, static_cast<size_t>(9 * GiB));
    auto host = of_run(machine, 1, file(-1, 19 * GiB / 2)); /* more than nine tenths, asked for */
    EXPECT_EQ(host.both, static_cast<size_t>(19 * GiB / 2));
    EXPECT_STREQ(host.both_source, "available memory / 1 rank on this node");
    auto dream = of_run(machine, 1, file(100 * GiB, 100 * GiB));
    EXPECT_EQ(dream.both, static_cast<size_t>(10 * GiB));
}

TEST(Budget, WhatIsExceededIsNamedWithItsSource)
{
    auto budget = of_run(machine_with(10 * GiB), 1, file(GiB, 2 * GiB, 3 * GiB));
    EXPECT_EQ(exceeded(budget, GiB, 2 * GiB, 3 * GiB), "");
    EXPECT_EQ(exceeded(budget, GiB + 1048576, 0),
              "1025.0 MiB on the device, 1024.0 MiB are allowed (zinf.memory.device)");
    EXPECT_EQ(exceeded(budget, 0, 3 * GiB),
              "3072.0 MiB in host memory, 2048.0 MiB are allowed (zinf.memory.host)");
    EXPECT_EQ(exceeded(budget, 0, 0, 4 * GiB),
              "4096.0 MiB on NVMe, 3072.0 MiB are allowed (zinf.memory.nvme)");
    auto open = of_run(machine_with(10 * GiB), 1, file(-1, -1));
    EXPECT_EQ(exceeded(open, 5 * GiB, 5 * GiB),
              "10240.0 MiB of memory, 9216.0 MiB are allowed (0.9 x available memory / 1 rank on "
              "this node)");
}

TEST(Budget, TheHostPoolMayGrowByWhatBothLimitsLeave)
{
    auto budget = of_run(machine_with(10 * GiB), 1, file(-1, 6 * GiB));
    EXPECT_EQ(zinf_budget_host_left(&budget, GiB, 2 * GiB), static_cast<size_t>(4 * GiB));
    EXPECT_EQ(zinf_budget_host_left(&budget, 6 * GiB, 2 * GiB), static_cast<size_t>(GiB));
    EXPECT_EQ(zinf_budget_host_left(&budget, 8 * GiB, 2 * GiB), 0u);
    auto none = zinf_budget_unlimited();
    EXPECT_EQ(zinf_budget_host_left(&none, 8, 2), SIZE_MAX - 10);
}

TEST(Budget, APlanForACardCountsWhatNobodyAsksFor)
{
    auto budget = zinf_budget_unlimited();
    zinf_budget_plan_device(&budget, 10 * GiB, GiB, 2 * GiB);
    EXPECT_TRUE(budget.own_memory);
    EXPECT_EQ(budget.device, static_cast<size_t>(0.95 * 7 * GiB));
    zinf_budget_plan_device(&budget, 3 * GiB, GiB, 2 * GiB);
    EXPECT_EQ(budget.device, 0u);
}

TEST(Budget, AFileOnlyLowersWhatWasAllowed)
{
    auto budget = zinf_budget_unlimited();
    budget.host = GiB;
    budget.host_source = "--host-memory";
    auto memory = file(2 * GiB, 2 * GiB);
    zinf_budget_lower(&budget, &memory);
    EXPECT_EQ(budget.host, static_cast<size_t>(GiB));
    EXPECT_STREQ(budget.host_source, "--host-memory");
    EXPECT_EQ(budget.device, static_cast<size_t>(2 * GiB));
}

} // namespace
