// style: a template over the block's height, with a tail
// definition: matmul_bias_gelu_f32_k512_n512
// language: cpp
// device: cpu
// expected: PASSED
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

#include <cmath>
#include <cstdint>

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

// HEIGHT rows of x against each row of the weight.
template <int HEIGHT>
void rows(const float* x, const float* weight, const float* bias, float* output, int64_t n,
          int64_t k) {
  for (int64_t j = 0; j < n; ++j) {
    float sums[HEIGHT] = {};
    for (int r = 0; r < HEIGHT; ++r) sums[r] = dot(x + r * k, weight + j * k, k);
    for (int r = 0; r < HEIGHT; ++r) output[r * n + j] = gelu(sums[r] + bias[j]);
  }
}

void Run(TensorView x, TensorView weight, TensorView bias, TensorView output) {
  const int64_t m = x.size(0), k = x.size(1), n = weight.size(0);
  const auto* xs = static_cast<const float*>(x.data_ptr());
  const auto* ws = static_cast<const float*>(weight.data_ptr());
  const auto* bs = static_cast<const float*>(bias.data_ptr());
  auto* out = static_cast<float*>(output.data_ptr());
  #pragma omp parallel for
  for (int64_t i = 0; i < m; i += 4)
    if (m - i >= 4)
      rows<4>(xs + i * k, ws, bs, out + i * n, n, k);
    else
      for (int64_t r = i; r < m; ++r) rows<1>(xs + r * k, ws, bs, out + r * n, n, k);
}

}  // namespace

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, Run);
