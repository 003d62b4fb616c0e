// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// One tile of a product by oneDNN: bfloat16 with the processor's matrix instructions (AMX, or AVX-512 BF16), and
// fp32. The C interface, since its header costs a tenth of a second to include and the C++ one more than one.

#include <dnnl.h>
#include <dnnl_debug.h>

#include <cstddef>
#include <memory>
#include <type_traits>
#include <unordered_map>
#include <vector>

#include <graft/backend/cpu/tile.hpp>
#include <graft/core/dtype.hpp>

#if DNNL_VERSION_MAJOR != 2
#error "graft: oneDNN 2 is expected (Debian 12 has 2.6). Newer ones make primitive descriptors in another way."
#endif

namespace graft::detail {

inline void check_onednn(dnnl_status_t status, const char* call) {
  GRAFT_CHECK(status == dnnl_success, call, ": expected success, got oneDNN status ", static_cast<int>(status), " (",
              dnnl_status2str(status), ")");
}

// A oneDNN handle with its owner's habits.
template <class Handle, dnnl_status_t (*Destroy)(Handle)>
struct onednn_deleter {
  void operator()(Handle handle) const { Destroy(handle); }
};
template <class Handle, dnnl_status_t (*Destroy)(Handle)>
using onednn_handle = std::unique_ptr<std::remove_pointer_t<Handle>, onednn_deleter<Handle, Destroy>>;
using onednn_engine = onednn_handle<dnnl_engine_t, dnnl_engine_destroy>;
using onednn_stream = onednn_handle<dnnl_stream_t, dnnl_stream_destroy>;
using onednn_memory = onednn_handle<dnnl_memory_t, dnnl_memory_destroy>;
using onednn_primitive = onednn_handle<dnnl_primitive_t, dnnl_primitive_destroy>;
using onednn_primitive_desc = onednn_handle<dnnl_primitive_desc_t, dnnl_primitive_desc_destroy>;
using onednn_attributes = onednn_handle<dnnl_primitive_attr_t, dnnl_primitive_attr_destroy>;

inline dnnl_engine_t cpu_engine() {
  static const onednn_engine engine = [] {
    dnnl_engine_t created = nullptr;
    check_onednn(dnnl_engine_create(&created, dnnl_cpu, 0), "dnnl_engine_create");
    return onednn_engine(created);
  }();
  return engine.get();
}

// Whether oneDNN multiplies bfloat16 with instructions made for it. Where it would have to emulate them, fp32 is
// faster.
inline bool onednn_has_bfloat16() {
  static const bool has = [] {
    const auto isa = static_cast<unsigned>(dnnl_get_effective_cpu_isa());
    const auto needed = static_cast<unsigned>(dnnl_cpu_isa_avx512_core_bf16);
    return (isa & needed) == needed;
  }();
  return has;
}

// Whether oneDNN's fp32 products are its own vectorised ones: with AVX-512 they are faster than OpenBLAS 0.3's by a
// tenth on every shape measured, without it the BLAS is the better choice.
inline bool onednn_has_float() {
  static const bool has = [] {
    const auto isa = static_cast<unsigned>(dnnl_get_effective_cpu_isa());
    const auto needed = static_cast<unsigned>(dnnl_cpu_isa_avx512_core);
    return (isa & needed) == needed;
  }();
  return has;
}

// Whether oneDNN multiplies bfloat16 with AMX: the processor has it, the system permits it and DNNL_MAX_CPU_ISA does
// not rule it out. oneDNN asks all three.
inline bool onednn_has_amx() {
  static const bool has = [] {
    const auto isa = static_cast<unsigned>(dnnl_get_effective_cpu_isa());
    const auto needed = static_cast<unsigned>(dnnl_cpu_isa_avx512_core_amx);
    return (isa & needed) == needed;
  }();
  return has;
}

// What distinguishes one compiled product from another.
struct matmul_key {
  product_form form;
  dnnl_data_type_t input, output;
  bool add;
  index_t rows, columns, depth, a_stride, b_stride, c_stride;
  bool packed = false;  // b lies in the layout of oneDNN's own choice: its form and stride do not matter

  bool operator==(const matmul_key&) const = default;
};
struct matmul_key_hash {
  std::size_t operator()(const matmul_key& key) const {
    std::size_t hash =
        static_cast<std::size_t>(key.form) * 32 + static_cast<std::size_t>(key.output) * 4 + key.packed * 2u + key.add;
    for (const index_t part : {key.rows, key.columns, key.depth, key.a_stride, key.b_stride, key.c_stride})
      hash = (hash ^ static_cast<std::size_t>(part)) * 0x9e3779b97f4a7c15u;
    return hash ^ (hash >> 29);
  }
};

inline dnnl_memory_desc_t plain_layout(index_t rows, index_t columns, index_t stride, bool transposed,
                                       dnnl_data_type_t type) {
  const dnnl_dims_t extents = {rows, columns};
  const dnnl_dims_t strides = {transposed ? 1 : stride, transposed ? stride : 1};
  dnnl_memory_desc_t result;
  check_onednn(dnnl_memory_desc_init_by_strides(&result, 2, extents, type, strides),
               "dnnl_memory_desc_init_by_strides");
  return result;
}
inline dnnl_memory_desc_t free_layout(index_t rows, index_t columns, dnnl_data_type_t type) {
  const dnnl_dims_t extents = {rows, columns};
  dnnl_memory_desc_t result;
  check_onednn(dnnl_memory_desc_init_by_tag(&result, 2, extents, type, dnnl_format_tag_any),
               "dnnl_memory_desc_init_by_tag");
  return result;
}

// A compiled product and the memory objects that carry its pointers. Belongs to one thread.
class onednn_matmul {
 public:
  explicit onednn_matmul(const matmul_key& key) {
    const bool a_transposed = key.form == product_form::tn, b_transposed = key.form == product_form::nt;
    const dnnl_memory_desc_t a = plain_layout(key.rows, key.depth, key.a_stride, a_transposed, key.input);
    dnnl_memory_desc_t b = key.packed ? free_layout(key.depth, key.columns, key.input)
                                      : plain_layout(key.depth, key.columns, key.b_stride, b_transposed, key.input);
    const dnnl_memory_desc_t c = plain_layout(key.rows, key.columns, key.c_stride, false, key.output);

    dnnl_primitive_attr_t attributes_made = nullptr;
    check_onednn(dnnl_primitive_attr_create(&attributes_made), "dnnl_primitive_attr_create");
    const onednn_attributes attributes(attributes_made);
    check_onednn(dnnl_primitive_attr_set_scratchpad_mode(attributes.get(), dnnl_scratchpad_mode_user),
                 "dnnl_primitive_attr_set_scratchpad_mode");
    if (key.add) {
      dnnl_post_ops_t steps = nullptr;
      check_onednn(dnnl_post_ops_create(&steps), "dnnl_post_ops_create");
      const onednn_handle<dnnl_post_ops_t, dnnl_post_ops_destroy> owner(steps);
      check_onednn(dnnl_post_ops_append_sum(steps, 1.0f), "dnnl_post_ops_append_sum");
      check_onednn(dnnl_primitive_attr_set_post_ops(attributes.get(), steps), "dnnl_primitive_attr_set_post_ops");
    }
    dnnl_matmul_desc_t operation;
    check_onednn(dnnl_matmul_desc_init(&operation, &a, &b, nullptr, &c), "dnnl_matmul_desc_init");
    dnnl_primitive_desc_t desc_made = nullptr;
    check_onednn(dnnl_primitive_desc_create(&desc_made, &operation, attributes.get(), cpu_engine(), nullptr),
                 "dnnl_primitive_desc_create");
    const onednn_primitive_desc desc(desc_made);
    dnnl_primitive_t primitive_made = nullptr;
    check_onednn(dnnl_primitive_create(&primitive_made, desc.get()), "dnnl_primitive_create");
    primitive_.reset(primitive_made);

    if (key.packed) b = *dnnl_primitive_desc_query_md(desc.get(), dnnl_query_weights_md, 0);
    b_layout_ = b;
    const dnnl_memory_desc_t* scratch = dnnl_primitive_desc_query_md(desc.get(), dnnl_query_scratchpad_md, 0);
    scratch_bytes_ = dnnl_memory_desc_get_size(scratch);
    const dnnl_memory_desc_t* descs[] = {&a, &b, &c, scratch};
    for (int i = 0; i < 4; ++i) {
      dnnl_memory_t made = nullptr;
      check_onednn(dnnl_memory_create(&made, descs[i], cpu_engine(), DNNL_MEMORY_NONE), "dnnl_memory_create");
      memories_[i].reset(made);
    }
  }

  void run(dnnl_stream_t stream, const void* a, const void* b, void* c, tile_scratch& scratch) const {
    void* const pointers[] = {const_cast<void*>(a), const_cast<void*>(b), c,
                              scratch.get<std::byte>(static_cast<index_t>(scratch_bytes_))};
    for (int i = 0; i < 4; ++i)
      check_onednn(dnnl_memory_set_data_handle_v2(memories_[i].get(), pointers[i], nullptr),
                   "dnnl_memory_set_data_handle_v2");
    const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, memories_[0].get()},
                                         {DNNL_ARG_WEIGHTS, memories_[1].get()},
                                         {DNNL_ARG_DST, memories_[2].get()},
                                         {DNNL_ARG_SCRATCHPAD, memories_[3].get()}};
    check_onednn(dnnl_primitive_execute(primitive_.get(), stream, 4, arguments), "dnnl_primitive_execute");
  }

  const dnnl_memory_desc_t& b_layout() const { return b_layout_; }

 private:
  onednn_primitive primitive_;
  onednn_memory memories_[4];
  dnnl_memory_desc_t b_layout_;
  std::size_t scratch_bytes_ = 0;
};

// The right operand of a product in the layout that oneDNN chose for it. Lives in the workspace.
struct packed_operand {
  dnnl_memory_desc_t layout;
  std::byte* data;
};

// What one thread keeps: its stream, its compiled products, its scratchpad.
struct onednn_worker {
  onednn_stream stream;
  std::unordered_map<matmul_key, onednn_matmul, matmul_key_hash> products;
  tile_scratch scratch;

  onednn_worker() {
    dnnl_stream_t made = nullptr;
    check_onednn(dnnl_stream_create(&made, cpu_engine(), dnnl_stream_default_flags), "dnnl_stream_create");
    stream.reset(made);
  }
  static onednn_worker& of_this_thread() {
    thread_local onednn_worker worker;
    return worker;
  }
};

template <class T>
inline constexpr dnnl_data_type_t onednn_type = std::is_same_v<T, bfloat16> ? dnnl_bf16 : dnnl_f32;

// Requires: called under sequential_libraries, since a product is compiled for a number of threads.
// Cost: a new shape takes about a millisecond, a known one some microseconds. Shapes come from blocks of fixed sizes
// (gemm.hpp), so they are few; should a caller's own sizes keep changing, the thread starts over at max_products.
inline const onednn_matmul& compiled_product(onednn_worker& worker, const matmul_key& key) {
  constexpr std::size_t max_products = 1024;
  auto found = worker.products.find(key);
  if (found == worker.products.end()) {
    if (worker.products.size() >= max_products) worker.products.clear();
    found = worker.products.try_emplace(key, key).first;
  }
  return found->second;
}

template <product_form Form, class T, class Out>
matmul_key key_of(const tile<T, Out>& t) {
  return {Form,      onednn_type<T>, onednn_type<Out>, t.add,      t.rows,
          t.columns, t.depth,        t.a_stride,       t.b_stride, t.c_stride};
}
template <product_form Form, class T, class Out>
requires(Form != product_form::tn) matmul_key packed_key_of(const tile<T, Out>& t) {
  matmul_key key = key_of<product_form::nn>(t);
  key.b_stride = 0;
  key.packed = true;
  return key;
}

template <product_form Form, class T, class Out>
void onednn_tile(const tile<T, Out>& t) {
  onednn_worker& worker = onednn_worker::of_this_thread();
  compiled_product(worker, key_of<Form>(t)).run(worker.stream.get(), t.a, t.b, t.c, worker.scratch);
}

// The same with t.b at hand in packed form too: read where oneDNN chooses the same layout for this tile, as it did for
// every number of rows tried; else t.b is read.
template <product_form Form, class T, class Out>
void onednn_tile(const tile<T, Out>& t, const packed_operand& packed) {
  onednn_worker& worker = onednn_worker::of_this_thread();
  const onednn_matmul& product = compiled_product(worker, packed_key_of<Form>(t));
  if (!dnnl_memory_desc_equal(&product.b_layout(), &packed.layout)) return onednn_tile<Form>(t);
  product.run(worker.stream.get(), t.a, packed.data, t.c, worker.scratch);
}

// Brings t.b into the packed layout.
template <product_form Form, class T, class Out>
void onednn_pack(const tile<T, Out>& t, const packed_operand& packed) {
  onednn_worker& worker = onednn_worker::of_this_thread();
  const dnnl_memory_desc_t plain =
      plain_layout(t.depth, t.columns, t.b_stride, Form == product_form::nt, onednn_type<T>);
  dnnl_primitive_desc_t desc_made = nullptr;
  check_onednn(
      dnnl_reorder_primitive_desc_create(&desc_made, &plain, cpu_engine(), &packed.layout, cpu_engine(), nullptr),
      "dnnl_reorder_primitive_desc_create");
  const onednn_primitive_desc desc(desc_made);
  dnnl_primitive_t primitive_made = nullptr;  // oneDNN keeps what it compiled: this takes some microseconds
  check_onednn(dnnl_primitive_create(&primitive_made, desc.get()), "dnnl_primitive_create");
  const onednn_primitive primitive(primitive_made);
  dnnl_memory_t from = nullptr, to = nullptr;
  check_onednn(dnnl_memory_create(&from, &plain, cpu_engine(), const_cast<T*>(t.b)), "dnnl_memory_create");
  const onednn_memory from_owner(from);
  check_onednn(dnnl_memory_create(&to, &packed.layout, cpu_engine(), packed.data), "dnnl_memory_create");
  const onednn_memory to_owner(to);
  const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
  check_onednn(dnnl_primitive_execute(primitive.get(), worker.stream.get(), 2, arguments), "dnnl_primitive_execute");
}

}  // namespace graft::detail
