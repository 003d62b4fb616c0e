// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A domain: a name and the place where its text or tokens lie. list_domain finds the files of one and says
// what it left out.

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <graft/core/error.hpp>
#include <graft/core/host_device.hpp>
#include <graft/io/text_source.hpp>
#include <graft/io/token_file.hpp>

namespace graft {

// What the files of a domain are. automatic: token files where the first bytes say so, text otherwise; a folder that
// holds both is refused, since one of them is probably there by mistake.
enum class source_kind { automatic, text, tokens };

// What is done to a text before it is tokens. automatic: troff for manual pages (a name such as open.2 or open.2.gz,
// and the macros of a page in the first lines), none for everything else.
enum class text_filter { automatic, none, troff };

// Where a domain's data is. path is a file or a folder; a folder is searched to the bottom.
struct domain_source {
  std::string name;  // letters, digits, '-', '_' and '.': it becomes part of file names
  std::filesystem::path path;
  source_kind kind = source_kind::automatic;
  text_filter filter = text_filter::automatic;
  std::vector<std::string> folders = {};   // of a folder: only these folders in it (none named: all)
  std::vector<std::string> suffixes = {};  // of a folder: only files whose names end so (none named: all)
  // Lists of absolute paths, one a line, such as dpkg keeps for each package; only files named in one of them count.
  // The paths are taken below list_root. Lists that do not exist restrict nothing.
  std::vector<std::filesystem::path> file_lists = {};
  std::filesystem::path list_root = "/";
};

struct source_file {
  std::filesystem::path path;
  std::string relative;       // to the domain's path, '/' between folders
  index_t size = 0;           // bytes on the disk
  std::int64_t modified = 0;  // nanoseconds
  bool troff = false;
};

// The files of a domain in the order of their relative paths (as bytes), and how many were left out and why.
struct domain_listing {
  source_kind kind = source_kind::text;  // text or tokens
  std::vector<source_file> files;
  index_t found = 0;       // regular files that the source names
  index_t binaries = 0;    // not text, or of the other kind where the source says which kind to take
  index_t duplicates = 0;  // the same bytes as a file before them: copies, hard links, symbolic links
  index_t empty = 0;
  index_t dangling = 0;  // symbolic links to nothing
};

namespace detail {

inline void check_domain_name(const std::string& name) {
  GRAFT_CHECK(!name.empty() && name[0] != '.' &&
                  name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") ==
                      std::string::npos,
              "domain '", name, "': expected a name of letters, digits, '-', '_' and '.' that does not begin with '.'");
}

// Collects the regular files below a folder. Links to files and folders are followed, a folder is entered once.
class folder_walk {
 public:
  explicit folder_walk(const domain_source& source) : source_(source) {
    bool all_lists = !source.file_lists.empty();
    for (const auto& list : source.file_lists) all_lists = all_lists && std::filesystem::exists(list);
    has_lists_ = all_lists;
    for (std::size_t i = 0; has_lists_ && i < source.file_lists.size(); ++i) {
      std::ifstream lines(source.file_lists[i]);
      for (std::string line; std::getline(lines, line);)
        if (line.size() > 1 && line[0] == '/')
          listed_.insert((source.list_root / line.substr(1)).lexically_normal().string());
    }
  }

  void enter(const std::filesystem::path& folder, const std::string& relative, domain_listing& listing) {
    struct stat status {};
    GRAFT_CHECK(::stat(folder.c_str(), &status) == 0, folder.string(), ": cannot be read (", std::strerror(errno), ")");
    if (!entered_.insert({status.st_dev, status.st_ino}).second) return;
    std::error_code code;
    std::filesystem::directory_iterator entries(folder, code);
    GRAFT_CHECK(!code, folder.string(), ": cannot be read (", code.message(), ")");
    std::vector<std::string> names;
    for (const auto& entry : entries) names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    for (const std::string& name : names) {
      const std::filesystem::path path = folder / name;
      const std::string inside = relative.empty() ? name : relative + "/" + name;
      if (::stat(path.c_str(), &status) != 0) {
        GRAFT_CHECK(errno == ENOENT || errno == ELOOP, path.string(), ": cannot be read (", std::strerror(errno), ")");
        if (wanted(path, inside)) ++listing.dangling;
      } else if (S_ISDIR(status.st_mode)) {
        if (!relative.empty() || source_.folders.empty() ||
            std::find(source_.folders.begin(), source_.folders.end(), name) != source_.folders.end())
          enter(path, inside, listing);
      } else if (S_ISREG(status.st_mode) && wanted(path, inside)) {
        add(path, inside, status, listing);
      }
    }
  }

  static void add(const std::filesystem::path& path, const std::string& relative, const struct stat& status,
                  domain_listing& listing) {
    ++listing.found;
    if (status.st_size == 0) {
      ++listing.empty;
      return;
    }
    listing.files.push_back(
        {path, relative, status.st_size, status.st_mtim.tv_sec * 1'000'000'000 + status.st_mtim.tv_nsec});
  }

 private:
  bool wanted(const std::filesystem::path& path, const std::string& relative) const {
    if (!source_.folders.empty() && relative.find('/') == std::string::npos) return false;
    if (has_lists_ && !listed_.contains(path.lexically_normal().string())) return false;
    return source_.suffixes.empty() ||
           std::any_of(source_.suffixes.begin(), source_.suffixes.end(),
                       [&](const std::string& suffix) { return relative.ends_with(suffix); });
  }

  const domain_source& source_;
  std::set<std::pair<dev_t, ino_t>> entered_;
  std::set<std::string> listed_;
  bool has_lists_ = false;
};

// Whether the first bytes are those of a manual page and the name ends in a section: .1, .3pm, .2.gz.
inline bool is_manual_page(std::string_view name, std::string_view head) {
  if (name.ends_with(".gz")) name.remove_suffix(3);
  const std::size_t dot = name.rfind('.');
  if (dot == std::string_view::npos || dot + 1 >= name.size() || name[dot + 1] < '1' || name[dot + 1] > '9')
    return false;
  for (const char c : name.substr(dot + 2))
    if (c < 'a' || c > 'z') return false;
  for (const std::string_view mark : {".TH", ".Dd", ".so ", ".\\\"", "'\\\""})
    if (head.starts_with(mark) || head.find("\n" + std::string(mark)) != std::string_view::npos) return true;
  return false;
}

inline std::uint64_t file_bytes_hash(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  GRAFT_CHECK(stream, path.string(), ": cannot be opened for reading (", std::strerror(errno), ")");
  content_hash hash;
  std::vector<char> buffer(1 << 16);
  while (stream.read(buffer.data(), static_cast<std::streamsize>(buffer.size())), stream.gcount() > 0)
    hash.add({buffer.data(), static_cast<std::size_t>(stream.gcount())});
  return hash.value();
}

}  // namespace detail

// Every regular file that the source names, with size and time but unread. Cheap: what a second run compares.
// Errors: a path that is missing, or neither file nor folder; a folder without such files.
inline domain_listing walk_domain(const domain_source& source) {
  detail::check_domain_name(source.name);
  domain_listing listing;
  listing.kind = source.kind;
  const std::string place = "domain '" + source.name + "': " + source.path.string();
  struct stat status {};
  GRAFT_CHECK(::stat(source.path.c_str(), &status) == 0, place,
              ": expected a file or folder of text or tokens, found nothing (", std::strerror(errno), ")");
  GRAFT_CHECK(S_ISREG(status.st_mode) || S_ISDIR(status.st_mode), place,
              ": expected a file or folder, found something else");
  if (S_ISREG(status.st_mode)) {
    detail::folder_walk::add(source.path, source.path.filename().string(), status, listing);
    GRAFT_CHECK(listing.empty == 0, place, ": expected text or tokens, found an empty file");
    return listing;
  }
  detail::folder_walk(source).enter(source.path, {}, listing);
  std::string wanted;
  for (const std::string& suffix : source.suffixes) wanted += (wanted.empty() ? " named *" : ", *") + suffix;
  std::string inside;
  for (const std::string& folder : source.folders) inside += (inside.empty() ? " in " : ", ") + folder;
  GRAFT_CHECK(listing.found > 0, place, ": expected files of text or tokens", wanted, inside,
              ", found a folder without any");
  GRAFT_CHECK(!listing.files.empty(), place, ": expected files of text or tokens", wanted, inside, ", found ",
              listing.found, " empty files");
  std::sort(listing.files.begin(), listing.files.end(),
            [](const auto& a, const auto& b) { return a.relative < b.relative; });
  return listing;
}

// walk_domain, then reads the first bytes of each file to tell text, tokens and binaries apart, and leaves out
// duplicates. Errors: those of walk_domain; no file of the kind wanted; text and token files together where the kind is
// automatic.
inline domain_listing list_domain(const domain_source& source) {
  domain_listing listing = walk_domain(source);
  const std::string place = "domain '" + source.name + "': " + source.path.string();
  std::vector<source_file> text, tokens;
  std::string head;
  for (source_file& file : listing.files) {
    head.resize(text_probe_bytes);
    head.resize(text_reader(file.path).read(head.data(), head.size()));
    if (head.empty()) {
      ++listing.empty;
    } else if (is_token_file(head)) {
      tokens.push_back(std::move(file));
    } else if (looks_like_text(head)) {
      file.troff = source.filter == text_filter::troff || (source.filter == text_filter::automatic &&
                                                           detail::is_manual_page(file.path.filename().string(), head));
      text.push_back(std::move(file));
    } else {
      ++listing.binaries;
    }
  }
  GRAFT_CHECK(source.kind != source_kind::automatic || text.empty() || tokens.empty(), place,
              ": expected text or token files, found both (", text.size(), " and ", tokens.size(),
              "), say which kind to take");
  const bool takes_tokens =
      source.kind == source_kind::tokens || (source.kind == source_kind::automatic && !tokens.empty());
  listing.kind = takes_tokens ? source_kind::tokens : source_kind::text;
  listing.files = std::move(takes_tokens ? tokens : text);
  const auto others = static_cast<index_t>((takes_tokens ? text : tokens).size());
  GRAFT_CHECK(!listing.files.empty(), place, ": expected ", takes_tokens ? "token files (.bin, .npy)" : "text",
              ", found ", listing.binaries, listing.binaries == 1 ? " binary file, " : " binary files, ", others,
              takes_tokens ? " text files and " : " token files and ", listing.empty, " empty files");
  listing.binaries += others;

  std::map<index_t, index_t> same_size;
  for (const source_file& file : listing.files) ++same_size[file.size];
  std::set<std::pair<index_t, std::uint64_t>> seen;
  std::erase_if(listing.files, [&](const source_file& file) {
    if (same_size[file.size] == 1 || seen.insert({file.size, detail::file_bytes_hash(file.path)}).second) return false;
    ++listing.duplicates;
    return true;
  });
  return listing;
}

}  // namespace graft
