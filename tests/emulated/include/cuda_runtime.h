// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A CUDA device on the CPU, for the tests: as much of the runtime and of the language as graft uses, so that its .cu
// files, compiled as C++ with this folder first among the includes, run and can be wrong. It is stricter than a GPU
// where a GPU is merely unpredictable:
//
//   launches and copies wait in their stream until something synchronises with it; then blocks run one after another
//   the threads of a block are fibers that run one by one from barrier to barrier, in the order that
//     GRAFT_EMULATED_ORDER names: forward, reverse or shuffle (another one at every barrier)
//   a barrier or warp operation that some of its threads never reach is an error that names the kernel
//   device memory faults when the host touches it and behind its end, and holds 0xFF (NaN, -1) when it is new
//   a pointer to host memory among a kernel's arguments is refused (compiled by GCC, which can tell padding from
//   values) in a capture, calls that wait for the device or ask for memory are refused; a replay has the arguments of
//   the capture
//
// An error sticks, as on a device: every later call returns it, and cudaGetErrorString gives the sentence.

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <tuple>
#include <type_traits>
#include <typeinfo>
#include <utility>

// ---- language ----------------------------------------------------------------------------------------------------
#define __host__
#define __device__
#define __global__
#define __constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
// Of the thread that plays the device; static where CUDA's is, and extern for dynamic shared memory.
#define __shared__ thread_local

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
inline constexpr int warpSize = 32;

struct CUstream_st;
namespace emulated {

// A lane enters an operation of its warp, with at most 32 bytes for the others, and meets them there: lane i's bytes
// begin at 32 i of what meet returns, until the lane's second operation from now.
std::byte* enter(const char* what, unsigned mask);
const std::byte* meet();
inline const std::byte* exchange(const char* what, unsigned mask, const void* value, std::size_t bytes) {
  std::byte* mine = enter(what, mask);
  if (bytes != 0) std::memcpy(mine, value, bytes);
  return meet();
}
// All threads of the block. Returns how many gave true.
int barrier(const char* what, bool value);
// Ends the kernel that runs, with an error that names it.
[[noreturn]] void fail(const char* sentence);

// Queues a kernel. `again` runs it for the thread that threadIdx names, with the arguments as they are now.
int launch(const void* config, const void* kernel, const std::type_info& type, std::function<void()> again);
// Queues what a library would do on the device.
int later(CUstream_st* stream, std::function<void()> work);
// Refuses words that point into the host's memory.
bool holds_host_pointer(const void* bytes, std::size_t size);
int refuse_host_pointer(const std::type_info& kernel);
template <class T>
bool refuses([[maybe_unused]] T argument) {
#if defined(__GNUC__) && !defined(__clang__)
  if constexpr (std::is_trivially_copyable_v<T>) {
    __builtin_clear_padding(&argument);  // where some old pointer may be left
    return holds_host_pointer(&argument, sizeof(argument));
  }
#endif
  return false;
}

template <class T>
T from_lane(const char* what, unsigned mask, T value, int lane) {
  static_assert(sizeof(T) <= 8);
  const std::byte* all = exchange(what, mask, &value, sizeof(T));
  if ((mask >> lane & 1u) == 0) fail("a shuffle reads a lane that is not in its mask");
  T result;
  std::memcpy(&result, all + 32 * lane, sizeof(T));
  return result;
}
inline int lane() { return static_cast<int>(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32; }

}  // namespace emulated

namespace graft::detail {
alignas(128) inline thread_local std::byte dynamic_shared_memory[(std::size_t{163} << 10) + 1024];
}

inline void __syncthreads() { emulated::barrier("__syncthreads", false); }
inline int __syncthreads_count(int value) { return emulated::barrier("__syncthreads_count", value != 0); }
inline int __syncthreads_or(int value) { return emulated::barrier("__syncthreads_or", value != 0) != 0; }
inline int __syncthreads_and(int value) { return emulated::barrier("__syncthreads_and", value == 0) == 0; }
inline void __syncwarp(unsigned mask = 0xffffffffu) { emulated::exchange("__syncwarp", mask, nullptr, 0); }
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const int first = emulated::lane() / width * width;
  return emulated::from_lane("__shfl_sync", mask, value, first + (source & (width - 1)));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32) {
  const int lane = emulated::lane(), other = lane ^ lane_mask;
  return emulated::from_lane("__shfl_xor_sync", mask, value, other / width > lane / width ? lane : other);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int lane = emulated::lane(), other = lane + static_cast<int>(delta);
  return emulated::from_lane("__shfl_down_sync", mask, value,
                             lane % width + static_cast<int>(delta) < width ? other : lane);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int lane = emulated::lane(), other = lane - static_cast<int>(delta);
  return emulated::from_lane("__shfl_up_sync", mask, value, lane % width >= static_cast<int>(delta) ? other : lane);
}
inline unsigned __ballot_sync(unsigned mask, int value) {
  const bool mine = value != 0;
  const std::byte* all = emulated::exchange("__ballot_sync", mask, &mine, 1);
  unsigned result = 0;
  for (int i = 0; i < 32; ++i)
    if ((mask >> i & 1u) != 0 && all[32 * i] != std::byte{0}) result |= 1u << i;
  return result;
}
inline int __any_sync(unsigned mask, int value) { return __ballot_sync(mask, value) != 0; }
inline int __all_sync(unsigned mask, int value) { return __ballot_sync(mask, value == 0) == 0; }

// Blocks run one after another and threads one by one, so plain operations are atomic. None for floating point: graft
// has none.
template <class T>
T atomicAdd(T* target, T value) requires(!std::is_floating_point_v<T>) {
  return std::exchange(*target, static_cast<T>(*target + value));
}
template <class T>
T atomicMax(T* target, T value) requires(!std::is_floating_point_v<T>) {
  return std::exchange(*target, *target < value ? value : *target);
}
template <class T>
T atomicExch(T* target, T value) {
  return std::exchange(*target, value);
}
template <class T>
T atomicCAS(T* target, T compare, T value) {
  return std::exchange(*target, *target == compare ? value : *target);
}
inline void __threadfence() {}
inline void __threadfence_block() {}
template <class T>
T __ldg(const T* pointer) {
  return *pointer;
}
inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __clz(int value) { return value == 0 ? 32 : __builtin_clz(static_cast<unsigned>(value)); }
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
inline float __expf(float x) { return std::exp(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }

// ---- runtime -----------------------------------------------------------------------------------------------------
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidMemcpyDirection = 21,
  cudaErrorInvalidDevice = 101,
  cudaErrorInvalidResourceHandle = 400,
  cudaErrorNotReady = 600,
  cudaErrorLaunchFailure = 719,
  cudaErrorNotSupported = 801,
  cudaErrorStreamCaptureUnsupported = 900,
  cudaErrorStreamCaptureInvalidated = 901,
  cudaErrorStreamCaptureImplicit = 906
};
enum cudaMemcpyKind {
  cudaMemcpyHostToHost,
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice,
  cudaMemcpyDefault
};
enum cudaStreamCaptureMode {
  cudaStreamCaptureModeGlobal,
  cudaStreamCaptureModeThreadLocal,
  cudaStreamCaptureModeRelaxed
};
enum cudaStreamCaptureStatus {
  cudaStreamCaptureStatusNone,
  cudaStreamCaptureStatusActive,
  cudaStreamCaptureStatusInvalidated
};
enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
  cudaFuncAttributePreferredSharedMemoryCarveout = 9
};
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};
inline constexpr unsigned cudaStreamDefault = 0, cudaStreamNonBlocking = 1;
inline constexpr unsigned cudaEventDefault = 0, cudaEventBlockingSync = 1, cudaEventDisableTiming = 2;
inline constexpr unsigned cudaHostAllocDefault = 0, cudaHostAllocPortable = 1;

using cudaStream_t = struct CUstream_st*;
using cudaEvent_t = struct CUevent_st*;
using cudaGraph_t = struct CUgraph_st*;
using cudaGraphExec_t = struct CUgraphExec_st*;
using cudaGraphNode_t = struct CUgraphNode_st*;

struct cudaDeviceProp {
  char name[256];
  std::size_t totalGlobalMem, sharedMemPerBlock, sharedMemPerBlockOptin, sharedMemPerMultiprocessor;
  int major, minor, multiProcessorCount, maxThreadsPerBlock, maxThreadsPerMultiProcessor, warpSize, l2CacheSize;
};
struct cudaLaunchAttribute {};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();
const char* cudaGetErrorName(cudaError_t);
const char* cudaGetErrorString(cudaError_t);

cudaError_t cudaGetDeviceCount(int*);
cudaError_t cudaSetDevice(int);
cudaError_t cudaGetDevice(int*);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp*, int);
cudaError_t cudaDeviceGetAttribute(int*, cudaDeviceAttr, int);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaDriverGetVersion(int*);
cudaError_t cudaRuntimeGetVersion(int*);

cudaError_t cudaMalloc(void**, std::size_t);
cudaError_t cudaFree(void*);
cudaError_t cudaMallocHost(void**, std::size_t);
cudaError_t cudaHostAlloc(void**, std::size_t, unsigned);
cudaError_t cudaFreeHost(void*);
cudaError_t cudaMemGetInfo(std::size_t*, std::size_t*);
cudaError_t cudaMemcpy(void*, const void*, std::size_t, cudaMemcpyKind);
cudaError_t cudaMemcpyAsync(void*, const void*, std::size_t, cudaMemcpyKind, cudaStream_t = nullptr);
cudaError_t cudaMemcpy2DAsync(void*, std::size_t, const void*, std::size_t, std::size_t width, std::size_t height,
                              cudaMemcpyKind, cudaStream_t = nullptr);
cudaError_t cudaMemset(void*, int, std::size_t);
cudaError_t cudaMemsetAsync(void*, int, std::size_t, cudaStream_t = nullptr);
cudaError_t cudaMemset2DAsync(void*, std::size_t, int, std::size_t width, std::size_t height, cudaStream_t = nullptr);
template <class T>
cudaError_t cudaMalloc(T** pointer, std::size_t bytes) {
  return cudaMalloc(reinterpret_cast<void**>(pointer), bytes);
}
template <class T>
cudaError_t cudaMallocHost(T** pointer, std::size_t bytes) {
  return cudaMallocHost(reinterpret_cast<void**>(pointer), bytes);
}

cudaError_t cudaStreamCreate(cudaStream_t*);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t*, unsigned);
cudaError_t cudaStreamDestroy(cudaStream_t);
cudaError_t cudaStreamSynchronize(cudaStream_t);
cudaError_t cudaStreamQuery(cudaStream_t);
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned = 0);
cudaError_t cudaEventCreate(cudaEvent_t*);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t*, unsigned);
cudaError_t cudaEventDestroy(cudaEvent_t);
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t = nullptr);
cudaError_t cudaEventSynchronize(cudaEvent_t);
cudaError_t cudaEventQuery(cudaEvent_t);
cudaError_t cudaEventElapsedTime(float*, cudaEvent_t, cudaEvent_t);

cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode);
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t*);
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus*);
cudaError_t cudaGraphGetNodes(cudaGraph_t, cudaGraphNode_t*, std::size_t*);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t*, cudaGraph_t, unsigned long long = 0);
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t);
cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t);
cudaError_t cudaGraphDestroy(cudaGraph_t);

cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int);
template <class... Parameters>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Parameters...), cudaFuncAttribute attribute, int value) {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), attribute, value);
}
template <class... Parameters>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void (*)(Parameters...), int, std::size_t) {
  *blocks = 2;
  return cudaSuccess;
}
template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...), Arguments&&... given) {
  const std::type_info& type = typeid(kernel);
  std::tuple<Parameters...> arguments(std::forward<Arguments>(given)...);
  const bool refused =
      std::apply([](const auto&... each) { return (emulated::refuses(each) || ... || false); }, arguments);
  if (refused) return static_cast<cudaError_t>(emulated::refuse_host_pointer(type));
  return static_cast<cudaError_t>(
      emulated::launch(config, reinterpret_cast<const void*>(kernel), type, [=] { std::apply(kernel, arguments); }));
}
