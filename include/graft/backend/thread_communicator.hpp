// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Ranks as threads of one process, for the CPU: data-parallel code without a second process.
//
//   thread_group group(2);
//   std::thread other([&] { thread_communicator rank(group, 1); train(rank); });
//   thread_communicator rank(group, 0);
//   train(rank);

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <type_traits>
#include <vector>

#include <graft/backend/communicator.hpp>

namespace graft {

// What the ranks share. Outlives their communicators.
class thread_group {
 public:
  explicit thread_group(int size) : offers_(checked(size)), present_(offers_.size()) {}
  thread_group(const thread_group&) = delete;
  thread_group& operator=(const thread_group&) = delete;
  int size() const { return static_cast<int>(offers_.size()); }

 private:
  friend class thread_communicator;
  struct offer {
    void* values = nullptr;
    detail::exchange_call call;
  };

  static std::size_t checked(int size) {
    GRAFT_CHECK(size >= 1, "thread_group: expected at least one rank, got ", size);
    return static_cast<std::size_t>(size);
  }
  void enter(int rank) {
    const std::lock_guard lock(mutex_);
    GRAFT_CHECK(0 <= rank && rank < size(), "thread_communicator: expected a rank below size=", size(), ", got ", rank);
    GRAFT_CHECK(!present_[static_cast<std::size_t>(rank)], "thread_communicator: rank ", rank, " is there already");
    present_[static_cast<std::size_t>(rank)] = true;
  }
  void leave(int rank) {
    const std::lock_guard lock(mutex_);
    if (gone_ < 0) gone_ = rank;
    changed_.notify_all();
  }
  // Until all ranks are here. Errors: a rank that is gone, and will not come.
  void meet() {
    std::unique_lock lock(mutex_);
    check_present();
    const auto meeting = meeting_;
    if (++arrived_ == size()) {
      arrived_ = 0;
      ++meeting_;
      changed_.notify_all();
      return;
    }
    changed_.wait(lock, [&] { return meeting_ != meeting || gone_ >= 0; });
    if (meeting_ == meeting) check_present();
  }
  void check_present() const {
    GRAFT_CHECK(gone_ < 0, "thread_communicator: rank ", gone_, " is gone, its thread has ended");
  }

  std::vector<offer> offers_;
  std::vector<bool> present_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int arrived_ = 0, gone_ = -1;
  std::size_t meeting_ = 0;
};

// One rank, used by one thread. A rank that ends, by its end of scope or by an error, ends the waiting of the others.
// Order: ((rank 0 + rank 1) + rank 2) + ..., each element by itself; the same bits every time.
// Cost: each rank reads and writes its share of all ranks' values; two meetings.
class thread_communicator {
 public:
  thread_communicator(thread_group& group, int rank) : group_(&group), rank_(rank) { group.enter(rank); }
  thread_communicator(const thread_communicator&) = delete;
  thread_communicator& operator=(const thread_communicator&) = delete;
  ~thread_communicator() { group_->leave(rank_); }

  int rank() const { return rank_; }
  int size() const { return group_->size(); }

  template <class Ctx, class T>
  void all_reduce_sum(Ctx&, const vector_view<T, typename Ctx::space>& values) const {
    detail::check_exchange("all_reduce_sum", *this, values, 0);
    exchange<Ctx>(values, {detail::exchange_call::sum, detail::element_code<T>(), 0, count_of(values)}, [&] {
      // This rank's share of the elements, at every rank: no other touches it.
      const index_t n = values.extent(0), first = n * rank_ / size(), last = n * (rank_ + 1) / size();
      for (index_t i = first; i < last; ++i) {
        typename detail::rank_sum<T>::type total = at<T>(0)[i];
        for (int rank = 1; rank < size(); ++rank) total += at<T>(rank)[i];
        for (int rank = 0; rank < size(); ++rank) at<T>(rank)[i] = static_cast<T>(total);
      }
    });
  }
  template <class Ctx, class T>
  void broadcast(Ctx&, const vector_view<T, typename Ctx::space>& values, int root) const {
    detail::check_exchange("broadcast", *this, values, root);
    exchange<Ctx>(values,
                  {detail::exchange_call::broadcast_values, detail::element_code<T>(), static_cast<std::uint64_t>(root),
                   count_of(values)},
                  [&] {
                    if (rank_ != root) std::copy_n(at<T>(root), values.extent(0), values.data);
                  });
  }

 private:
  template <class View>
  static std::uint64_t count_of(const View& values) {
    return static_cast<std::uint64_t>(values.size());
  }
  template <class T>
  T* at(int rank) const {
    return static_cast<T*>(group_->offers_[static_cast<std::size_t>(rank)].values);
  }

  template <class Ctx, class View, class Work>
  void exchange(const View& values, const detail::exchange_call& call, const Work& work) const {
    static_assert(std::is_same_v<typename Ctx::space, host_space>,
                  "graft::thread_communicator: the values are not in host memory. Use nccl_communicator.");
    if (size() == 1) return;
    group_->offers_[static_cast<std::size_t>(rank_)] = {values.data, call};
    group_->meet();
    for (int rank = 1; rank < size(); ++rank) {
      const detail::exchange_call &first = group_->offers_[0].call,
                                  &other = group_->offers_[static_cast<std::size_t>(rank)].call;
      GRAFT_CHECK(other == first, "thread_communicator: expected the same call of every rank, got ", name_of(first),
                  " of rank 0 and ", name_of(other), " of rank ", rank);
    }
    work();
    group_->meet();
  }

  thread_group* group_;
  int rank_;
};

}  // namespace graft
