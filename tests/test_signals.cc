/*
 * Signals become flags, and a second one counts only when it is not the echo of the first.
 */
#include "base/signals.h"

#include <gtest/gtest.h>

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "base/clock.h"

/* A signal to the process, and the moment in which the thread for signals takes it; a second one
 * that is pending would be lost. */
static void send(int number)
{
    auto taken = [] {
        struct zinf_signals state = zinf_signals_state();
        return state.stop_count + state.checkpoint_count;
    };
    int before = taken();
    kill(getpid(), number);
    for (int i = 0; i < 1000 && taken() == before; i++)
        zinf_clock_nap(0.001);
}

TEST(Signals, AreCountedAndDoNotEndTheProgram)
{
    ASSERT_EQ(0, zinf_signals_install());
    struct zinf_signals signals = zinf_signals_state();
    EXPECT_EQ(0, signals.stop_count);
    EXPECT_EQ(0, signals.checkpoint_count);
    EXPECT_EQ(0, zinf_signals_stop_level(&signals));
    double before = zinf_clock_s();
    send(SIGUSR1);
    send(SIGUSR1);
    signals = zinf_signals_state();
    EXPECT_EQ(2, signals.checkpoint_count);
    EXPECT_EQ(0, zinf_signals_stop_level(&signals));
    send(SIGTERM);
    zinf_clock_nap(0.01);
    send(SIGINT); /* is SIGTERM, and here its echo */
    signals = zinf_signals_state();
    EXPECT_EQ(2, signals.stop_count);
    EXPECT_GE(signals.stop_first_s, before);
    EXPECT_GE(signals.stop_last_s, signals.stop_first_s + 0.009);
    EXPECT_LE(signals.stop_last_s, zinf_clock_s());
    EXPECT_EQ(1, zinf_signals_stop_level(&signals));
}

/* Generated code of libraries does not always keep the stack as a handler needs it. */
TEST(Signals, NoneIsTakenByAThreadThatComputes)
{
    sigset_t blocked;
    ASSERT_EQ(0, zinf_signals_install());
    ASSERT_EQ(0, pthread_sigmask(SIG_SETMASK, nullptr, &blocked));
    for (int number : {SIGTERM, SIGINT, SIGUSR1})
        EXPECT_EQ(1, sigismember(&blocked, number)) << number;
}

TEST(Signals, ASecondStopCountsFiveSecondsAfterTheFirst)
{
    struct zinf_signals signals = {};
    signals.stop_count = 1;
    signals.stop_first_s = signals.stop_last_s = 1000;
    EXPECT_EQ(1, zinf_signals_stop_level(&signals));
    signals.stop_count = 7; /* a launcher that repeats itself */
    signals.stop_last_s = 1004.9;
    EXPECT_EQ(1, zinf_signals_stop_level(&signals));
    signals.stop_last_s = 1005;
    EXPECT_EQ(2, zinf_signals_stop_level(&signals));
}

static void *kill_reader(void *)
{
    zinf_clock_nap(0.05);
    send(SIGTERM);
    zinf_clock_nap(0.05);
    return nullptr;
}

TEST(Signals, ABlockedReadGoesOn)
{
    int ends[2];
    char byte = 0;
    pthread_t killer;
    ASSERT_EQ(0, zinf_signals_install());
    ASSERT_EQ(0, pipe(ends));
    ASSERT_EQ(0, pthread_create(&killer, nullptr, kill_reader, nullptr));
    pthread_t writer;
    auto write_late = [](void *end) -> void * {
        zinf_clock_nap(0.2);
        EXPECT_EQ(1, write(*static_cast<int *>(end), "x", 1));
        return nullptr;
    };
    ASSERT_EQ(0, pthread_create(&writer, nullptr, write_late, &ends[1]));
    EXPECT_EQ(1, read(ends[0], &byte, 1)); /* not EINTR */
    EXPECT_EQ('x', byte);
    pthread_join(killer, nullptr);
    pthread_join(writer, nullptr);
    EXPECT_EQ(1, zinf_signals_state().stop_count);
    close(ends[0]);
    close(ends[1]);
}
