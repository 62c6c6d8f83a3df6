// style: cooperative groups and cuda::pipeline by namespace alias, assembly in macros
// definition: matmul_bias_gelu_bf16_k7168_n2048
// language: cuda
// device: cuda
// expected: PASSED
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
#include <cuda/pipeline>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/error.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

#include <cstdint>

#define PREFETCH(p) asm volatile("prefetch.global.L2 [%0];" ::"l"(p))
#define CHECK(call)                                                                 \
  do {                                                                              \
    const cudaError_t status_ = (call);                                             \
    if (status_ != cudaSuccess) TVM_FFI_THROW(RuntimeError) << cudaGetErrorString(status_); \
  } while (0)

namespace cg = cooperative_groups;

namespace {

using tvm::ffi::TensorView;
using bf16 = __nv_bfloat16;

constexpr int THREADS = 128, WARPS = THREADS / 32, CHUNK = 512;

template <int Stages>
__global__ void __launch_bounds__(THREADS)
    linear_gelu(const bf16* __restrict__ x, const bf16* __restrict__ weight,
                const bf16* __restrict__ bias, bf16* __restrict__ output, int n, int k) {
  __shared__ alignas(16) bf16 row[Stages][CHUNK];
  const auto block = cg::this_thread_block();
  const auto warp = cg::tiled_partition<32>(block);
  const int column = blockIdx.x * WARPS + int(warp.meta_group_rank());
  const bf16* from = x + int64_t(blockIdx.y) * k;
  const bf16* mine = weight + int64_t(column) * k;
  auto pipe = cuda::make_pipeline();
  const int chunks = k / CHUNK;
  auto fetch = [&](int chunk) {
    pipe.producer_acquire();
    const int at = block.thread_rank() * (CHUNK / THREADS);
    cuda::memcpy_async(&row[chunk % Stages][at], from + chunk * CHUNK + at,
                       cuda::aligned_size_t<8>(sizeof(bf16) * CHUNK / THREADS), pipe);
    pipe.producer_commit();
  };
  float sum = 0.0f;
  if (chunks > 0) fetch(0);
  for (int chunk = 0; chunk < chunks; ++chunk) {
    if (chunk + 1 < chunks) {
      fetch(chunk + 1);
      PREFETCH(mine + (chunk + 1) * CHUNK);
      cuda::pipeline_consumer_wait_prior<1>(pipe);
    } else {
      cuda::pipeline_consumer_wait_prior<0>(pipe);
    }
    block.sync();
    for (int p = warp.thread_rank(); p < CHUNK; p += 32)
      sum += float(row[chunk % Stages][p]) * float(mine[chunk * CHUNK + p]);
    block.sync();
    pipe.consumer_release();
  }
  sum = cg::reduce(warp, sum, cg::plus<float>());
  if (warp.thread_rank() != 0) return;
  const float y = sum + float(bias[column]);
  output[int64_t(blockIdx.y) * n + column] = __float2bfloat16(
      y / (1.0f + __expf(-1.5957691216f * (y + 0.044715f * y * y * y))));
}

void Run(TensorView x, TensorView weight, TensorView bias, TensorView output) {
  const int m = int(x.size(0)), k = int(x.size(1)), n = int(weight.size(0));
  const auto stream =
      reinterpret_cast<cudaStream_t>(TVMFFIEnvGetStream(kDLCUDA, x.device().device_id));
  const auto at = [](const TensorView& tensor) { return static_cast<bf16*>(tensor.data_ptr()); };
  linear_gelu<2><<<dim3(n / WARPS, m), THREADS, 0, stream>>>(at(x), at(weight), at(bias),
                                                             at(output), n, k);
  CHECK(cudaGetLastError());
}

}  // namespace

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, Run);
