/*
 * The MPI communicator and the life of MPI itself. Only comm_mpi.c, main.c and io/hdf5_file.c include this file.
 */
#ifndef ZINF_TOPOLOGY_COMM_MPI_H
#define ZINF_TOPOLOGY_COMM_MPI_H

#include "topology/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Start MPI (MPI_THREAD_SERIALIZED) and open the communicator of all ranks. Collective over all ranks of the job.
 * Installs the abort hook of status.h and MPI_ERRORS_RETURN with a check behind every call; opens the fault seam. Works without mpiexec
 * as one rank. comm->ops->close() ends MPI.
 * With environment ZINF_SHARED=0 map_shared gives nothing and every byte travels as a message: for tests, and to find out who is to blame.
 * @return 0 or ZINF_E_RUNTIME. Under srun with several tasks but without PMI every rank would be a job of its own: ZINF_E_USAGE
 *         with a message that says which --mpi= to give.
 */
int zinf_comm_mpi_open(struct zinf_comm *comm, int *argc, char ***argv);

/** Longest message, 1 GiB from the start (MPI's counts are int). Local, the same on all ranks. For tests, which have less memory. */
void zinf_comm_mpi_set_piece(struct zinf_comm *comm, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
