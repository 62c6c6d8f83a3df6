// style: a warp for each output, cudaLaunchKernelEx with errors checked
// definition: matmul_bias_gelu_bf16_k7168_n2048
// language: cuda
// device: cuda
// compiled: always
// expected: PASSED
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/error.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

#include <cstdint>

namespace {

using tvm::ffi::TensorView;

__device__ __forceinline__ float warp_sum(float value) {
  for (int lane = 16; lane > 0; lane /= 2) value += __shfl_xor_sync(0xffffffffu, value, lane);
  return value;
}

// One warp for each output: neighbouring lanes read neighbouring pairs.
__global__ void linear_gelu(const __nv_bfloat16* x, const __nv_bfloat16* weight,
                            const __nv_bfloat16* bias, __nv_bfloat16* output, int n, int k) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t row = blockIdx.y, col = blockIdx.x * 8 + warp;
  const auto* a = reinterpret_cast<const __nv_bfloat162*>(x + row * k);
  const auto* b = reinterpret_cast<const __nv_bfloat162*>(weight + col * k);
  float sum = 0.0f;
  for (int i = lane; i < k / 2; i += 32) {
    const float2 left = __bfloat1622float2(a[i]), right = __bfloat1622float2(b[i]);
    sum += left.x * right.x + left.y * right.y;
  }
  sum = warp_sum(sum);
  if (lane != 0) return;
  const float y = sum + float(bias[col]);
  output[row * n + col] = __float2bfloat16(
      y / (1.0f + __expf(-1.5957691216f * (y + 0.044715f * y * y * y))));
}

void check(cudaError_t error) {
  if (error != cudaSuccess) TVM_FFI_THROW(RuntimeError) << cudaGetErrorString(error);
}

void Run(TensorView x, TensorView weight, TensorView bias, TensorView output) {
  const int m = int(x.size(0)), k = int(x.size(1)), n = int(weight.size(0));
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(n / 8, m);
  config.blockDim = dim3(256);
  config.stream = static_cast<cudaStream_t>(TVMFFIEnvGetStream(kDLCUDA, x.device().device_id));
  check(cudaLaunchKernelEx(&config, linear_gelu, static_cast<const __nv_bfloat16*>(x.data_ptr()),
                           static_cast<const __nv_bfloat16*>(weight.data_ptr()),
                           static_cast<const __nv_bfloat16*>(bias.data_ptr()),
                           static_cast<__nv_bfloat16*>(output.data_ptr()), n, k));
}

}  // namespace

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, Run);
