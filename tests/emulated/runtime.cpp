// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Streams, events, graphs, copies and what else the runtime has, over memory.cpp and block.cpp. Above 400 lines, as the
// runtime has many small calls and they share the streams' queues.

#include <chrono>
#include <cstdio>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include <cxxabi.h>

#include "device.hpp"

using emulated::device_lock;
using emulated::enqueue;
using emulated::outside_captures;
using work_list = std::vector<std::function<void()>>;

struct CUgraph_st {
  work_list work;
};
struct CUgraphExec_st {
  std::shared_ptr<const work_list> work;
};
struct CUstream_st {
  std::deque<std::function<void()>> queue;
  std::uint64_t done = 0;  // how many have run
  std::unique_ptr<CUgraph_st> capture;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  bool invalidated = false;  // the capture
};
struct CUevent_st {
  CUstream_st* stream = nullptr;
  std::uint64_t position = 0;  // how many of the stream's tasks it stands behind
  std::shared_ptr<std::chrono::steady_clock::time_point> when =
      std::make_shared<std::chrono::steady_clock::time_point>();
};

namespace {

cudaError_t last = cudaSuccess;
std::string& sentence = *new std::string;  // of the error that sticks
std::set<CUstream_st*>& streams = *new std::set<CUstream_st*>{new CUstream_st};
CUstream_st* const default_stream = *streams.begin();

// What a call returns; an error is remembered.
cudaError_t give(cudaError_t status) {
  if (!sentence.empty()) status = cudaErrorLaunchFailure;
  if (status != cudaSuccess) last = status;
  return status;
}

CUstream_st* stream_of(cudaStream_t stream) {
  CUstream_st* s = stream == nullptr ? default_stream : stream;
  return streams.count(s) != 0 ? s : nullptr;
}

// All device memory, open from the first kernel to the end of what one synchronisation runs.
std::optional<emulated::open_memory> opened;
int runs = 0;

// Runs the stream's work, up to a position.
void run(CUstream_st& stream, std::uint64_t until = ~std::uint64_t{0}) {
  ++runs;
  while (!stream.queue.empty() && stream.done < until) {
    const auto work = std::move(stream.queue.front());
    stream.queue.pop_front();
    if (sentence.empty()) work();
    ++stream.done;
  }
  if (--runs == 0) opened.reset();
}
bool happened(const CUevent_st& event) {
  return streams.count(event.stream) == 0 || event.stream->done > event.position;
}
void run_all() {
  for (CUstream_st* stream : streams) run(*stream);
}

template <class F>
cudaError_t call(const F& f) {
  const std::lock_guard hold(device_lock());
  return give(sentence.empty() ? f() : cudaErrorLaunchFailure);
}
template <class F>
cudaError_t waiting_call(const F& f) {
  return call([&] {
    const cudaError_t status = outside_captures();
    if (status == cudaSuccess) f();
    return status;
  });
}

// Whether both sides lie where `kind` says.
cudaError_t check_copy(const void* target, const void* source, std::size_t bytes, cudaMemcpyKind kind) {
  if (kind == cudaMemcpyDefault) return cudaSuccess;
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  const auto fits = [&](const void* pointer, bool device) {
    return device ? emulated::is_allocated(pointer, bytes) : !emulated::is_device_address(pointer);
  };
  return fits(target, to_device) && fits(source, from_device) ? cudaSuccess : cudaErrorInvalidValue;
}

std::map<const void*, int>& shared_limits() {
  static auto& limits = *new std::map<const void*, int>;
  return limits;
}
constexpr int most_shared_bytes = 163 << 10, unasked_shared_bytes = 48 << 10;  // of compute capability 8.0

std::string name_of(const std::type_info& type) {
  int status = 0;
  char* name = abi::__cxa_demangle(type.name(), nullptr, nullptr, &status);
  std::string result = status == 0 ? name : type.name();
  std::free(name);
  return result;
}

}  // namespace

namespace emulated {

std::recursive_mutex& device_lock() {
  static auto& lock = *new std::recursive_mutex;
  return lock;
}

void stick(const std::string& text) {
  if (sentence.empty()) sentence = text;
}
bool stuck() { return !sentence.empty(); }

cudaError_t enqueue(cudaStream_t stream, std::function<void()> work) {
  CUstream_st* s = stream_of(stream);
  if (s == nullptr) return cudaErrorInvalidResourceHandle;
  if (s->invalidated) return cudaErrorStreamCaptureInvalidated;
  if (s->capture) {
    s->capture->work.push_back(std::move(work));
  } else {
    s->queue.push_back(std::move(work));
  }
  return cudaSuccess;
}

cudaError_t outside_captures() {
  cudaError_t status = cudaSuccess;
  for (CUstream_st* s : streams)
    if (s->capture && s->mode != cudaStreamCaptureModeRelaxed) {
      s->invalidated = true;
      status = cudaErrorStreamCaptureUnsupported;
    }
  return status;
}

int refuse_host_pointer(const std::type_info& kernel) {
  return call([&] {
    stick("emulated CUDA: kernel " + name_of(kernel) + ": an argument holds a pointer to the host's memory");
    return cudaErrorLaunchFailure;
  });
}

int launch(const void* config, const void* kernel, const std::type_info& type, std::function<void()> again) {
  return call([&] {
    const auto& c = *static_cast<const cudaLaunchConfig_t*>(config);
    const std::uint64_t threads = std::uint64_t{c.blockDim.x} * c.blockDim.y * c.blockDim.z;
    if (c.gridDim.x == 0 || c.gridDim.y == 0 || c.gridDim.z == 0 || threads == 0 || threads > 1024 ||
        c.gridDim.x > 0x7fffffffu || c.gridDim.y > 65535 || c.gridDim.z > 65535)
      return cudaErrorInvalidConfiguration;
    const auto found = shared_limits().find(kernel);
    const int most = found == shared_limits().end() ? unasked_shared_bytes : found->second;
    if (c.dynamicSmemBytes > static_cast<std::size_t>(std::max(most, unasked_shared_bytes)))
      return cudaErrorInvalidValue;
    launch_shape shape{c.gridDim, c.blockDim, c.dynamicSmemBytes, name_of(type)};
    return enqueue(c.stream, [shape = std::move(shape), again = std::move(again)] {
      if (!opened) opened.emplace();
      run_kernel(shape, again);
    });
  });
}

int later(cudaStream_t stream, std::function<void()> work) {
  return call([&] {
    return enqueue(stream, [work = std::move(work)] {
      if (!opened) opened.emplace();
      work();
    });
  });
}

}  // namespace emulated

// ---- errors and devices ------------------------------------------------------------------------------------------
cudaError_t cudaGetLastError() { return sentence.empty() ? std::exchange(last, cudaSuccess) : cudaErrorLaunchFailure; }
cudaError_t cudaPeekAtLastError() { return sentence.empty() ? last : cudaErrorLaunchFailure; }

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidMemcpyDirection:
      return "cudaErrorInvalidMemcpyDirection";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorInvalidResourceHandle:
      return "cudaErrorInvalidResourceHandle";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    case cudaErrorNotSupported:
      return "cudaErrorNotSupported";
    case cudaErrorStreamCaptureUnsupported:
      return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated:
      return "cudaErrorStreamCaptureInvalidated";
    case cudaErrorStreamCaptureImplicit:
      return "cudaErrorStreamCaptureImplicit";
  }
  return "an error without a name";
}
const char* cudaGetErrorString(cudaError_t error) {
  if (error == cudaErrorLaunchFailure && !sentence.empty()) return sentence.c_str();
  if (error == cudaErrorStreamCaptureUnsupported)
    return "a call that waits for the device or asks it for memory, in a capture";
  return cudaGetErrorName(error);
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return give(device == 0 ? cudaSuccess : cudaErrorInvalidDevice); }
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
  if (device != 0) return give(cudaErrorInvalidDevice);
  *p = {};
  std::strcpy(p->name, "emulated CUDA device");
  p->totalGlobalMem = emulated::all_memory();
  p->sharedMemPerBlock = unasked_shared_bytes;
  p->sharedMemPerBlockOptin = p->sharedMemPerMultiprocessor = most_shared_bytes;
  p->major = 8;
  p->multiProcessorCount = 3;
  p->maxThreadsPerBlock = 1024;
  p->maxThreadsPerMultiProcessor = 2048;
  p->warpSize = 32;
  p->l2CacheSize = 1 << 20;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return give(cudaErrorInvalidDevice);
  *value = attribute == cudaDevAttrMultiProcessorCount            ? 3
           : attribute == cudaDevAttrComputeCapabilityMajor       ? 8
           : attribute == cudaDevAttrMaxSharedMemoryPerBlockOptin ? most_shared_bytes
                                                                  : 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() { return waiting_call(run_all); }
cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) { return cudaDriverGetVersion(version); }

// ---- memory ------------------------------------------------------------------------------------------------------
cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
  return call([&] {
    const cudaError_t status = outside_captures();
    if (status != cudaSuccess) return status;
    *pointer = bytes == 0 ? nullptr : emulated::take_memory(bytes);
    return bytes == 0 || *pointer != nullptr ? cudaSuccess : cudaErrorMemoryAllocation;
  });
}
cudaError_t cudaFree(void* pointer) {
  const std::lock_guard hold(device_lock());
  if (pointer == nullptr) return give(cudaSuccess);
  const cudaError_t status = outside_captures();
  if (status != cudaSuccess) return give(status);
  run_all();
  return give(emulated::give_back_memory(pointer) ? cudaSuccess : cudaErrorInvalidValue);
}
cudaError_t cudaMallocHost(void** pointer, std::size_t bytes) {
  return call([&] {
    *pointer = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (*pointer != nullptr) std::memset(*pointer, 0xff, bytes);
    return *pointer != nullptr || bytes == 0 ? cudaSuccess : cudaErrorMemoryAllocation;
  });
}
cudaError_t cudaHostAlloc(void** pointer, std::size_t bytes, unsigned) { return cudaMallocHost(pointer, bytes); }
cudaError_t cudaFreeHost(void* pointer) {
  const std::lock_guard hold(device_lock());
  run_all();
  std::free(pointer);
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  return call([&] {
    *free = emulated::free_memory();
    *total = emulated::all_memory();
    return cudaSuccess;
  });
}

cudaError_t cudaMemcpyAsync(void* target, const void* source, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return call([&] {
    const cudaError_t status = check_copy(target, source, bytes, kind);
    if (status != cudaSuccess) return status;
    return enqueue(stream, [=] {
      const emulated::open_memory to(target), from(source);
      std::memmove(target, source, bytes);
    });
  });
}
cudaError_t cudaMemcpy2DAsync(void* target, std::size_t target_pitch, const void* source, std::size_t source_pitch,
                              std::size_t width, std::size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  for (std::size_t row = 0; row < height; ++row) {
    const cudaError_t status =
        cudaMemcpyAsync(static_cast<std::byte*>(target) + row * target_pitch,
                        static_cast<const std::byte*>(source) + row * source_pitch, width, kind, stream);
    if (status != cudaSuccess) return status;
  }
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* target, const void* source, std::size_t bytes, cudaMemcpyKind kind) {
  const cudaError_t refused = call(outside_captures);
  if (refused != cudaSuccess) return refused;
  const cudaError_t status = cudaMemcpyAsync(target, source, bytes, kind, nullptr);
  return status != cudaSuccess ? status : cudaStreamSynchronize(nullptr);
}
cudaError_t cudaMemset2DAsync(void* target, std::size_t pitch, int value, std::size_t width, std::size_t height,
                              cudaStream_t stream) {
  return call([&] {
    const std::size_t bytes = height == 0 ? 0 : (height - 1) * pitch + width;
    if (width > pitch || !emulated::is_allocated(target, bytes)) return cudaErrorInvalidValue;
    return enqueue(stream, [=] {
      const emulated::open_memory to(target);
      for (std::size_t row = 0; row < height; ++row)
        std::memset(static_cast<std::byte*>(target) + row * pitch, value, width);
    });
  });
}
cudaError_t cudaMemsetAsync(void* target, int value, std::size_t bytes, cudaStream_t stream) {
  return cudaMemset2DAsync(target, bytes, value, bytes, 1, stream);
}
cudaError_t cudaMemset(void* target, int value, std::size_t bytes) {
  const cudaError_t refused = call(outside_captures);
  return refused != cudaSuccess ? refused : cudaMemsetAsync(target, value, bytes, nullptr);
}

// ---- streams and events ------------------------------------------------------------------------------------------
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  return call([&] {
    *stream = *streams.insert(new CUstream_st).first;
    return cudaSuccess;
  });
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const std::lock_guard hold(device_lock());
  if (streams.count(stream) == 0 || stream == default_stream) return give(cudaErrorInvalidResourceHandle);
  run(*stream);
  streams.erase(stream);
  delete stream;
  return give(cudaSuccess);
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return call([&] {
    CUstream_st* s = stream_of(stream);
    if (s == nullptr) return cudaErrorInvalidResourceHandle;
    const cudaError_t status = outside_captures();
    if (status == cudaSuccess) run(*s);
    return status;
  });
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return call([&] {
    CUstream_st* s = stream_of(stream);
    return s == nullptr ? cudaErrorInvalidResourceHandle : s->queue.empty() ? cudaSuccess : cudaErrorNotReady;
  });
}
cudaError_t cudaEventCreate(cudaEvent_t* event) {
  *event = new CUevent_st;
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return cudaEventCreate(event); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
// In a capture an event would join streams; graft captures one stream alone.
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return call([&] {
    CUstream_st* s = stream_of(stream);
    if (s == nullptr) return cudaErrorInvalidResourceHandle;
    if (s->capture) return cudaErrorNotSupported;
    event->stream = s;
    event->position = s->done + s->queue.size();
    return enqueue(stream, [when = event->when] { *when = std::chrono::steady_clock::now(); });
  });
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  return call([&] {
    if (happened(*event)) return cudaSuccess;
    return enqueue(stream, [of = event->stream, until = event->position] {
      if (streams.count(of) != 0) run(*of, until);
    });
  });
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return waiting_call([&] {
    if (!happened(*event)) run(*event->stream, event->position + 1);
  });
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  return call([&] { return happened(*event) ? cudaSuccess : cudaErrorNotReady; });
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  *milliseconds = std::chrono::duration<float, std::milli>(*end->when - *begin->when).count();
  return cudaSuccess;
}

// ---- graphs ------------------------------------------------------------------------------------------------------
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return call([&] {
    CUstream_st* s = stream_of(stream);
    if (s == nullptr || s == default_stream || s->capture) return cudaErrorStreamCaptureUnsupported;
    s->capture = std::make_unique<CUgraph_st>();
    s->mode = mode;
    return cudaSuccess;
  });
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  return call([&] {
    CUstream_st* s = stream_of(stream);
    *graph = nullptr;
    if (s == nullptr || !s->capture) return cudaErrorInvalidValue;
    const auto captured = std::move(s->capture);
    if (std::exchange(s->invalidated, false)) return cudaErrorStreamCaptureInvalidated;
    *graph = new CUgraph_st(*captured);
    return cudaSuccess;
  });
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  return call([&] {
    CUstream_st* s = stream_of(stream);
    if (s == nullptr) return cudaErrorInvalidResourceHandle;
    *status = !s->capture      ? cudaStreamCaptureStatusNone
              : s->invalidated ? cudaStreamCaptureStatusInvalidated
                               : cudaStreamCaptureStatusActive;
    return cudaSuccess;
  });
}
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, std::size_t* count) {
  *count = graph->work.size();
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* replay, cudaGraph_t graph, unsigned long long) {
  return call([&] {
    *replay = new CUgraphExec_st{std::make_shared<const work_list>(graph->work)};
    return cudaSuccess;
  });
}
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaGraphLaunch(cudaGraphExec_t replay, cudaStream_t stream) {
  return call([&] {
    return enqueue(stream, [work = replay->work] {
      for (const auto& each : *work)
        if (!emulated::stuck()) each();
    });
  });
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t replay) {
  delete replay;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  return call([&] {
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
    if (value < 0 || value > most_shared_bytes) return cudaErrorInvalidValue;
    shared_limits()[kernel] = value;
    return cudaSuccess;
  });
}
