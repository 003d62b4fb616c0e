// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace thrust {

template <class Iterator, class F>
struct transform_iterator {
  Iterator from;
  F f;
  auto operator[](int i) const { return f(from[i]); }
};
template <class Iterator, class F>
transform_iterator<Iterator, F> make_transform_iterator(Iterator from, F f) {
  return {from, f};
}

}  // namespace thrust
