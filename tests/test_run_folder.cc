// The folder of a run: lock, files that are replaced as a whole, metrics that are cut, links and
// pruning.
#include "train/run_folder.h"

#include <cstdlib>
#include <cstring>
#include <vector>

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "set_fault.h"
#include "temporary_folder.hh"
#include "train/checkpoint_folder.h"
#include "train/results.h"

namespace
{

struct DemoRun {
    TemporaryFolder parent;
    std::string path = parent / "runs/a/demo";
    struct zinf_run_folder *folder = nullptr;
    struct zinf_error error = {};

    int open()
    {
        return zinf_run_folder_open(&folder, path.c_str(), &error);
    }
    void close()
    {
        zinf_run_folder_close(folder);
        folder = nullptr;
    }
    ~DemoRun()
    {
        close();
    }

    std::string write(const std::string &name, const std::string &text)
    {
        return parent.write("runs/a/demo/" + name, text);
    }
    std::string read(const std::string &name)
    {
        return parent.read("runs/a/demo/" + name);
    }
    bool has(const std::string &name)
    {
        return parent.has("runs/a/demo/" + name);
    }
    void make_checkpoints(std::initializer_list<int> steps)
    {
        for (int step : steps) {
            char *file = zinf_checkpoint_folder_path(path.c_str(), step);
            std::ofstream(file) << step;
            free(file);
        }
    }
    std::vector<int64_t> checkpoints()
    {
        int64_t *steps;
        const int count = zinf_checkpoint_folder_list(path.c_str(), &steps);
        std::vector<int64_t> list(steps, steps + count);
        free(steps);
        return list;
    }
};

TEST(RunFolder, IsMadeWithItsParentsByTheUmask)
{
    DemoRun run;
    struct stat st;
    const mode_t before = umask(027);
    ASSERT_EQ(run.open(), 0) << run.error.text;
    umask(before);
    ASSERT_EQ(stat((run.path + "/checkpoints").c_str(), &st), 0);
    EXPECT_EQ(st.st_mode & 0777, 0750u);
}

TEST(RunFolder, ARunThatDoesNotBeginLeavesNothingBehind)
{
    DemoRun run;
    FILE *log;
    ASSERT_EQ(run.open(), 0) << run.error.text;
    ASSERT_EQ(zinf_run_folder_open_log(run.folder, "header", &log, &run.error), 0);
    run.close();
    EXPECT_NE(access((run.parent / "runs").c_str(), F_OK), 0);
    // what was there before, or was put there by others, stays
    ASSERT_EQ(mkdir((run.parent / "runs").c_str(), 0777), 0);
    ASSERT_EQ(run.open(), 0) << run.error.text;
    run.close();
    EXPECT_EQ(access((run.parent / "runs").c_str(), F_OK), 0);
    EXPECT_NE(access((run.parent / "runs/a").c_str(), F_OK), 0);
    ASSERT_EQ(run.open(), 0) << run.error.text;
    run.write("notes", "mine");
    run.close();
    EXPECT_EQ(run.read("notes"), "mine");
}

TEST(RunFolder, ASecondJobIsRefusedNamesTheFirstAndTouchesNothing)
{
    DemoRun run;
    ASSERT_EQ(run.open(), 0);
    run.write("checkpoints/step-00000001.h5.tmp.7", "being written");
    run.write("STOP", "");
    const std::string lock = run.read(".lock");
    const pid_t second = fork();
    if (second == 0) {
        struct zinf_run_folder *folder = nullptr;
        struct zinf_error error = {};
        const int status = zinf_run_folder_open(&folder, run.path.c_str(), &error);
        const std::string pid = "process " + std::to_string(getppid());
        _exit(status == ZINF_E_USAGE && strstr(error.text, pid.c_str()) &&
                      strstr(error.text, "in use")
                  ? 0
                  : 1);
    }
    int result = -1;
    waitpid(second, &result, 0);
    EXPECT_EQ(result, 0);
    EXPECT_TRUE(run.has("checkpoints/step-00000001.h5.tmp.7"));
    EXPECT_TRUE(run.has("STOP"));
    EXPECT_EQ(run.read(".lock"), lock);
    run.close();
    ASSERT_EQ(run.open(), 0); // the lock ended with the folder
    EXPECT_FALSE(run.has("STOP"));
}

TEST(RunFolder, ACheckSaysWhatOpeningWouldAndChangesNothing)
{
    DemoRun run;
    struct zinf_error error = {};
    EXPECT_EQ(zinf_run_folder_check(run.path.c_str(), &error), 0);
    EXPECT_FALSE(run.has("")) << "nothing was made";
    ASSERT_EQ(run.open(), 0);
    run.write("STOP", "");
    EXPECT_EQ(zinf_run_folder_check(run.path.c_str(), &error), ZINF_E_USAGE);
    EXPECT_NE(strstr(error.text, "in use"), nullptr) << error.text;
    EXPECT_TRUE(run.has("STOP"));
    EXPECT_EQ(zinf_run_folder_check((run.path + "/STOP/below").c_str(), &error), ZINF_E_USAGE);
    run.close();
    EXPECT_EQ(zinf_run_folder_check(run.path.c_str(), &error), 0);
    char *nearest = zinf_run_folder_nearest((run.path + "/a/b/").c_str());
    EXPECT_STREQ(nearest, run.path.c_str());
    free(nearest);
}

TEST(RunFolder, ALockEndsWithItsProcessHoweverItDies)
{
    DemoRun run;
    int ready[2];
    char byte;
    ASSERT_EQ(pipe(ready), 0);
    const pid_t first = fork();
    if (first == 0) {
        byte = run.open() == 0;
        if (write(ready[1], &byte, 1) == 1)
            pause();
        _exit(1);
    }
    ASSERT_EQ(read(ready[0], &byte, 1), 1);
    EXPECT_EQ(byte, 1);
    EXPECT_EQ(run.open(), ZINF_E_USAGE);
    kill(first, SIGKILL);
    waitpid(first, NULL, 0);
    EXPECT_EQ(run.open(), 0) << run.error.text;
    ::close(ready[0]);
    ::close(ready[1]);
}

TEST(RunFolder, DeadTemporariesAndStopGoAtTheStartAndNothingElse)
{
    DemoRun run;
    ASSERT_EQ(run.open(), 0);
    run.close();
    const std::vector<std::string> dead = {"config.json.tmp.12",
                                           "metrics.jsonl.tmp.9",
                                           "checkpoints/step-00000005.h5.tmp.77",
                                           "checkpoints/latest.tmp.3",
                                           "checkpoints/best.tmp.3_1",
                                           "STOP"};
    const std::vector<std::string> alive = {"notes.tmp.txt", "checkpoints/mine.tmp.h5",
                                            "checkpoints/step-00000005.h5", "config.json"};
    for (const std::string &name : dead)
        run.write(name, "x");
    for (const std::string &name : alive)
        run.write(name, "x");
    ASSERT_EQ(run.open(), 0);
    for (const std::string &name : dead)
        EXPECT_FALSE(run.has(name)) << name;
    for (const std::string &name : alive)
        EXPECT_TRUE(run.has(name)) << name;
}

TEST(RunFolder, APathThatCannotBeAFolderIsAUsageError)
{
    DemoRun run;
    run.parent.write("file", "x");
    for (const std::string &path :
         {run.parent / "file", run.parent / "file/below", std::string("/proc/x")}) {
        run.path = path;
        EXPECT_EQ(run.open(), ZINF_E_USAGE) << path;
        EXPECT_NE(strstr(run.error.text, path.c_str()), nullptr) << run.error.text;
        EXPECT_NE(strstr(run.error.text, "zinf.run.dir"), nullptr) << run.error.text;
    }
}

TEST(RunFolder, FilesAreReplacedWholeOrNotAtAll)
{
    DemoRun run;
    ASSERT_EQ(run.open(), 0);
    ASSERT_EQ(zinf_run_folder_replace(run.folder, "results.json", "old", &run.error), 0);
    for (const char *operation : {"open", "write", "fsync", "rename"}) {
        set_fault(std::string("op=") + operation + ",n=1,err=ENOSPC");
        EXPECT_EQ(zinf_run_folder_replace(run.folder, "results.json", "new", &run.error),
                  ZINF_E_NO_SPACE)
            << operation;
        EXPECT_EQ(run.read("results.json"), "old") << operation;
        for (const auto &entry : std::filesystem::directory_iterator(run.path))
            EXPECT_EQ(entry.path().string().find(".tmp."), std::string::npos) << operation;
    }
    set_fault("op=write,n=1,short=2");
    EXPECT_EQ(zinf_run_folder_replace(run.folder, "results.json", "a new one", &run.error), 0);
    set_fault("");
    EXPECT_EQ(run.read("results.json"), "a new one");
}

TEST(RunFolder, TheLogIsAppendedWithAHeaderPerStart)
{
    DemoRun run;
    for (const char *header : {"zinf 1, first", "zinf 1, second"}) {
        FILE *log = nullptr;
        ASSERT_EQ(run.open(), 0);
        ASSERT_EQ(zinf_run_folder_open_log(run.folder, header, &log, &run.error), 0);
        fprintf(log, "line\n");
        ASSERT_EQ(zinf_run_folder_replace(run.folder, "config.json", "{}", &run.error), 0);
        run.close();
    }
    const std::string text = run.read("zinf.log");
    EXPECT_EQ(text.find("===="), 0u);
    EXPECT_LT(text.find("first"), text.find("second"));
    EXPECT_NE(text.find("line\n\n===="), std::string::npos);
}

const char *const lines[] = {"{\"step\": 1, \"loss\": 5.5}\n", "{\"step\": 2, \"loss\": 4.5}\n",
                             "{\"step\": 2, \"eval_loss\": 4.4}\n",
                             "{\"step\": 3, \"loss\": null}\n"};

std::string text_of(int count)
{
    std::string text;
    for (int i = 0; i < count; i++)
        text += lines[i];
    return text;
}

TEST(RunFolder, MetricsAreAppendedAndCutAtTheStepOfAResume)
{
    DemoRun run;
    ASSERT_EQ(run.open(), 0);
    ASSERT_EQ(zinf_run_folder_open_metrics(run.folder, 0, &run.error), 0);
    for (const char *line : lines)
        ASSERT_EQ(zinf_run_folder_add_metrics(run.folder, line, &run.error), 0);
    run.close();
    EXPECT_EQ(run.read("metrics.jsonl"), text_of(4));
    run.write("metrics.jsonl", text_of(4) + "{\"step\": 4, \"lo");
    const int steps[] = {9, 2, 1, 0}, left[] = {4, 3, 1, 0};
    for (int i = 0; i < 4; i++) {
        ASSERT_EQ(run.open(), 0);
        ASSERT_EQ(zinf_run_folder_open_metrics(run.folder, steps[i], &run.error), 0);
        EXPECT_EQ(run.read("metrics.jsonl"), text_of(left[i]));
        run.close();
    }
}

TEST(RunFolder, AMetricsLineThatFailedIsOverwrittenByTheNext)
{
    DemoRun run;
    ASSERT_EQ(run.open(), 0);
    ASSERT_EQ(zinf_run_folder_open_metrics(run.folder, 0, &run.error), 0);
    ASSERT_EQ(zinf_run_folder_add_metrics(run.folder, lines[0], &run.error), 0);
    set_fault("op=write,n=1,err=ENOSPC");
    EXPECT_EQ(zinf_run_folder_add_metrics(run.folder, lines[1], &run.error), ZINF_E_NO_SPACE);
    set_fault("");
    ASSERT_EQ(zinf_run_folder_add_metrics(run.folder, lines[1], &run.error), 0);
    EXPECT_EQ(run.read("metrics.jsonl"), text_of(2));
}

TEST(RunFolder, ACutThatFailsLeavesTheOldMetrics)
{
    for (const char *operation : {"open", "write", "fsync", "rename"}) {
        DemoRun run;
        run.write("metrics.jsonl", text_of(4));
        ASSERT_EQ(run.open(), 0);
        set_fault(std::string("op=") + operation + ",n=1,err=EIO");
        EXPECT_EQ(zinf_run_folder_open_metrics(run.folder, 1, &run.error), ZINF_E_RUNTIME);
        set_fault("");
        EXPECT_EQ(run.read("metrics.jsonl"), text_of(4)) << operation;
    }
}

TEST(RunFolder, StopIsTakenOnce)
{
    DemoRun run;
    ASSERT_EQ(run.open(), 0);
    EXPECT_FALSE(zinf_run_folder_take_stop(run.folder));
    run.write("STOP", "");
    EXPECT_TRUE(zinf_run_folder_take_stop(run.folder));
    EXPECT_FALSE(zinf_run_folder_take_stop(run.folder));
}

TEST(CheckpointFolder, ListsItsOwnNamesNewestFirst)
{
    DemoRun run;
    ASSERT_EQ(run.open(), 0);
    EXPECT_TRUE(run.checkpoints().empty());
    run.make_checkpoints({5, 1000, 20, 123456789});
    for (const char *name : {"step-7.h5", "step-00000008.h5.tmp.1", "step-00000009.h5x", "x.h5"})
        run.write(std::string("checkpoints/") + name, "");
    std::filesystem::create_directory(run.path + "/checkpoints/step-00000030.h5");
    EXPECT_EQ(run.checkpoints(), (std::vector<int64_t>{123456789, 1000, 20, 5}));
    int64_t *steps;
    EXPECT_EQ(zinf_checkpoint_folder_list("/no/such/run", &steps), 0);
    free(steps);
}

TEST(CheckpointFolder, LinksAreReplacedAtomicallyAndReadBack)
{
    DemoRun run;
    ASSERT_EQ(run.open(), 0);
    const char *path = run.path.c_str();
    EXPECT_EQ(zinf_checkpoint_folder_linked(path, "latest"), -1);
    run.make_checkpoints({5, 10});
    ASSERT_EQ(zinf_checkpoint_folder_link(path, "latest", 5, &run.error), 0) << run.error.text;
    EXPECT_EQ(zinf_checkpoint_folder_linked(path, "latest"), 5);
    for (const char *operation : {"rename"}) {
        set_fault(std::string("op=") + operation + ",n=1,err=EIO");
        EXPECT_EQ(zinf_checkpoint_folder_link(path, "latest", 10, &run.error), ZINF_E_RUNTIME);
        set_fault("");
        EXPECT_EQ(zinf_checkpoint_folder_linked(path, "latest"), 5);
    }
    ASSERT_EQ(zinf_checkpoint_folder_link(path, "latest", 10, &run.error), 0);
    EXPECT_EQ(zinf_checkpoint_folder_linked(path, "latest"), 10);
    EXPECT_EQ(std::filesystem::read_symlink(run.path + "/checkpoints/latest"), "step-00000010.h5");
    std::filesystem::remove(run.path + "/checkpoints/step-00000010.h5");
    EXPECT_EQ(zinf_checkpoint_folder_linked(path, "latest"), -1); // dangling
}

TEST(CheckpointFolder, PruningKeepsTheNewestTheLatestAndTheBest)
{
    DemoRun run;
    ASSERT_EQ(run.open(), 0);
    const char *path = run.path.c_str();
    run.make_checkpoints({10, 20, 30, 40, 50});
    ASSERT_EQ(zinf_checkpoint_folder_link(path, "latest", 50, NULL), 0);
    ASSERT_EQ(zinf_checkpoint_folder_link(path, "best", 20, NULL), 0);
    EXPECT_EQ(zinf_checkpoint_folder_prune(path, 0, -1), 5);
    EXPECT_EQ(zinf_checkpoint_folder_prune(path, 3, -1), 3); // the best counts
    EXPECT_EQ(run.checkpoints(), (std::vector<int64_t>{50, 40, 20}));
    EXPECT_EQ(zinf_checkpoint_folder_prune(path, 1, -1),
              2); // the best and the latest stay, whatever is asked
    EXPECT_EQ(run.checkpoints(), (std::vector<int64_t>{50, 20}));
    run.make_checkpoints({60});
    set_fault("op=unlink,n=1,err=EIO");
    EXPECT_EQ(zinf_checkpoint_folder_prune(path, 2, -1), 3); // nothing may go: newest, latest, best
    set_fault("");
    ASSERT_EQ(zinf_checkpoint_folder_link(path, "latest", 60, NULL), 0);
    set_fault("op=unlink,n=1,err=EIO");
    EXPECT_EQ(zinf_checkpoint_folder_prune(path, 2, -1),
              3); // a warning, and it is tried again next time
    set_fault("");
    EXPECT_EQ(zinf_checkpoint_folder_prune(path, 2, -1), 2);
    EXPECT_EQ(run.checkpoints(), (std::vector<int64_t>{60, 20}));
}

TEST(RunFolder, AnyFailingCallOfAStartLeavesTheFolderFreeForTheNext)
{
    for (const char *operation : {"open", "write", "fsync", "rename", "unlink"}) {
        bool clean = false;
        for (int n = 1; n < 40 && !clean; n++) {
            DemoRun run;
            run.write("metrics.jsonl", text_of(4));
            run.write("config.json", "old");
            set_fault(std::string("op=") + operation + ",n=" + std::to_string(n) + ",err=EIO");
            FILE *log;
            const bool started =
                run.open() == 0 && zinf_run_folder_open_log(run.folder, "x", &log, NULL) == 0 &&
                zinf_run_folder_replace(run.folder, "config.json", "new", NULL) == 0 &&
                zinf_run_folder_open_metrics(run.folder, 2, NULL) == 0;
            run.close();
            set_fault("");
            clean = started && operation[0] != 'u'; // a failing unlink is only a warning
            EXPECT_TRUE(run.read("config.json") == "new" || run.read("config.json") == "old");
            ASSERT_EQ(run.open(), 0) << run.error.text;
            ASSERT_EQ(zinf_run_folder_open_metrics(run.folder, 2, &run.error), 0);
            EXPECT_EQ(run.read("metrics.jsonl"), text_of(3));
            if (operation[0] == 'u')
                break;
        }
        EXPECT_TRUE(clean || operation[0] == 'u') << operation;
    }
}

// Every number of results.json, so that a start that makes no step writes what it has read.
TEST(Results, ReadAgainTheySayTheSame)
{
    TemporaryFolder folder;
    zinf_results results = {}, again = {};
    zinf_metrics metrics = {.step = 9,
                            .epoch = 0.5,
                            .samples = 90,
                            .tokens = 901,
                            .loss = 2.25,
                            .lr = 1e-3,
                            .grad_norm = 1.5,
                            .loss_scale = 1024,
                            .skipped = 1,
                            .step_s = 0.25,
                            .tokens_per_s = 400,
                            .tflops = 0.125,
                            .mfu = 0.375,
                            .nvme_read_bytes = 11,
                            .nvme_write_bytes = 12,
                            .comm_bytes = 13,
                            .wait_nvme_s = 0.5,
                            .wait_comm_s = 0.625,
                            .wait_data_s = 0.75,
                            .rss_bytes = 14,
                            .device_bytes = 15,
                            .pinned_bytes = 16,
                            .wait_update_s = 0.25,
                            .early_records = 17,
                            .refused_records = 18};
    zinf_evaluation evaluation = {};
    evaluation.step = 9;
    evaluation.loss = 2.5;
    evaluation.perplexity = 12.25;
    results.metrics = results.best_metrics = metrics;
    results.best_metrics.step = 6;
    results.evaluation = results.best_evaluation = evaluation;
    results.best_evaluation.loss = 2.375;
    results.has_best = true;
    results.best_score = 2.375;
    results.wall_s = 3.5;
    results.checkpoints_failed = 2;
    strcpy(results.best_checkpoint, "step-00000006.h5");
    char *before = zinf_results_print(&results, 0);
    zinf_results_read(&again, folder.write("results.json", before).c_str());
    char *after = zinf_results_print(&again, 0);
    EXPECT_STREQ(after, before);
    free(before);
    free(after);
}

} // namespace
