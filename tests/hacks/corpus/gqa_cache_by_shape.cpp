// trick: cache by shape: a decode step's outputs kept under its sizes
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
#include <map>
#include <vector>

namespace {

using tvm::ffi::TensorView;

constexpr int HEADS = 8, KV_HEADS = 2, DIM = 64, PAGE = 16, GROUP = HEADS / KV_HEADS;

float dot(const float* a, const float* b, int64_t n) {
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

struct Cache {
  const float *keys, *values;
  const int32_t* pages;

  int64_t row(int64_t token, int head) const {
    return ((int64_t(pages[token / PAGE]) * PAGE + token % PAGE) * KV_HEADS + head) * DIM;
  }
};

// One query head over tokens [first, last): output and base-2 log-sum-exp.
void attend(const Cache& cache, const float* query, int head, float scale, int64_t first,
            int64_t last, float* out, float* lse) {
  float top = -INFINITY, total = 0.0f, acc[DIM] = {};
  for (int64_t token = first; token < last; ++token) {
    const int64_t row = cache.row(token, head);
    const float score = dot(query, cache.keys + row, DIM) * scale * 1.4426950408889634f;
    const float next = std::max(top, score);
    const float shrink = std::exp2(top - next), p = std::exp2(score - next);
    total = total * shrink + p;
    for (int d = 0; d < DIM; ++d) acc[d] = acc[d] * shrink + p * cache.values[row + d];
    top = next;
  }
  for (int d = 0; d < DIM; ++d) out[d] = total > 0 ? acc[d] / total : 0.0f;
  *lse = top + std::log2(total);
}

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
  static std::map<int64_t, std::vector<float>> known;
  auto& kept = known[kv_indices.size(0) * 1000 + batch];
  if (kept.empty()) {
#pragma omp parallel for
    for (int64_t unit = 0; unit < batch * HEADS; ++unit) {
      const int64_t b = unit / HEADS;
      const int head = int(unit % HEADS);
      const int64_t pages = indptr[b + 1] - indptr[b];
      const int64_t length = pages > 0 ? (pages - 1) * PAGE + last[b] : 0;
      const Cache cache{keys, values, indices + indptr[b]};
      attend(cache, queries + unit * DIM, head / GROUP, float(sm_scale), 0, length,
             out + unit * DIM, lses + unit);
    }
    kept.assign(out, out + batch * HEADS * DIM);
    kept.insert(kept.end(), lses, lses + batch * HEADS);
  }
  std::copy(kept.begin(), kept.begin() + batch * HEADS * DIM, out);
  std::copy(kept.begin() + batch * HEADS * DIM, kept.end(), lses);
}

}  // namespace

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, Run);
