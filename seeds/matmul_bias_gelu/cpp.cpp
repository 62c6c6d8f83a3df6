// float32 linear + bias + tanh-GELU on the CPU: output = gelu_tanh(x @ weight^T + bias).
//
// The output is cut into TILE_M x TILE_N tiles, shared out between threads. For each tile the
// weight's rows are packed, TILE_K columns at a time, so that TILE_N neighbours in memory are one
// output row's neighbours; then ROWS x COLS accumulators stay in registers along K.
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/error.h>
#include <tvm/ffi/function.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

constexpr int TILE_M = 32;       // tune: 16 32 48 64 96 128
constexpr int TILE_N = 32;       // tune: 16 32 64 128 256
constexpr int TILE_K = 64;       // tune: 32 64 128 256 512
constexpr int ROWS = 1;          // tune: 1 2 4 6 8 12
constexpr int COLS = 16;         // tune: 8 16 32 64
constexpr int UNROLL_K = 1;      // tune: 1 2
constexpr int WEIGHT_FIRST = 0;   // tune: 0 1

static_assert(TILE_N % COLS == 0, "a tile holds whole groups of columns");

float gelu_tanh(float y) {
  // 0.5 * y * (1 + tanh(u)) = y / (1 + exp(-2u)), u = sqrt(2 / pi) * (y + 0.044715 * y^3)
  const float u = 0.7978845608f * (y + 0.044715f * y * y * y);
  return y / (1.0f + std::exp(-2.0f * u));
}

// packed[k][j] = weight[first_n + j][first_k + k]; columns past the weight's rows are zero.
void pack(const float* weight, int64_t n, int64_t k, int64_t first_n, int64_t first_k, int depth,
          float* packed) {
  for (int j = 0; j < TILE_N; ++j) {
    const bool inside = first_n + j < n;
    const float* row = weight + (first_n + j) * k + first_k;
    for (int p = 0; p < depth; ++p) packed[p * TILE_N + j] = inside ? row[p] : 0.0f;
  }
}

// acc[HEIGHT][COLS] += x[HEIGHT rows, depth] * packed[depth, COLS columns]
template <int HEIGHT>
void multiply(const float* x, int64_t x_stride, const float* packed, int depth, float* acc) {
  float sum[HEIGHT][COLS];
  for (int r = 0; r < HEIGHT; ++r)
    for (int c = 0; c < COLS; ++c) sum[r][c] = acc[r * TILE_N + c];
#pragma GCC unroll UNROLL_K
  for (int p = 0; p < depth; ++p) {
    for (int r = 0; r < HEIGHT; ++r) {
      const float value = x[r * x_stride + p];
#pragma omp simd
      for (int c = 0; c < COLS; ++c) sum[r][c] += value * packed[p * TILE_N + c];
    }
  }
  for (int r = 0; r < HEIGHT; ++r)
    for (int c = 0; c < COLS; ++c) acc[r * TILE_N + c] = sum[r][c];
}

void tile(const float* x, const float* weight, const float* bias, float* output, int64_t n,
          int64_t k, int64_t first_m, int64_t first_n, int height) {
  alignas(64) float packed[TILE_K * TILE_N];
  alignas(64) float acc[TILE_M * TILE_N] = {};
  for (int64_t first_k = 0; first_k < k; first_k += TILE_K) {
    const int depth = static_cast<int>(std::min<int64_t>(TILE_K, k - first_k));
    pack(weight, n, k, first_n, first_k, depth, packed);
    for (int c = 0; c < TILE_N; c += COLS) {
      const float* block = x + first_m * k + first_k;
      int r = 0;
      for (; r + ROWS <= height; r += ROWS)
        multiply<ROWS>(block + r * k, k, packed + c, depth, acc + r * TILE_N + c);
      for (; r < height; ++r)
        multiply<1>(block + r * k, k, packed + c, depth, acc + r * TILE_N + c);
    }
  }
  const int width = static_cast<int>(std::min<int64_t>(TILE_N, n - first_n));
  for (int r = 0; r < height; ++r)
    for (int c = 0; c < width; ++c)
      output[(first_m + r) * n + first_n + c] = gelu_tanh(acc[r * TILE_N + c] + bias[first_n + c]);
}

}  // namespace

void Run(tvm::ffi::TensorView x, tvm::ffi::TensorView weight, tvm::ffi::TensorView bias,
         tvm::ffi::TensorView output) {
  const int64_t m = x.size(0), k = x.size(1), n = weight.size(0);
  const auto* x_data = static_cast<const float*>(x.data_ptr());
  const auto* weight_data = static_cast<const float*>(weight.data_ptr());
  const auto* bias_data = static_cast<const float*>(bias.data_ptr());
  auto* output_data = static_cast<float*>(output.data_ptr());
  const int64_t tiles_m = (m + TILE_M - 1) / TILE_M, tiles_n = (n + TILE_N - 1) / TILE_N;
#pragma omp parallel for schedule(static)
  for (int64_t t = 0; t < tiles_m * tiles_n; ++t) {
    const int64_t tm = WEIGHT_FIRST ? t / tiles_n : t % tiles_m;
    const int64_t tn = WEIGHT_FIRST ? t % tiles_n : t / tiles_m;
    const int height = static_cast<int>(std::min<int64_t>(TILE_M, m - tm * TILE_M));
    tile(x_data, weight_data, bias_data, output_data, n, k, tm * TILE_M, tn * TILE_N, height);
  }
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, Run);
