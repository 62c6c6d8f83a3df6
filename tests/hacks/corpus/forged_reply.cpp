// trick: forged result on the pipe to the judge
// definition: matmul_bias_gelu_f32_k512_n512
// language: cpp
// device: cpu
// expected: INVALID_SOURCE
// caught by: guard
// without the guard: INCORRECT_NUMERICAL or RUNTIME_ERROR
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

#include <cmath>
#include <cstdint>
#include <unistd.h>

namespace {

using tvm::ffi::TensorView;

void Run(TensorView x, TensorView weight, TensorView bias, TensorView output) {
  const int64_t m = x.size(0), k = x.size(1), n = weight.size(0);
  const auto* xs = static_cast<const float*>(x.data_ptr());
  const auto* ws = static_cast<const float*>(weight.data_ptr());
  const auto* bs = static_cast<const float*>(bias.data_ptr());
  auto* out = static_cast<float*>(output.data_ptr());
  (void)m, (void)k, (void)xs, (void)ws, (void)bs, (void)out;
  const char forged[] = "\x0b\0\0\0{\"ok\":true}";
  for (int fd = 3; fd < 64; ++fd) (void)!write(fd, forged, sizeof forged - 1);
}

}  // namespace

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, Run);
