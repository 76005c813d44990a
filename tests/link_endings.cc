/*
 * A run over the link between devices, and how it is chosen and ends when something goes wrong:
 * tests/test_comm_link.sh looks at exit code, message and time.
 *
 * link_endings WATCHDOG_S OPERATIONS
 */
#include <cstdio>
#include <cstdlib>

#include "base/status.h"
#include "device/link.h"
#include "topology/comm_mpi.h"
#include "zero/lanes.h"

namespace
{

const size_t BYTES = 5000;

struct Job {
    zinf_comm comm, mpi;
    zinf_device device;
    zinf_lanes *lanes;
    char *memory;
};

/* By the mover: all-gathers and exchanges in turn. */
void operate(void *context, int64_t index)
{
    Job *job = static_cast<Job *>(context);
    zinf_comm_request request = {nullptr};
    job->device.backend->use(&job->device, ZINF_STREAM_COMMUNICATION);
    if (index % 2 == 0)
        job->comm.ops->all_gather(&job->comm, job->memory, BYTES, &request);
    else
        job->comm.ops->exchange(&job->comm, job->memory,
                                job->memory + BYTES * static_cast<size_t>(job->comm.size), BYTES,
                                &request);
    zinf_lanes_complete(job->lanes, &request);
}

int open_device(Job *job, zinf_error *error)
{
    const zinf_device_backend *backend = zinf_device_backends()[0];
    zinf_device_options options = {};
    zinf_device_link_options link = {&job->mpi, 0, 4};
    zinf_link_choice choice;
    options.event_count = 4;
    int status = backend->open(&job->device, &options, error);
    if (!status)
        status = zinf_link_choose(&job->mpi, backend, &job->device.properties, &choice, error);
    if (status)
        return status;
    if (job->mpi.rank == 0)
        printf("choice: %s\nnote: %s\n", choice.text, choice.note);
    if (!choice.direct)
        return 0;
    job->memory = static_cast<char *>(
        backend->allocate(&job->device, 2 * BYTES * static_cast<size_t>(job->mpi.size)));
    return backend->link->open(&job->device, &link, &job->comm, error);
}

} // namespace

int main(int argc, char **argv)
{
    static Job job;
    zinf_error error = {};
    int status = zinf_comm_mpi_open(&job.mpi, &argc, &argv);
    if (status || argc < 3)
        return zinf_exit_code(status ? status : ZINF_E_USAGE);
    job.mpi.watchdog_s = atof(argv[1]);
    status = open_device(&job, &error);
    if (status && job.mpi.rank == 0)
        fprintf(stderr, "%s\n", error.text);
    if (!status && job.comm.ops) {
        char name[200];
        job.comm.ops->describe_library(&job.comm, name, sizeof name);
        zinf_lanes_new(&job.lanes, &job.comm, job.mpi.watchdog_s, nullptr, nullptr);
        zinf_lanes_begin(job.lanes, atoi(argv[2]), operate, &job);
        zinf_lanes_end(job.lanes);
        zinf_lanes_free(job.lanes);
        if (job.comm.rank == 0)
            printf("%s by %s: %lld and %lld bytes\n", job.comm.ops->name, name,
                   static_cast<long long>(job.comm.bytes_sent),
                   static_cast<long long>(job.mpi.bytes_sent));
        job.comm.ops->close(&job.comm);
    }
    if (job.device.backend)
        job.device.backend->close(&job.device);
    job.mpi.ops->close(&job.mpi);
    return zinf_exit_code(status);
}
