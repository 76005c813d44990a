/*
 * The counting wrappers. See pmpi_count.h.
 */
#include "pmpi_count.h"

#include <mpi.h>

static int64_t counted_bytes, uncounted_calls;

int64_t zinf_pmpi_bytes(void)
{
    return counted_bytes;
}

int64_t zinf_pmpi_uncounted(void)
{
    return uncounted_calls;
}

static int64_t bytes_of(int count, MPI_Datatype type)
{
    int size;
    PMPI_Type_size(type, &size);
    return (int64_t)count * size;
}

static void count_message(int count, MPI_Datatype type, int to, MPI_Comm comm)
{
    int rank;
    PMPI_Comm_rank(comm, &rank);
    if (to != rank && to != MPI_PROC_NULL)
        counted_bytes += bytes_of(count, type);
}

static void count_gather(int count, MPI_Datatype type, MPI_Comm comm)
{
    int size;
    PMPI_Comm_size(comm, &size);
    counted_bytes += (size - 1) * bytes_of(count, type);
}

int MPI_Isend(const void *buffer, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm,
              MPI_Request *request)
{
    count_message(count, type, to, comm);
    return PMPI_Isend(buffer, count, type, to, tag, comm, request);
}

int MPI_Send(const void *buffer, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm)
{
    count_message(count, type, to, comm);
    return PMPI_Send(buffer, count, type, to, tag, comm);
}

int MPI_Iallgather(const void *send, int send_count, MPI_Datatype send_type, void *receive,
                   int receive_count, MPI_Datatype receive_type, MPI_Comm comm,
                   MPI_Request *request)
{
    count_gather(receive_count, receive_type, comm);
    return PMPI_Iallgather(send, send_count, send_type, receive, receive_count, receive_type, comm,
                           request);
}

int MPI_Allgather(const void *send, int send_count, MPI_Datatype send_type, void *receive,
                  int receive_count, MPI_Datatype receive_type, MPI_Comm comm)
{
    count_gather(receive_count, receive_type, comm);
    return PMPI_Allgather(send, send_count, send_type, receive, receive_count, receive_type, comm);
}

int MPI_Ibcast(void *buffer, int count, MPI_Datatype type, int root, MPI_Comm comm,
               MPI_Request *request)
{
    uncounted_calls++;
    return PMPI_Ibcast(buffer, count, type, root, comm, request);
}

int MPI_Allreduce(const void *send, void *receive, int count, MPI_Datatype type, MPI_Op op,
                  MPI_Comm comm)
{
    uncounted_calls++;
    return PMPI_Allreduce(send, receive, count, type, op, comm);
}

int MPI_Alltoall(const void *send, int send_count, MPI_Datatype send_type, void *receive,
                 int receive_count, MPI_Datatype receive_type, MPI_Comm comm)
{
    uncounted_calls++;
    return PMPI_Alltoall(send, send_count, send_type, receive, receive_count, receive_type, comm);
}

int MPI_Ialltoall(const void *send, int send_count, MPI_Datatype send_type, void *receive,
                  int receive_count, MPI_Datatype receive_type, MPI_Comm comm, MPI_Request *request)
{
    uncounted_calls++;
    return PMPI_Ialltoall(send, send_count, send_type, receive, receive_count, receive_type, comm,
                          request);
}
