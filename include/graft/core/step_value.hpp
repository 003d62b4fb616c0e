// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Numbers that change from one training step to the next, as arguments of kernels.

#include <graft/core/host_device.hpp>

namespace graft {

// A number, or the place where it stands in the memory of a context.
//
// A training step is recorded once and replayed (backend/recorded_step.hpp): a replay launches every kernel with the
// arguments of the recording. A number that is the same in every step may be such an argument. One that changes (the
// step, the learning rate, one over the number of targets) may not: every replay would use that of the recording. It is
// written to the memory of the context before each step, and kernels are given its place. Outside training, where
// nothing is recorded, the number itself will do.
//
// Requires: a number that is given by its place is read where that memory can be read: inside kernels. Host code that
// queues work must neither read nor branch on it.
template <class T>
class step_value {
 public:
  GRAFT_HOST_DEVICE constexpr step_value(T value = T()) : value_(value) {}
  static constexpr step_value at(const T* place) {
    step_value result;
    result.place_ = place;
    return result;
  }
  GRAFT_HOST_DEVICE constexpr operator T() const { return place_ != nullptr ? *place_ : value_; }

 private:
  T value_{};
  const T* place_ = nullptr;
};

}  // namespace graft
