// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The ranks of a program on CUDA devices: NCCL between several of them, nothing for one.

#include <cstdio>
#include <cstdlib>
#include <memory>

#include <graft/backend/cuda/communicator.cuh>
#include <graft/backend/rank_watch.hpp>

#include "common/ranks.hpp"

namespace examples {

// Requires: made where the device of this rank is current.
class cuda_ranks {
 public:
  explicit cuda_ranks(const rank_world& world) : rank_(world.rank()), size_(world.size()) {
    if (size_ == 1) return;
#if defined(GRAFT_HAS_NCCL)
    nccl_ = std::make_unique<graft::nccl_communicator>(
        world.shared(world.leads() ? graft::nccl_communicator::make_id() : ncclUniqueId{}), rank_, size_);
    // A device waits for a rank that is gone without end, and the host for the device.
    watch_ = std::make_unique<graft::rank_watch>(
        world.host().connections(), [name = world.program(), rank = rank_](const std::string& problem) {
          std::fprintf(stderr, "%s: rank %d: %s\n", name.c_str(), rank, problem.c_str());
          std::_Exit(1);
        });
#else
    graft::detail::raise("--device cuda: expected one rank, got ", size_, ": this program was built without NCCL");
#endif
  }

  int rank() const { return rank_; }
  int size() const { return size_; }
  template <class T>
  void all_reduce_sum(graft::context<graft::cuda>& context,
                      const graft::vector_view<T, graft::device_space>& values) const {
    graft::detail::check_exchange("all_reduce_sum", *this, values, 0);
#if defined(GRAFT_HAS_NCCL)
    if (nccl_) nccl_->all_reduce_sum(context, values);
#else
    (void)context;
#endif
  }
  template <class T>
  void broadcast(graft::context<graft::cuda>& context, const graft::vector_view<T, graft::device_space>& values,
                 int root) const {
    graft::detail::check_exchange("broadcast", *this, values, root);
#if defined(GRAFT_HAS_NCCL)
    if (nccl_) nccl_->broadcast(context, values, root);
#else
    (void)context;
#endif
  }

 private:
  int rank_, size_;
#if defined(GRAFT_HAS_NCCL)
  std::unique_ptr<graft::nccl_communicator> nccl_;
#endif
  std::unique_ptr<graft::rank_watch> watch_;  // ends first
};

template <>
struct rank_exchange<graft::cuda> {
  using type = cuda_ranks;
};

}  // namespace examples
