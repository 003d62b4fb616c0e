// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The emulated device finds what it is there to find. What ends in an error that sticks, or in a fault, happens in a
// child process.

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <string>
#include <vector>

#include <graft/backend/cuda/arrays.cuh>
#include <graft/backend/cuda/intrinsics.cuh>
#include <graft/backend/cuda/launch.cuh>
#include <graft/core/dtype.hpp>

#include "catch.hpp"
#include "device.hpp"

namespace graft::test {
namespace {

using ctx_type = context<cuda>;
using emulated::thread_order;

struct outcome {
  int signal = 0;
  std::string text;  // what f returned, threw or wrote to standard error
};
template <class F>
outcome in_child(const F& f) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    std::signal(SIGSEGV, SIG_DFL);
    std::signal(SIGABRT, SIG_DFL);
    ::dup2(ends[1], STDERR_FILENO);
    std::string text;
    try {
      text = f();
    } catch (const std::exception& e) {
      text = e.what();
    }
    const auto written = ::write(ends[1], text.data(), text.size());
    ::_exit(written < 0 ? 1 : 0);
  }
  ::close(ends[1]);
  outcome result;
  char part[512];
  for (ssize_t got = 0; (got = ::read(ends[0], part, sizeof(part))) > 0;)
    result.text.append(part, static_cast<std::size_t>(got));
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  result.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  return result;
}
bool says(const outcome& o, const char* words) { return o.text.find(words) != std::string::npos; }

template <class T>
std::vector<T> fetch(ctx_type& ctx, const buffer<T, device_space>& from) {
  std::vector<T> values(static_cast<std::size_t>(from.size()));
  copy_to_host(ctx, values.data(), from.view());
  return values;
}

// y[t] = what thread (t + 1) % n left in shared memory.
static __global__ void neighbour_kernel(int* y, bool waits) {
  int* shared = reinterpret_cast<int*>(detail::dynamic_shared());
  const int n = static_cast<int>(blockDim.x), t = static_cast<int>(threadIdx.x);
  shared[t] = 100 + t;
  if (waits) __syncthreads();
  y[t] = shared[(t + 1) % n];
}
std::vector<int> neighbours(thread_order order, bool waits) {
  emulated::set_order(order);
  ctx_type ctx;
  const buffer<int, device_space> y(64);
  detail::launch(ctx, "neighbours", neighbour_kernel, 1, 64, 64 * sizeof(int), y.data(), waits);
  auto values = fetch(ctx, y);
  emulated::set_order(thread_order::forward);
  return values;
}

}  // namespace

TEST_CASE("emulated device: a missing barrier changes the result with the order") {
  std::vector<int> want(64);
  for (int t = 0; t < 64; ++t) want[static_cast<std::size_t>(t)] = 100 + (t + 1) % 64;
  for (const auto order : {thread_order::forward, thread_order::reverse, thread_order::shuffle})
    CHECK(neighbours(order, true) == want);
  const auto forward = neighbours(thread_order::forward, false), reverse = neighbours(thread_order::reverse, false);
  CHECK(forward != want);
  CHECK(reverse != want);
  CHECK(forward != reverse);
  CHECK(neighbours(thread_order::shuffle, false) != want);
}

static __global__ void divergent_kernel(unsigned waiting, int how) {
  if (threadIdx.x >= waiting) return;
  if (how == 0) __syncthreads();
  if (how == 1) __syncwarp();
  if (how == 2 && threadIdx.x % 2 == 0) __syncwarp();
  if (how == 2 && threadIdx.x % 2 == 1) (void)__ballot_sync(0xffffffffu, 1);
}
TEST_CASE("emulated device: a barrier that some threads do not reach is an error that names the kernel") {
  const auto run = [](unsigned waiting, int how) {
    return in_child([=] {
      ctx_type ctx;
      detail::launch(ctx, "divergent", divergent_kernel, 2, 48, 0, waiting, how);
      ctx.synchronize();
      return std::string("passed");
    });
  };
  CHECK(run(48, 0).text == "passed");
  CHECK(run(48, 1).text == "passed");
  const outcome block = run(40, 0), warp = run(40, 1), mixed = run(48, 2);
  CHECK(says(block, "40 wait at __syncthreads, 8 have returned"));
  CHECK(says(block, "kernel void (*)(unsigned int, int)"));
  CHECK(says(warp, "8 wait at __syncwarp"));
  CHECK(says(mixed, "different operations"));
}

static __global__ void read_kernel(const int* x, int* y, index_t at) { *y = x[at]; }
TEST_CASE("emulated device: reads past the end, and by the host, fault") {
  const auto read = [](index_t at) {
    return in_child([=] {
      ctx_type ctx;
      const buffer<int, device_space> x(1024), y(1);
      detail::launch(ctx, "read", read_kernel, 1, 1, 0, x.data(), y.data(), at);
      ctx.synchronize();
      return std::string("passed");
    });
  };
  CHECK(read(1023).text == "passed");
  const outcome past = read(1024);
  CHECK(past.signal != 0);
  CHECK(says(past, "where no device memory is"));
  const outcome host = in_child([] {
    const buffer<int, device_space> x(1024);
    return std::to_string(*x.data());
  });
  CHECK(host.signal != 0);
  CHECK(says(host, "the host touches device memory"));
}

#if defined(__GNUC__) && !defined(__clang__)
TEST_CASE("emulated device: host memory among a kernel's arguments is refused") {
  const outcome o = in_child([] {
    ctx_type ctx;
    const buffer<int, device_space> y(1);
    const std::vector<int> x(1 << 20);
    detail::launch(ctx, "read", read_kernel, 1, 1, 0, x.data() + 5, y.data(), index_t{0});
    return std::string("passed");
  });
  CHECK(says(o, "a pointer to the host's memory"));
}
#endif

static __global__ void shared_kernel(std::size_t bytes) { detail::dynamic_shared()[bytes - 1] = std::byte{1}; }
TEST_CASE("emulated device: dynamic shared memory is what the launch asked for") {
  const auto run = [](std::size_t asked, std::size_t used) {
    return in_child([=] {
      ctx_type ctx;
      detail::launch(ctx, "shared", shared_kernel, 1, 32, asked, used);
      ctx.synchronize();
      return std::string("passed");
    });
  };
  CHECK(run(100, 100).text == "passed");
  CHECK(run(100000, 100000).text == "passed");
  CHECK(says(run(100, 101), "behind its dynamic shared memory"));
  CHECK(says(run(200000, 1), "gives a block 200000 bytes"));
}

static __global__ void add_kernel(int* y, int value) { *y += value; }
TEST_CASE("emulated device: work waits for a synchronisation, and a replay has the arguments of its capture") {
  ctx_type ctx;
  const buffer<int, device_space> y(1);
  int value = 1, seen = -1;
  const auto step = [&] { detail::launch(ctx, "add", add_kernel, 1, 1, 0, y.data(), value); };
  step();
  GRAFT_CUDA(cudaMemcpyAsync(&seen, y.data(), sizeof(int), cudaMemcpyDeviceToHost, ctx.stream()));
  CHECK(seen == -1);
  CHECK(cudaStreamQuery(ctx.stream()) == cudaErrorNotReady);
  (void)cudaGetLastError();
  ctx.synchronize();
  CHECK(seen == 1);

  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replay = nullptr;
  GRAFT_CUDA(cudaStreamBeginCapture(ctx.stream(), cudaStreamCaptureModeGlobal));
  value = 10;
  step();
  GRAFT_CUDA(cudaStreamEndCapture(ctx.stream(), &graph));
  GRAFT_CUDA(cudaGraphInstantiate(&replay, graph, 0));
  CHECK(fetch(ctx, y)[0] == 1);
  value = 100;
  for (int i = 0; i < 2; ++i) GRAFT_CUDA(cudaGraphLaunch(replay, ctx.stream()));
  CHECK(fetch(ctx, y)[0] == 21);
  GRAFT_CUDA(cudaGraphExecDestroy(replay));
  GRAFT_CUDA(cudaGraphDestroy(graph));

  const auto refused = [&](const auto& call) {
    GRAFT_CUDA(cudaStreamBeginCapture(ctx.stream(), cudaStreamCaptureModeGlobal));
    CHECK_THROWS_AS(call(), error);
    CHECK(cudaStreamEndCapture(ctx.stream(), &graph) == cudaErrorStreamCaptureInvalidated);
    (void)cudaGetLastError();
  };
  refused([&] { ctx.synchronize(); });
  refused([&] { (void)buffer<int, device_space>(1); });
  CHECK(fetch(ctx, y)[0] == 21);
}

// Sums over pairs by masks of half a warp, twice with masks that overlap the first.
static __global__ void lanes_kernel(int* y) {
  const int t = static_cast<int>(threadIdx.x);
  int value = __shfl_xor_sync(0xffffffffu, t, 1);
  const unsigned half = t < 16 ? 0xffffu : 0xffff0000u;
  for (int i = 0; i < 3; ++i) value += __shfl_down_sync(half, t, 1, 16);
  y[t] = value + 1000 * __popc(__ballot_sync(0xffffffffu, t % 3 == 0)) + 100000 * __syncthreads_count(t < 5);
}
TEST_CASE("emulated device: warp operations") {
  for (const auto order : {thread_order::forward, thread_order::reverse, thread_order::shuffle}) {
    emulated::set_order(order);
    ctx_type ctx;
    const buffer<int, device_space> y(32);
    detail::launch(ctx, "lanes", lanes_kernel, 1, 32, 0, y.data());
    const auto got = fetch(ctx, y);
    for (int t = 0; t < 32; ++t)
      CHECK(got[static_cast<std::size_t>(t)] == (t ^ 1) + 3 * (t % 16 == 15 ? t : t + 1) + 11000 + 500000);
  }
  emulated::set_order(thread_order::forward);
}

// d (16,8) = a (16,16) b, b given as (8,16) and as (16,8), through copies to shared memory.
static __global__ void product_kernel(const bfloat16* a, const bfloat16* b, bool b_turned, bool waits, float* d) {
  auto* shared = reinterpret_cast<bfloat16*>(detail::dynamic_shared());
  const int lane = static_cast<int>(threadIdx.x);
  detail::copy_async_16(shared + 8 * lane, a + 8 * lane, 16);
  detail::copy_async_commit();
  detail::copy_async_16(shared + 256 + 8 * lane, b + 8 * (lane % 16), lane < 16 ? 16 : 0);
  detail::copy_async_commit();
  if (waits) {
    detail::copy_async_wait<0>();
  } else {
    detail::copy_async_wait<1>();
  }
  __syncwarp();
  const int matrix = lane / 8, row = lane % 8;
  std::uint32_t left[4], right[4];
  detail::load_matrix_x4(left, shared + 16 * (row + matrix % 2 * 8) + matrix / 2 * 8);
  if (b_turned) {  // (16,8): the rows of two matrices, and zeros behind them
    detail::load_matrix_x4_transposed(right, shared + 256 + 8 * lane);
  } else {
    detail::load_matrix_x4(right, shared + 256 + 16 * row + matrix % 2 * 8);
  }
  float sums[4] = {};
  detail::multiply_add_16x8x16(sums, left, {right[0], right[1]});
  for (int i = 0; i < 4; ++i) d[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sums[i];
}
TEST_CASE("emulated device: matrix loads and products are those of the instructions") {
  const auto run = [](bool turned, bool waits) {
    ctx_type ctx;
    std::vector<bfloat16> a(256), b(128);
    for (int i = 0; i < 256; ++i) a[static_cast<std::size_t>(i)] = bfloat16(static_cast<float>(i * 7 % 23 - 11));
    for (int i = 0; i < 128; ++i) b[static_cast<std::size_t>(i)] = bfloat16(static_cast<float>(i * 5 % 19 - 9));
    const buffer<bfloat16, device_space> left(256), right(128);
    const buffer<float, device_space> d(128);
    copy_from_host(ctx, left.view(), a.data());
    copy_from_host(ctx, right.view(), b.data());
    detail::launch(ctx, "product", product_kernel, 1, 32, 1024, left.data(), right.data(), turned, waits, d.data());
    const auto got = fetch(ctx, d);
    bool same = true;
    for (int i = 0; i < 16; ++i)
      for (int j = 0; j < 8; ++j) {
        float sum = 0;  // exact: small integers
        for (int k = 0; k < 16; ++k)
          sum += a[static_cast<std::size_t>(16 * i + k)] * b[static_cast<std::size_t>(turned ? 8 * k + j : 16 * j + k)];
        same = same && got[static_cast<std::size_t>(8 * i + j)] == sum;
      }
    return same;
  };
  for (const auto order : {thread_order::forward, thread_order::reverse, thread_order::shuffle}) {
    emulated::set_order(order);
    CHECK(run(false, true));
    CHECK(run(true, true));
  }
  emulated::set_order(thread_order::forward);
  CHECK(!run(false, false));  // the copy of b is not waited for
}

}  // namespace graft::test
