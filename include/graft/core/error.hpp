// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Errors: one exception type and one check macro. A message names the place, what was expected and
// what was found: "top_k: expected k <= experts, got k=9, experts=8".
//
// Hundreds of checks are compiled into every program, so a check costs the compiler little: one function makes a
// sentence of parts of one type, and no header of streams is read for that.

#include <concepts>
#include <cstdio>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>

namespace graft {

// Everything that graft throws. what() is one sentence for a person.
struct error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

namespace detail {

// One part of a sentence: text, which must live until the sentence is made, or a number.
class error_part {
 public:
  error_part(std::string_view text) : text_(text) {}
  error_part(const char* text) : text_(text) {}
  error_part(const std::string& text) : text_(text) {}
  error_part(char character) : kind_(kind::character), integer_(character) {}
  template <std::signed_integral Number>
  error_part(Number number) : kind_(kind::integer), integer_(number) {}
  template <std::unsigned_integral Number>
  error_part(Number number) : kind_(kind::natural), natural_(number) {}
  template <std::floating_point Number>
  error_part(Number number) : kind_(kind::real), real_(static_cast<double>(number)) {}

  void append_to(std::string& sentence) const {
    switch (kind_) {
      case kind::text:
        sentence += text_;
        break;
      case kind::character:
        sentence += static_cast<char>(integer_);
        break;
      case kind::integer:
        sentence += std::to_string(integer_);
        break;
      case kind::natural:
        sentence += std::to_string(natural_);
        break;
      case kind::real: {
        char digits[32];
        sentence.append(digits, static_cast<std::size_t>(std::snprintf(digits, sizeof digits, "%g", real_)));
      }
    }
  }

 private:
  enum class kind { text, character, integer, natural, real };
  kind kind_ = kind::text;
  std::string_view text_;
  union {
    long long integer_ = 0;
    unsigned long long natural_;
    double real_;
  };
};

[[noreturn]] inline void raise_sentence(std::initializer_list<error_part> parts) {
  std::string sentence;
  for (const error_part& part : parts) part.append_to(sentence);
  throw error(sentence);
}

template <class... Parts>
[[noreturn]] void raise(const Parts&... parts) {
  raise_sentence({parts...});
}

}  // namespace detail
}  // namespace graft

// GRAFT_CHECK(condition, parts...): throws graft::error with the parts joined unless condition holds. A part is text or
// a number.
#define GRAFT_CHECK(condition, ...)                        \
  do {                                                     \
    if (!(condition)) ::graft::detail::raise(__VA_ARGS__); \
  } while (false)
