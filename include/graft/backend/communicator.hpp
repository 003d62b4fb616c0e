// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Communicators: how the processes (ranks) of one run exchange tensors. A single process is the simplest model.

#include <concepts>
#include <cstdint>
#include <string>
#include <type_traits>

#include <graft/backend/backend.hpp>
#include <graft/core/dtype.hpp>
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

template <class C, class Ctx, class T>
concept Exchanges = SumsOverRanks<C, Ctx, T> && Broadcasts<C, Ctx, T>;

// Concept Communicator<C, Ctx>: exchanges contiguous vectors in the memory of the context Ctx, of float, double,
// bfloat16, int32 and int64.
//
//   rank(), size()                    this process and how many there are
//   all_reduce_sum(ctx, values)       values[i] = sum over ranks of values[i], the same bits on every rank
//   broadcast(ctx, values, root)      values = those of rank root
//
// Every rank makes the same calls in the same order with vectors of the same type and size. Calls are queued in the
// order of the context's other work; on a device nothing waits for the host. Sums of bfloat16 are rounded once.
// Models: self_communicator (below), thread_communicator, socket_communicator, nccl_communicator
// (backend/cuda/communicator.cuh).
// Laws (tests/laws/communicator_laws.hpp): one rank's values stay as they are, bit for bit; the sum is that of all
// ranks and has the same bits on all of them and in a second run; a rank that is gone is an error of the others, not a
// wait without end (nccl_communicator needs backend/rank_watch.hpp for it).
template <class C, class Ctx>
concept Communicator = HasRank<C> && Exchanges<C, Ctx, float> && Exchanges<C, Ctx, double> &&
    Exchanges<C, Ctx, bfloat16> && Exchanges<C, Ctx, std::int32_t> && Exchanges<C, Ctx, std::int64_t>;

namespace detail {

template <HasRank C, class View>
void check_exchange(const char* where, const C& communicator, const View& values, int root) {
  GRAFT_CHECK(values.contiguous(), where, ": expected a contiguous vector, got stride=", values.strides[0]);
  GRAFT_CHECK(0 <= root && root < communicator.size(), where, ": expected a root below size=", communicator.size(),
              ", got ", root);
}

// What one call of a communicator exchanges. The ranks compare theirs, where they can.
struct exchange_call {
  enum operation_type : std::uint32_t { none, sum, broadcast_values, meet };
  std::uint32_t operation = none;
  std::uint32_t element = 0;  // element_code
  std::uint64_t root = 0;
  std::uint64_t count = 0;

  friend bool operator==(const exchange_call&, const exchange_call&) = default;
};

template <class T>
constexpr std::uint32_t element_code() {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, bfloat16> ||
                    std::is_same_v<T, std::int32_t> || std::is_same_v<T, std::int64_t> || std::is_same_v<T, char>,
                "graft::communicator: the element type is not one that ranks exchange. Use float, double, bfloat16, "
                "int32 or int64.");
  if (std::is_same_v<T, float>) return 0;
  if (std::is_same_v<T, double>) return 1;
  if (std::is_same_v<T, bfloat16>) return 2;
  if (std::is_same_v<T, std::int32_t>) return 3;
  if (std::is_same_v<T, std::int64_t>) return 4;
  return 5;
}

// "all_reduce_sum of 12 float"
inline std::string name_of(const exchange_call& call) {
  static constexpr const char* operations[] = {"nothing", "all_reduce_sum", "broadcast", "barrier"};
  static constexpr const char* elements[] = {"float", "double", "bfloat16", "int32", "int64", "bytes"};
  if (call.operation > exchange_call::meet || call.element > 5) return "an unknown call";
  std::string text = operations[call.operation];
  if (call.operation == exchange_call::meet || call.operation == exchange_call::none) return text;
  text += " of " + std::to_string(call.count) + ' ' + elements[call.element];
  if (call.operation == exchange_call::broadcast_values) text += " from rank " + std::to_string(call.root);
  return text;
}

// The type in which ranks' values are summed.
template <class T>
struct rank_sum {
  using type = accumulator_t<T>;
};
template <std::integral T>
struct rank_sum<T> {
  using type = T;
};

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
