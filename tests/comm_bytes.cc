/*
 * bytes_sent is what MPI was given for other ranks, operation by operation. Run by
 * tests/test_comm.sh.
 */
#include "topology/comm.h"
#include "topology/comm_mpi.h"

#include <cstdio>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "pmpi_count.h"

static int64_t mpi_start, own_start;

static void begin(const struct zinf_comm &comm)
{
    mpi_start = zinf_pmpi_bytes();
    own_start = comm.bytes_sent;
}

static int compare(const struct zinf_comm &comm, const char *operation, int64_t expected)
{
    long long mpi = zinf_pmpi_bytes() - mpi_start, own = comm.bytes_sent - own_start;
    if (mpi == expected && own == expected)
        return 0;
    fprintf(stderr,
            "rank %d of %d: %s: MPI was given %lld bytes, bytes_sent counts %lld, should be %lld\n",
            comm.rank, comm.size, operation, mpi, own, static_cast<long long>(expected));
    return 1;
}

static void finish(struct zinf_comm &comm, struct zinf_comm_request *request)
{
    while (!comm.ops->test(&comm, request))
        zinf_clock_nap(20e-6);
}

int main(int argc, char **argv)
{
    struct zinf_comm comm;
    int failed = 0;
    if (zinf_comm_mpi_open(&comm, &argc, &argv))
        return 1;
    for (size_t bytes : {0, 1, 4096, 99991}) {
        int64_t to_others = (comm.size - 1) * static_cast<int64_t>(bytes);
        std::vector<char> a(bytes * comm.size), b(bytes * comm.size);
        struct zinf_comm_request request = {nullptr};
        zinf_comm_mpi_set_piece(&comm, 10000);
        begin(comm);
        comm.ops->all_gather(&comm, a.data(), bytes, &request);
        failed += compare(comm, "all_gather when posted", to_others);
        finish(comm, &request);
        failed += compare(comm, "all_gather when done", to_others);
        begin(comm);
        comm.ops->exchange(&comm, a.data(), b.data(), bytes, &request);
        finish(comm, &request);
        failed += compare(comm, "exchange", to_others);
    }
    std::vector<double> all(3 * comm.size);
    double mine[3] = {1, 2, 3};
    begin(comm);
    zinf_comm_gather_small(&comm, mine, sizeof mine, all.data());
    failed += compare(comm, "gather_small", (comm.size - 1) * 24);
    begin(comm);
    zinf_comm_agree(&comm, 0);
    failed += compare(comm, "agree", (comm.size - 1) * 4);
    if (zinf_pmpi_uncounted()) {
        fprintf(stderr, "rank %d: a data-path call used an operation that nobody counts\n",
                comm.rank);
        failed++;
    }
    failed = zinf_comm_agree(&comm, failed ? ZINF_E_RUNTIME : 0);
    comm.ops->close(&comm);
    return zinf_exit_code(failed);
}
