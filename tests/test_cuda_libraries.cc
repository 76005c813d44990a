/*
 * Where NVIDIA's libraries are looked for: in folders that a test makes, with a library that any
 * machine has under another name.
 */
#include "cuda/libraries.h"
#include "cuda/monitor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include <dlfcn.h>

#include "temporary_folder.hh"

namespace
{

int version_five(void *)
{
    return 5;
}

/* A machine with nothing on it but what a test puts there. */
class Libraries : public testing::Test
{
  protected:
    TemporaryFolder root;
    zinf_cuda_library library = {};

    void SetUp() override
    {
        for (const char *name :
             {"ZINF_CUDA_LIBRARIES", "VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH"})
            unsetenv(name);
        setenv("PATH", (root / "bin").c_str(), 1);
        setenv("HOME", (root / "home").c_str(), 1);
        library.name = "Fake", library.file = "libzinf_fake.so.2",
        library.stem = "libzinf_fake.so.";
        library.package = "nvidia/fake/lib", library.version = version_five;
    }
    std::string put(const std::string &file)
    {
        Dl_info about;
        double (*any)(double) = std::cos;
        EXPECT_NE(0, dladdr((void *)any, &about));
        std::filesystem::create_directories(std::filesystem::path(root / file).parent_path());
        std::filesystem::copy_file(std::filesystem::canonical(about.dli_fname), root / file);
        return root / file;
    }
    std::string found()
    {
        zinf_cuda_library copy = library;
        return zinf_cuda_library_open(&copy) ? std::string("not found: ") + copy.why : copy.path;
    }
};

} // namespace

TEST_F(Libraries, ThePythonOnThePathIsKnownByWhereItStands)
{
    /* a virtual environment: python3 is a link to another installation */
    std::string file = put("env/lib/python3.12/site-packages/nvidia/fake/lib/libzinf_fake.so.2");
    std::filesystem::create_directories(root / "env/bin");
    std::filesystem::create_symlink("/bin/sh", root / "env/bin/python3");
    EXPECT_EQ(0u, found().find("not found")) << found();
    setenv("PATH", ("/no/such/folder:" + (root / "env/bin")).c_str(), 1);
    EXPECT_EQ(file, found());
    std::filesystem::remove(root / "env/bin/python3"); /* a folder without Python leads nowhere */
    EXPECT_EQ(0u, found().find("not found")) << found();
}

TEST_F(Libraries, EnvironmentsAndFoldersThatAreNamedGoFirst)
{
    std::string home =
        put("home/.local/lib/python3.11/site-packages/nvidia/fake/lib/libzinf_fake.so.2");
    EXPECT_EQ(home, found());
    std::string path = put("modules/nvidia/fake/lib/libzinf_fake.so.2");
    setenv("PYTHONPATH", ((root / "other:") + (root / "modules")).c_str(), 1);
    EXPECT_EQ(path, found());
    std::string conda = put("conda/lib/python3.10/dist-packages/nvidia/fake/lib/libzinf_fake.so.2");
    setenv("CONDA_PREFIX", (root / "conda").c_str(), 1);
    EXPECT_EQ(conda, found());
    std::string named = put("named/libzinf_fake.so.2");
    setenv("ZINF_CUDA_LIBRARIES", ((root / "empty:") + (root / "named")).c_str(), 1);
    EXPECT_EQ(named, found());
}

TEST_F(Libraries, AnotherAbiIsNamed)
{
    std::string old =
        put("home/.local/lib/python3.11/site-packages/nvidia/fake/lib/libzinf_fake.so.1");
    EXPECT_NE(std::string::npos, found().find(old + " has another ABI")) << found();
}

TEST_F(Libraries, WhatIsTooOldIsNotPassedOver)
{
    library.oldest = 7;
    put("named/libzinf_fake.so.2");
    put("home/.local/lib/python3.11/site-packages/nvidia/fake/lib/libzinf_fake.so.2");
    setenv("ZINF_CUDA_LIBRARIES", (root / "named").c_str(), 1);
    EXPECT_NE(std::string::npos, found().find("Fake 5 in ")) << found();
    EXPECT_NE(std::string::npos, found().find("too old: 7 or newer")) << found();
}

TEST(Monitor, SaysWhatIsFreeOfACardThatNobodyHasOpened)
{
    const int64_t mib = 1 << 20;
    const char *card = "00000000:3b:00.0";
    /* The loader gives who asks for this name the one that is there already. */
    void *library = dlopen("tests/fake_driver/libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    ASSERT_NE(nullptr, library) << dlerror();
    EXPECT_EQ(700 * mib, zinf_cuda_monitor_free(card, 990 * mib));
    EXPECT_EQ(700 * mib, zinf_cuda_monitor_free(card, 990 * mib)); /* closed and opened again */
    EXPECT_EQ(-1, zinf_cuda_monitor_free(card, 140 * mib)) << "a part of a card is not the card";
    EXPECT_EQ(-1, zinf_cuda_monitor_free("00000000:af:00.0", 990 * mib));
    dlclose(library);
}
