// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The blocks of a kernel, one after another. A thread runs until it waits for others, then the next one of its warp
// runs; those whose barrier is complete form the warp's next round. A fiber whose thread has ended goes on with the
// next thread that has not begun, so that a kernel without barriers takes one switch a warp.

#include <algorithm>
#include <bit>
#include <cstdio>
#include <deque>
#include <numeric>
#include <sstream>
#include <vector>

#include <boost/context/fiber.hpp>
#include <boost/context/protected_fixedsize_stack.hpp>

#include <emulated_intrinsics.hpp>

#include "device.hpp"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMULATED_ASAN 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define EMULATED_ASAN 1
#endif
#if defined(EMULATED_ASAN)
#include <sanitizer/common_interface_defs.h>
#else
#define __sanitizer_start_switch_fiber(...)
#define __sanitizer_finish_switch_fiber(...)
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulated {
namespace {

namespace context = boost::context;

thread_order order = [] {
  const char* name = std::getenv("GRAFT_EMULATED_ORDER");
  const std::string wanted = name == nullptr ? "forward" : name;
  if (wanted == "reverse") return thread_order::reverse;
  if (wanted == "shuffle") return thread_order::shuffle;
  if (wanted != "forward") {
    std::fprintf(stderr, "GRAFT_EMULATED_ORDER: expected forward, reverse or shuffle, got %s\n", name);
    std::exit(2);
  }
  return thread_order::forward;
}();
// Xorshift (Marsaglia, Journal of Statistical Software 8(14), 2003).
struct generator {
  using result_type = std::uint32_t;
  std::uint32_t state = 2463534242u;
  static constexpr std::uint32_t min() { return 1; }
  static constexpr std::uint32_t max() { return 0xffffffffu; }
  std::uint32_t operator()() {
    state ^= state << 13;
    state ^= state >> 17;
    return state ^= state << 5;
  }
} draw;

// A stack on which threads run, and where it stopped.
struct worker {
  context::fiber at;
  const void* bottom = nullptr;
  std::size_t size = 0;
  void* fake_stack = nullptr;
};

struct thread_state {
  uint3 index;
  const char* waits = nullptr;  // for what, if it is not ready
  worker* on = nullptr;
  async_copies copies;
};

// Lanes of one mask on their way into an operation of the warp. Values of an operation live until the one after the
// next.
struct meeting {
  unsigned mask = 0, arrived = 0, parity = 0;
  const char* what = nullptr;
  alignas(16) std::byte value[2][32][32];
};
struct warp_state {
  unsigned first = 0;                                   // thread
  unsigned lanes = 0, ready = 0, begun = 0, ended = 0;  // a bit a lane: exists, can run, ...
  meeting of_all;
  std::deque<meeting> of_some;

  meeting& of(unsigned mask) {
    if (mask == lanes) return of_all;
    for (meeting& m : of_some)
      if (m.mask == mask) return m;
    of_some.emplace_back().mask = mask;
    return of_some.back();
  }
};

const launch_shape* shape = nullptr;
const std::function<void()>* thread_function = nullptr;
std::vector<thread_state> threads;
std::vector<warp_state> warps;
std::vector<unsigned> warp_sequence;  // warps in their order
warp_state* warp = nullptr;           // that runs
unsigned pending = 0;                 // its lanes that are to run in this round
int chosen = -1;                      // the next of them, if it has been chosen
unsigned current = 0;                 // thread
meeting* entered = nullptr;
unsigned block_arrived = 0;
int block_true = 0, block_result = 0;
bool failed = false;

std::vector<worker*>& idle = *new std::vector<worker*>;  // workers live until the process ends
worker scheduler;
worker *now = &scheduler, *before = nullptr;  // who runs, and who ran before

unsigned lane_bit() { return 1u << current % 32; }

// The lane of the round that is to run next. Requires: there is one.
int choose() {
  if (chosen >= 0) return chosen;
  if (order == thread_order::forward) return chosen = std::countr_zero(pending);
  if (order == thread_order::reverse) return chosen = 31 - std::countl_zero(pending);
  const int turn = static_cast<int>(draw() % 32);
  return chosen = (std::countr_zero(std::rotr(pending, turn)) + turn) % 32;
}
bool next_has_begun() { return (warp->begun >> choose() & 1u) != 0; }
void take_next() {
  const auto lane = static_cast<unsigned>(choose());
  chosen = -1;
  pending &= ~(1u << lane);
  current = warp->first + lane;
  threadIdx = threads[current].index;
}

// Goes on there; returns when somebody goes on here.
void switch_to(worker& target) {
  worker& self = *now;
  before = &self;
  now = &target;
  __sanitizer_start_switch_fiber(&self.fake_stack, target.bottom, target.size);
  context::fiber from = std::move(target.at).resume();
  __sanitizer_finish_switch_fiber(self.fake_stack, &before->bottom, &before->size);
  before->at = std::move(from);
}

// Leaves the current thread where it is, for the next one of the round.
void stop() {
  if (pending != 0 && !failed && next_has_begun()) {
    take_next();
    switch_to(*threads[current].on);
  } else {
    switch_to(scheduler);
  }
}
void wait(const char* what) {
  threads[current].waits = what;
  warp->ready &= ~lane_bit();
  stop();
}

// Runs threads that have not begun, as long as they are the next of the round.
void work(worker& w) {
  for (;;) {
    while (pending != 0 && !failed && !next_has_begun()) {
      take_next();
      threads[current].on = &w;
      warp->begun |= lane_bit();
      (*thread_function)();
      warp->ended |= lane_bit();
      warp->ready &= ~lane_bit();
    }
    idle.push_back(&w);
    switch_to(scheduler);
  }
}

worker* new_worker() {
  constexpr std::size_t stack_bytes = std::size_t{256} << 10;
  static std::size_t made = 0;
  context::protected_fixedsize_stack allocator(stack_bytes);
  context::stack_context stack = allocator.allocate();
  const std::size_t unused =
      made++ * 640 % 4096;  // the frames of different threads lie in different lines of the cache
  auto* w = new worker;
  w->size = stack.size - unused;
  void* top = static_cast<std::byte*>(stack.sp) - unused;
  w->bottom = static_cast<std::byte*>(top) - w->size;
  w->at = context::fiber(std::allocator_arg, context::preallocated(top, w->size, stack), allocator,
                         [w](context::fiber&& from) {
                           __sanitizer_finish_switch_fiber(nullptr, &before->bottom, &before->size);
                           before->at = std::move(from);
                           work(*w);
                           return context::fiber();
                         });
  return w;
}

void go_on() {
  if (next_has_begun()) {
    take_next();
    switch_to(*threads[current].on);
  } else {  // the worker takes it
    if (idle.empty()) idle.push_back(new_worker());
    worker* w = idle.back();
    idle.pop_back();
    switch_to(*w);
  }
}

// Each warp runs as far as it can get, or by chance not so far, before the next one does.
void run_threads() {
  for (bool moved = true; moved && !failed;) {
    moved = false;
    if (order == thread_order::shuffle) std::shuffle(warp_sequence.begin(), warp_sequence.end(), draw);
    for (const unsigned w : warp_sequence) {
      warp = &warps[w];
      while (warp->ready != 0 && !failed) {
        moved = true;
        pending = warp->ready;
        chosen = -1;
        while (pending != 0 && !failed) go_on();
        if (order == thread_order::shuffle && draw() % 8 == 0) break;
      }
    }
  }
}

std::string sentence_of_the_stuck() {
  std::ostringstream text;
  std::vector<std::pair<std::string, int>> counts;
  for (unsigned t = 0; t < threads.size(); ++t) {
    const bool ended = (warps[t / 32].ended >> t % 32 & 1u) != 0;
    const std::string where = ended ? "have returned" : std::string("wait at ") + threads[t].waits;
    const auto found = std::find_if(counts.begin(), counts.end(), [&](const auto& c) { return c.first == where; });
    if (found == counts.end()) {
      counts.emplace_back(where, 1);
    } else {
      ++found->second;
    }
  }
  text << "not all threads reach a barrier: ";
  for (const auto& [where, count] : counts) text << (&where == &counts[0].first ? "" : ", ") << count << ' ' << where;
  return text.str();
}

void report(const std::string& sentence) {
  std::ostringstream text;
  text << "emulated CUDA: kernel " << shape->name << ", block " << blockIdx.x << ": " << sentence;
  stick(text.str());
  failed = true;
}

constexpr std::size_t canary_bytes = 1024;

void run_block() {
  for (warp_state& w : warps) {
    w.ready = w.lanes;
    w.begun = w.ended = 0;
  }
  for (thread_state& t : threads) t.copies.clear();
  block_arrived = 0;
  block_true = 0;
  std::byte* shared = graft::detail::dynamic_shared_memory;
  if (shape->shared_bytes != 0) std::memset(shared, 0xff, shape->shared_bytes + canary_bytes);
  run_threads();
  if (failed) return;  // the stacks of those that wait are lost
  if (!std::all_of(warps.begin(), warps.end(), [](const warp_state& w) { return w.ended == w.lanes; }))
    return report(sentence_of_the_stuck());
  if (shape->shared_bytes == 0) return;
  const std::byte* end = shared + shape->shared_bytes;
  if (std::any_of(end, end + canary_bytes, [](std::byte b) { return b != std::byte{0xff}; }))
    report("writes behind its dynamic shared memory");
}

}  // namespace

const launch_shape* running() { return shape; }

void run_kernel(const launch_shape& wanted, const std::function<void()>& thread) {
  shape = &wanted;
  thread_function = &thread;
  gridDim = wanted.grid;
  blockDim = wanted.block;
  failed = false;
  const unsigned count = blockDim.x * blockDim.y * blockDim.z;
  threads.resize(count);
  warps.clear();
  warps.resize((count + 31) / 32);
  for (unsigned t = 0; t < count; ++t) {
    threads[t].index = {t % blockDim.x, t / blockDim.x % blockDim.y, t / blockDim.x / blockDim.y};
    warps[t / 32].first = t / 32 * 32;
    warps[t / 32].lanes |= 1u << t % 32;
  }
  warp_sequence.resize(warps.size());
  std::iota(warp_sequence.begin(), warp_sequence.end(), 0u);
  if (order == thread_order::reverse) std::reverse(warp_sequence.begin(), warp_sequence.end());
  const std::uint64_t blocks = std::uint64_t{gridDim.x} * gridDim.y * gridDim.z;
  // From where on, and how far from block to block: every block once, as the step has no divisor in common with them.
  std::uint64_t at = order == thread_order::reverse ? blocks - 1 : 0,
                step = order == thread_order::reverse ? blocks - 1 : 1;
  if (order == thread_order::shuffle) {
    at = draw() % blocks;
    do step = draw() % blocks + 1;
    while (std::gcd(step, blocks) != 1);
  }
  for (std::uint64_t i = 0; i < blocks && !failed; ++i, at = (at + step) % blocks) {
    blockIdx = {static_cast<unsigned>(at % gridDim.x), static_cast<unsigned>(at / gridDim.x % gridDim.y),
                static_cast<unsigned>(at / gridDim.x / gridDim.y)};
    run_block();
  }
  shape = nullptr;
}

void set_order(thread_order wanted) { order = wanted; }

void fail(const char* sentence) {
  report(sentence);
  for (;;) stop();
}

int barrier(const char* what, bool value) {
  if (shape == nullptr) std::abort();  // called by the host
  block_true += value;
  if (++block_arrived < threads.size()) {
    wait(what);
  } else {
    block_result = block_true;
    block_arrived = 0;
    block_true = 0;
    for (warp_state& w : warps) w.ready = w.lanes;
  }
  return block_result;
}

std::byte* enter(const char* what, unsigned mask) {
  mask &= warp->lanes;
  if ((mask & lane_bit()) == 0) fail("a lane calls a warp operation whose mask leaves it out");
  meeting& m = warp->of(mask);
  if (m.arrived == 0) {
    m.mask = mask;
    m.what = what;
    m.parity ^= 1;
  } else if (m.what != what && std::strcmp(m.what, what) != 0) {
    fail("lanes of a warp meet at different operations");
  }
  entered = &m;
  return m.value[m.parity][current % 32];
}

const std::byte* meet() {
  meeting& m = *entered;
  const std::byte* all = &m.value[m.parity][0][0];
  m.arrived |= lane_bit();
  if (m.arrived != m.mask) {
    wait(m.what);
  } else {
    m.arrived = 0;
    warp->ready |= m.mask;
  }
  return all;
}

async_copies& copies_of_this_thread() { return threads[current].copies; }
bool copy_comes_early() {
  return order == thread_order::reverse || (order == thread_order::shuffle && (draw() & 1u) != 0);
}

void add_products(float (&d)[4], const std::byte* operands, int lane) {
  // Rows g and g + 8 of a, columns 2t and 2t + 1 of b; operand register `word` of a lane holds elements k and k + 1.
  float rows[2][16], columns[2][16];
  const auto unpack = [&](float* to, int from_lane, int word) {
    std::uint32_t pair = 0;
    std::memcpy(&pair, operands + 32 * from_lane + 4 * word, sizeof(pair));
    to[0] = std::bit_cast<float>(pair << 16);
    to[1] = std::bit_cast<float>(pair & 0xffff0000u);
  };
  const int g = lane / 4, t = lane % 4;
  for (int lower = 0; lower < 2; ++lower)
    for (int half = 0; half < 2; ++half)
      for (int k = 0; k < 4; ++k) {
        unpack(rows[lower] + 8 * half + 2 * k, 4 * g + k, lower + 2 * half);
        unpack(columns[lower] + 8 * half + 2 * k, 4 * (2 * t + lower) + k, 4 + half);
      }
  for (int k = 0; k < 16; ++k)
    for (int i = 0; i < 4; ++i) d[i] += rows[i / 2][k] * columns[i % 2][k];
}

}  // namespace emulated
