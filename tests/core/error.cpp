// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

#include <graft/core/error.hpp>

#include <cstdint>
#include <limits>
#include <sstream>
#include <string>
#include <string_view>

#include "catch.hpp"

namespace error_tests {

template <class... Parts>
std::string sentence_of(const Parts&... parts) {
  try {
    GRAFT_CHECK(false, parts...);
  } catch (const graft::error& problem) {
    return problem.what();
  }
  return "nothing was thrown";
}

// What a stream would write.
template <class... Parts>
std::string streamed(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

template <class... Parts>
void check(const Parts&... parts) {
  CHECK(sentence_of(parts...) == streamed(parts...));
}

TEST_CASE("error: the parts of a sentence are written as a stream writes them", "[core]") {
  check("top_k: expected k <= experts, got k=", 9, ", experts=", std::int64_t{8});
  check(std::string("a name"), ' ', std::string_view("a view of text"), true, false, 'x');
  check(std::numeric_limits<std::int64_t>::min(), " ", std::numeric_limits<std::uint64_t>::max(), " ", short{-3});
  check(0.1, " ", -2.5f, " ", 1e300, " ", 123456789.0, " ", 0.0, " ", std::numeric_limits<double>::infinity());
  check("");
}

TEST_CASE("error: a check that holds evaluates none of its parts", "[core]") {
  int asked = 0;
  const auto part = [&] { return ++asked; };
  GRAFT_CHECK(true, "no ", part());
  CHECK(asked == 0);
}

}  // namespace error_tests
