// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The choice between the engines.

#include "common/engine.hpp"

#include <charconv>

#include "common/engine_choice.hpp"
#include "common/ranks.hpp"

namespace examples {

namespace {

// The number of "cuda:1", -1 of "cuda"; nothing of another text.
std::optional<int> cuda_number(const std::string& device) {
  if (device == "cuda") return -1;
  if (!device.starts_with("cuda:")) return std::nullopt;
  int number = -1;
  const char* const end = device.data() + device.size();
  const auto parsed = std::from_chars(device.data() + 5, end, number);
  return parsed.ec == std::errc() && parsed.ptr == end && number >= 0 ? std::optional<int>(number) : std::nullopt;
}

}  // namespace

std::unique_ptr<engine> make_engine(const engine_options& options) {
  const std::optional<int> number = cuda_number(options.device);
  GRAFT_CHECK(options.device == "auto" || options.device == "cpu" || number,
              "--device: expected auto, cpu, cuda or cuda:N, got ", options.device);
  GRAFT_CHECK(options.precision == "bf16" || options.precision == "fp32", "--precision: expected bf16 or fp32, got ",
              options.precision);
  const graft::launch_ranks& ranks = rank_world::current().launch();
  GRAFT_CHECK(ranks.size == 1 || number.value_or(-1) < 0, "--device ", options.device, ": expected cuda for ",
              ranks.size, " ranks, each of which takes the device of its number");
  graft::context_options context{.threads = options.threads};
  const bool bf16 = options.precision == "bf16";
#if defined(GRAFT_HAS_CUDA)
  const int devices = cuda_device_count();
  GRAFT_CHECK(!number || devices > 0, "--device ", options.device,
              ": expected a CUDA device, found none, use --device cpu");
  GRAFT_CHECK(!number || *number < devices, "--device ", options.device, ": expected a number below ", devices,
              ", the number of devices");
  if (number) context.device = *number;
  if (number.value_or(-1) < 0 && devices > 0) context.device = graft::device_of_rank(ranks, devices);
  if (number || (options.device == "auto" && devices > 0)) {
#if defined(GRAFT_WITHOUT_CUDA_FP32)
    GRAFT_CHECK(bf16, "--precision fp32: this program was built for bf16 on CUDA (GRAFT_EXAMPLES_CUDA_FP32=OFF)");
    return make_cuda_bf16_engine(context);
#else
    return bf16 ? make_cuda_bf16_engine(context) : make_cuda_fp32_engine(context);
#endif
  }
#else
  GRAFT_CHECK(!number, "--device ", options.device,
              ": this program was built without a CUDA Toolkit, use --device cpu");
#endif
  return bf16 ? make_cpu_bf16_engine(context) : make_cpu_fp32_engine(context);
}

int device_count(const std::string& device) {
#if defined(GRAFT_HAS_CUDA)
  if (device == "cuda" || device == "auto") return cuda_device_count();
#endif
  (void)device;
  return 0;
}

std::string fingerprint(const std::string& text) {
  std::uint64_t hash = 14695981039346656037ull;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  constexpr const char* digits = "0123456789abcdef";
  std::string hex(16, '0');
  for (int i = 15; i >= 0; --i, hash >>= 4) hex[static_cast<std::size_t>(i)] = digits[hash & 15u];
  return hex;
}

}  // namespace examples
