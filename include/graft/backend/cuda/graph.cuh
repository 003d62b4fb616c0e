// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// CUDA graphs: work that is queued on a context's stream is recorded once and launched as a whole from then on, so that
// a step of a thousand kernels costs the host one call.

#include <cstddef>
#include <utility>

#include <graft/backend/cuda/context.cuh>
#include <graft/backend/recorded_step.hpp>

namespace graft {

// What a graph can be launched from. Movable.
class device_graph {
 public:
  device_graph() = default;
  device_graph(device_graph&& other) noexcept : executable_(std::exchange(other.executable_, nullptr)) {}
  device_graph& operator=(device_graph&& other) noexcept {
    std::swap(executable_, other.executable_);
    return *this;
  }
  ~device_graph() {
    if (executable_ != nullptr) (void)cudaGraphExecDestroy(executable_);
  }

  // Records what work() queues on the context's stream; nothing of it runs. Errors: work that cannot be recorded, such
  // as one that waits for the device or asks it for memory.
  template <class Work>
  static device_graph record(context<cuda>& context, const Work& work) {
    capture capturing(context.stream());
    work();
    const captured graph{capturing.end()};
    device_graph result;
    GRAFT_CUDA(cudaGraphInstantiate(&result.executable_, graph.handle, 0));
    return result;
  }

  explicit operator bool() const { return executable_ != nullptr; }
  void launch(context<cuda>& context) const { GRAFT_CUDA(cudaGraphLaunch(executable_, context.stream())); }

 private:
  // Ends the capture when work() throws: a stream must not stay in it.
  class capture {
   public:
    explicit capture(cudaStream_t stream) : stream_(stream) {
      GRAFT_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    }
    capture(const capture&) = delete;
    capture& operator=(const capture&) = delete;
    ~capture() {
      if (stream_ == nullptr) return;
      cudaGraph_t graph = nullptr;
      (void)cudaStreamEndCapture(stream_, &graph);
      if (graph != nullptr) (void)cudaGraphDestroy(graph);
      (void)cudaGetLastError();  // that the capture was cut short is no error of a later call
    }
    cudaGraph_t end() {
      cudaGraph_t graph = nullptr;
      const cudaError_t status = cudaStreamEndCapture(std::exchange(stream_, nullptr), &graph);
      GRAFT_CUDA(status);
      return graph;
    }

   private:
    cudaStream_t stream_;
  };
  struct captured {
    cudaGraph_t handle;
    ~captured() { (void)cudaGraphDestroy(handle); }
  };

  cudaGraphExec_t executable_ = nullptr;
};

// The first run of a key queues its work as it is, which gives workspace and plans of products their final form; the
// second records it and launches the recording; later ones launch it. A workspace that has moved since, because
// something else asked for more of it, counts as another key: a recording knows its addresses.
template <>
class recorded_step<context<cuda>> {
 public:
  // Errors: those of work(), and work that cannot be recorded.
  template <class Key, class Work>
  void run(context<cuda>& context, const Key& key, const Work& work) {
    const recording_key here = with_workspace(context, key());
    if (here.recordable() && here == key_) {
      if (!graph_) record(context, work);
      graph_.launch(context);
      return;
    }
    graph_ = device_graph();
    work();
    key_ = with_workspace(context, key());
  }
  bool recorded() const { return static_cast<bool>(graph_); }

 private:
  static recording_key with_workspace(context<cuda>& context, recording_key key) {
    const auto& workspace = context.workspace();
    const auto position = workspace.position();
    for (const std::size_t value : {workspace.requests(), workspace.reserved_bytes(), position.chunk, position.offset})
      key.append(std::uint64_t{value});
    return key;
  }
  template <class Work>
  void record(context<cuda>& context, const Work& work) {
    try {
      graph_ = device_graph::record(context, work);
    } catch (const error& problem) {
      key_ = recording_key(false);
      detail::raise("recorded_step: expected work that a CUDA graph can hold, got: ", problem.what(),
                    ". Queue it step by step instead (training_options::record_graph = false, --no-graph)");
    }
  }

  device_graph graph_;
  recording_key key_{false};  // of the last run; at the start that of none
};

}  // namespace graft
