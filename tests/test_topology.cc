/*
 * The node as plain data: by hwloc from synthetic machines, by the plain reader, and drives in a
 * recorded sysfs.
 */
#include "topology/topology.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <memory>
#include <string>

#include "temporary_folder.hh"

static std::unique_ptr<zinf_topology> synthetic(const char *words)
{
    std::unique_ptr<zinf_topology> topology(new zinf_topology());
    struct zinf_topology_source source = {nullptr, words};
    for (int i = 0; zinf_topology_readers()[i]; i++)
        if (!zinf_topology_readers()[i]->read(topology.get(), &source))
            return topology;
    return nullptr;
}

#define NEED(topology)                                                                             \
    if (!(topology)) {                                                                             \
        EXPECT_EQ(nullptr, zinf_topology_readers()[0]);                                            \
        GTEST_SKIP() << "built without hwloc";                                                     \
    }

TEST(Topology, TwoPackagesWithHyperthreads)
{
    auto topology = synthetic("package:2 numa:1 core:4 pu:2");
    NEED(topology);
    EXPECT_STREQ("hwloc", topology->reader);
    EXPECT_EQ(2, topology->package_count);
    EXPECT_EQ(2, topology->numa_count);
    EXPECT_EQ(8, topology->core_count);
    EXPECT_EQ(16, topology->cpu_count);
    EXPECT_EQ(0, topology->cpu[1].core); /* the second thread of the first core */
    EXPECT_EQ(4, topology->cpu[8].core);
    EXPECT_EQ(1, topology->cpu[8].numa);
    EXPECT_EQ(1, topology->cpu[15].package);
    EXPECT_EQ(-1, topology->cpu[16].core);
    EXPECT_GT(topology->numa_bytes[1], 0);
    EXPECT_EQ(0, topology->numa_bytes[2]);
}

TEST(Topology, CoresAreCountedOnceAndSetsKnowTheirNumaNode)
{
    auto topology = synthetic("package:2 numa:1 core:4 pu:2");
    NEED(topology);
    uint64_t cpus[ZINF_CPUS_WORDS] = {0};
    EXPECT_EQ(0, zinf_topology_cores(topology.get(), cpus));
    EXPECT_EQ(-1, zinf_topology_numa_of(topology.get(), cpus));
    zinf_cpus_parse("0-3,5", cpus);
    EXPECT_EQ(3, zinf_topology_cores(topology.get(), cpus));
    EXPECT_EQ(0, zinf_topology_numa_of(topology.get(), cpus));
    zinf_cpus_add(cpus, 9);
    EXPECT_EQ(4, zinf_topology_cores(topology.get(), cpus));
    EXPECT_EQ(-1, zinf_topology_numa_of(topology.get(), cpus));
}

TEST(Topology, SeveralNumaNodesOfAPackage)
{
    auto topology = synthetic("package:2 numa:4 core:16 pu:1");
    NEED(topology);
    EXPECT_EQ(8, topology->numa_count);
    EXPECT_EQ(128, topology->core_count);
    EXPECT_EQ(7, topology->cpu[127].numa);
}

TEST(Topology, WhatCannotBeReadIsAFailure)
{
    struct zinf_topology topology;
    struct zinf_topology_source nonsense = {nullptr, "package:0 pony:7"};
    struct zinf_topology_source nowhere = {"/no/such/file.xml", nullptr};
    for (int i = 0; zinf_topology_readers()[i]; i++) {
        EXPECT_NE(0, zinf_topology_readers()[i]->read(&topology, &nonsense));
        EXPECT_NE(0, zinf_topology_readers()[i]->read(&topology, &nowhere));
    }
}

/* What the readers cannot read, the plain one describes from the machine. */
TEST(Topology, ThePlainReaderTakesEveryCpuForACore)
{
    std::unique_ptr<zinf_topology> topology(new zinf_topology());
    struct zinf_machine machine = {};
    struct zinf_topology_source nowhere = {"/no/such/file.xml", nullptr};
    zinf_cpus_parse("4-5,9", machine.offered);
    zinf_cpus_parse("5", machine.cpus);
    machine.memory_total = 1000;
    zinf_topology_read(topology.get(), &machine, &nowhere);
    EXPECT_STREQ("kernel", topology->reader);
    EXPECT_EQ(3, topology->core_count);
    EXPECT_EQ(1, topology->numa_count);
    EXPECT_EQ(-1, topology->cpu[0].core);
    EXPECT_EQ(0, topology->cpu[4].core);
    EXPECT_EQ(2, topology->cpu[9].core);
    EXPECT_EQ(0, topology->cpu[9].numa);
    EXPECT_EQ(1000, topology->numa_bytes[0]);
}

TEST(Topology, ThisMachineHoldsTheCpusOfThisProcess)
{
    std::unique_ptr<zinf_topology> topology(new zinf_topology());
    struct zinf_machine machine;
    zinf_machine_read(&machine, "");
    zinf_topology_read(topology.get(), &machine, nullptr);
    EXPECT_GE(topology->core_count, 1);
    EXPECT_GE(topology->cpu_count, machine.cpu_count);
    int cores = zinf_topology_cores(topology.get(), machine.cpus);
    EXPECT_GE(cores, 1);
    EXPECT_LE(cores, machine.cpu_count);
}

/* sysfs of a node: an NVMe drive with a partition, a volume on top of it, a drive of unknown place.
 */
struct Sysfs {
    TemporaryFolder root;
    Sysfs()
    {
        root.write("sys/devices/pci0000:40/0000:41:00.0/numa_node", "1\n");
        root.write("sys/devices/pci0000:40/0000:41:00.0/nvme/nvme0/nvme0n1/nvme0n1p2/dev",
                   "259:2\n");
        root.write("sys/devices/virtual/block/dm-0/dev", "253:0\n");
        root.write("sys/devices/pci0000:00/0000:00:05.0/numa_node", "-1\n");
        root.write("sys/devices/pci0000:00/0000:00:05.0/virtio2/block/vda/dev", "254:0\n");
        std::filesystem::create_directories(root / "sys/dev/block");
        std::filesystem::create_directories(root / "sys/devices/virtual/block/dm-0/slaves");
        link("259:2", "devices/pci0000:40/0000:41:00.0/nvme/nvme0/nvme0n1/nvme0n1p2");
        link("253:0", "devices/virtual/block/dm-0");
        link("254:0", "devices/pci0000:00/0000:00:05.0/virtio2/block/vda");
        std::filesystem::create_directory_symlink(
            root / "sys/devices/pci0000:40/0000:41:00.0/nvme/nvme0/nvme0n1/nvme0n1p2",
            root / "sys/devices/virtual/block/dm-0/slaves/nvme0n1p2");
    }
    void link(const std::string &number, const std::string &target)
    {
        std::filesystem::create_directory_symlink(root / ("sys/" + target),
                                                  root / ("sys/dev/block/" + number));
    }
    int near(unsigned major, unsigned minor)
    {
        return zinf_topology_near_device(major, minor, root.path().c_str());
    }
};

TEST(Near, APartitionIsWhereItsControllerIs)
{
    Sysfs sysfs;
    EXPECT_EQ(1, sysfs.near(259, 2));
}

TEST(Near, AVolumeIsWhereItsFirstDriveIs)
{
    Sysfs sysfs;
    EXPECT_EQ(1, sysfs.near(253, 0));
}

TEST(Near, UnknownIsUnknown)
{
    Sysfs sysfs;
    EXPECT_EQ(-1, sysfs.near(254, 0)); /* the kernel says -1: a virtual machine */
    EXPECT_EQ(-1, sysfs.near(0, 50));  /* tmpfs */
    EXPECT_EQ(-1, zinf_topology_near("/no/such/path", ""));
}

TEST(Cpus, ListsReadAndPrintTheSame)
{
    for (const char *list : {"0", "0-3,8,10-11", "63-64", "4095", "0-4095"}) {
        uint64_t cpus[ZINF_CPUS_WORDS] = {0};
        EXPECT_GT(zinf_cpus_parse(list, cpus), 0);
        char *text = zinf_cpus_print(cpus);
        EXPECT_STREQ(list, text);
        free(text);
    }
    uint64_t cpus[ZINF_CPUS_WORDS] = {0};
    EXPECT_EQ(0, zinf_cpus_parse("", cpus));
    EXPECT_EQ(0, zinf_cpus_parse(nullptr, cpus));
    EXPECT_EQ(1, zinf_cpus_parse("4095-5000", cpus)); /* what is too high is not looked at */
    char *text = zinf_cpus_print(cpus);
    EXPECT_STREQ("4095", text);
    free(text);
}
