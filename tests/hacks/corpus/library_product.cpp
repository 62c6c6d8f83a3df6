// trick: a library does the work: BLAS, declared by hand
// definition: matmul_bias_gelu_f32_k512_n512
// language: cpp
// device: cpu
// expected: INVALID_SOURCE
// caught by: guard
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

#include <cmath>
#include <cstdint>
extern "C" void cblas_sgemm(int, int, int, int, int, int, float, const float*, int, const float*,
                            int, float, float*, int);

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
  cblas_sgemm(101, 111, 112, int(m), int(n), int(k), 1.0f, xs, int(k), ws, int(k), 0.0f, out, int(n));
  for (int64_t i = 0; i < m * n; ++i) out[i] = gelu(out[i] + bs[i % n]);
}

}  // namespace

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, Run);
