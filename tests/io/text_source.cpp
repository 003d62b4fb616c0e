// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Reading text: gzip by its content, damage by its sentence, and what counts as text.

#include "catch.hpp"

#include <string>

#include <graft/io/text_source.hpp>

#include "io/text_test.hpp"

namespace text_source_tests {

namespace {

std::string all(const std::filesystem::path& path, std::size_t piece = 1000) {
  graft::text_reader reader(path);
  std::string text, buffer(piece, '\0');
  while (const std::size_t count = reader.read(buffer.data(), piece)) text.append(buffer, 0, count);
  return text;
}

}  // namespace

TEST_CASE("text_reader: gzip is told by its content, whatever the name", "[io][text]") {
  const io_test::scratch_folder folder;
  const std::string text = io_test::some_text(1, 300000);
  io_test::append_gzip(folder / "plain-name.txt", text);
  io_test::write_bytes(folder / "lying.gz", text);
  CHECK(io_test::read_bytes(folder / "plain-name.txt").size() < text.size() / 2);
  CHECK((all(folder / "plain-name.txt") == text));
  CHECK((all(folder / "lying.gz") == text));
  io_test::append_gzip(folder / "plain-name.txt", "a second member");
  CHECK((all(folder / "plain-name.txt", 1 << 20) == text + "a second member"));
  io_test::write_bytes(folder / "empty", "");
  CHECK(all(folder / "empty").empty());
}

TEST_CASE("text_reader: damaged files", "[io][text]") {
  const io_test::scratch_folder folder;
  const auto path = folder / "a.gz";
  io_test::append_gzip(path, io_test::some_text(2, 100000));
  const std::string good = io_test::read_bytes(path);
  for (const std::size_t size : {good.size() - 1, good.size() - 8, good.size() / 2, std::size_t{12}}) {
    io_test::write_bytes(path, good.substr(0, size));
    CHECK_ERROR(all(path), path.string(), "ends too early");
  }
  std::string bad = good;
  bad[bad.size() - 6] ^= 1;  // the checksum
  io_test::write_bytes(path, bad);
  CHECK_ERROR(all(path), path.string(), "damaged");
  CHECK_ERROR(all(folder / "none"), "none", "No such file");
  CHECK_ERROR(all(folder.path()), folder.path().string(), "directory");
}

TEST_CASE("looks_like_text", "[io][text]") {
  CHECK(graft::looks_like_text("plain"));
  CHECK(graft::looks_like_text("d\xC3\xA9j\xC3\xA0"));
  CHECK(graft::looks_like_text("un texte en Latin-1, o\xF9 les accents sont rares"));
  CHECK(graft::looks_like_text(std::string(8191, 'a') + "\xC3"));  // cut by the probe
  CHECK(!graft::looks_like_text(std::string("a\0b", 3)));
  CHECK(
      !graft::looks_like_text("\x80\x81\x82\x83"
                              "abc\x84\x85\x86\x87zz"));
}

TEST_CASE("utf8_length refuses what is not UTF-8", "[io][text]") {
  using graft::detail::utf8_length;
  CHECK(utf8_length("a") == 1);
  CHECK(utf8_length("é") == 2);
  CHECK(utf8_length("€") == 3);
  CHECK(utf8_length("😀") == 4);
  for (const char* bad : {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xED\xA0\x80", "\xF0\x80\x80\x80",
                          "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xC3", "\xC3z"})
    CHECK(utf8_length(bad) == 0);
}

}  // namespace text_source_tests
