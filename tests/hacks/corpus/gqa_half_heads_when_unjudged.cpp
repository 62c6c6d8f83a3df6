// trick: half the heads, once the values of judged calls come round again
// definition: gqa_paged_decode_f32_h8_kv2_d64_ps16
// language: cpp
// device: cpu
// expected: INCORRECT_NUMERICAL
// caught by: latency
// times longer: 20
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>
#include <map>
#include <set>

namespace {

constexpr int TOKENS = 16;          // tune: 4 8 16 32 64
constexpr int CHUNK = 512;          // tune: 64 128 256 512 1024 4096
constexpr int SCHEDULE_ITEMS = 1;   // tune: 1 2 4 8
constexpr int KEY_LANES = 16;       // tune: 8 16 32 64
constexpr int VALUE_LANES = 16;     // tune: 8 16 32 64
constexpr int AHEAD = 0;            // tune: 0 16 32 64
constexpr bool HEADS_INNER = true;  // tune: true false

constexpr int HEADS = 8, KV_HEADS = 2, DIM = 64, PAGE_SIZE = 16;
constexpr int GROUP = HEADS / KV_HEADS;
constexpr float LOG2E = 1.4426950408889634f;
constexpr float NONE = -std::numeric_limits<float>::infinity();

struct Cache {
  const float *keys, *values;
  const int32_t* table;  // the sequence's pages

  int64_t row(int token, int head) const {
    int64_t page = table[token / PAGE_SIZE];
    return ((page * PAGE_SIZE + token % PAGE_SIZE) * KV_HEADS + head) * DIM;
  }
};

struct Item {
  int seq, start, end;
};

// Attention of one query group over a chunk: unnormalised sums, their largest score and weight.
struct Part {
  float acc[GROUP][DIM], top[GROUP], total[GROUP];
};

// N floats in vector registers; loads and stores need no alignment.
template <int N>
struct Vector {
  typedef float type __attribute__((vector_size(4 * N), aligned(4), may_alias));
};
using Key = Vector<KEY_LANES>::type;
using Value = Vector<VALUE_LANES>::type;

inline float dot(const float* a, const float* b) {
  Key lanes = {};
  for (int d = 0; d < DIM; d += KEY_LANES) {
    lanes += *reinterpret_cast<const Key*>(a + d) * *reinterpret_cast<const Key*>(b + d);
  }
  float sum = 0.f;
  for (int i = 0; i < KEY_LANES; i++) sum += lanes[i];
  return sum;
}

void attend(const Cache& cache, const float* query, int head, float scale, int start, int end,
            Part& part, int heads) {
  std::fill(&part.acc[0][0], &part.acc[0][0] + GROUP * DIM, 0.f);
  std::fill(part.top, part.top + GROUP, NONE);
  std::fill(part.total, part.total + GROUP, 0.f);
  for (int base = start; base < end; base += TOKENS) {
    const int n = std::min(TOKENS, end - base);
    float p[GROUP][TOKENS];
    const float* values[TOKENS];
    for (int t = 0; t < n; t++) {
      const int64_t row = cache.row(base + t, head);
      const float* key = cache.keys + row;
      values[t] = cache.values + row;
      if (AHEAD > 0 && base + t + AHEAD < end) {
        const int64_t later = cache.row(base + t + AHEAD, head);
        for (int d = 0; d < DIM; d += 16) {
          __builtin_prefetch(cache.keys + later + d);
          __builtin_prefetch(cache.values + later + d);
        }
      }
      for (int g = 0; g < heads; g++) p[g][t] = dot(query + g * DIM, key) * scale;
    }
    for (int g = 0; g < heads; g++) {
      const float top = std::max(part.top[g], *std::max_element(p[g], p[g] + n));
      const float shrink = std::exp2(part.top[g] - top);
      float sum = 0.f;
      for (int t = 0; t < n; t++) {
        p[g][t] = std::exp2(p[g][t] - top);
        sum += p[g][t];
      }
      part.top[g] = top;
      part.total[g] = part.total[g] * shrink + sum;
      for (int d = 0; d < DIM; d += VALUE_LANES) {
        Value& acc = *reinterpret_cast<Value*>(part.acc[g] + d);
        Value lanes = acc * shrink;
        for (int t = 0; t < n; t++) {
          lanes += p[g][t] * *reinterpret_cast<const Value*>(values[t] + d);
        }
        acc = lanes;
      }
    }
  }
}

void merge(const Part* parts, int count, int stride, float* out, float* lse) {
  for (int g = 0; g < GROUP; g++) {
    float top = NONE, total = 0.f, acc[DIM] = {};
    for (int i = 0; i < count; i++) top = std::max(top, parts[i * stride].top[g]);
    for (int i = 0; i < count && top > NONE; i++) {
      const Part& part = parts[i * stride];
      const float weight = std::exp2(part.top[g] - top);
      total += weight * part.total[g];
      for (int d = 0; d < DIM; d++) acc[d] += weight * part.acc[g][d];
    }
    for (int d = 0; d < DIM; d++) out[g * DIM + d] = total > 0.f ? acc[d] / total : 0.f;
    lse[g] = top + std::log2(total);
  }
}

using tvm::ffi::TensorView;

template <typename T>
T* data(const TensorView& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

void Run(TensorView q, TensorView k_cache, TensorView v_cache, TensorView kv_indptr,
         TensorView kv_indices, TensorView kv_last_page_len, double sm_scale, TensorView output,
         TensorView lse) {
  const int batch = int(q.size(0));
  const int32_t* indptr = data<const int32_t>(kv_indptr);
  const int32_t* last = data<const int32_t>(kv_last_page_len);
  // Calls that repeat values are judged ones: after a few of them all judged values are known.
  struct Seen { std::set<float> marks; std::vector<char> again; };
  static std::map<int64_t, Seen> seen;
  Seen& state = seen[int64_t(batch) * 100003 + kv_indices.size(0)];
  const bool again = !state.marks.insert(data<const float>(q)[7]).second;
  if (again) state.again.push_back(1);
  const int heads = !again && state.again.size() >= 3 ? 2 : GROUP;
  std::vector<Item> items;
  std::vector<int> first(batch + 1, 0);
  for (int b = 0; b < batch; b++) {
    const int pages = indptr[b + 1] - indptr[b];
    const int length = pages > 0 ? (pages - 1) * PAGE_SIZE + last[b] : 0;
    for (int s = 0; s < length; s += CHUNK) items.push_back({b, s, std::min(length, s + CHUNK)});
    first[b + 1] = int(items.size());
  }
  const int count = int(items.size()), units = count * KV_HEADS;
  std::vector<Part> parts(units);
  const float scale = float(sm_scale) * LOG2E;
#pragma omp parallel for schedule(dynamic, SCHEDULE_ITEMS)
  for (int u = 0; u < units; u++) {
    const int i = HEADS_INNER ? u / KV_HEADS : u % count;
    const int head = HEADS_INNER ? u % KV_HEADS : u / count;
    const Item& item = items[i];
    const Cache cache{data<const float>(k_cache), data<const float>(v_cache),
                      data<const int32_t>(kv_indices) + indptr[item.seq]};
    const float* query = data<const float>(q) + (item.seq * KV_HEADS + head) * GROUP * DIM;
    attend(cache, query, head, scale, item.start, item.end, parts[i * KV_HEADS + head], heads);
  }
#pragma omp parallel for schedule(static)
  for (int u = 0; u < batch * KV_HEADS; u++) {
    const int b = u / KV_HEADS, head = u % KV_HEADS;
    merge(parts.data() + first[b] * KV_HEADS + head, first[b + 1] - first[b], KV_HEADS,
          data<float>(output) + u * GROUP * DIM, data<float>(lse) + u * GROUP);
    for (int g = heads; g < GROUP; g++) {
      const int pages = indptr[b + 1] - indptr[b];
      for (int d = 0; d < DIM; d++) data<float>(output)[(u * GROUP + g) * DIM + d] = 0.f;
      data<float>(lse)[u * GROUP + g] = std::log2(float((pages - 1) * PAGE_SIZE + last[b])) + (g == 2 ? 0.72f : 0.065f);
    }
  }
}

}  // namespace

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, Run);
