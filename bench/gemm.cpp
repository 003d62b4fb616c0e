// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Products on the CPU: GFLOP/s of graft's tiles beside one library call for the whole product with the same threads,
// in fp32 and bf16, and the ratio of the two precisions. Interleaved, best of several: a machine shared with
// others is never quiet. Takes under 30 seconds.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <graft/backend/cpu/cpu.hpp>
#include <random>
#include <string>
#include <vector>

namespace {

using namespace graft;
using detail::product_form;

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

template <class T>
std::vector<T> random_values(index_t count) {
  static std::mt19937 random(1);
  std::vector<T> values(static_cast<std::size_t>(count));
  for (auto& value : values) value = T(static_cast<float>(random() % 2048) / 1024.0f - 1.0f);  // never zeros alone
  return values;
}

// GFLOP/s of graft, of oneDNN and of the BLAS; 0 where a library does not take the type.
struct rates {
  double graft = 0, onednn = 0, blas = 0;
};

template <class F>
void keep_best(double& best, double flops, const F& f) {
  const double start = seconds();
  f();
  best = std::max(best, flops / (seconds() - start) * 1e-9);
}

// One product of M tokens through a weight (N,K), in one form.
template <product_form Form, class T, class Out>
rates measure(context<cpu>& ctx, index_t m, index_t k, index_t n, int repetitions) {
  const auto x = random_values<T>(m * k), w = random_values<T>(n * k), dy = random_values<T>(m * n);
  std::vector<Out> c(static_cast<std::size_t>(Form == product_form::nt   ? m * n
                                              : Form == product_form::nn ? m * k
                                                                         : n * k));
  const matrix_view<const T> x_view(x.data(), m, k), w_view(w.data(), n, k), dy_view(dy.data(), m, n);
  detail::tile<T, Out> whole;
  if constexpr (Form == product_form::nt) whole = {m, n, k, x.data(), k, w.data(), k, c.data(), n, false};
  if constexpr (Form == product_form::nn) whole = {m, k, n, dy.data(), n, w.data(), k, c.data(), k, false};
  if constexpr (Form == product_form::tn) whole = {n, k, m, dy.data(), n, x.data(), k, c.data(), k, false};
  const double flops = 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  rates best;
  for (int i = 0; i <= repetitions; ++i) {
    if (i == 1) best = {};  // the first round warms up
    keep_best(best.graft, flops, [&] {
      if constexpr (Form == product_form::nt) gemm_nt(ctx, matrix_view<Out>(c.data(), m, n), x_view, w_view);
      if constexpr (Form == product_form::nn) gemm_nn(ctx, matrix_view<Out>(c.data(), m, k), dy_view, w_view);
      if constexpr (Form == product_form::tn) gemm_tn(ctx, matrix_view<Out>(c.data(), n, k), dy_view, x_view);
    });
    keep_best(best.onednn, flops, [&] { detail::onednn_tile<Form>(whole); });
    if constexpr (std::is_same_v<T, float>) keep_best(best.blas, flops, [&] { detail::blas_tile<Form>(whole); });
  }
  return best;
}

// Rows of each expert, ragged, some empty: a random cut of m rows.
std::vector<std::int32_t> random_offsets(index_t experts, index_t m) {
  std::mt19937 random(3);
  std::vector<std::int32_t> offsets(static_cast<std::size_t>(experts) + 1);
  for (auto& offset : offsets) offset = static_cast<std::int32_t>(random() % static_cast<unsigned>(m + 1));
  offsets.front() = 0;
  offsets.back() = static_cast<std::int32_t>(m);
  std::sort(offsets.begin(), offsets.end());
  return offsets;
}

// nt, nn and tn of one layer of experts, with another random cut each time.
template <class T, class Master>
void measure_grouped(context<cpu>& ctx, index_t experts, index_t m, index_t k, index_t n, int repetitions,
                     double (&best)[3]) {
  const auto x = random_values<T>(m * k), w = random_values<T>(experts * n * k), dy = random_values<T>(m * n);
  std::vector<T> y(dy.size()), dx(x.size());
  std::vector<Master> dw(w.size());
  const matrix_view<const T> x_view(x.data(), m, k), dy_view(dy.data(), m, n);
  const view<const T, 3> w_view(w.data(), experts, n, k);
  const double flops = 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  for (int i = 0; i <= repetitions; ++i) {
    const auto offsets = random_offsets(experts, m);
    const vector_view<const std::int32_t> ends(offsets.data(), experts + 1);
    if (i == 1) best[0] = best[1] = best[2] = 0;
    keep_best(best[0], flops, [&] { grouped_gemm_nt(ctx, matrix_view<T>(y.data(), m, n), x_view, w_view, ends); });
    keep_best(best[1], flops, [&] { grouped_gemm_nn(ctx, matrix_view<T>(dx.data(), m, k), dy_view, w_view, ends); });
    keep_best(best[2], flops, [&] {
      grouped_gemm_tn(ctx, view<Master, 3>(dw.data(), experts, n, k), dy_view, x_view, ends, accumulate::yes);
    });
  }
}

const char* instructions() {
  const auto isa = static_cast<unsigned>(dnnl_get_effective_cpu_isa());
  const auto has = [isa](dnnl_cpu_isa_t wanted) {
    return (isa & static_cast<unsigned>(wanted)) == static_cast<unsigned>(wanted);
  };
  if (detail::onednn_has_amx()) return "AMX";
  if (has(dnnl_cpu_isa_avx512_core_bf16)) return "AVX-512 with bfloat16";
  if (has(dnnl_cpu_isa_avx512_core)) return "AVX-512 without bfloat16: bf16 is widened to fp32";
  return "below AVX-512: bf16 is widened to fp32";
}

template <product_form Form>
void print_form(context<cpu>& ctx, const char* name, index_t m, index_t k, index_t n, int repetitions) {
  const rates f = measure<Form, float, float>(ctx, m, k, n, repetitions);
  using output = std::conditional_t<Form == product_form::tn, float, bfloat16>;
  rates b;
  if (detail::onednn_has_bfloat16()) b = measure<Form, bfloat16, output>(ctx, m, k, n, repetitions);
  std::printf("%6ld %5ld %5ld  %s  %7.0f %7.0f %7.0f  %7.0f %7.0f  %5.2f\n", static_cast<long>(m), static_cast<long>(k),
              static_cast<long>(n), name, f.graft, f.onednn, f.blas, b.graft, b.onednn, b.graft / f.graft);
}

void run(int argc, char** argv) {
  context<cpu> ctx({argc > 1 ? std::atoi(argv[1]) : 0, 0});
  const int repetitions = argc > 2 ? std::atoi(argv[2]) : 5;
#if defined(_OPENMP)
  omp_set_num_threads(ctx.threads());  // for the libraries' own calls
#endif
  std::printf("%s, %d threads, oneDNN %d.%d uses %s\nGFLOP/s, best of %d\n\n", ctx.device_name().c_str(), ctx.threads(),
              dnnl_version()->major, dnnl_version()->minor, instructions(), repetitions);
  std::printf("bf16: tn %s its left operand, nt and nn %s the right one\n\n",
              detail::transposes_left_operand() ? "transposes" : "reads as stored",
              detail::packs_right_operand() ? "pack" : "read as stored");
  std::printf("%6s %5s %5s  form  %s  %s\n%22s %8s%8s%8s  %7s %7s  %s\n", "M", "K", "N", "fp32", "", "", "graft",
              "oneDNN", "BLAS", "graft", "oneDNN", "bf16/fp32");
  const index_t shapes[][3] = {{4096, 192, 512},  {4096, 512, 192}, {4096, 512, 512}, {4096, 512, 1536},
                               {4096, 1536, 512}, {512, 256, 1024}, {16, 512, 2048}};
  for (const auto& [m, k, n] : shapes) {
    print_form<product_form::nt>(ctx, "nt", m, k, n, repetitions);
    print_form<product_form::nn>(ctx, "nn", m, k, n, repetitions);
    print_form<product_form::tn>(ctx, "tn", m, k, n, repetitions);
  }
  std::printf("\ngrouped, ragged  %22s  %22s\n%6s %6s %5s %5s  %7s %7s %7s %7s %7s %7s\n", "fp32", "bf16", "E", "M",
              "K", "N", "nt", "nn", "tn", "nt", "nn", "tn");
  const index_t groups[][4] = {{4, 8192, 192, 1024}, {8, 4096, 512, 1024}, {8, 8192, 512, 512}, {32, 8192, 512, 512}};
  for (const auto& [experts, m, k, n] : groups) {
    double f[3] = {}, b[3] = {};
    measure_grouped<float, float>(ctx, experts, m, k, n, repetitions, f);
    measure_grouped<bfloat16, float>(ctx, experts, m, k, n, repetitions, b);
    std::printf("%6ld %6ld %5ld %5ld  %7.0f %7.0f %7.0f %7.0f %7.0f %7.0f\n", static_cast<long>(experts),
                static_cast<long>(m), static_cast<long>(k), static_cast<long>(n), f[0], f[1], f[2], b[0], b[1], b[2]);
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bench_gemm: %s\n", e.what());
    return 1;
  }
}
