// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Work that is queued again and again, such as a training step. Where a backend can, it is recorded once and replayed:
// backend/cuda/graph.cuh. Elsewhere it is done each time.

#include <cstdint>
#include <initializer_list>
#include <type_traits>
#include <vector>

#include <graft/core/view.hpp>

namespace graft {

// What work was recorded for: places in memory and choices of the host. A recording holds for one key alone.
class recording_key {
 public:
  // recordable false: the work needs the host each time, and is never recorded.
  explicit recording_key(bool recordable = true) : recordable_(recordable) {}

  void append(std::uint64_t value) { values_.push_back(value); }
  void append(const void* place) { append(static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(place))); }
  void append(std::initializer_list<const void*> places) {
    for (const void* place : places) append(place);
  }
  void append(const recording_key& part) {
    recordable_ = recordable_ && part.recordable_;
    values_.insert(values_.end(), part.values_.begin(), part.values_.end());
  }
  bool recordable() const { return recordable_; }
  bool operator==(const recording_key&) const = default;

 private:
  bool recordable_;
  std::vector<std::uint64_t> values_;
};

// run(context, key, work) does work(), which queues work on the context and changes nothing else that a later call
// needs. Whatever of it changes while the key stays the same is read from the memory of the context
// (core/step_value.hpp). key() is the recording_key of the work as things stand; work() may change it, as when a first
// run takes the memory that it needs.
template <class Context>
class recorded_step {
  static_assert(std::is_same_v<typename Context::space, host_space>,
                "graft::recorded_step: the recorder of this backend is not known here. Include its header, such as "
                "graft/backend/cuda/graph.cuh.");

 public:
  template <class Key, class Work>
  void run(Context&, const Key&, const Work& work) {
    work();
  }
  bool recorded() const { return false; }  // whether the last run replayed, or will be replayed
};

}  // namespace graft
