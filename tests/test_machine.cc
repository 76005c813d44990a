/*
 * A machine read from recorded files: what the kernel of that machine said.
 */
#include "topology/machine.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include <sched.h>

/* A folder that is gone after the test. */
struct Recorded {
    std::string root;
    Recorded()
    {
        char name[] = "/tmp/zinf-machine-XXXXXX";
        root = mkdtemp(name);
    }
    ~Recorded()
    {
        std::filesystem::remove_all(root);
    }
    Recorded &file(const std::string &path, const std::string &text)
    {
        std::filesystem::create_directories(std::filesystem::path(root + path).parent_path());
        std::ofstream(root + path) << text;
        return *this;
    }
    struct zinf_machine read() const
    {
        struct zinf_machine machine;
        zinf_machine_read(&machine, root.c_str());
        return machine;
    }
};

static const int64_t GiB = int64_t{1} << 30;

static void record_node(Recorded &recorded)
{
    recorded.file("/proc/sys/kernel/hostname", "node17\n")
        .file("/proc/cpuinfo",
              "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) "
              "Platinum 8480+\nflags\t\t: fpu sse4_2 avx avx2 fma avx512f avx512_bf16 "
              "amx_tile\nvmx flags\t: avx512_fp16\n\nprocessor\t: 1\nmodel name\t: another\n")
        .file("/proc/self/status", "Name:\tzinf\nVmSize:\t   20480 kB\nVmData:\t    1024 "
                                   "kB\nCpus_allowed:\tff\nCpus_allowed_list:\t0-3,8,10-11\n")
        .file(
            "/proc/meminfo",
            "MemTotal:       65536000 kB\nMemFree:         1000 kB\nMemAvailable:   52428800 kB\n")
        .file("/proc/self/limits",
              "Limit                     Soft Limit           Hard Limit           Units     \n"
              "Max data size             unlimited            unlimited            bytes     \n"
              "Max address space         34359738368          unlimited            bytes     \n");
}

TEST(Machine, ReadsNameFlagsCoresAndMemory)
{
    Recorded recorded;
    record_node(recorded);
    struct zinf_machine machine = recorded.read();
    EXPECT_STREQ("node17", machine.host);
    EXPECT_STREQ("Intel(R) Xeon(R) Platinum 8480+", machine.cpu_name);
    EXPECT_TRUE(zinf_machine_has(&machine, "avx512f"));
    EXPECT_TRUE(zinf_machine_has(&machine, "amx_tile"));
    EXPECT_FALSE(zinf_machine_has(&machine, "avx512"));      /* whole words only */
    EXPECT_FALSE(zinf_machine_has(&machine, "avx512_fp16")); /* stands in another line */
    EXPECT_EQ(7, machine.cpu_count);
    EXPECT_EQ(uint64_t{0xd0f}, machine.cpus[0]);
    EXPECT_EQ(7, machine.cores);
    EXPECT_EQ(0, machine.cpu_quota);
    EXPECT_EQ(int64_t{65536000} * 1024, machine.memory_total);
    EXPECT_EQ(50 * GiB, machine.memory_free);
    EXPECT_EQ(50 * GiB, machine.memory_available);
    EXPECT_EQ(0, machine.memory_limit);
    EXPECT_EQ(0, machine.limit_data);
    EXPECT_EQ(32 * GiB, machine.limit_address_space);
    EXPECT_EQ(20480 * 1024, machine.mapped);
    EXPECT_EQ(1024 * 1024, machine.data_in_use);
}

TEST(Machine, TheTightestGroupOfVersion2Counts)
{
    Recorded recorded;
    record_node(recorded);
    recorded.file("/proc/self/cgroup", "0::/system.slice/slurmstepd.scope/job_7/step_0\n")
        .file("/sys/fs/cgroup/system.slice/slurmstepd.scope/job_7/cpu.max", "250000 100000\n")
        .file("/sys/fs/cgroup/system.slice/slurmstepd.scope/job_7/memory.max",
              std::to_string(20 * GiB) + "\n")
        .file("/sys/fs/cgroup/system.slice/slurmstepd.scope/job_7/memory.current",
              std::to_string(8 * GiB) + "\n")
        .file("/sys/fs/cgroup/system.slice/slurmstepd.scope/job_7/memory.stat",
              "anon 1\ninactive_file " + std::to_string(3 * GiB) + "\n")
        .file("/sys/fs/cgroup/system.slice/slurmstepd.scope/job_7/step_0/cpu.max", "max 100000\n")
        .file("/sys/fs/cgroup/system.slice/slurmstepd.scope/job_7/step_0/memory.max", "max\n");
    struct zinf_machine machine = recorded.read();
    EXPECT_DOUBLE_EQ(2.5, machine.cpu_quota);
    EXPECT_EQ(3, machine.cores);
    EXPECT_EQ(20 * GiB, machine.memory_limit);
    EXPECT_EQ(15 * GiB, machine.memory_available); /* 20 - (8 used - 3 of droppable cache) */
    EXPECT_EQ(50 * GiB, machine.memory_free);
}

TEST(Machine, InAContainerTheGroupIsTheMountItself)
{
    Recorded recorded;
    record_node(recorded);
    recorded
        .file("/proc/self/cgroup", "0::/docker/4f3a\n") /* the host's path, not seen from inside */
        .file("/sys/fs/cgroup/cpu.max", "50000 100000\n")
        .file("/sys/fs/cgroup/memory.max", std::to_string(GiB) + "\n")
        .file("/sys/fs/cgroup/memory.current", std::to_string(2 * GiB) + "\n");
    struct zinf_machine machine = recorded.read();
    EXPECT_DOUBLE_EQ(0.5, machine.cpu_quota);
    EXPECT_EQ(1, machine.cores); /* never none */
    EXPECT_EQ(GiB, machine.memory_limit);
    EXPECT_EQ(0, machine.memory_available); /* over the limit already */
}

TEST(Machine, GroupsOfVersion1AreReadWhereEachControllerIsMounted)
{
    Recorded recorded;
    record_node(recorded);
    recorded
        .file("/proc/self/cgroup",
              "12:cpuset:/\n7:memory:/slurm/job_7\n4:cpu,cpuacct:/slurm/job_7\n1:name=systemd:/\n")
        .file("/sys/fs/cgroup/cpu/slurm/job_7/cpu.cfs_quota_us", "400000\n")
        .file("/sys/fs/cgroup/cpu/slurm/job_7/cpu.cfs_period_us", "100000\n")
        .file("/sys/fs/cgroup/cpu/slurm/cpu.cfs_quota_us", "-1\n")
        .file("/sys/fs/cgroup/cpu/slurm/cpu.cfs_period_us", "100000\n")
        .file("/sys/fs/cgroup/memory/slurm/job_7/memory.limit_in_bytes",
              std::to_string(10 * GiB) + "\n")
        .file("/sys/fs/cgroup/memory/slurm/job_7/memory.usage_in_bytes",
              std::to_string(4 * GiB) + "\n")
        .file("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    struct zinf_machine machine = recorded.read();
    EXPECT_DOUBLE_EQ(4, machine.cpu_quota);
    EXPECT_EQ(4, machine.cores);
    EXPECT_EQ(10 * GiB, machine.memory_limit);
    EXPECT_EQ(6 * GiB, machine.memory_available);
}

TEST(Machine, NothingReadableIsOneCoreAndUnknown)
{
    Recorded recorded;
    struct zinf_machine machine = recorded.read();
    EXPECT_STREQ("unknown CPU", machine.cpu_name);
    EXPECT_EQ(1, machine.cores);
    EXPECT_EQ(0, machine.memory_available);
    EXPECT_FALSE(zinf_machine_has(&machine, "avx2"));
}

TEST(Machine, ThisOneAgreesWithTheSchedulersSet)
{
    struct zinf_machine machine;
    cpu_set_t set;
    zinf_machine_read(&machine, "");
    ASSERT_EQ(0, sched_getaffinity(0, sizeof set, &set));
    EXPECT_EQ(CPU_COUNT(&set), machine.cpu_count);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        EXPECT_EQ(CPU_ISSET(cpu, &set) != 0, (machine.cpus[cpu / 64] >> (cpu % 64) & 1) != 0)
            << cpu;
    EXPECT_GT(machine.memory_total, 0);
    EXPECT_GT(machine.memory_available, 0);
    EXPECT_LE(machine.memory_available, machine.memory_total);
    EXPECT_NE('\0', machine.host[0]);
}

TEST(Machine, ThreadsShareTheCores)
{
    struct zinf_machine machine = {};
    machine.cores = 8;
    EXPECT_EQ(8, zinf_machine_threads_default(&machine, 1));
    EXPECT_EQ(2, zinf_machine_threads_default(&machine, 3));
    EXPECT_EQ(1, zinf_machine_threads_default(&machine, 64));
    EXPECT_EQ(8, zinf_machine_threads_default(&machine, 0));
}

/* Three ranks: two on the same CPUs, one bound elsewhere; and one of the same CPU numbers on
 * another host. */
static struct zinf_machine others[4];
static void gather_others(struct zinf_comm *, const void *, size_t bytes, void *all)
{
    memcpy(all, others, 4 * bytes);
}

TEST(Machine, OnlyRanksOnTheSameCpusOfTheSameHostShare)
{
    struct zinf_comm_ops ops = {};
    struct zinf_comm comm = {};
    ops.gather_small = gather_others;
    comm.ops = &ops;
    comm.size = 4;
    for (int rank = 0; rank < 4; rank++) {
        snprintf(others[rank].host, sizeof others[rank].host, "%s", rank == 3 ? "b" : "a");
        others[rank].cpus[1] = rank == 2 ? 0xf0 : 0x0f;
    }
    EXPECT_EQ(2, zinf_machine_sharers(&others[0], &comm));
    EXPECT_EQ(1, zinf_machine_sharers(&others[2], &comm));
    EXPECT_EQ(1, zinf_machine_sharers(&others[3], &comm));
}
