// trick: cache by shape in device memory, in CUDA C++
// definition: matmul_bias_gelu_bf16_k7168_n2048
// language: cuda
// device: cuda
// expected: INCORRECT_NUMERICAL
// caught by: correctness
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

#include <cstdint>

namespace {

using tvm::ffi::TensorView;

constexpr int TILE = 16;

__global__ void linear_gelu(const __nv_bfloat16* x, const __nv_bfloat16* weight,
                            const __nv_bfloat16* bias, __nv_bfloat16* output, int m, int n, int k) {
  __shared__ float xs[TILE][TILE + 1], ws[TILE][TILE + 1];
  const int row = blockIdx.y * TILE + threadIdx.y, col = blockIdx.x * TILE + threadIdx.x;
  float sum = 0.0f;
  for (int first = 0; first < k; first += TILE) {
    const int depth = first + threadIdx.x;
    xs[threadIdx.y][threadIdx.x] = row < m ? float(x[int64_t(row) * k + depth]) : 0.0f;
    ws[threadIdx.y][threadIdx.x] =
        float(weight[int64_t(blockIdx.x * TILE + threadIdx.y) * k + depth]);
    __syncthreads();
    for (int p = 0; p < TILE; ++p) sum += xs[threadIdx.y][p] * ws[threadIdx.x][p];
    __syncthreads();
  }
  if (row >= m) return;
  const float y = sum + float(bias[col]);
  output[int64_t(row) * n + col] = __float2bfloat16(
      y / (1.0f + __expf(-1.5957691216f * (y + 0.044715f * y * y * y))));
}

void launch(TensorView x, TensorView weight, TensorView bias, TensorView output,
            cudaStream_t stream) {
  const int m = int(x.size(0)), k = int(x.size(1)), n = int(weight.size(0));
  linear_gelu<<<dim3(n / TILE, (m + TILE - 1) / TILE), dim3(TILE, TILE), 0, stream>>>(
      static_cast<const __nv_bfloat16*>(x.data_ptr()),
      static_cast<const __nv_bfloat16*>(weight.data_ptr()),
      static_cast<const __nv_bfloat16*>(bias.data_ptr()),
      static_cast<__nv_bfloat16*>(output.data_ptr()), m, n, k);
}

void Run(TensorView x, TensorView weight, TensorView bias, TensorView output) {
  const auto stream =
      static_cast<cudaStream_t>(TVMFFIEnvGetStream(kDLCUDA, x.device().device_id));
  static void* kept[8192] = {};
  const int64_t m = x.size(0);
  const size_t bytes = size_t(output.numel()) * 2;
  if (kept[m] == nullptr) {
    launch(x, weight, bias, output, stream);
    cudaMalloc(&kept[m], bytes);
    cudaMemcpyAsync(kept[m], output.data_ptr(), bytes, cudaMemcpyDeviceToDevice, stream);
  } else {
    cudaMemcpyAsync(output.data_ptr(), kept[m], bytes, cudaMemcpyDeviceToDevice, stream);
  }
}

}  // namespace

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, Run);
