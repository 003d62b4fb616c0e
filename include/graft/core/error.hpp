// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Errors: one exception type and one check macro. A message names the place, what was expected and
// what was found: "top_k: expected k <= experts, got k=9, experts=8".

#include <sstream>
#include <stdexcept>
#include <string>

namespace graft {

// Everything that graft throws. what() is one sentence for a person.
struct error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

namespace detail {

template <class... Parts>
[[noreturn]] void raise(const Parts&... parts) {
  std::ostringstream sentence;
  (sentence << ... << parts);
  throw error(sentence.str());
}

}  // namespace detail
}  // namespace graft

// GRAFT_CHECK(condition, parts...): throws graft::error with the parts joined unless condition holds.
#define GRAFT_CHECK(condition, ...)                        \
  do {                                                     \
    if (!(condition)) ::graft::detail::raise(__VA_ARGS__); \
  } while (false)
