// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The communicator over NCCL: one process a GPU. GRAFT_HAS_NCCL says whether it is here: the build defines it where it
// links NCCL, elsewhere it is 1 where nccl.h is found; then link with -lnccl.

#include <cstdint>
#include <type_traits>

#include <graft/backend/communicator.hpp>
#include <graft/backend/cuda/context.cuh>
#include <graft/core/dtype.hpp>

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
  static_assert(
      std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, bfloat16> ||
          std::is_same_v<T, std::int32_t> || std::is_same_v<T, std::int64_t>,
      "graft::nccl_communicator: the element type is not one NCCL knows. Use float, double, bfloat16, int32 or int64.");
  if (std::is_same_v<T, double>) return ncclFloat64;
  if (std::is_same_v<T, bfloat16>) return ncclBfloat16;
  if (std::is_same_v<T, std::int32_t>) return ncclInt32;
  if (std::is_same_v<T, std::int64_t>) return ncclInt64;
  return ncclFloat32;
}

}  // namespace detail

// Requires: the device of the context that the calls are given is current when the communicator is made.
// Order: on one machine with one build the sums have the same bits every time; NCCL chooses their order by the
// topology.
class nccl_communicator {
 public:
  // Rank 0 makes the id and hands it to the others: through a file, a socket or MPI.
  static ncclUniqueId make_id() {
    ncclUniqueId id;
    GRAFT_NCCL(ncclGetUniqueId(&id));
    return id;
  }
  nccl_communicator(const ncclUniqueId& id, int rank, int size) : rank_(rank), size_(size) {
    GRAFT_CHECK(0 <= rank && rank < size, "nccl_communicator: expected a rank below size=", size, ", got ", rank);
    GRAFT_NCCL(ncclCommInitRank(&handle_, size, id, rank));
  }
  // One rank alone.
  nccl_communicator() : nccl_communicator(make_id(), 0, 1) {}
  nccl_communicator(const nccl_communicator&) = delete;
  nccl_communicator& operator=(const nccl_communicator&) = delete;
  ~nccl_communicator() { (void)ncclCommDestroy(handle_); }

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
  int rank_, size_;
  ncclComm_t handle_ = nullptr;
};

}  // namespace graft

#endif
