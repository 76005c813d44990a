/*
 * io_count COMMAND ARGUMENT...: run a command and print, on standard error's last line, the bytes
 * it moved from and to drives as the kernel counted them: "io_count: READ WRITTEN". The figures of
 * /proc/PID/io (read_bytes, write_bytes), which are gone with the process, by way of wait4(). Its
 * exit code is the command's.
 */
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { UNIT = 512 }; /* getrusage(2): ru_inblock and ru_oublock */

int main(int argc, char **argv)
{
    struct rusage usage;
    int status;
    if (argc < 2)
        return 2;
    pid_t child = fork();
    if (child == 0) {
        execvp(argv[1], argv + 1);
        _exit(127);
    }
    if (child < 0 || wait4(child, &status, 0, &usage) != child)
        return 126;
    fprintf(stderr, "io_count: %lld %lld\n", (long long)usage.ru_inblock * UNIT,
            (long long)usage.ru_oublock * UNIT);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
