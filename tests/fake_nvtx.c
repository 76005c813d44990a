/*
 * The half of NVTX that a profiler brings (NVTX_INJECTION64_PATH): keeps the ranges of each thread
 * on a stack, and writes the file ZINF_FAKE_NVTX.PID when the program ends: a line "range NAME
 * COUNT" for each first word, "thread NAME" for each that was named, "wrong N" for pops of nothing
 * and ranges that are still open.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <nvtx3/nvToolsExt.h>

enum { MOST_NAMES = 64, MOST_THREADS = 16, NAME_BYTES = 48 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    char text[NAME_BYTES];
    int count;
} names[MOST_NAMES];
static char threads[MOST_THREADS][NAME_BYTES];
static int name_count, thread_count, wrong, open_count;
static _Thread_local int depth;

static nvtxDomainHandle_t create(const char *name)
{
    return strcmp(name, "zinf") ? NULL : (nvtxDomainHandle_t)&names;
}

/* "layer 3, record 17" is counted as "layer". */
static int push(nvtxDomainHandle_t domain, const nvtxEventAttributes_t *range)
{
    (void)domain;
    const char *text = range->message.ascii;
    size_t length = strcspn(text, " ");
    int i = 0;
    pthread_mutex_lock(&lock);
    if (length >= NAME_BYTES)
        length = NAME_BYTES - 1;
    while (i < name_count &&
           (strncmp(names[i].text, text, length) || names[i].text[length] != '\0'))
        i++;
    if (i == name_count && name_count < MOST_NAMES)
        memcpy(names[name_count++].text, text, length);
    names[i % MOST_NAMES].count++;
    open_count++;
    pthread_mutex_unlock(&lock);
    return depth++;
}

static int pop(nvtxDomainHandle_t domain)
{
    (void)domain;
    pthread_mutex_lock(&lock);
    open_count--;
    wrong += depth == 0;
    pthread_mutex_unlock(&lock);
    return --depth;
}

static void name_thread(uint32_t id, const char *name)
{
    (void)id;
    pthread_mutex_lock(&lock);
    if (thread_count < MOST_THREADS)
        snprintf(threads[thread_count++], NAME_BYTES, "%s", name);
    pthread_mutex_unlock(&lock);
}

static void write_counts(void)
{
    char path[512];
    snprintf(path, sizeof path, "%s.%d", getenv("ZINF_FAKE_NVTX"), (int)getpid());
    FILE *file = fopen(path, "w");
    if (!file)
        return;
    for (int i = 0; i < name_count; i++)
        fprintf(file, "range %s %d\n", names[i].text, names[i].count);
    for (int i = 0; i < thread_count; i++)
        fprintf(file, "thread %s\n", threads[i]);
    fprintf(file, "wrong %d\n", wrong + abs(open_count));
    fclose(file);
}

int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get_table);

int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get_table)
{
    const NvtxExportTableCallbacks *tables = get_table(NVTX_ETID_CALLBACKS);
    NvtxFunctionTable core, core2;
    unsigned size;
    if (!tables || !getenv("ZINF_FAKE_NVTX") ||
        !tables->GetModuleFunctionTable(NVTX_CB_MODULE_CORE, &core, &size) ||
        !tables->GetModuleFunctionTable(NVTX_CB_MODULE_CORE2, &core2, &size))
        return 0;
    *core[NVTX_CBID_CORE_NameOsThreadA] = (NvtxFunctionPointer)name_thread;
    *core2[NVTX_CBID_CORE2_DomainCreateA] = (NvtxFunctionPointer)create;
    *core2[NVTX_CBID_CORE2_DomainRangePushEx] = (NvtxFunctionPointer)push;
    *core2[NVTX_CBID_CORE2_DomainRangePop] = (NvtxFunctionPointer)pop;
    atexit(write_counts);
    return 1;
}
