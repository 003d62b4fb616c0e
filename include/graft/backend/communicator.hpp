// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Communicators: how the processes (ranks) of one run exchange tensors. A single process is the simplest model.

#include <concepts>

#include <graft/backend/backend.hpp>
#include <graft/core/error.hpp>

namespace graft {

template <class C>
concept HasRank = requires(const C& communicator) {
  { communicator.rank() } -> std::same_as<int>;  // in [0, size())
  { communicator.size() } -> std::same_as<int>;
};

template <class C, class Ctx, class T>
concept SumsOverRanks = requires(C& communicator, Ctx& ctx, const vector_view<T, typename Ctx::space>& values) {
  communicator.all_reduce_sum(ctx, values);
};

template <class C, class Ctx, class T>
concept Broadcasts = requires(C& communicator, Ctx& ctx, const vector_view<T, typename Ctx::space>& values) {
  communicator.broadcast(ctx, values, 0);
};

// Concept Communicator<C, Ctx>: exchanges contiguous vectors in the memory of the context Ctx.
//
//   rank(), size()                    this process and how many there are
//   all_reduce_sum(ctx, values)       values[i] = sum over ranks of values[i], the same bits on every rank
//   broadcast(ctx, values, root)      values = those of rank root
//
// Every rank makes the same calls in the same order with vectors of the same size. Calls are queued in the order of the
// context's other work; nothing waits for the host.
// Models: self_communicator (below), nccl_communicator (backend/cuda/communicator.cuh).
// Laws: with one rank both leave the values as they are, bit for bit.
template <class C, class Ctx>
concept Communicator =
    HasRank<C> && SumsOverRanks<C, Ctx, float> && SumsOverRanks<C, Ctx, double> && Broadcasts<C, Ctx, float>;

namespace detail {

template <HasRank C, class View>
void check_exchange(const char* where, const C& communicator, const View& values, int root) {
  GRAFT_CHECK(values.contiguous(), where, ": expected a contiguous vector, got stride=", values.strides[0]);
  GRAFT_CHECK(0 <= root && root < communicator.size(), where, ": expected a root below size=", communicator.size(),
              ", got ", root);
}

}  // namespace detail

// One process alone: there is nobody to exchange with.
struct self_communicator {
  int rank() const { return 0; }
  int size() const { return 1; }
  template <class Ctx, class T>
  void all_reduce_sum(Ctx&, const vector_view<T, typename Ctx::space>& values) const {
    detail::check_exchange("all_reduce_sum", *this, values, 0);
  }
  template <class Ctx, class T>
  void broadcast(Ctx&, const vector_view<T, typename Ctx::space>& values, int root) const {
    detail::check_exchange("broadcast", *this, values, root);
  }
};

}  // namespace graft
