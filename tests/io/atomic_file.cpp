// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Files that appear whole or not at all: what is left after errors, a full disk, a second writer.

#include "catch.hpp"

#include <csignal>

#include <sys/resource.h>

#include <graft/io/atomic_folder.hpp>
#include <graft/io/safetensors_writer.hpp>

#include "io_test.hpp"

namespace atomic_file_tests {

using namespace graft;
using io_test::read_bytes;
using io_test::scratch_folder;
using io_test::write_bytes;

namespace {

// Files of this process can grow to so many bytes while it lives: what a full disk looks like to a writer.
class file_size_limit {
 public:
  explicit file_size_limit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &old_);
    rlimit limited = old_;
    limited.rlim_cur = bytes;
    ::setrlimit(RLIMIT_FSIZE, &limited);
  }
  ~file_size_limit() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit old_{};
  void (*handler_)(int);
};

using names = std::vector<std::string>;

}  // namespace

TEST_CASE("atomic_file: nothing is there before commit, all of it after") {
  scratch_folder folder;
  write_bytes(folder / "a", "old");
  {
    atomic_file file(folder / "a");
    file.write("new ");
    file.write("contents");
    CHECK(file.bytes_written() == 12);
    CHECK(read_bytes(folder / "a") == "old");
    file.commit();
    CHECK(read_bytes(folder / "a") == "new contents");
    CHECK_ERROR(file.write("more"), "after finish");
  }
  CHECK(folder.names() == names{"a"});
  { atomic_file(folder / "a").write("abandoned"); }
  CHECK(read_bytes(folder / "a") == "new contents");
  CHECK(folder.names() == names{"a"});
  write_file(folder / "b", "x");
  CHECK(read_bytes(folder / "b") == "x");
}

TEST_CASE("atomic_file: what a killed writer left is overwritten") {
  scratch_folder folder;
  write_bytes(folder / ".a.partial", "a long half-written file");
  write_file(folder / "a", "short");
  CHECK(read_bytes(folder / "a") == "short");
  CHECK(folder.names() == names{"a"});
}

TEST_CASE("atomic_file: two writers of one file") {
  scratch_folder folder;
  atomic_file first(folder / "a");
  first.write("first");
  CHECK_ERROR(atomic_file(folder / "a"), (folder / "a").string(), "another process is writing");
  first.commit();
  CHECK(read_bytes(folder / "a") == "first");
}

TEST_CASE("atomic_file: targets that cannot be") {
  scratch_folder folder;
  std::filesystem::create_directory(folder / "d");
  CHECK_ERROR(atomic_file(folder / "d"), "regular file", "folder");
  CHECK_ERROR(atomic_file("/dev/null"), "/dev/null", "regular file");
  CHECK_ERROR(atomic_file(folder / "none/a"), (folder / "none/a").string(), "cannot create", "No such file");
  CHECK_ERROR(atomic_file(folder / ""), "name of a file");
  CHECK(folder.names() == names{"d"});
}

TEST_CASE("atomic_file: a full disk leaves the old file and no other") {
  scratch_folder folder;
  write_bytes(folder / "model.safetensors", "old");
  const std::vector<float> values(50'000, 1.0f);
  {
    const file_size_limit limit(100'000);
    CHECK_ERROR(write_safetensors(folder / "model.safetensors",
                                  {make_tensor_source("w", {values.size()}, values.data(), file_dtype::f32)}),
                (folder / "model.safetensors").string(), "cannot write", "File too large");
  }
  CHECK(folder.names() == names{"model.safetensors"});
  CHECK(read_bytes(folder / "model.safetensors") == "old");
  write_safetensors(folder / "model.safetensors",
                    {make_tensor_source("w", {values.size()}, values.data(), file_dtype::f32)});
  CHECK(safetensors_file(folder / "model.safetensors").tensors().size() == 1);
}

TEST_CASE("atomic_folder: files change together, the seal last") {
  scratch_folder folder;
  const auto inner = folder / "x/y";
  {
    atomic_folder out(inner, "seal");
    out.add("seal", "s");
    out.add("a", "1");
    CHECK_FALSE(std::filesystem::exists(inner / "a"));
  }
  CHECK(folder.names().empty());  // the folders that it made are gone again

  {
    atomic_folder out(inner, "seal");
    out.add("seal", "s");
    out.add("a", "1");
    out.add("old", "1");
    out.commit();
  }
  CHECK(read_bytes(inner / "a") == "1");
  CHECK(read_bytes(inner / "seal") == "s");

  SECTION("an error before commit changes nothing") {
    const file_size_limit limit(10);
    atomic_folder out(inner, "seal");
    out.add("a", "2");
    CHECK_ERROR(out.add("seal", "more than ten bytes"), "File too large");
    CHECK(read_bytes(inner / "a") == "1");
    CHECK(read_bytes(inner / "seal") == "s");
  }
  SECTION("a rename that fails leaves no seal") {
    atomic_folder out(inner, "seal");
    out.add("seal", "s2");
    out.add("b", "2");
    std::filesystem::create_directories(inner / "b/in the way");
    CHECK_ERROR(out.commit(), (inner / "b").string(), "cannot replace");
    CHECK_FALSE(std::filesystem::exists(inner / "seal"));
  }
  SECTION("retired files go") {
    atomic_folder out(inner, "seal");
    out.add("seal", "s2");
    out.retire("old");
    out.retire("never there");
    out.commit();
    CHECK_FALSE(std::filesystem::exists(inner / "old"));
    CHECK(read_bytes(inner / "seal") == "s2");
  }
  write_bytes(folder / "file", "");
  CHECK_ERROR(atomic_folder(folder / "file", "seal"), (folder / "file").string(), "cannot create this folder");
}

}  // namespace atomic_file_tests
