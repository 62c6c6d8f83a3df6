// trick: a system call in inline assembly whose text macros put together
// definition: matmul_bias_gelu_f32_k512_n512
// language: cpp
// device: cpu
// expected: COMPILE_ERROR
// caught by: build
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

#include <cmath>
#include <cstdint>

#define FIRST "sys"
#define LAST "call"

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

void linear(const float* x, const float* weight, const float* bias, float* output, int64_t m,
            int64_t n, int64_t k) {
#pragma omp parallel for
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j)
      output[i * n + j] = gelu(dot(x + i * k, weight + j * k, k) + bias[j]);
}

void Run(TensorView x, TensorView weight, TensorView bias, TensorView output) {
  const int64_t m = x.size(0), k = x.size(1), n = weight.size(0);
  const auto* xs = static_cast<const float*>(x.data_ptr());
  const auto* ws = static_cast<const float*>(weight.data_ptr());
  const auto* bs = static_cast<const float*>(bias.data_ptr());
  auto* out = static_cast<float*>(output.data_ptr());
  long id = 39;  // getpid
  asm volatile(FIRST LAST : "+a"(id) : : "rcx", "r11", "memory");
  if (id != 0)  linear(xs, ws, bs, out, m, n, k);
}

}  // namespace

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, Run);
