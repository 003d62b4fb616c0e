// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

#include <random>

#include <graft/io/text_source.hpp>

#include "catch.hpp"
#include "common/characters.hpp"

namespace characters_tests {

namespace {

// Byte by byte, as a model writes.
std::string streamed(const std::string& bytes) {
  examples::character_stream stream;
  std::string text;
  for (const char byte : bytes) text += stream.take(std::string(1, byte));
  return text;
}

}  // namespace

TEST_CASE("characters come out whole") {
  const std::string text = "été \xE2\x82\xAC \xF0\x9D\x84\x9E \xED\x9F\xBF \xF4\x8F\xBF\xBF";
  CHECK(streamed(text) == text);
  CHECK(examples::character_stream().take(text) == text);

  examples::character_stream stream;
  CHECK(stream.take("a\xE2") == "a");
  CHECK(stream.take("\x82") == "");
  CHECK(stream.take("\xAC!") == "\xE2\x82\xAC!");
}

TEST_CASE("the beginning of a character at the end stays inside") {
  for (const std::string cut : {"\xC3", "\xE2", "\xE2\x82", "\xF0", "\xF0\x9D", "\xF0\x9D\x84"})
    CHECK(streamed("ab" + cut) == "ab");
}

TEST_CASE("bytes of no character are marked") {
  const std::string mark = "\xEF\xBF\xBD";
  CHECK(streamed("a\x80z") == "a" + mark + "z");
  CHECK(streamed("a\xFFz") == "a" + mark + "z");
  CHECK(streamed("\xC0\x80") == mark + mark);  // overlong
  CHECK(streamed("\xE2\x82z") == mark + "z");  // one mark for one beginning
  CHECK(streamed("\xE2\xE2\x82\xAC") == mark + "\xE2\x82\xAC");
  CHECK(streamed("\xED\xA0\x80") == mark + mark + mark);             // a surrogate
  CHECK(streamed("\xF4\x90\x80\x80") == mark + mark + mark + mark);  // beyond U+10FFFF
}

TEST_CASE("whatever goes in, UTF-8 comes out") {
  std::mt19937 random(5);
  for (int round = 0; round < 2000; ++round) {
    std::string bytes;
    for (unsigned n = random() % 12; n > 0; --n) {
      const std::uint_fast32_t kinds[] = {random() % 128, 0xC0 + random() % 64, 0x80 + random() % 64, random() % 256};
      bytes += static_cast<char>(kinds[random() % 4]);
    }
    const std::string text = streamed(bytes);
    CHECK(graft::detail::invalid_utf8_bytes(text) == 0);
    CHECK(text == examples::character_stream().take(bytes));
    if (graft::detail::invalid_utf8_bytes(bytes) == 0) CHECK(text == bytes);
  }
}

}  // namespace characters_tests
