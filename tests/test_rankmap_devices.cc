/*
 * Which rank computes on which device, and what hwloc and the kernel know of a device's place.
 */
#include "topology/rankmap.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "temporary_folder.hh"

static std::vector<int> devices(const std::vector<zinf_rankmap_near> &devices,
                                const std::vector<zinf_rankmap_near> &ranks)
{
    std::vector<int> device_of(ranks.size(), -7);
    zinf_rankmap_devices(devices.data(), int(devices.size()), ranks.data(), int(ranks.size()),
                         device_of.data());
    return device_of;
}

TEST(Devices, ALoneRankGetsTheNearOneWhateverItsNumber)
{
    const std::vector<zinf_rankmap_near> four = {{0, 0}, {0, 0}, {1, 1}, {1, 1}};
    EXPECT_EQ((std::vector<int>{2}), devices(four, {{1, 1}}));
    EXPECT_EQ((std::vector<int>{0}), devices(four, {{0, 0}}));
    EXPECT_EQ((std::vector<int>{0}), devices(four, {{-1, -1}}));
    EXPECT_EQ((std::vector<int>{2, 0}), devices(four, {{1, 1}, {0, 0}}));
}

TEST(Devices, OfThePackageWhereTheNumaNodeHasNone)
{
    /* four NUMA nodes, GPUs on the second of each package */
    EXPECT_EQ((std::vector<int>{1, 0}), devices({{1, 0}, {3, 1}}, {{2, 1}, {0, 0}}));
    /* the NUMA node goes before the package */
    EXPECT_EQ((std::vector<int>{1, 0}), devices({{0, 0}, {1, 0}}, {{1, 0}, {0, 0}}));
}

TEST(Devices, InOrderWhereNothingIsKnown)
{
    EXPECT_EQ((std::vector<int>{0, 1, 2, 0}),
              devices({{-1, -1}, {-1, -1}, {-1, -1}}, {{-1, -1}, {-1, -1}, {-1, -1}, {-1, -1}}));
    EXPECT_EQ((std::vector<int>{0, 0}), devices({{-1, -1}}, {{0, 0}, {1, 1}}));
}

TEST(Devices, LoadsDifferByOneAndNoRankCouldBeNearerWithoutAnother)
{
    std::mt19937 random(3);
    for (int round = 0; round < 300; round++) {
        std::vector<zinf_rankmap_near> all(1 + random() % 6), ranks(1 + random() % 17);
        for (auto *list : {&all, &ranks})
            for (auto &near : *list) {
                int numa = int(random() % 5) - 1;
                near = {numa, numa < 0 ? -1 : numa / 2};
            }
        std::vector<int> load(all.size(), 0), device_of = devices(all, ranks);
        for (int device : device_of) {
            ASSERT_GE(device, 0);
            ASSERT_LT(device, int(all.size()));
            load[size_t(device)]++;
        }
        auto ends = std::minmax_element(load.begin(), load.end());
        EXPECT_LE(*ends.second - *ends.first, 1);
        for (size_t rank = 0; rank < ranks.size(); rank++)
            for (size_t device = 0; device < all.size(); device++) {
                bool idle_and_nearer = load[device] == 0 && ranks[rank].numa >= 0 &&
                                       all[device].numa == ranks[rank].numa &&
                                       all[size_t(device_of[rank])].numa != ranks[rank].numa;
                EXPECT_FALSE(idle_and_nearer);
            }
    }
}

/* Two sockets, a GPU beside each of four, as lstopo writes such a machine: what is not asked for
 * (caches, bridges' links) is left out. */
static std::string two_sockets_four_gpus()
{
    std::string xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
                      "<!DOCTYPE topology SYSTEM \"hwloc2.dtd\">\n"
                      "<topology version=\"2.0\">\n";
    auto sets = [](int first, int last, int node) {
        unsigned mask = 0;
        for (int cpu = first; cpu <= last; cpu++)
            mask |= 1u << cpu;
        char text[400];
        snprintf(text, sizeof text,
                 "cpuset=\"0x%08x\" complete_cpuset=\"0x%08x\" nodeset=\"0x%08x\" "
                 "complete_nodeset=\"0x%08x\"",
                 mask, mask, node < 0 ? 3u : 1u << node, node < 0 ? 3u : 1u << node);
        return std::string(text);
    };
    int index = 1;
    auto id = [&index](const char *type) {
        return std::string("<object type=\"") + type + "\" gp_index=\"" + std::to_string(index++) +
               "\" ";
    };
    xml += id("Machine") + "os_index=\"0\" " + sets(0, 15, -1) +
           " allowed_cpuset=\"0x0000ffff\" allowed_nodeset=\"0x00000003\">\n";
    for (int package = 0; package < 2; package++) {
        std::string number = std::to_string(package);
        xml += id("Package") + "os_index=\"" + number + "\" " +
               sets(8 * package, 8 * package + 7, package) + ">\n";
        xml += id("NUMANode") + "os_index=\"" + number + "\" " +
               sets(8 * package, 8 * package + 7, package) + " local_memory=\"1000000\"/>\n";
        for (int cpu = 8 * package; cpu < 8 * package + 8; cpu++) {
            std::string os = "os_index=\"" + std::to_string(cpu) + "\" " + sets(cpu, cpu, package);
            xml += id("Core") + os + ">\n" + id("PU") + os + "/>\n</object>\n";
        }
        /* the sockets' buses in the order that CUDA does not number them in */
        int bus = package ? 0x01 : 0x81;
        char bridge[200];
        snprintf(bridge, sizeof bridge,
                 "bridge_type=\"0-1\" depth=\"0\" bridge_pci=\"0000:[%02x-%02x]\">\n", bus,
                 bus + 0x40);
        xml += id("Bridge") + bridge;
        for (int gpu = 0; gpu < 2; gpu++) {
            char text[200];
            snprintf(text, sizeof text,
                     "pci_busid=\"0000:%02x:00.0\" pci_type=\"0302 [10de:2330] [10de:16c1] a1 "
                     "[10de:2330]\" pci_link_speed=\"63.0\"/>\n",
                     bus + 0x40 * gpu);
            xml += id("PCIDev") + text;
        }
        xml += "</object>\n</object>\n";
    }
    return xml + "</object>\n</topology>\n";
}

static const char *const four_bus_ids[] = {"00000000:01:00.0", "00000000:41:00.0",
                                           "00000000:81:00.0", "00000000:c1:00.0"};

/* The machine above as hwloc reads it. */
class FourGpus : public testing::Test
{
  protected:
    void SetUp() override
    {
        if (!zinf_topology_readers()[0])
            GTEST_SKIP() << "built without hwloc";
        folder.write("machine.xml", two_sockets_four_gpus());
        file = folder / "machine.xml";
        source.xml = file.c_str();
    }
    TemporaryFolder folder;
    std::string file;
    struct zinf_topology_source source = {};
};

TEST_F(FourGpus, HwlocKnowsTheCoresBesideAGpu)
{
    uint64_t cpus[4][ZINF_CPUS_WORDS];
    zinf_topology_near_bus(&source, "/no/such/root", four_bus_ids, 4, cpus);
    EXPECT_EQ(0xff00u, cpus[0][0]);
    EXPECT_EQ(0xff00u, cpus[1][0]);
    EXPECT_EQ(0x00ffu, cpus[2][0]);
    EXPECT_EQ(0x00ffu, cpus[3][0]);
    const char *const unknown[] = {"00000000:99:00.0", "nonsense", ""};
    zinf_topology_near_bus(&source, "/no/such/root", unknown, 3, cpus);
    for (int i = 0; i < 3; i++)
        EXPECT_EQ(0, zinf_cpus_count(cpus[i]));
}

TEST(Devices, WithoutHwlocTheKernelIsAsked)
{
    TemporaryFolder root;
    struct zinf_topology_source nowhere = {"/no/such/file.xml", nullptr};
    root.write("sys/bus/pci/devices/0000:c1:00.0/local_cpulist", "8-11\n");
    uint64_t cpus[4][ZINF_CPUS_WORDS];
    zinf_topology_near_bus(&nowhere, root.path().c_str(), four_bus_ids, 4, cpus);
    EXPECT_EQ(0, zinf_cpus_count(cpus[0]));
    EXPECT_EQ(0x0f00u, cpus[3][0]);
}

/* A rank that runs on the second socket takes the first GPU there, and the table says so. */
TEST_F(FourGpus, ARankTakesOneBesideItsCoresAndTheTableShowsIt)
{
    struct zinf_comm alone = {};
    alone.size = alone.local_size = 1;
    struct zinf_rankmap map = {};
    ASSERT_EQ(0, zinf_rankmap_open(&map, &alone, ZINF_BIND_NONE, 1));
    struct zinf_rankmap_choice choice = {"cuda", four_bus_ids, 4, &source};
    int sharing = 0;
    memset(map.rows[0].place.cpus, 0, sizeof map.rows[0].place.cpus);
    zinf_cpus_parse("2-3", map.rows[0].place.cpus);
    EXPECT_EQ(2, zinf_rankmap_share_devices(&map, &alone, &choice, &sharing));
    EXPECT_EQ(1, sharing);
    EXPECT_STREQ("cuda 2, 81:00.0", map.rows[0].device);
    memset(map.rows[0].place.cpus, 0, sizeof map.rows[0].place.cpus);
    zinf_cpus_parse("9", map.rows[0].place.cpus);
    EXPECT_EQ(0, zinf_rankmap_share_devices(&map, &alone, &choice, &sharing));
    EXPECT_STREQ("cuda 0, 01:00.0", map.rows[0].device);
    char *text = zinf_rankmap_table(&map);
    EXPECT_NE(nullptr, strstr(text, "threads  device            CPUs\n")) << text;
    EXPECT_NE(nullptr, strstr(text, "  cuda 0, 01:00.0   9")) << text;
    free(text);
    choice.count = 0;
    EXPECT_EQ(-1, zinf_rankmap_share_devices(&map, &alone, &choice, &sharing));
    zinf_rankmap_release(&map);
}
