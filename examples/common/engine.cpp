// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The choice between the engines.

#include "common/engine.hpp"

#include "common/engine_choice.hpp"

namespace examples {

std::unique_ptr<engine> make_engine(const engine_options& options) {
  GRAFT_CHECK(options.device == "auto" || options.device == "cpu" || options.device == "cuda",
              "--device: expected auto, cpu or cuda, got ", options.device);
  GRAFT_CHECK(options.precision == "bf16" || options.precision == "fp32", "--precision: expected bf16 or fp32, got ",
              options.precision);
  const graft::context_options context{.threads = options.threads};
  const bool bf16 = options.precision == "bf16";
#if defined(GRAFT_HAS_CUDA)
  GRAFT_CHECK(options.device != "cuda" || cuda_device_present(),
              "--device cuda: expected a CUDA device, found none, use --device cpu");
  if (options.device == "cuda" || (options.device == "auto" && cuda_device_present()))
    return bf16 ? make_cuda_bf16_engine(context) : make_cuda_fp32_engine(context);
#else
  GRAFT_CHECK(options.device != "cuda",
              "--device cuda: this program was built without a CUDA Toolkit, use --device cpu");
#endif
  return bf16 ? make_cpu_bf16_engine(context) : make_cpu_fp32_engine(context);
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
