/*
 * The file of the NVMe tier. See swap.h.
 *
 * What is checked: an extent's CRC32C of its current generation stands in memory, so data of an
 * older generation (stale, lost write), of another extent (misdirected) or changed on the way
 * (flipped, torn) has another sum; padding is summed too. Data equal to the expected one is right,
 * wherever it came from. Rejected: generation and number inside the extents; that costs a block of
 * 4 KiB each and proves no more.
 */
#include "io/swap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crc32c.h"
#include "base/fault.h"
#include "io/file.h"

enum { UNIT = 4096, MOST_ENGINES = 16, FILL_BYTES = 4 << 20, FILL_DEPTH = 8 };

struct extent {
    uint64_t offset;
    size_t bytes;        /* padded */
    uint64_t generation; /* 0 = the zeros of the start */
    uint32_t crc;
    bool being_written;
};

struct zinf_swap {
    char *folder;
    int descriptor;
    bool direct, checksums;
    struct extent *extents; /* (extent_count), owned */
    int extent_count;
    uint64_t bytes; /* of the file */
    void (*name)(void *context, int extent, char *out, size_t out_bytes);
    void *context;
    struct {
        const struct zinf_aio *aio;
        int file;
    } engines[MOST_ENGINES];
    int engine_count;
};

size_t zinf_swap_padded(size_t bytes)
{
    return (bytes + UNIT - 1) / UNIT * UNIT;
}

static int folder_error(const char *folder, int number, struct zinf_error *error)
{
    int status = number == ENOSPC || number == EDQUOT                    ? ZINF_E_DOES_NOT_FIT
                 : number == EIO || number == EMFILE || number == ENFILE ? ZINF_E_RUNTIME
                                                                         : ZINF_E_USAGE;
    return zinf_error_set(
        error, status,
        "nvme_path %s: no file can be made there: %s; it must be an existing folder "
        "in which this user may write",
        folder, strerror(number));
}

/* A file without a name: at once, else made, opened and unlinked. Returns a descriptor or -errno.
 */
static int make_nameless(const char *folder)
{
    int number = zinf_fault("open", NULL);
    if (number)
        return -number;
    int descriptor = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (descriptor >= 0)
        return descriptor;
    if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)
        return -errno;
    char *path = zinf_format("%s/.zinf-swap-XXXXXX", folder);
    descriptor = mkostemp(path, O_CLOEXEC); /* O_EXCL, 0600 */
    number = errno;
    if (descriptor >= 0)
        unlink(path);
    free(path);
    return descriptor >= 0 ? descriptor : -number;
}

/* File systems worth a word; NULL: a drive, as far as one can see. */
static const char *file_system_word(int descriptor)
{
    static const struct {
        long magic;
        const char *word;
    } known[] = {{0x01021994, "tmpfs, which is memory"},
                 {0x858458f6, "ramfs, which is memory"},
                 {0x6969, "NFS"},
                 {0x0bd00bd0, "Lustre"},
                 {0x47504653, "GPFS"},
                 {0x19830326, "BeeGFS"}};
    struct statfs status;
    if (fstatfs(descriptor, &status))
        return NULL;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if ((long)(unsigned int)status.f_type == known[i].magic)
            return known[i].word;
    return NULL;
}

static int space_error(const struct zinf_swap *swap, struct zinf_error *error)
{
    struct statvfs space;
    double available = -1;
    if (!fstatvfs(swap->descriptor, &space))
        available = (double)space.f_bavail * (double)space.f_frsize;
    return zinf_error_set(error, ZINF_E_DOES_NOT_FIT,
                          "nvme_path %s: this rank's swap file needs %llu bytes (%.2f GiB), %.0f "
                          "bytes (%.2f GiB) are free; "
                          "use more ranks on other drives, free space, or keep more in memory",
                          swap->folder, (unsigned long long)swap->bytes,
                          (double)swap->bytes / 1073741824, available, available / 1073741824);
}

static int reserve(struct zinf_swap *swap, struct zinf_error *error)
{
    struct zinf_error reserved;
    if (!swap->bytes)
        return 0;
    int status = zinf_file_reserve(swap->descriptor, swap->folder, (int64_t)swap->bytes, &reserved);
    if (status == ZINF_E_NO_SPACE) {
        if (ftruncate(swap->descriptor, 0))
            zinf_debug("%s: %s", swap->folder, strerror(errno)); /* only to count what is free */
        return space_error(swap, error);
    }
    if (status && error)
        *error = reserved;
    return status;
}

static int fill_error(const struct zinf_swap *swap, const struct zinf_aio_request *request,
                      struct zinf_error *error)
{
    if (request->error == ENOSPC || request->error == EDQUOT)
        return space_error(swap, error);
    return zinf_error_set(error, ZINF_E_RUNTIME,
                          "swap file in %s: cannot write %zu bytes at offset %llu: %s",
                          swap->folder, request->bytes, (unsigned long long)request->offset,
                          strerror(request->error));
}

/* Zeros from one buffer into the whole file, several requests deep. */
static int fill_with(struct zinf_swap *swap, struct zinf_aio *aio, void *zeros,
                     struct zinf_error *error)
{
    struct zinf_aio_request requests[FILL_DEPTH] = {0};
    int file = aio->engine->add_file(aio, swap->descriptor), status = 0;
    if (file < 0)
        return zinf_error_set(error, ZINF_E_RUNTIME, "swap file in %s: %s", swap->folder,
                              strerror(-file));
    uint64_t begun = 0;
    for (int64_t i = 0; begun < swap->bytes && !status; i++) {
        struct zinf_aio_request *request = &requests[i % FILL_DEPTH];
        if (i >= FILL_DEPTH) {
            aio->engine->wait(aio, request);
            if (request->error) {
                status = fill_error(swap, request, error);
                break;
            }
        }
        uint64_t left = swap->bytes - begun;
        *request = (struct zinf_aio_request){.write = true,
                                             .file = file,
                                             .buffer = zeros,
                                             .bytes = left < FILL_BYTES ? left : FILL_BYTES,
                                             .offset = begun};
        begun += request->bytes;
        aio->engine->submit(aio, request);
    }
    for (int i = 0; i < FILL_DEPTH; i++) {
        if (requests[i].bytes)
            aio->engine->wait(aio, &requests[i]);
        if (requests[i].error && !status)
            status = fill_error(swap, &requests[i], error);
    }
    return status;
}

/*
 * Write the reserved file once: ext4 serialises direct writes into extents that were never written.
 * Rejected: leaving it to the first step, which would be the slow one.
 */
static int fill(struct zinf_swap *swap, struct zinf_error *error)
{
    struct zinf_aio aio;
    const struct zinf_aio_options options = {
        .queue_depth = FILL_DEPTH, .block_bytes = FILL_BYTES, .threads = 2};
    void *zeros =
        mmap(NULL, FILL_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (zeros == MAP_FAILED)
        return zinf_error_set(error, ZINF_E_DOES_NOT_FIT, "no memory for a buffer of %d bytes",
                              FILL_BYTES);
    madvise(zeros, FILL_BYTES, MADV_HUGEPAGE); /* as the pool's: faster where it works */
    int status = zinf_aio_open(&aio, NULL, &options);
    if (status) {
        munmap(zeros, FILL_BYTES);
        return zinf_error_set(error, status, "swap file in %s: no I/O engine", swap->folder);
    }
    status = fill_with(swap, &aio, zeros, error);
    zinf_aio_close(&aio);
    munmap(zeros, FILL_BYTES);
    return status;
}

static void say_kind(const struct zinf_swap *swap, double seconds)
{
    static atomic_flag said = ATOMIC_FLAG_INIT;
    const char *word = file_system_word(swap->descriptor);
    if ((swap->direct && !word) || atomic_flag_test_and_set(&said))
        return;
    zinf_warn("nvme_path %s is on %s%s: the first writing ran at %.2f GB/s", swap->folder,
              word ? word : "a file system without direct I/O",
              swap->direct ? "" : "; transfers go through the page cache",
              (double)swap->bytes / 1e9 / (seconds > 1e-6 ? seconds : 1e-6));
}

/* CRC of `bytes` zeros, by doubling. */
static uint32_t crc_of_zeros(size_t bytes)
{
    static const char zeros[UNIT];
    uint32_t power = zinf_crc32c(0, zeros, UNIT), crc = 0;
    uint64_t power_bytes = UNIT;
    for (size_t units = bytes / UNIT; units; units >>= 1) {
        if (units & 1)
            crc = zinf_crc32c_combine(crc, power, power_bytes);
        power = zinf_crc32c_combine(power, power, power_bytes);
        power_bytes *= 2;
    }
    return crc;
}

/* ZINF_SWAP_CHECKSUMS=0 takes them away, to measure what they cost. */
static bool checksums_wanted(void)
{
    static atomic_flag said = ATOMIC_FLAG_INIT;
    const char *text = getenv("ZINF_SWAP_CHECKSUMS");
    if (!text || strcmp(text, "0") != 0)
        return true;
    if (!atomic_flag_test_and_set(&said))
        zinf_warn("ZINF_SWAP_CHECKSUMS=0: what comes back from NVMe is not checked; for "
                  "measurements only");
    return false;
}

static void lay_out(struct zinf_swap *swap, const struct zinf_swap_options *options)
{
    swap->extents = zinf_alloc((size_t)options->extent_count * sizeof *swap->extents + 1);
    swap->extent_count = options->extent_count;
    for (int i = 0; i < options->extent_count; i++) {
        struct extent *extent = &swap->extents[i];
        extent->offset = swap->bytes;
        extent->bytes = zinf_swap_padded(options->extent_bytes[i]);
        extent->crc = swap->checksums ? crc_of_zeros(extent->bytes) : 0;
        swap->bytes += extent->bytes;
    }
}

int zinf_swap_open(struct zinf_swap **swap, const struct zinf_swap_options *options,
                   struct zinf_error *error)
{
    int descriptor = make_nameless(options->folder);
    if (descriptor < 0)
        return folder_error(options->folder, -descriptor, error);
    struct zinf_swap *new = zinf_alloc(sizeof *new);
    new->folder = zinf_strdup(options->folder);
    new->descriptor = descriptor;
    new->checksums = options->checksums &&checksums_wanted();
    new->name = options->name;
    new->context = options->context;
    lay_out(new, options);
    new->direct = zinf_file_make_direct(descriptor);
    int status = reserve(new, error);
    double begin_s = zinf_clock_s();
    if (!status)
        status = fill(new, error);
    if (status) {
        zinf_swap_close(new);
        return status;
    }
    say_kind(new, zinf_clock_s() - begin_s);
    *swap = new;
    return 0;
}

void zinf_swap_close(struct zinf_swap *swap)
{
    if (!swap)
        return;
    close(swap->descriptor);
    free(swap->extents);
    free(swap->folder);
    free(swap);
}

bool zinf_swap_direct(const struct zinf_swap *swap)
{
    return swap->direct;
}

int zinf_swap_descriptor(const struct zinf_swap *swap)
{
    return swap->descriptor;
}

int zinf_swap_attach(struct zinf_swap *swap, struct zinf_aio *aio)
{
    ZINF_ASSERT(swap->engine_count < MOST_ENGINES);
    int file = aio->engine->add_file(aio, swap->descriptor);
    if (file < 0) {
        zinf_last_words("swap file in %s: the I/O engine takes no more files: %s", swap->folder,
                        strerror(-file));
        return ZINF_E_RUNTIME;
    }
    swap->engines[swap->engine_count].aio = aio;
    swap->engines[swap->engine_count++].file = file;
    return 0;
}

static int file_of(const struct zinf_swap *swap, const struct zinf_aio *aio)
{
    int i = 0;
    while (i < swap->engine_count && swap->engines[i].aio != aio)
        i++;
    ZINF_ASSERT(i < swap->engine_count); /* zinf_swap_attach() was called */
    return swap->engines[i].file;
}

static struct extent *begin(struct zinf_swap *swap, const struct zinf_aio *aio,
                            struct zinf_swap_transfer *transfer, int number, void *buffer)
{
    ZINF_ASSERT(number >= 0 && number < swap->extent_count);
    struct extent *extent = &swap->extents[number];
    ZINF_ASSERT(!extent->being_written); /* its writer waits first */
    *transfer = (struct zinf_swap_transfer){.extent = number};
    transfer->request.file = file_of(swap, aio);
    transfer->request.buffer = buffer;
    transfer->request.bytes = extent->bytes;
    transfer->request.offset = extent->offset;
    return extent;
}

void zinf_swap_write(struct zinf_swap *swap, struct zinf_aio *aio,
                     struct zinf_swap_transfer *transfer, int extent, void *buffer)
{
    struct extent *written = begin(swap, aio, transfer, extent, buffer);
    transfer->request.write = true;
    transfer->generation = ++written->generation;
    written->being_written = true;
    if (swap->checksums)
        written->crc = zinf_crc32c(0, buffer, written->bytes);
    aio->engine->submit(aio, &transfer->request);
}

void zinf_swap_read(struct zinf_swap *swap, struct zinf_aio *aio,
                    struct zinf_swap_transfer *transfer, int extent, void *buffer)
{
    transfer->generation = begin(swap, aio, transfer, extent, buffer)->generation;
    aio->engine->submit(aio, &transfer->request);
}

bool zinf_swap_finished(const struct zinf_swap_transfer *transfer)
{
    return __atomic_load_n(&transfer->request.finished, __ATOMIC_ACQUIRE);
}

/* What has happened to a transfer; on the heap. */
static char *told(const struct zinf_swap *swap, const struct zinf_swap_transfer *transfer,
                  const char *what)
{
    const struct extent *extent = &swap->extents[transfer->extent];
    char name[128] = "";
    if (swap->name)
        swap->name(swap->context, transfer->extent, name, sizeof name);
    return zinf_format(
        "swap file in %s: %s of %zu bytes at offset %llu (extent %d%s%s, generation %llu) %s",
        swap->folder, transfer->request.write ? "write" : "read", extent->bytes,
        (unsigned long long)extent->offset, transfer->extent, *name ? ": " : "", name,
        (unsigned long long)transfer->generation, what);
}

static void wait_for(const struct zinf_swap *swap, struct zinf_aio *aio,
                     struct zinf_swap_transfer *transfer)
{
    char what[128];
    aio->engine->wait(aio, &transfer->request);
    int number = transfer->request.error;
    if (!number)
        return;
    snprintf(what, sizeof what, "failed at offset %llu: %s",
             (unsigned long long)transfer->request.error_offset,
             number == ENODATA ? "the file ends before" : strerror(number));
    zinf_fatal(ZINF_E_RUNTIME, "%s", told(swap, transfer, what));
}

static bool is_right(const struct zinf_swap *swap, const struct zinf_swap_transfer *transfer)
{
    const struct extent *extent = &swap->extents[transfer->extent];
    return zinf_crc32c(0, transfer->request.buffer, extent->bytes) == extent->crc;
}

void zinf_swap_wait(struct zinf_swap *swap, struct zinf_aio *aio,
                    struct zinf_swap_transfer *transfer)
{
    struct extent *extent = &swap->extents[transfer->extent];
    wait_for(swap, aio, transfer);
    ZINF_ASSERT(extent->generation == transfer->generation); /* nobody wrote meanwhile */
    if (transfer->request.write) {
        extent->being_written = false;
        return;
    }
    if (!swap->checksums || is_right(swap, transfer))
        return;
    aio->engine->submit(aio, &transfer->request);
    wait_for(swap, aio, transfer);
    if (!is_right(swap, transfer))
        zinf_fatal(ZINF_E_RUNTIME, "%s",
                   told(swap, transfer,
                        "brought other data than was written there, twice: the checksum is wrong. "
                        "The drive or the memory is failing; the last checkpoint is whole"));
    char *text = told(swap, transfer,
                      "was wrong once and right when it was repeated: the drive or the memory may "
                      "be failing");
    zinf_warn("%s", text);
    free(text);
}
