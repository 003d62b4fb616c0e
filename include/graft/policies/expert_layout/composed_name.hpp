// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The name of a layout over another one: "capacity" over routed, "shared+capacity" over shared_routed<...>.

#include <array>
#include <cstddef>
#include <string_view>

namespace graft::detail {

// Own::text, behind Base::name and a plus sign unless Base is the plain layout.
template <class Base, class Own>
struct composed_name {
  static constexpr std::string_view base = Base::name, own = Own::text;
  static constexpr std::size_t own_start = base == "routed" ? 0 : base.size() + 1;

  static constexpr std::array<char, own_start + own.size() + 1> make() {
    std::array<char, own_start + own.size() + 1> text{};
    if constexpr (own_start > 0) {
      for (std::size_t i = 0; i < base.size(); ++i) text[i] = base[i];
      text[base.size()] = '+';
    }
    for (std::size_t i = 0; i < own.size(); ++i) text[own_start + i] = own[i];
    return text;
  }
  static constexpr auto storage = make();
  static constexpr const char* value = storage.data();
};

}  // namespace graft::detail
