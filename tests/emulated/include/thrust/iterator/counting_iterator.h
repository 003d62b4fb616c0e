// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace thrust {

template <class T>
struct counting_iterator {
  T first;
  explicit counting_iterator(T value) : first(value) {}
  T operator[](int i) const { return first + static_cast<T>(i); }
};

}  // namespace thrust
