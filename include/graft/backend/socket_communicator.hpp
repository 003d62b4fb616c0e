// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Ranks as processes that exchange over TCP: data-parallel training on CPUs, and what the ranks of a program agree on.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <graft/backend/communicator.hpp>
#include <graft/backend/rendezvous.hpp>

namespace graft {

// All ranks send to rank 0, which sums in the order of the ranks and sends back.
//
// Order: ((rank 0 + rank 1) + rank 2) + ..., each element by itself: the bits of thread_communicator, every time.
// Cost: rank 0 receives and sends (size - 1) times the values; 1 MiB of workspace. A rank waits for the others as long
// as they live: a process that ends is noticed at once, a machine that is switched off after some minutes.
// Errors: a rank that is gone, with its number, on every rank; ranks that make different calls. After an error every
// call is one.
class socket_communicator {
 public:
  // Alone.
  socket_communicator() = default;
  // Meets the other ranks. Errors: see rendezvous.hpp.
  explicit socket_communicator(const launch_ranks& ranks, const rendezvous_options& options = {})
      : rank_(ranks.rank), size_(ranks.size), links_(detail::rank_links(ranks, options).take()) {}

  int rank() const { return rank_; }
  int size() const { return size_; }

  template <class Ctx, class T>
  void all_reduce_sum(Ctx&, const vector_view<T, typename Ctx::space>& values) const {
    check_space<Ctx>();
    detail::check_exchange("all_reduce_sum", *this, values, 0);
    if (size_ == 1) return;
    const auto count = static_cast<std::size_t>(values.size());
    begin({detail::exchange_call::sum, detail::element_code<T>(), 0, count});
    constexpr std::size_t piece = piece_bytes / sizeof(T);
    std::vector<T> received(rank_ == 0 ? std::min(count, piece) : 0);
    std::vector<typename detail::rank_sum<T>::type> total(received.size());
    for (std::size_t first = 0; first < count; first += piece) {
      const std::size_t n = std::min(piece, count - first);
      T* const own = values.data + first;
      if (rank_ != 0) {
        send(0, own, n * sizeof(T));
        receive_answer(own, n * sizeof(T));
        continue;
      }
      for (std::size_t i = 0; i < n; ++i) total[i] = own[i];
      for (int rank = 1; rank < size_; ++rank) {
        receive(rank, received.data(), n * sizeof(T));
        for (std::size_t i = 0; i < n; ++i) total[i] += received[i];
      }
      for (std::size_t i = 0; i < n; ++i) own[i] = static_cast<T>(total[i]);
      send_answers(own, n * sizeof(T), 0);
    }
  }

  template <class Ctx, class T>
  void broadcast(Ctx&, const vector_view<T, typename Ctx::space>& values, int root) const {
    check_space<Ctx>();
    detail::check_exchange("broadcast", *this, values, root);
    const auto count = static_cast<std::size_t>(values.size());
    share(
        values.data, count * sizeof(T),
        {detail::exchange_call::broadcast_values, detail::element_code<T>(), static_cast<std::uint64_t>(root), count});
  }

  // Any bytes of rank 0 to all ranks.
  void broadcast_bytes(std::span<std::byte> bytes) const {
    share(bytes.data(), bytes.size(),
          {detail::exchange_call::broadcast_values, detail::element_code<char>(), 0, bytes.size()});
  }
  // Until every rank is here.
  void barrier() const {
    if (size_ == 1) return;
    begin({detail::exchange_call::meet, 0, 0, 0});
    if (rank_ == 0)
      send_answers(nullptr, 0, 0);
    else
      receive_answer(nullptr, 0);
  }

  // The connections: the number of a rank and its socket. For backend/rank_watch.hpp.
  std::vector<std::pair<int, int>> connections() const {
    std::vector<std::pair<int, int>> all;
    for (std::size_t rank = 0; rank < links_.size(); ++rank)
      if (links_[rank].open()) all.emplace_back(static_cast<int>(rank), links_[rank].handle());
    return all;
  }

 private:
  static constexpr std::size_t piece_bytes = std::size_t{1} << 20;
  static constexpr detail::network_clock::time_point for_ever = detail::network_clock::time_point::max();

  template <class Ctx>
  static void check_space() {
    static_assert(std::is_same_v<typename Ctx::space, host_space>,
                  "graft::socket_communicator: the values are not in host memory. Use nccl_communicator.");
  }
  const detail::tcp_socket& link(int rank) const { return links_[static_cast<std::size_t>(rank)]; }

  // Every rank tells rank 0 what it calls.
  void begin(const detail::exchange_call& call) const {
    GRAFT_CHECK(!links_.empty(), "socket_communicator: expected ranks that are connected, got a call after an error");
    if (rank_ != 0) return send(0, &call, sizeof call);
    for (int rank = 1; rank < size_; ++rank) {
      detail::exchange_call other;
      receive(rank, &other, sizeof other);
      if (other != call)
        fail("expected the same call of every rank, got " + name_of(call) + " of rank 0 and " + name_of(other) +
             " of rank " + std::to_string(rank));
    }
  }

  void share(void* values, std::size_t bytes, const detail::exchange_call& call) const {
    if (size_ == 1) return;
    begin(call);
    const int root = static_cast<int>(call.root);
    if (root != 0 && rank_ == 0) send_answer(root, nullptr, 0);  // the calls agree
    if (root != 0 && rank_ == root) receive_answer(nullptr, 0);
    for (std::size_t first = 0; first < bytes; first += piece_bytes) {
      char* const at = static_cast<char*>(values) + first;
      const std::size_t n = std::min(piece_bytes, bytes - first);
      if (rank_ == 0) {
        if (root != 0) receive(root, at, n);
        send_answers(at, n, root);
      } else if (rank_ == root) {
        send(0, at, n);
      } else {
        receive_answer(at, n);
      }
    }
  }

  // An answer of rank 0 is a length and a sentence, then what was asked for; the length is 0 while all is well.
  void send_answers(const void* bytes, std::size_t count, int except) const {
    for (int rank = 1; rank < size_; ++rank)
      if (rank != except) send_answer(rank, bytes, count);
  }
  void send_answer(int rank, const void* bytes, std::size_t count) const {
    const std::uint64_t well = 0;
    send(rank, &well, sizeof well);
    send(rank, bytes, count);
  }
  void receive_answer(void* bytes, std::size_t count) const {
    std::uint64_t length = 0;
    receive(0, &length, sizeof length);
    if (length != 0) fail(sentence(length));
    receive(0, bytes, count);
  }
  std::string sentence(std::uint64_t length) const {
    std::string text(std::min<std::size_t>(length, 1000), ' ');
    const bool whole =
        link(0).receive(text.data(), text.size(), detail::seconds_from_now(5)) == detail::transfer::complete;
    return whole ? text : "rank 0 is gone";
  }

  void send(int rank, const void* bytes, std::size_t count) const {
    if (link(rank).send(bytes, count, for_ever) == detail::transfer::complete) return;
    // Rank 0 may have said why before it closed.
    std::uint64_t length = 0;
    if (rank_ != 0 &&
        link(0).receive(&length, sizeof length, detail::seconds_from_now(1)) == detail::transfer::complete &&
        length != 0)
      fail(sentence(length));
    lost(rank);
  }
  void receive(int rank, void* bytes, std::size_t count) const {
    if (link(rank).receive(bytes, count, for_ever) != detail::transfer::complete) lost(rank);
  }
  [[noreturn]] void lost(int rank) const {
    fail("rank " + std::to_string(rank) + " is gone, its connection is closed");
  }

  // Rank 0 tells the others; all connections are closed.
  [[noreturn]] void fail(const std::string& problem) const {
    if (rank_ == 0) {
      const std::uint64_t length = problem.size();
      const auto end = detail::seconds_from_now(5);
      for (const detail::tcp_socket& other : links_)
        if (other.open() && other.send(&length, sizeof length, end) == detail::transfer::complete)
          (void)other.send(problem.data(), problem.size(), end);
    }
    links_.clear();
    detail::raise("socket_communicator: ", problem);
  }

  int rank_ = 0, size_ = 1;
  mutable std::vector<detail::tcp_socket> links_;  // of rank 0 by rank, of the others rank 0 alone; none after an error
};

}  // namespace graft
