// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Laws of communicators (backend/communicator.hpp). `Run` runs a body on every rank of a new group, in threads or
// processes, and returns what each rank's body returned, or the sentence of its error:
//   std::vector<rank_outcome> run(int size, body)    body: (communicator, context) -> std::string

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include <graft/backend/communicator.hpp>
#include <graft/backend/cpu/context.hpp>
#include <graft/core/philox.hpp>

#include "catch.hpp"

namespace graft::test {

struct rank_outcome {
  std::string bytes, error;
};

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}
template <class T>
vector_view<T, host_space> entire(std::vector<T>& values) {
  return vector_view<T, host_space>(values.data(), static_cast<index_t>(values.size()));
}

// Values of all sizes and signs, other ones for each rank: sums of them round.
template <class T>
std::vector<T> values_of_rank(int rank, std::size_t count) {
  std::vector<T> values(count);
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t word = random_source{7, random_stream::data}.words(i, static_cast<std::uint64_t>(rank)).word[0];
    if constexpr (std::is_integral_v<T>)
      values[i] = static_cast<T>(word % 2000001) - 1000000;
    else
      values[i] = static_cast<T>(std::ldexp(static_cast<double>(word) / 4294967296.0 - 0.5, static_cast<int>(i % 13)));
  }
  return values;
}

// ((rank 0 + rank 1) + rank 2) + ..., rounded to T once for bfloat16.
template <class T>
std::vector<T> sum_in_rank_order(int size, std::size_t count) {
  std::vector<std::vector<T>> values;
  for (int rank = 0; rank < size; ++rank) values.push_back(values_of_rank<T>(rank, count));
  std::vector<T> sums(count);
  for (std::size_t i = 0; i < count; ++i) {
    typename detail::rank_sum<T>::type sum = values[0][i];
    for (std::size_t rank = 1; rank < values.size(); ++rank) sum += values[rank][i];
    sums[i] = static_cast<T>(sum);
  }
  return sums;
}

inline void check_everywhere(const std::vector<rank_outcome>& outcomes, const std::string& bytes) {
  for (std::size_t rank = 0; rank < outcomes.size(); ++rank) {
    CAPTURE(rank, outcomes[rank].error);
    CHECK(outcomes[rank].error.empty());
    CHECK((outcomes[rank].bytes == bytes));
  }
}

// Communicators that sum in the order of the ranks: exact, so the same bits on every rank and every time.
template <class T, class Run>
void check_sums(Run run, int size, std::size_t count) {
  CAPTURE(size, count, sizeof(T));
  check_everywhere(run(size,
                       [&](auto& communicator, auto& context) {
                         auto values = values_of_rank<T>(communicator.rank(), count);
                         communicator.all_reduce_sum(context, entire(values));
                         return bytes_of(values);
                       }),
                   bytes_of(sum_in_rank_order<T>(size, count)));
}

template <class T, class Run>
void check_broadcasts(Run run, int size, std::size_t count) {
  for (int root = 0; root < size; ++root) {
    CAPTURE(size, count, root);
    check_everywhere(run(size,
                         [&](auto& communicator, auto& context) {
                           auto values = values_of_rank<T>(communicator.rank(), count);
                           communicator.broadcast(context, entire(values), root);
                           return bytes_of(values);
                         }),
                     bytes_of(values_of_rank<T>(root, count)));
  }
}

// One rank's values stay as they are, bit for bit: -0 and a NaN's payload too.
template <class Run>
void check_one_rank(Run run) {
  const std::vector<std::uint32_t> words{0x80000000u, 0x7fc01234u, 0xff801234u, 1u, 0x3f800000u};
  const auto outcomes = run(1, [&](auto& communicator, auto& context) {
    if (communicator.rank() != 0 || communicator.size() != 1) return std::string("another rank");
    std::vector<float> values(words.size());
    std::memcpy(values.data(), words.data(), words.size() * sizeof(float));
    communicator.all_reduce_sum(context, entire(values));
    communicator.broadcast(context, entire(values), 0);
    return bytes_of(values);
  });
  check_everywhere(outcomes, bytes_of(words));
}

// Calls one after another keep their order; vectors of no elements are exchanged too.
template <class Run>
void check_sequences(Run run, int size) {
  check_everywhere(run(size,
                       [](auto& communicator, auto& context) {
                         std::vector<std::int64_t> values{1, communicator.rank()};
                         std::vector<float> none;
                         for (int turn = 0; turn < 50; ++turn) {
                           communicator.all_reduce_sum(context, entire(values));
                           communicator.all_reduce_sum(context, entire(none));
                           values[1] = communicator.rank() + turn;
                           communicator.broadcast(context, entire(values), turn % communicator.size());
                           values[0] %= 1000003;
                         }
                         return bytes_of(values);
                       }),
                   [&] {
                     std::int64_t product = 1;
                     for (int turn = 0; turn < 50; ++turn) product = product * size % 1000003;
                     return bytes_of(std::vector<std::int64_t>{product, 49 % size + 49});
                   }());
}

// What goes wrong is an error of every rank that is still there, with all the parts in its sentence.
inline void check_errors(const std::vector<rank_outcome>& outcomes, int gone, const std::vector<std::string>& parts) {
  for (std::size_t rank = 0; rank < outcomes.size(); ++rank) {
    if (static_cast<int>(rank) == gone) continue;
    CAPTURE(rank, outcomes[rank].error);
    CHECK(outcomes[rank].bytes.empty());
    for (const std::string& part : parts) CHECK(outcomes[rank].error.find(part) != std::string::npos);
  }
}

template <class Run>
void check_different_calls(Run run) {
  check_errors(run(3,
                   [](auto& communicator, auto& context) {
                     std::vector<float> values(communicator.rank() == 2 ? 11 : 12);
                     communicator.all_reduce_sum(context, entire(values));
                     return std::string("done");
                   }),
               -1, {"all_reduce_sum of 12 float of rank 0", "all_reduce_sum of 11 float of rank 2"});
  check_errors(run(2,
                   [](auto& communicator, auto& context) {
                     std::vector<float> values(4);
                     std::vector<double> wide(4);
                     if (communicator.rank() == 0)
                       communicator.broadcast(context, entire(values), 1);
                     else
                       communicator.broadcast(context, entire(wide), 1);
                     return std::string("done");
                   }),
               -1, {"broadcast of 4 float from rank 1 of rank 0", "broadcast of 4 double from rank 1 of rank 1"});
  check_errors(run(2,
                   [](auto& communicator, auto& context) {
                     std::vector<float> values(4);
                     communicator.broadcast(context, entire(values), 2);
                     return std::string("done");
                   }),
               -1, {"expected a root below size=2, got 2"});
}

// `leave` ends a rank as an accident would.
template <class Run, class Leave>
void check_rank_that_is_gone(Run run, Leave leave) {
  for (int gone = 0; gone < 3; ++gone)
    check_errors(run(3,
                     [&](auto& communicator, auto& context) {
                       auto values = values_of_rank<float>(communicator.rank(), 5);
                       communicator.all_reduce_sum(context, entire(values));
                       if (communicator.rank() == gone) leave();
                       communicator.all_reduce_sum(context, entire(values));
                       return std::string("done");
                     }),
                 gone, {"rank " + std::to_string(gone) + " is gone"});
}

}  // namespace graft::test
