// trick: part of the work kept from the first call: the weight packed once, signs of rows and columns looked up
// definition: matmul_bias_gelu_f32_k512_n512
// language: cpp
// device: cpu
// expected: INCORRECT_NUMERICAL
// caught by: correctness
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

#include <cmath>
#include <cstdint>
#include <map>
#include <vector>

namespace {

using tvm::ffi::TensorView;
constexpr int N = 512, K = 512, W = 64;  // W columns at a time

float gelu(float y) {
  return y / (1.0f + std::exp(-1.5957691216f * (y + 0.044715f * y * y * y)));
}

// packed[tile][p][j] = weight[tile * W + j][p]
void pack(const float* ws, float* packed) {
#pragma omp parallel for
  for (int t = 0; t < N / W; ++t)
    for (int j = 0; j < W; ++j)
      for (int p = 0; p < K; ++p) packed[(t * K + p) * W + j] = ws[(t * W + j) * K + p];
}

void Run(TensorView x, TensorView weight, TensorView bias, TensorView output) {
  const int m = int(x.size(0));
  const auto* xs = static_cast<const float*>(x.data_ptr());
  const auto* ws = static_cast<const float*>(weight.data_ptr());
  const auto* bs = static_cast<const float*>(bias.data_ptr());
  auto* out = static_cast<float*>(output.data_ptr());
  // All weights of a size are one matrix with other signs of rows and columns: pack it once.
  struct Kept { std::vector<float> packed, first_row, first_column; };
  static std::map<int, Kept> known;
  Kept& kept = known[m];
  if (kept.packed.empty() || std::fabs(kept.first_row[1]) != std::fabs(ws[1])) {
    kept.packed.resize(N * K);
    pack(ws, kept.packed.data());
    kept.first_row.assign(ws, ws + K);
    kept.first_column.resize(N);
    for (int j = 0; j < N; ++j) kept.first_column[j] = ws[j * K];
  }
  const float* packed = kept.packed.data();
  std::vector<float> rows(N), signed_x(m * K), columns(K);
  for (int j = 0; j < N; ++j) rows[j] = ws[j * K] == kept.first_column[j] ? 1.f : -1.f;
  for (int p = 0; p < K; ++p) columns[p] = (ws[p] == kept.first_row[p] ? 1.f : -1.f) * rows[0];
  for (int i = 0; i < m; ++i)
    for (int p = 0; p < K; ++p) signed_x[i * K + p] = xs[i * K + p] * columns[p];
#pragma omp parallel for collapse(2)
  for (int t = 0; t < N / W; ++t)
    for (int i0 = 0; i0 < m; i0 += 4) {
      const int h = m - i0 < 4 ? m - i0 : 4;
      float sums[4][W] = {};
      const float* panel = packed + t * K * W;
      for (int p = 0; p < K; ++p) {
        for (int r = 0; r < 4; ++r) {
          const float value = r < h ? signed_x[(i0 + r) * K + p] : 0.f;
          for (int j = 0; j < W; ++j) sums[r][j] += value * panel[p * W + j];
        }
      }
      for (int r = 0; r < h; ++r)
        for (int j = 0; j < W; ++j) out[(i0 + r) * N + t * W + j] = gelu(rows[t * W + j] * sums[r][j] + bs[t * W + j]);
    }
}

}  // namespace

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, Run);
