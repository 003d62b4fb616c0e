// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Programs that torchrun, mpirun or srun start several times: every process is a rank of one run. Rank 0 writes files
// and prints; all train together. The folders of a run must be the same for all ranks.

#include <cstddef>
#include <cstdint>
#include <iostream>
#include <memory>
#include <span>
#include <streambuf>
#include <string>
#include <type_traits>
#include <utility>

#include <graft/backend/socket_communicator.hpp>

namespace examples {

// How the ranks sum over a backend's memory: the type of a communicator that can be made of a rank_world.
template <class Backend>
struct rank_exchange;
template <>
struct rank_exchange<graft::cpu> {
  using type = graft::socket_communicator;
};

// The ranks of this process's run, one for the whole program.
class rank_world {
 public:
  // One rank alone.
  rank_world() = default;
  // As the launcher says. program: how messages call it; run: a hash of what all ranks must have in common. Meets the
  // others, and from then on keeps this process silent unless it is rank 0.
  rank_world(const graft::launch_ranks& launch, std::string program, std::uint64_t run)
      : launch_(launch), program_(std::move(program)), host_(launch, {.run = run}), before_(current_) {
    current_ = this;
    if (launch.rank == 0) return;
    out_ = std::cout.rdbuf(nullptr);
    err_ = std::cerr.rdbuf(nullptr);
  }
  rank_world(const rank_world&) = delete;
  rank_world& operator=(const rank_world&) = delete;
  ~rank_world() {
    if (current_ == this) current_ = before_;
    if (out_ != nullptr) std::cout.rdbuf(out_);
    if (err_ != nullptr) std::cerr.rdbuf(err_);
  }

  // That of this program; one rank alone where a program made none.
  static rank_world& current() {
    static rank_world alone;
    return current_ == nullptr ? alone : *current_;
  }

  const graft::launch_ranks& launch() const { return launch_; }
  const std::string& program() const { return program_; }
  int rank() const { return launch_.rank; }
  int size() const { return launch_.size; }
  bool leads() const { return rank() == 0; }
  // The exchange between the ranks' memories on the host.
  const graft::socket_communicator& host() const { return host_; }
  void barrier() const { host_.barrier(); }

  // The same value for all: that of rank 0. Requires: trivially copyable.
  template <class T>
  T shared(T value) const {
    static_assert(std::is_trivially_copyable_v<T>);
    host_.broadcast_bytes(std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  // What one rank writes and the others then find: rank 0 does `work` before the others do.
  template <class Work>
  auto in_turn(const Work& work) const {
    if (!leads()) barrier();
    if constexpr (std::is_void_v<decltype(work())>) {
      work();
      if (leads()) barrier();
    } else {
      auto result = work();
      if (leads()) barrier();
      return result;
    }
  }

  // The communicator for a backend, made at first use.
  template <class Backend>
  const typename rank_exchange<Backend>::type& exchange() {
    using type = typename rank_exchange<Backend>::type;
    if constexpr (std::is_same_v<type, graft::socket_communicator>) {
      return host_;
    } else {
      if (!device_) device_ = std::make_shared<type>(*this);
      return *static_cast<const type*>(device_.get());
    }
  }

  // Where the work of all ranks ends: waits for all, and returns whether this is the one that goes on alone.
  bool go_on_alone() {
    if (!together_) return leads();
    together_ = false;
    device_.reset();  // its watch ends on every rank before any connection closes
    barrier();
    return leads();
  }

 private:
  inline static rank_world* current_ = nullptr;

  graft::launch_ranks launch_;
  std::string program_;
  graft::socket_communicator host_;
  std::shared_ptr<void> device_;
  rank_world* before_ = nullptr;
  bool together_ = true;
  std::streambuf *out_ = nullptr, *err_ = nullptr;
};

}  // namespace examples
