/*
 * What other programs ask of a run by signals. Handlers only note that something came; the run looks at step boundaries, where all ranks can
 * agree (contract, section 3).
 */
#ifndef ZINF_BASE_SIGNALS_H
#define ZINF_BASE_SIGNALS_H

#ifdef __cplusplus
extern "C" {
#endif

/* A second SIGTERM counts from here on: schedulers and launchers both pass the same one on, often twice within a moment. */
#define ZINF_SECOND_SIGNAL_S 5.0

struct zinf_signals {
    int stop_count;             /* SIGTERM and SIGINT since install */
    double stop_first_s;        /* zinf_clock_s() of the first and the last of them; 0 = none */
    double stop_last_s;
    int checkpoint_count;       /* SIGUSR1 since install */
};

/** Catch SIGTERM, SIGINT and SIGUSR1. Local. System calls are restarted, so nobody below sees EINTR. @return 0 or ZINF_E_RUNTIME */
int zinf_signals_install(void);

struct zinf_signals zinf_signals_state(void);

/** 0 go on; 1 write a checkpoint and leave; 2 leave without one (a second signal, ZINF_SECOND_SIGNAL_S or more after the first). */
int zinf_signals_stop_level(const struct zinf_signals *signals);

#ifdef __cplusplus
}
#endif
#endif
