// style: a lambda for the tile, columns outside
// definition: matmul_bias_gelu_f32_k512_n512
// language: cpp
// device: cpu
// expected: PASSED
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

#include <cmath>
#include <cstdint>
#include <algorithm>

namespace {

using tvm::ffi::TensorView;

float gelu(float y) {
  return y / (1.0f + std::exp(-1.5957691216f * (y + 0.044715f * y * y * y)));
}

float dot(const float* a, const float* b, int64_t n) {
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

void Run(TensorView x, TensorView weight, TensorView bias, TensorView output) {
  const int64_t m = x.size(0), k = x.size(1), n = weight.size(0);
  const auto* xs = static_cast<const float*>(x.data_ptr());
  const auto* ws = static_cast<const float*>(weight.data_ptr());
  const auto* bs = static_cast<const float*>(bias.data_ptr());
  auto* out = static_cast<float*>(output.data_ptr());
  const auto tile = [&](int64_t i, int64_t first) {
    for (int64_t j = first; j < std::min(n, first + 64); ++j)
      out[i * n + j] = gelu(dot(xs + i * k, ws + j * k, k) + bs[j]);
  };
  #pragma omp parallel for collapse(2)
  for (int64_t first = 0; first < n; first += 64)
    for (int64_t i = 0; i < m; ++i) tile(i, first);
}

}  // namespace

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, Run);
