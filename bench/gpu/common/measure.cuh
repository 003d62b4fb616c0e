// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What every part does: random numbers on the device, times of device events, files with results.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include <graft/backend/cuda/arrays.cuh>
#include <graft/backend/cuda/rows.cuh>
#include <graft/core/philox.hpp>
#include <graft/layers/compute.hpp>

#include "common/npy.hpp"
#include "common/parts.hpp"
#include "report_line.hpp"

namespace bench {

using device_context = graft::context<graft::cuda>;
using numbers = graft::compute<graft::bf16, graft::cuda>;
using graft::bfloat16;
template <class T>
using on_device = graft::buffer<T, graft::device_space>;
template <class T>
using device_matrix = graft::matrix_view<T, graft::device_space>;

// Normal numbers. Products of zeros draw less power and run faster than any real one.
template <class T>
struct random_element {
  graft::vector_view<T, graft::device_space> x;
  double deviation;
  std::uint64_t seed;
  GRAFT_HOST_DEVICE void operator()(index_t i) const {
    const graft::random_source random{seed, graft::random_stream::data};
    x[i] = T(static_cast<float>(deviation * random.normal(0, static_cast<std::uint64_t>(i))));
  }
};

template <class T>
void fill_random(device_context& context, const graft::vector_view<T, graft::device_space>& x, std::uint64_t seed,
                 double deviation = 1) {
  launch_elements(context, x.extent(0), random_element<T>{x, deviation, seed});
}
template <class T>
on_device<T> random_buffer(device_context& context, index_t count, std::uint64_t seed, double deviation = 1) {
  on_device<T> result(count);
  fill_random(context, result.view(), seed, deviation);
  return result;
}

inline double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

class event {
 public:
  event() { GRAFT_CUDA(cudaEventCreate(&event_)); }
  event(const event&) = delete;
  event(event&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}
  ~event() {
    if (event_ != nullptr) (void)cudaEventDestroy(event_);
  }
  void record(device_context& context) { GRAFT_CUDA(cudaEventRecord(event_, context.stream())); }
  double milliseconds_since(const event& start) const {
    float result = 0;
    GRAFT_CUDA(cudaEventElapsedTime(&result, start.event_, event_));
    return static_cast<double>(result);
  }

 private:
  cudaEvent_t event_ = nullptr;
};

// Median milliseconds of each stage, and of all stages together as the last. Before each repetition prepare(number)
// runs and 256 MiB are overwritten, which leaves nothing of the operands in the L2 cache and gives the host time to
// queue what is measured. Three repetitions that are not counted, then as many as fit in `seconds`, 5 to 50.
class stopwatch {
 public:
  stopwatch(device_context& context, const report_options& options)
      : context_(&context), seconds_(options.seconds), flush_(index_t{1} << (options.small ? 10 : 26)) {}

  template <class Prepare, class... Stages>
  std::vector<double> operator()(const Prepare& prepare, const Stages&... stages) {
    int number = 0;
    for (int i = 0; i < 2; ++i) once(number++, prepare, stages...);
    const double estimate = once(number++, prepare, stages...).back();
    const int count = std::clamp(static_cast<int>(1e3 * seconds_ / std::max(estimate, 1e-3)), 5, 50);
    std::vector<std::vector<double>> times(sizeof...(Stages) + 1);
    for (int i = 0; i < count; ++i) {
      const std::vector<double> measured = once(number++, prepare, stages...);
      for (std::size_t s = 0; s < measured.size(); ++s) times[s].push_back(measured[s]);
    }
    std::vector<double> result;
    for (const std::vector<double>& stage : times) result.push_back(median(stage));
    return result;
  }

 private:
  template <class Prepare, class... Stages>
  std::vector<double> once(int number, const Prepare& prepare, const Stages&... stages) {
    std::vector<event> events(sizeof...(Stages) + 1);
    prepare(number);
    fill_zero(*context_, flush_.view());
    std::size_t next = 0;
    events[next++].record(*context_);
    ((stages(), events[next++].record(*context_)), ...);
    context_->synchronize();
    std::vector<double> times;
    for (std::size_t s = 1; s < events.size(); ++s) times.push_back(events[s].milliseconds_since(events[s - 1]));
    times.push_back(events.back().milliseconds_since(events.front()));
    return times;
  }

  device_context* context_;
  double seconds_;
  on_device<float> flush_;
};

// A line with a time, its floor and score, and the rates that go with them.
inline json_object timed_line(const char* part, const std::string& name, const json_object& shape, double milliseconds,
                              const work& w, const ceilings& card, const char* who = "graft") {
  const double floor = 1e3 * floor_seconds(w, card);
  json_object line;
  line.add("part", part).add("name", name).add("shape", shape).add("who", who).add("ms", milliseconds);
  line.add("floor_ms", floor).add("score", floor / milliseconds);
  if (w.flops > 0) line.add("tflops", w.flops / milliseconds * 1e-9);
  return line.add("gbytes", w.bytes / milliseconds * 1e-6);
}

// Runs what measures one shape. What goes wrong there is a line of the report, and other shapes still get their turn.
// An error of graft itself is the program's; another `who` is a way of doing it that need not exist everywhere.
template <class F>
void attempt(const char* part, const json_object& shape, const F& run, const std::string& who = "graft") {
  try {
    run();
  } catch (const std::exception& problem) {
    if (who == "graft") all_succeeded() = false;
    std::string text = problem.what();
    for (char& c : text)
      if (static_cast<unsigned char>(c) < 32) c = ' ';
    print_line(json_object().add("part", part).add("shape", shape).add("who", who).add("error", text));
  }
}

// The numbers of a small shape, for peers.py: FOLDER/PART.CASE.NAME.npy.
class result_files {
 public:
  result_files(device_context& context, const std::string& folder, const std::string& part, int number)
      : context_(&context), prefix_(folder + "/" + part + "." + std::to_string(number) + ".") {}

  template <class T, int Rank>
  void write(const std::string& name, const graft::view<T, Rank, graft::device_space>& values) const {
    using element = std::remove_const_t<T>;
    std::vector<element> host(static_cast<std::size_t>(values.size()));
    copy_to_host(*context_, host.data(), values);
    const std::vector<index_t> extents(values.extents, values.extents + Rank);
    if constexpr (std::is_same_v<element, std::int32_t>)
      write_npy(prefix_ + name + ".npy", host, extents);
    else
      write_npy(prefix_ + name + ".npy", std::vector<float>(host.begin(), host.end()), extents);
  }
  void write_sizes(const std::string& name, const std::vector<index_t>& sizes) const {
    write_npy(prefix_ + name + ".npy", std::vector<std::int32_t>(sizes.begin(), sizes.end()),
              {static_cast<index_t>(sizes.size())});
  }

 private:
  device_context* context_;
  std::string prefix_;
};

}  // namespace bench
