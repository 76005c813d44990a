/*
 * Checkpoints on several ranks, driven by the scripts test_checkpoint_*.sh:
 *
 *   test_checkpoint_mpi save FILE CONFIG    write the sample, CONFIG as a text of /provenance
 *   test_checkpoint_mpi load FILE...        verify and load each, compare bit for bit
 *   test_checkpoint_mpi faults FOLDER       every n-th call on every rank fails: all ranks hear the
 * same, nothing stays behind test_checkpoint_mpi full FILE           saving must fail for lack of
 * space
 */
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "checkpoint_sample.h"
#include "set_fault.h"
#include "topology/comm_mpi.h"

namespace fs = std::filesystem;

static struct zinf_comm comm;

static int load(const char *path)
{
    Sample sample(comm.rank, comm.size, true);
    struct zinf_checkpoint_file *file = nullptr;
    struct zinf_error error = {};
    sample.clear();
    int status = zinf_checkpoint_open(&file, &comm, path, &error);
    if (!status)
        status = zinf_checkpoint_verify(file, &error);
    if (!status)
        status = zinf_checkpoint_load(file, sample.arrays.data(),
                                      static_cast<int>(sample.arrays.size()), &error);
    if (!status && sample.wrong())
        status = zinf_error_set(&error, -1, "%lld elements differ", (long long)sample.wrong());
    if (status)
        fprintf(stderr, "rank %d of %d, %s: %s\n", comm.rank, comm.size, path, error.text);
    zinf_checkpoint_close(file);
    return zinf_comm_agree(&comm, status);
}

/* One save with a fault: the status, or 1 when it broke a promise. */
static int save_with(const Sample &sample, const fs::path &path, const std::string &fault)
{
    set_fault(fault, comm.rank);
    int status = zinf_checkpoint_save(&comm, path.c_str(), &sample.checkpoint);
    set_fault("", comm.rank);
    bool same = zinf_comm_same(&comm, static_cast<uint64_t>(static_cast<int64_t>(status)));
    long files =
        std::distance(fs::directory_iterator(path.parent_path()), fs::directory_iterator());
    bool clean = files == (fs::exists(path) ? 1 : 0);
    zinf_comm_barrier(&comm);
    if (comm.rank == 0)
        fs::remove(path);
    zinf_comm_barrier(&comm);
    if (same && clean)
        return status;
    fprintf(stderr, "rank %d: %s: status %d (the same: %d), %ld files\n", comm.rank, fault.c_str(),
            status, same, files);
    return 1;
}

static int faults(const char *folder)
{
    Sample sample(comm.rank, comm.size, false);
    fs::path path = fs::path(folder) / "x.h5";
    int failures = 0;
    for (int rank = 0; rank < comm.size; rank++)
        for (const char *operation : {"open", "write", "fsync"}) {
            int n = 1, status;
            do {
                std::string fault = std::string("op=") + operation + ",n=" + std::to_string(n) +
                                    ",err=" + (n % 2 ? "ENOSPC" : "EIO") +
                                    ",rank=" + std::to_string(rank);
                status = save_with(sample, path, fault);
                if (status > 0)
                    return 1;
                failures += status != 0;
                if (status && status != (n % 2 ? ZINF_E_NO_SPACE : ZINF_E_RUNTIME))
                    return 1;
                n += 1 + n / 6; /* denser at the start */
            } while (status);
        }
    if (comm.rank == 0)
        printf("%d failed saves on %d ranks, none left a trace\n", failures, comm.size);
    return failures < 3 * comm.size;
}

static int run(int argc, char **argv)
{
    std::string mode = argc > 2 ? argv[1] : "";
    if (mode == "save" || mode == "full") {
        Sample sample(comm.rank, comm.size, true, argc > 3 ? argv[3] : "{}");
        int status = zinf_checkpoint_save(&comm, argv[2], &sample.checkpoint);
        return mode == "full" ? status != ZINF_E_NO_SPACE : status != 0;
    }
    if (mode == "faults")
        return faults(argv[2]);
    if (mode != "load")
        return 2;
    int failed = 0;
    for (int i = 2; i < argc; i++)
        failed |= load(argv[i]) != 0;
    return failed;
}

int main(int argc, char **argv)
{
    if (zinf_comm_mpi_open(&comm, &argc, &argv))
        return 1;
    struct zinf_log_options log = {};
    log.rank = comm.rank;
    zinf_log_configure(&log);
    int result = run(argc, argv);
    comm.ops->close(&comm);
    return result;
}
