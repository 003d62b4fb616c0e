// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// How the ranks of a run find each other: all connect to rank 0 over TCP. share_bytes hands one block from rank 0 to
// the others; socket_communicator keeps the connections.

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <graft/backend/ranks.hpp>
#include <graft/backend/tcp.hpp>
#include <graft/core/hash.hpp>

namespace graft {

struct rendezvous_options {
  double seconds = 300;   // in which every rank must come
  std::uint64_t run = 0;  // a hash of what the ranks must have in common, such as their options
};

namespace detail {

// What a rank says first, and what rank 0 answers. A refusal is followed by its sentence.
struct rank_hello {
  std::uint64_t magic;
  std::int32_t rank, size;
  std::uint64_t run;
};
struct rank_answer {
  std::uint64_t magic;
  std::uint64_t refusal;  // length of the sentence; 0: welcome
};
inline constexpr std::uint64_t rank_magic = fnv1a("graft ranks 1");

// The connections of a rank. Rank 0 has one to every other, by rank; the others have one to rank 0, by the number 0.
//
// Rank 0 listens at (address, port); the others try again until it does. Rank 0 refuses, with a sentence for the other
// side, a rank of another run (size or hash) and one that is there already; it leaves out whoever does not speak as a
// rank does. Order: links are open when the constructor returns on every rank.
// Errors: ranks that do not come in time, a refusal, a port that is taken, a stranger at the port of rank 0.
class rank_links {
 public:
  rank_links(const launch_ranks& ranks, const rendezvous_options& options)
      : run_(options.run), end_(seconds_from_now(options.seconds)) {
    GRAFT_CHECK(0 <= ranks.rank && ranks.rank < ranks.size, "rendezvous: expected a rank below size=", ranks.size,
                ", got ", ranks.rank);
    GRAFT_CHECK(ranks.size == 1 || !ranks.address.empty(), "rendezvous: expected the address of rank 0 for ",
                ranks.size, " ranks, got none");
    if (ranks.size == 1) return;
    if (ranks.rank == 0)
      welcome(ranks, options.seconds);
    else
      join(ranks, options.seconds);
  }

  std::vector<tcp_socket> take() && { return std::move(links_); }

 private:
  void welcome(const launch_ranks& ranks, double seconds) {
    const tcp_socket server = tcp_listen(ranks.address, ranks.port);
    links_.resize(static_cast<std::size_t>(ranks.size));
    std::string refused;
    for (int missing = ranks.size - 1; missing > 0;) {
      tcp_socket link = tcp_accept(server, end_);
      GRAFT_CHECK(link.open(), "rendezvous: expected ", ranks.size, " ranks at port ", ranks.port, " within ", seconds,
                  " s, got ", ranks.size - missing, ", without rank ", first_missing(),
                  refused.empty() ? "" : "; refused: ", refused);
      rank_hello hello{};
      // Who says nothing must not keep the others waiting. A rank that is cut off so comes again.
      if (link.receive(&hello, sizeof hello, std::min(end_, seconds_from_now(5))) != transfer::complete ||
          hello.magic != rank_magic)
        continue;
      const std::string sentence = refusal(ranks, hello);
      if (!sentence.empty()) {
        refused = sentence;
        const rank_answer answer{rank_magic, sentence.size()};
        (void)link.send(&answer, sizeof answer, seconds_from_now(5));
        (void)link.send(sentence.data(), sentence.size(), seconds_from_now(5));
        continue;
      }
      links_[static_cast<std::size_t>(hello.rank)] = std::move(link);
      --missing;
    }
    const rank_answer answer{rank_magic, 0};
    for (std::size_t rank = 1; rank < links_.size(); ++rank)
      GRAFT_CHECK(links_[rank].send(&answer, sizeof answer, end_) == transfer::complete, "rendezvous: rank ", rank,
                  " is gone, its connection is closed");
  }
  std::size_t first_missing() const {
    std::size_t rank = 1;
    while (rank < links_.size() && links_[rank].open()) ++rank;
    return rank;
  }
  std::string refusal(const launch_ranks& ranks, const rank_hello& hello) const {
    const std::string who = "rendezvous: rank " + std::to_string(hello.rank);
    if (hello.size != ranks.size)
      return who + ": rank 0 has size=" + std::to_string(ranks.size) + ", this rank size=" + std::to_string(hello.size);
    if (hello.run != run_)
      return who +
             ": rank 0 runs another command; every rank needs the same, and GRAFT_MASTER_PORT keeps two runs apart";
    if (hello.rank <= 0 || hello.rank >= ranks.size || links_[static_cast<std::size_t>(hello.rank)].open())
      return who + " is there already";
    return {};
  }

  void join(const launch_ranks& ranks, double seconds) {
    const std::string place = ranks.address + ":" + std::to_string(ranks.port);
    const rank_hello hello{rank_magic, ranks.rank, ranks.size, run_};
    std::string problem = "nothing";
    for (auto pause = std::chrono::milliseconds(20); network_clock::now() < end_;
         pause = std::min(pause * 2, std::chrono::milliseconds(500))) {
      tcp_socket link = tcp_connect(ranks.address, ranks.port, end_, problem);
      rank_answer answer{};
      transfer got = transfer::closed;
      if (link.open()) {
        problem = "no answer";
        if (link.send(&hello, sizeof hello, end_) == transfer::complete)
          got = link.receive(&answer, sizeof answer, end_);
      }
      if (got == transfer::complete) {
        GRAFT_CHECK(answer.magic == rank_magic, "rendezvous: expected rank 0 at ", place,
                    ", got something else that answers there; GRAFT_MASTER_PORT names another port");
        if (answer.refusal == 0) {
          links_.push_back(std::move(link));
          return;
        }
        std::string sentence(std::min<std::size_t>(answer.refusal, 1000), ' ');
        GRAFT_CHECK(link.receive(sentence.data(), sentence.size(), end_) == transfer::complete,
                    "rendezvous: rank 0 at ", place, " refused rank ", ranks.rank);
        throw error(sentence);
      }
      std::this_thread::sleep_for(std::min<network_clock::duration>(pause, end_ - network_clock::now()));
    }
    raise("rendezvous: rank ", ranks.rank, " expected rank 0 at ", place, " within ", seconds, " s, got: ", problem);
  }

  std::uint64_t run_;
  network_clock::time_point end_;
  std::vector<tcp_socket> links_;
};

}  // namespace detail

// Rank 0's bytes to all ranks, such as the id of an NCCL communicator. Every rank gives a block of the same size.
// Errors: those of the meeting (rank_links), a rank that is gone.
inline void share_bytes(const launch_ranks& ranks, std::span<std::byte> block, rendezvous_options options = {}) {
  const auto size = static_cast<std::uint64_t>(block.size());
  options.run = fnv1a({reinterpret_cast<const char*>(&size), sizeof size}, options.run ^ fnv1a_start);
  const auto end = detail::seconds_from_now(options.seconds);
  const std::vector<detail::tcp_socket> links = detail::rank_links(ranks, options).take();
  for (std::size_t rank = 0; rank < links.size(); ++rank) {
    if (!links[rank].open()) continue;  // rank 0 itself
    const detail::transfer status = ranks.rank == 0 ? links[rank].send(block.data(), block.size(), end)
                                                    : links[rank].receive(block.data(), block.size(), end);
    GRAFT_CHECK(status == detail::transfer::complete, "rendezvous: rank ", rank, " is gone, its connection is ",
                status == detail::transfer::late ? "silent" : "closed");
  }
}

}  // namespace graft
