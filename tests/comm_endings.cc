/*
 * A rank ends badly while the others wait: tests/test_comm_endings.sh looks at exit code, message
 * and time.
 *
 * comm_endings abort CODE RANK | kill RANK | late RANK | stuck RANK | exchanges COUNT | loop COUNT
 */
#include "topology/comm.h"
#include "topology/comm_mpi.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include <signal.h>

#include "base/clock.h"
#include "base/status.h"

static void finish(struct zinf_comm *comm, struct zinf_comm_request *request)
{
    while (!comm->ops->test(comm, request))
        zinf_clock_nap(50e-6);
}

static void gather_once(struct zinf_comm *comm)
{
    std::vector<char> buffer(100000 * comm->size);
    struct zinf_comm_request request = {nullptr};
    comm->ops->all_gather(comm, buffer.data(), 100000, &request);
    finish(comm, &request);
}

static void exchange_once(struct zinf_comm *comm)
{
    std::vector<char> send(1000 * comm->size), receive(1000 * comm->size);
    struct zinf_comm_request request = {nullptr};
    comm->ops->exchange(comm, send.data(), receive.data(), 1000, &request);
    finish(comm, &request);
}

/* Two all-gathers in shared memory; `number` stops before it has read the second. The others'
 * watchdog says whom they wait for. */
static void get_stuck(struct zinf_comm *comm, int number)
{
    char *memory = static_cast<char *>(comm->ops->map_shared(comm, 100000 * comm->size)),
         peers[200];
    struct zinf_comm_request request = {nullptr};
    ZINF_ASSERT(memory);
    comm->ops->all_gather(comm, memory, 100000, &request);
    finish(comm, &request);
    comm->ops->all_gather(comm, memory, 100000, &request);
    if (comm->rank == number)
        zinf_clock_nap(60);
    double begin = zinf_clock_s();
    while (!comm->ops->test(comm, &request) && zinf_clock_s() < begin + 0.3)
        zinf_clock_nap(50e-6);
    comm->ops->describe(comm, &request, peers, sizeof peers);
    zinf_error_log("waits %s.", peers);
    zinf_abort(ZINF_E_RUNTIME);
}

int main(int argc, char **argv)
{
    struct zinf_comm comm;
    int status = zinf_comm_mpi_open(&comm, &argc, &argv);
    if (status)
        return zinf_exit_code(status);
    const char *mode = argc > 1 ? argv[1] : "";
    int number = argc > 2 ? atoi(argv[2]) : 0;
    if (!strcmp(mode, "abort") && comm.rank == atoi(argv[3]))
        zinf_abort(-number);
    if (!strcmp(mode, "kill") && comm.rank == number)
        raise(SIGKILL);
    if (!strcmp(mode, "late")) {
        comm.watchdog_s = 0.5;
        if (comm.rank == number)
            zinf_clock_nap(60);
        zinf_comm_barrier(&comm);
    }
    if (!strcmp(mode, "stuck"))
        get_stuck(&comm, number);
    if (!strcmp(mode, "exchanges"))
        for (int i = 0; i < number; i++)
            exchange_once(&comm);
    double begin = zinf_clock_s();
    if (!strcmp(mode, "loop"))
        for (int i = 0; i < number; i++)
            zinf_comm_agree(&comm, 0);
    double agreed = zinf_clock_s();
    for (int i = 0; i < 3; i++)
        gather_once(&comm);
    if (!strcmp(mode, "loop") && comm.rank == 0)
        printf("%d agreements of %d ranks %.2f s, 3 all-gathers %.2f s\n", number, comm.size,
               agreed - begin, zinf_clock_s() - agreed);
    comm.ops->close(&comm);
    return 0;
}
