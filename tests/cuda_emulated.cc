/*
 * The CUDA backend's kernels on the CPU: scheduler of cuda_emulation.h, and a table of operations
 * made of the same .cu files that nvcc compiles. Everything gets another name, because a program
 * may hold the real ones as well.
 */
#define ZINF_CUDA_EMULATION
#define zinf_cuda                     zinf_emulated
#define zinf_cuda_scratch             zinf_emulated_scratch
#define zinf_cuda_result              zinf_emulated_result
#define zinf_cuda_result_read         zinf_emulated_result_read
#define zinf_cuda_product             zinf_emulated_product
#define zinf_cuda_matmul              zinf_emulated_matmul
#define zinf_cuda_add_bias            zinf_emulated_add_bias
#define zinf_cuda_bias_backward       zinf_emulated_bias_backward
#define zinf_cuda_norm_forward        zinf_emulated_norm_forward
#define zinf_cuda_norm_backward       zinf_emulated_norm_backward
#define zinf_cuda_attention_forward   zinf_emulated_attention_forward
#define zinf_cuda_attention_backward  zinf_emulated_attention_backward
#define zinf_cuda_rope                zinf_emulated_rope
#define zinf_cuda_activation_forward  zinf_emulated_activation_forward
#define zinf_cuda_activation_backward zinf_emulated_activation_backward
#define zinf_cuda_gated_forward       zinf_emulated_gated_forward
#define zinf_cuda_gated_backward      zinf_emulated_gated_backward
#define zinf_cuda_dropout_add         zinf_emulated_dropout_add
#define zinf_cuda_embedding_forward   zinf_emulated_embedding_forward
#define zinf_cuda_embedding_backward  zinf_emulated_embedding_backward
#define zinf_cuda_position_forward    zinf_emulated_position_forward
#define zinf_cuda_position_backward   zinf_emulated_position_backward
#define zinf_cuda_loss_tile_forward   zinf_emulated_loss_tile_forward
#define zinf_cuda_loss_tile_backward  zinf_emulated_loss_tile_backward
#define zinf_cuda_cast                zinf_emulated_cast
#define zinf_cuda_accumulate          zinf_emulated_accumulate
#define zinf_cuda_reduce              zinf_emulated_reduce
#define zinf_cuda_scale               zinf_emulated_scale
#define zinf_cuda_square_sum          zinf_emulated_square_sum
#define zinf_cuda_square_sum_to       zinf_emulated_square_sum_to
#define zinf_cuda_first_nonfinite     zinf_emulated_first_nonfinite
#define zinf_cuda_update              zinf_emulated_update
#define zinf_cuda_hopper              zinf_emulated_hopper

#include "tests/cuda_emulated.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#include <memory>
#include <vector>

#include "cuda/kernel.h"
#include "cuda/tensor_map.h"

Index threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_emulation
{

void give_up(const char *why)
{
    fprintf(stderr, "emulated kernel: %s\n", why);
    abort();
}

namespace
{

const size_t STACK = 256 << 10;
const int LARGEST = 1024;

struct Copy {
    void *to;
    const void *from;
    bool valid;
    int group;
};

struct Product {
    std::function<void()> make;
    int group;
};

/* A copy of the copy engine. */
struct Box {
    void *to;
    uint64_t *barrier;
    std::function<int(void *)> copy;
};

struct Thread {
    ucontext_t context; /* how it starts */
    jmp_buf place;      /* where it goes on: setjmp and longjmp make no system call */
    bool started, done;
    std::vector<Copy> copies;
    int group; /* number of cp.async groups that were committed */
    std::vector<Product> products;
    int product_group;
    std::vector<std::function<void()>> out;
    bool out_under_way, has_turn;
};

/* A barrier opens when all living members have come. */
struct Barrier {
    int arrived, living;
    long opened;

    void wait();
    void leave();
    void open()
    {
        arrived = 0;
        opened++;
    }
};

struct Block {
    std::unique_ptr<char[]> stacks{new char[STACK * LARGEST]};
    std::vector<Thread> threads{LARGEST};
    Barrier all, named;
    std::vector<Box> boxes;
    Barrier warps[LARGEST / 32];
    uint32_t words[LARGEST / 32][32 * 16];
    std::vector<unsigned char> shared;
    jmp_buf scheduler;
    const std::function<void()> *body;
    int count, current;
    long progress; /* barriers opened and threads ended */
    bool backwards;
};

Block &block()
{
    static Block instance;
    return instance;
}

void yield()
{
    Block &b = block();
    if (!_setjmp(b.threads[b.current].place))
        _longjmp(b.scheduler, 1);
}

void resume(Block &b, Thread &t)
{
    if (_setjmp(b.scheduler))
        return;
    if (t.started)
        _longjmp(t.place, 1);
    t.started = true;
    setcontext(&t.context);
}

void Barrier::wait()
{
    long before = opened;
    block().progress++;
    if (++arrived == living)
        open();
    while (opened == before)
        yield();
}

void Barrier::leave()
{
    if (--living > 0 && arrived == living)
        open();
}

void thread_main()
{
    Block &b = block();
    (*b.body)();
    Thread &own = b.threads[b.current];
    if (!own.products.empty())
        give_up("products that nobody waited for");
    if (own.out_under_way)
        give_up("copies to device memory that nobody waited for");
    own.done = true;
    b.progress++;
    b.all.leave();
    b.warps[b.current / 32].leave();
    yield();
}

void start_thread(Block &b, int i)
{
    Thread &t = b.threads[i];
    t.started = t.done = false;
    t.copies.clear();
    t.group = t.product_group = 0;
    t.products.clear();
    t.out.clear();
    t.out_under_way = t.has_turn = false;
    getcontext(&t.context);
    t.context.uc_stack.ss_sp = b.stacks.get() + STACK * i;
    t.context.uc_stack.ss_size = STACK;
    t.context.uc_link = nullptr;
    makecontext(&t.context, thread_main, 0);
}

/* As far as it can go, so that what it should have waited for is not there. */
void run_warp(Block &b, int warp)
{
    for (long before = -1; b.progress != before;) {
        before = b.progress;
        for (int n = 0; n < 32; n++) {
            int i = warp * 32 + (b.backwards ? 31 - n : n);
            if (b.threads[i].done)
                continue;
            b.current = i;
            threadIdx = {(unsigned)i, 0, 0};
            resume(b, b.threads[i]);
        }
    }
}

void run_block(Block &b)
{
    b.all = {0, b.count, 0};
    b.named = {0, 0, 0};
    b.boxes.clear();
    for (int w = 0; w < b.count / 32; w++)
        b.warps[w] = {0, 32, 0};
    memset(b.shared.data(), 0xff, b.shared.size());
    for (int i = 0; i < b.count; i++)
        start_thread(b, i);
    for (int left = b.count; left > 0;) {
        long before = b.progress;
        for (int n = 0; n < b.count / 32; n++)
            run_warp(b, b.backwards ? b.count / 32 - 1 - n : n);
        left = 0;
        for (int i = 0; i < b.count; i++)
            left += !b.threads[i].done;
        if (left > 0 && b.progress == before)
            give_up("a barrier that not all threads reach");
    }
}

} // namespace

void run(int64_t blocks, int64_t blocks_y, int threads, int shared_bytes,
         const std::function<void()> &body)
{
    Block &b = block();
    if (threads % 32 || threads > LARGEST || shared_bytes > 227 * 1024) {
        fprintf(stderr, "emulated kernel: %d threads, %d bytes of shared memory\n", threads,
                shared_bytes);
        abort();
    }
    b.body = &body;
    b.count = threads;
    b.shared.resize((size_t)shared_bytes + 1024);
    b.backwards = !b.backwards;
    blockDim = {(unsigned)threads, 1, 1};
    gridDim = {(unsigned)blocks, (unsigned)blocks_y, 1};
    for (int64_t n = 0; n < blocks * blocks_y; n++) {
        int64_t i = b.backwards ? blocks * blocks_y - 1 - n : n;
        blockIdx = {(unsigned)(i % blocks), (unsigned)(i / blocks), 0};
        run_block(b);
    }
}

unsigned char *dynamic_shared()
{
    unsigned char *base = block().shared.data();
    return base + (1024 - (uintptr_t)base % 1024) % 1024;
}

void block_barrier()
{
    block().all.wait();
}

void warp_barrier()
{
    block().warps[block().current / 32].wait();
}

uint32_t *warp_words()
{
    return block().words[block().current / 32];
}

int lane()
{
    return block().current % 32;
}

void queue_copy(void *to, const void *from, bool valid)
{
    Thread &own = block().threads[block().current];
    own.copies.push_back({to, from, valid, own.group});
}

void commit_copies()
{
    block().threads[block().current].group++;
}

void wait_copies(int pending)
{
    Thread &own = block().threads[block().current];
    std::vector<Copy> later;
    for (const Copy &c : own.copies)
        if (c.group >= own.group - pending)
            later.push_back(c);
        else if (c.valid)
            memcpy(c.to, c.from, 16);
        else
            memset(c.to, 0, 16);
    own.copies = later;
}

namespace
{

/* What lies in the eight bytes of a barrier. */
struct Phase {
    int32_t bytes; /* that copies owe */
    int16_t owed;  /* arrivals that are missing */
    uint8_t count, parity;
};
static_assert(sizeof(Phase) == sizeof(uint64_t), "a barrier in shared memory");

template <typename F> void change(uint64_t *barrier, F by)
{
    Phase phase;
    memcpy(&phase, barrier, sizeof phase);
    by(phase);
    if (phase.owed < 0)
        give_up("more arrivals at a barrier than it was made for");
    if (phase.owed == 0 && phase.bytes == 0) {
        phase.parity ^= 1;
        phase.owed = phase.count;
    }
    memcpy(barrier, &phase, sizeof phase);
    block().progress++;
}

void make_copies(uint64_t *barrier)
{
    std::vector<Box> &boxes = block().boxes;
    for (size_t i = 0; i < boxes.size();) {
        if (boxes[i].barrier != barrier) {
            i++;
            continue;
        }
        Box box = boxes[i];
        boxes.erase(boxes.begin() + (long)i);
        int bytes = box.copy(box.to);
        change(barrier, [=](Phase &phase) { phase.bytes -= bytes; });
    }
}

} // namespace

void barrier_init(uint64_t *barrier, int count)
{
    Phase phase = {0, (int16_t)count, (uint8_t)count, 0};
    memcpy(barrier, &phase, sizeof phase);
}

void barrier_arrive(uint64_t *barrier, int expected_bytes)
{
    change(barrier, [=](Phase &phase) {
        phase.bytes += expected_bytes;
        phase.owed--;
    });
}

void barrier_wait(uint64_t *barrier, int parity)
{
    for (;;) {
        Phase phase;
        make_copies(barrier);
        memcpy(&phase, barrier, sizeof phase);
        if (phase.parity != parity)
            return;
        yield();
    }
}

void queue_box(void *to, uint64_t *barrier, std::function<int(void *)> copy)
{
    if ((uintptr_t)to % 1024)
        give_up("a panel that does not begin at a multiple of 1024 bytes");
    block().boxes.push_back({to, barrier, copy});
}

void take_turn()
{
    block().threads[block().current].has_turn = true;
}

void queue_out(std::function<void()> copy)
{
    Thread &own = block().threads[block().current];
    if (!own.has_turn)
        give_up("a copy to device memory out of turn");
    own.out.push_back(copy);
    own.out_under_way = true;
}

void make_out()
{
    Thread &own = block().threads[block().current];
    for (const std::function<void()> &copy : own.out)
        copy();
    own.out.clear();
}

void end_out()
{
    make_out();
    block().threads[block().current].out_under_way = false;
}

void give_turn()
{
    Thread &own = block().threads[block().current];
    if (own.out_under_way)
        give_up("a turn given before the copy to device memory has ended");
    own.has_turn = false;
}

void named_barrier(int threads)
{
    block().named.living = threads;
    block().named.wait();
}

void queue_product(std::function<void()> product)
{
    Thread &own = block().threads[block().current];
    own.products.push_back({product, own.product_group});
}

void commit_products()
{
    block().threads[block().current].product_group++;
}

void wait_products(int pending)
{
    Thread &own = block().threads[block().current];
    size_t made = 0;
    while (made < own.products.size() && own.products[made].group < own.product_group - pending)
        own.products[made++].make();
    own.products.erase(own.products.begin(), own.products.begin() + (long)made);
}

} // namespace cuda_emulation

namespace zinf_cuda
{

template <typename... P>
void launch(const Place &, void (*kernel)(P...), const Shape &shape, P... arguments)
{
    if (shape.blocks == 0 || shape.blocks_y == 0)
        return;
    ZINF_ASSERT(shape.blocks <= 2147483647 && shape.blocks_y <= 65535);
    cuda_emulation::run(shape.blocks, shape.blocks_y, shape.threads, shape.shared_bytes,
                        [&] { kernel(arguments...); });
}

} // namespace zinf_cuda

static std::vector<unsigned char> scratch;
static uint64_t result;

void *zinf_cuda_scratch(size_t bytes)
{
    scratch.assign(bytes + 256, 0xff); /* what an operation does not write itself is NaN */
    return scratch.data() + (256 - (uintptr_t)scratch.data() % 256) % 256;
}

static bool hopper;

bool zinf_cuda_hopper(void)
{
    return hopper;
}

void *zinf_cuda_result(void)
{
    return &result;
}

uint64_t zinf_cuda_result_read(void)
{
    return result;
}

#include "cuda/activation.cu"
#include "cuda/attention_backward.cu"
#include "cuda/attention_forward.cu"
#include "cuda/attention_fp32.cu"
#include "cuda/attention_hopper.cu"
#include "cuda/dropout.cu"
#include "cuda/elementwise.cu"
#include "cuda/embedding.cu"
#include "cuda/loss.cu"
#include "cuda/norm.cu"
#include "cuda/optimizer.cu"
#include "cuda/product.cu"
#include "cuda/scan.cu"

void zinf_cuda_matmul(const struct zinf_matmul *op)
{
    zinf_cuda_product(op);
    zinf_ops_follow(cuda_emulated_ops(), op);
}

#define OWN(operation) zinf_cuda_##operation,

static const struct zinf_ops table = {"cuda emulated", ZINF_OPERATIONS(OWN)};

const struct zinf_ops *cuda_emulated_ops(void)
{
    return &table;
}

/* The same with attention by the instructions of compute capability 9.0. */
static void hopper_forward(const struct zinf_attention *op, void *y)
{
    hopper = true;
    zinf_cuda_attention_forward(op, y);
    hopper = false;
}

static void hopper_backward(const struct zinf_attention *op, const void *dy, void *dqkv)
{
    hopper = true;
    zinf_cuda_attention_backward(op, dy, dqkv);
    hopper = false;
}

const struct zinf_ops *cuda_emulated_hopper_ops(void)
{
    static struct zinf_ops with;
    with = table;
    with.name = "cuda emulated hopper";
    with.attention_forward = hopper_forward;
    with.attention_backward = hopper_backward;
    return &with;
}
