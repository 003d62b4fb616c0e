// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The communicator over NCCL: one process a GPU. GRAFT_HAS_NCCL says whether it is here: the build defines it where it
// links NCCL, elsewhere it is 1 where nccl.h is found; then link with -lnccl.

#include <cstddef>
#include <exception>
#include <span>

#include <graft/backend/communicator.hpp>
#include <graft/backend/cuda/context.cuh>
#include <graft/backend/rendezvous.hpp>

#if !defined(GRAFT_HAS_NCCL) && __has_include(<nccl.h>)
#define GRAFT_HAS_NCCL 1
#endif
#if defined(GRAFT_HAS_NCCL)
#include <nccl.h>

namespace graft {

namespace detail {

inline void check_nccl(ncclResult_t status, const char* call, const char* file, int line) {
  GRAFT_CHECK(status == ncclSuccess, "NCCL: ", call, " failed with ", ncclGetErrorString(status), " (",
              ncclGetLastError(nullptr), ") at ", file, ":", line);
}
#define GRAFT_NCCL(...) ::graft::detail::check_nccl((__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)

template <class T>
constexpr ncclDataType_t nccl_data_type() {
  switch (element_code<T>()) {
    case element_code<double>():
      return ncclFloat64;
    case element_code<bfloat16>():
      return ncclBfloat16;
    case element_code<std::int32_t>():
      return ncclInt32;
    case element_code<std::int64_t>():
      return ncclInt64;
    case element_code<char>():
      return ncclInt8;
    default:
      return ncclFloat32;
  }
}

}  // namespace detail

// Requires: the device of the context that the calls are given is current when the communicator is made, and the same
// for every call. A CUDA graph may hold its calls, all ranks replay it alike; the graph must go before the communicator
// does.
// Order: on one machine with one build the sums have the same bits every time; NCCL chooses their order by the
// topology.
// Errors: a rank that is gone is no error but a wait without end, unless backend/rank_watch.hpp ends the process.
class nccl_communicator {
 public:
  // Rank 0 makes the id and hands it to the others: through share_bytes, a file or MPI.
  static ncclUniqueId make_id() {
    ncclUniqueId id;
    GRAFT_NCCL(ncclGetUniqueId(&id));
    return id;
  }
  nccl_communicator(const ncclUniqueId& id, int rank, int size) : rank_(rank), size_(size) {
    GRAFT_CHECK(0 <= rank && rank < size, "nccl_communicator: expected a rank below size=", size, ", got ", rank);
    GRAFT_NCCL(ncclCommInitRank(&handle_, size, id, rank));
  }
  // As the launcher says; the id goes over TCP. Errors: those of rendezvous.hpp too.
  explicit nccl_communicator(const launch_ranks& ranks, const rendezvous_options& options = {})
      : nccl_communicator(shared_id(ranks, options), ranks.rank, ranks.size) {}
  // One rank alone.
  nccl_communicator() : nccl_communicator(make_id(), 0, 1) {}
  nccl_communicator(const nccl_communicator&) = delete;
  nccl_communicator& operator=(const nccl_communicator&) = delete;
  // After an error the other ranks may never come to an orderly end.
  ~nccl_communicator() {
    if (std::uncaught_exceptions() > errors_)
      (void)ncclCommAbort(handle_);
    else
      (void)ncclCommDestroy(handle_);
  }

  int rank() const { return rank_; }
  int size() const { return size_; }

  template <class T>
  void all_reduce_sum(context<cuda>& ctx, const vector_view<T, device_space>& values) const {
    detail::check_exchange("all_reduce_sum", *this, values, 0);
    if (values.empty()) return;
    GRAFT_NCCL(ncclAllReduce(values.data, values.data, static_cast<std::size_t>(values.size()),
                             detail::nccl_data_type<T>(), ncclSum, handle_, ctx.stream()));
  }
  template <class T>
  void broadcast(context<cuda>& ctx, const vector_view<T, device_space>& values, int root) const {
    detail::check_exchange("broadcast", *this, values, root);
    if (values.empty()) return;
    GRAFT_NCCL(ncclBroadcast(values.data, values.data, static_cast<std::size_t>(values.size()),
                             detail::nccl_data_type<T>(), root, handle_, ctx.stream()));
  }

 private:
  static ncclUniqueId shared_id(const launch_ranks& ranks, const rendezvous_options& options) {
    ncclUniqueId id{};
    if (ranks.rank == 0) id = make_id();
    share_bytes(ranks, std::as_writable_bytes(std::span(&id, 1)), options);
    return id;
  }

  int rank_, size_;
  int errors_ = std::uncaught_exceptions();
  ncclComm_t handle_ = nullptr;
};

}  // namespace graft

#endif
