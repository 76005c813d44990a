/*
 * Memory that the tests' own code and the device can both reach, so that a test body is the same for every backend: pages of the host that
 * the device has pinned. Where there is no device it is the heap's, which AddressSanitizer watches.
 */
#ifndef ZINF_TESTS_DEVICE_MEMORY_H
#define ZINF_TESTS_DEVICE_MEMORY_H

#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include <sys/mman.h>

#include "device/device.h"

namespace ops_test
{

/* The devices that the tests use, opened at the first question, and the arena that is pinned for them. */
class DeviceMemory
{
  public:
    static DeviceMemory &instance()
    {
        static DeviceMemory *one = new DeviceMemory; /* outlives what the tests hold at exit */
        return *one;
    }
    /** Why `backend` cannot be used, empty if it can. */
    std::string why_not(const zinf_device_backend *backend)
    {
        return reason_[backend];
    }
    void *allocate(size_t bytes)
    {
        size_t size = (bytes + 255) / 256 * 256;
        if (!arena_)
            return malloc(bytes ? bytes : 1);
        for (auto &gap : gaps_)
            if (gap.second >= size) {
                size_t at = gap.first, left = gap.second - size;
                gaps_.erase(at);
                if (left)
                    gaps_[at + size] = left;
                return arena_ + at;
            }
        fprintf(stderr, "the tests' device memory is full\n");
        abort();
    }
    void release(void *memory, size_t bytes)
    {
        if (!arena_) {
            free(memory);
            return;
        }
        size_t at = (size_t)((char *)memory - arena_), size = (bytes + 255) / 256 * 256;
        auto next = gaps_.find(at + size);
        if (next != gaps_.end()) {
            size += next->second;
            gaps_.erase(next);
        }
        auto after = gaps_.lower_bound(at);
        if (after != gaps_.begin() && std::prev(after)->first + std::prev(after)->second == at)
            std::prev(after)->second += size;
        else if (size)
            gaps_[at] = size;
    }

  private:
    static const size_t ARENA = (size_t)1 << 29, SCRATCH = (size_t)64 << 20;

    char *arena_ = nullptr;
    std::map<size_t, size_t> gaps_; /* offset, bytes */
    std::map<const zinf_device_backend *, std::string> reason_;
    zinf_device device_ = {};

    DeviceMemory()
    {
        setenv("ZINF_CUDA_SYNC", "1", 0); /* results are read as soon as an operation returns */
        for (const zinf_device_backend *const *b = zinf_device_backends(); *b; b++)
            if (*b != &zinf_cpu_device)
                reason_[*b] = open(*b);
    }

    std::string open(const zinf_device_backend *backend)
    {
        char why[512];
        zinf_error error = {};
        zinf_device_options options = {};
        options.scratch_bytes = SCRATCH, options.event_count = 8;
        if (backend->list(nullptr, 0, why, sizeof why) == 0)
            return std::string("no device: ") + why;
        if (backend->open(&device_, &options, &error))
            return error.text;
        char *base = (char *)mmap(nullptr, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (base == MAP_FAILED || backend->pin(&device_, base, ARENA))
            return "no memory to share with the device";
        backend->use(&device_, ZINF_STREAM_COMPUTE);
        arena_ = base;
        gaps_[0] = ARENA;
        return "";
    }
};

template <typename T> struct Reachable {
    typedef T value_type;

    Reachable() = default;
    template <typename U> Reachable(const Reachable<U> &)
    {
    }
    T *allocate(size_t count)
    {
        return (T *)DeviceMemory::instance().allocate(count * sizeof(T));
    }
    void deallocate(T *memory, size_t count)
    {
        DeviceMemory::instance().release(memory, count * sizeof(T));
    }
    bool operator==(const Reachable &) const
    {
        return true;
    }
    bool operator!=(const Reachable &) const
    {
        return false;
    }
};

template <typename T> using Vector = std::vector<T, Reachable<T>>;

} // namespace ops_test

#endif
