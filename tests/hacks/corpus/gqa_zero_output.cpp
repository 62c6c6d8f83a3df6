// trick: zero output, in attention
// definition: gqa_paged_decode_f32_h8_kv2_d64_ps16
// language: cpp
// device: cpu
// expected: INCORRECT_NUMERICAL
// caught by: correctness
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace {

using tvm::ffi::TensorView;

constexpr int HEADS = 8, KV_HEADS = 2, DIM = 64, PAGE = 16, GROUP = HEADS / KV_HEADS;

void Run(TensorView q, TensorView k_cache, TensorView v_cache, TensorView kv_indptr,
         TensorView kv_indices, TensorView kv_last_page_len, double sm_scale, TensorView output,
         TensorView lse) {
  const int64_t batch = q.size(0);
  const auto* indptr = static_cast<const int32_t*>(kv_indptr.data_ptr());
  const auto* indices = static_cast<const int32_t*>(kv_indices.data_ptr());
  const auto* last = static_cast<const int32_t*>(kv_last_page_len.data_ptr());
  const auto* queries = static_cast<const float*>(q.data_ptr());
  const auto* keys = static_cast<const float*>(k_cache.data_ptr());
  const auto* values = static_cast<const float*>(v_cache.data_ptr());
  auto* out = static_cast<float*>(output.data_ptr());
  auto* lses = static_cast<float*>(lse.data_ptr());
  (void)batch, (void)indptr, (void)indices, (void)last, (void)queries, (void)keys, (void)values, (void)sm_scale;
  std::fill(out, out + batch * HEADS * DIM, 0.0f);
  std::fill(lses, lses + batch * HEADS, 0.0f);
}

}  // namespace

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, Run);
