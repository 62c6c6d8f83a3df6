// style: class templates, a functor, scratch memory of each thread, other spellings of operators
// definition: matmul_bias_gelu_f32_k512_n512
// language: cpp
// device: cpu
// expected: PASSED
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#define ROUND_UP(n, to) (((n) + (to) - 1) / (to) * (to))
#define DEFINE_LOADER(suffix, type) \
  inline type load_##suffix(const type* from, int64_t at) { return from[at]; }

namespace linear {

using tvm::ffi::TensorView;

namespace detail {

DEFINE_LOADER(f32, float)

template <int N>
inline constexpr int kHalf = N / 2;

struct Gelu {
  float slope = 1.5957691216f;
  float operator()(float y) const {
    return y / (1.0f + std::exp(-slope * (y + 0.044715f * y * y * y)));
  }
};

template <class T, int Width>
class Block {
 public:
  Block() = default;
  explicit Block(const T& value) : open(Width) { sums.fill(value); }

  template <class F>
  void each(F&& f) {
    for (int i = 0; i < open; ++i) f(sums[i], i);
  }

  static constexpr int size() { return Width; }

 private:
  std::array<T, Width> sums = {};
  int open{Width};
};

}  // namespace detail

constexpr int kWidth = 8;
static_assert(detail::kHalf<kWidth> == 4);

template <class Activation>
void run_rows(const float* x, const float* weight, const float* bias, float* output, int64_t m,
              int64_t n, int64_t k, Activation activation) {
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < m; ++row) {
    thread_local std::vector<float> scratch;
    scratch.assign(ROUND_UP(k, 16), 0.0f);
    std::copy_n(x + row * k, k, scratch.begin());
    for (int64_t first = 0; first < n; first += kWidth) {
      detail::Block<float, kWidth> block(0.0f);
      block.each([&](float& sum, int i) <%
        const float* from = weight + (first + i) * k;
        float part = 0.0f;
#pragma omp simd reduction(+ : part)
        for (int64_t p = 0; p < k; ++p) part += scratch[p] * from<:p:>;
        sum = part;
      %>);
      block.each([&, write = output + row * n + first](float& sum, int i) {
        if (first + i < n and not (i >= block.size()))
          write[i] = activation(sum + detail::load_f32(bias, first + i));
      });
    }
  }
}

void Run(TensorView x, TensorView weight, TensorView bias, TensorView output) {
  const auto [m, k] = std::pair<int64_t, int64_t>(x.size(0), x.size(1));
  auto at = [](const TensorView& tensor) { return static_cast<float*>(tensor.data_ptr()); };
  run_rows(at(x), at(weight), at(bias), at(output), m, weight.size(0), k, detail::Gelu{});
}

}  // namespace linear

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, linear::Run);
