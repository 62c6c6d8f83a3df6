// trick: threads that race on the outputs
// definition: matmul_bias_gelu_f32_k512_n512
// language: cpp
// device: cpu
// expected: NONDETERMINISTIC or INCORRECT_NUMERICAL
// caught by: correctness
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

#include <cmath>
#include <cstdint>

namespace {

using tvm::ffi::TensorView;

float gelu(float y) {
  return y / (1.0f + std::exp(-1.5957691216f * (y + 0.044715f * y * y * y)));
}

void Run(TensorView x, TensorView weight, TensorView bias, TensorView output) {
  const int64_t m = x.size(0), k = x.size(1), n = weight.size(0);
  const auto* xs = static_cast<const float*>(x.data_ptr());
  const auto* ws = static_cast<const float*>(weight.data_ptr());
  const auto* bs = static_cast<const float*>(bias.data_ptr());
  auto* out = static_cast<float*>(output.data_ptr());
  for (int64_t i = 0; i < m * n; ++i) out[i] = 0.0f;
  // Every thread adds its part of the depth to the same outputs, without any order.
#pragma omp parallel for
  for (int64_t p = 0; p < k; ++p)
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < n; ++j) out[i * n + j] += xs[i * k + p] * ws[j * k + p];
  for (int64_t i = 0; i < m * n; ++i) out[i] = gelu(out[i] + bs[i % n]);
}

}  // namespace

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, Run);
