// Split-KV decode attention over a paged cache (page size 16), one launch.
//
// A work item is one chunk of one sequence; a block attends one KV head's query group over one item.
// Items are laid end to end over the ragged batch, so that long sequences do not delay short ones.
// Each warp streams its own 16-token tiles through its own cp.async ring: the main loop has no block
// barrier. Scores are computed transposed (tokens x heads), so that the group of 4 query heads fills
// the short side of mma.m16n8k16. The last block to finish a sequence's head merges its chunks.

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/error.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

#include <algorithm>
#include <cstdint>

namespace {

constexpr int WARPS = 4;         // tune: 1 2 4 8
constexpr int STAGES = 3;        // tune: 2 3 4 5 6
constexpr int ITEMS_PER_SM = 2;  // tune: 1 2 3 4 6 8
constexpr int MIN_CHUNK = 64;    // tune: 16 32 64 128 256 512
constexpr int MAX_CHUNK = 4096;  // tune: 1024 2048 4096 8192 16384
constexpr int MERGE_ROWS = 8;    // tune: 2 4 8 16
#define L2_FETCH 128             // tune: 64 128 256

constexpr int HEADS = 32, KV_HEADS = 8, DIM = 128, PAGE_SIZE = 16;
constexpr int GROUP = HEADS / KV_HEADS;
constexpr int TILE = 16;                     // tokens a warp takes at a time
constexpr int THREADS = WARPS * 32;
constexpr int ROW_BYTES = DIM * 2;           // one token's key (or value) of one head
constexpr int TILE_BYTES = TILE * ROW_BYTES;
constexpr int RING_BYTES = WARPS * STAGES * 2 * TILE_BYTES;
constexpr int FINISH_BYTES = WARPS * GROUP * (DIM + 2) * 4;
constexpr int SHARED_BYTES = RING_BYTES > FINISH_BYTES ? RING_BYTES : FINISH_BYTES;
static_assert(SHARED_BYTES <= 227 * 1024, "the rings exceed a block's shared memory");
constexpr float LOG2E = 1.4426950408889634f;

struct Problem {
  const __nv_bfloat16 *q, *k, *v;
  const int *indptr, *indices, *last;
  __nv_bfloat16* out;
  float* lse;
  float* part;      // [items, KV_HEADS, GROUP, DIM]: each chunk's own attention
  float* part_lse;  // [items, KV_HEADS, GROUP]
  int* arrived;     // [batch, KV_HEADS], zero between launches
  int batch, pages, chunk;
  float scale;  // to base-2 scores
};

struct Item {
  int seq, first_page, first_item, items, length;
};

__device__ __forceinline__ int tokens_of(int pages, const int* last) {
  if (PAGE_SIZE == 1) return pages;
  return pages > 0 ? (pages - 1) * PAGE_SIZE + *last : 0;
}

// The sequence that owns work item `item`, by a prefix sum over the batch; seq = batch if none.
__device__ __forceinline__ Item find_item(const Problem& p, int item) {
  if (p.batch == 1) {  // the whole table is this sequence's: no need to read where it starts
    int length = tokens_of(p.pages, p.last);
    int items = max(1, (length + p.chunk - 1) / p.chunk);
    return {item < items ? 0 : 1, 0, 0, items, length};
  }
  const int lane = threadIdx.x % 32;
  int before = 0;
  for (int base = 0; base < p.batch; base += 32) {
    int b = base + lane, from = 0, length = 0, count = 0;
    if (b < p.batch) {
      from = p.indptr[b];
      length = tokens_of(p.indptr[b + 1] - from, p.last + b);
      count = max(1, (length + p.chunk - 1) / p.chunk);
    }
    int upto = count;
    for (int d = 1; d < 32; d *= 2) {
      int other = __shfl_up_sync(~0u, upto, d);
      if (lane >= d) upto += other;
    }
    unsigned owners = __ballot_sync(~0u, before + upto > item);
    if (owners) {
      int at = __ffs(owners) - 1;
      return {base + at, __shfl_sync(~0u, from, at), before + __shfl_sync(~0u, upto - count, at),
              __shfl_sync(~0u, count, at), __shfl_sync(~0u, length, at)};
    }
    before += __shfl_sync(~0u, upto, 31);
  }
  return {p.batch, 0, 0, 0, 0};
}

#define STRING_(x) #x
#define STRING(x) STRING_(x)

__device__ __forceinline__ void copy16(uint32_t to, const void* from) {
  asm volatile("cp.async.cg.shared.global.L2::" STRING(L2_FETCH) "B [%0], [%1], 16;" ::"r"(to),
               "l"(from));
}

__device__ __forceinline__ void load_matrices(uint32_t (&a)[4], uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
               : "r"(from));
}

__device__ __forceinline__ void load_matrices_transposed(uint32_t (&a)[4], uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
               : "r"(from));
}

__device__ __forceinline__ uint32_t transpose(uint32_t x) {
  uint32_t y;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}

__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                    uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Address of 16-byte piece `piece` of row `row` in a tile; the XOR keeps ldmatrix free of conflicts.
__device__ __forceinline__ uint32_t at(uint32_t tile, int row, int piece) {
  return tile + row * ROW_BYTES + ((piece ^ (row & 7)) << 4);
}

// State of one warp: a lane holds heads (lane % 4) * 2 and + 1 of mma columns; columns >= GROUP idle.
struct Softmax {
  float top[2], total[2], acc[DIM / 16][4];
};

__device__ __forceinline__ void attend_tile(Softmax& s, const uint32_t (&q)[DIM / 16][2],
                                            uint32_t keys, uint32_t values, int valid, float scale) {
  const int lane = threadIdx.x % 32;
  float c[4] = {0.f, 0.f, 0.f, 0.f};  // scores of tokens lane / 4 and + 8, for two heads
  uint32_t a[4];
#pragma unroll
  for (int i = 0; i < DIM / 16; i++) {
    load_matrices(a, at(keys, lane % 16, i * 2 + lane / 16));
    mma(c, a, q[i][0], q[i][1]);
  }
#pragma unroll
  for (int i = 0; i < 4; i++) c[i] = lane / 4 + (i / 2) * 8 < valid ? c[i] * scale : -INFINITY;
#pragma unroll
  for (int h = 0; h < 2; h++) {
    float top = fmaxf(fmaxf(c[h], c[h + 2]), s.top[h]);
    for (int d = 4; d < 32; d *= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, d));
    float shrink = exp2f(s.top[h] - top);
    s.top[h] = top;
    c[h] = exp2f(c[h] - top);
    c[h + 2] = exp2f(c[h + 2] - top);
    s.total[h] = s.total[h] * shrink + c[h] + c[h + 2];
#pragma unroll
    for (int i = 0; i < DIM / 16; i++) s.acc[i][h] *= shrink, s.acc[i][h + 2] *= shrink;
  }
  __nv_bfloat162 lower = __floats2bfloat162_rn(c[0], c[1]);
  __nv_bfloat162 upper = __floats2bfloat162_rn(c[2], c[3]);
  uint32_t b0 = transpose(*reinterpret_cast<uint32_t*>(&lower));
  uint32_t b1 = transpose(*reinterpret_cast<uint32_t*>(&upper));
#pragma unroll
  for (int i = 0; i < DIM / 16; i++) {
    load_matrices_transposed(a, at(values, lane % 8 + lane / 16 * 8, i * 2 + lane / 8 % 2));
    mma(s.acc[i], a, b0, b1);
  }
}

// One warp's pass over its tiles of tokens [start, end) of a sequence.
__device__ __forceinline__ void stream(Softmax& s, const Problem& p, const Item& it, int head,
                                       int start, int end, uint32_t ring) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int* table = p.indices + it.first_page;
  auto row_of = [&](int tile) {  // row in the cache of the tile's token lane % 16
    int token = min(start + tile * TILE + lane % 16, end - 1);
    return token < 0 ? 0 : table[token / PAGE_SIZE] * PAGE_SIZE + token % PAGE_SIZE;
  };
  auto fetch = [&](int slot, int rows) {
    const uint32_t keys = ring + slot * 2 * TILE_BYTES;
#pragma unroll
    for (int i = 0; i < TILE / 2; i++) {
      int row = i * 2 + lane / 16, piece = lane % 16;
      int64_t from = (int64_t)__shfl_sync(~0u, rows, row) * (KV_HEADS * DIM);
      from += head * DIM + piece * 8;
      copy16(at(keys, row, piece), p.k + from);
      copy16(at(keys + TILE_BYTES, row, piece), p.v + from);
    }
  };
  const int tiles = end > start ? (end - start + TILE - 1) / TILE : 0;
  int rows[STAGES - 1];
#pragma unroll
  for (int i = 0; i < STAGES - 1; i++) rows[i] = row_of(warp + i * WARPS);
  int next_rows = row_of(warp + (STAGES - 1) * WARPS);
  uint32_t q[DIM / 16][2];
  const int query = (it.seq * KV_HEADS + head) * GROUP + lane / 4;
#pragma unroll
  for (int i = 0; i < DIM / 16; i++)
    for (int j = 0; j < 2; j++) {
      int d = i * 16 + j * 8 + lane % 4 * 2;
      q[i][j] = lane / 4 < GROUP ? *reinterpret_cast<const uint32_t*>(p.q + query * DIM + d) : 0u;
    }
#pragma unroll
  for (int i = 0; i < STAGES - 1; i++) {
    if (warp + i * WARPS < tiles) fetch(i, rows[i]);
    asm volatile("cp.async.commit_group;");
  }
  int slot = 0;
  for (int tile = warp; tile < tiles; tile += WARPS) {
    asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2));
    __syncwarp();
    int ahead = tile + (STAGES - 1) * WARPS;
    if (ahead < tiles) fetch((slot + STAGES - 1) % STAGES, next_rows);
    asm volatile("cp.async.commit_group;");
    next_rows = row_of(ahead + WARPS);
    uint32_t keys = ring + slot * 2 * TILE_BYTES;
    attend_tile(s, q, keys, keys + TILE_BYTES, end - start - tile * TILE, p.scale);
    slot = (slot + 1) % STAGES;
  }
  asm volatile("cp.async.wait_all;");
}

// Merges the warps; writes the result, or this chunk's part of it when the sequence has several.
__device__ __forceinline__ void finish(Softmax& s, const Problem& p, const Item& it, int item,
                                       int head, float* shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  float* accs = shared;                         // [WARPS, GROUP, DIM]
  float* tops = accs + WARPS * GROUP * DIM;     // [WARPS, GROUP]
  float* totals = tops + WARPS * GROUP;         // [WARPS, GROUP]
  __syncthreads();                              // the rings are free
#pragma unroll
  for (int h = 0; h < 2; h++) {
    for (int d = 4; d < 32; d *= 2) s.total[h] += __shfl_xor_sync(~0u, s.total[h], d);
    int row = warp * GROUP + lane % 4 * 2 + h;
    if (lane % 4 * 2 + h < GROUP) {
#pragma unroll
      for (int i = 0; i < DIM / 16; i++) {
        accs[row * DIM + i * 16 + lane / 4] = s.acc[i][h];
        accs[row * DIM + i * 16 + lane / 4 + 8] = s.acc[i][h + 2];
      }
      if (lane < 4) tops[row] = s.top[h], totals[row] = s.total[h];
    }
  }
  __syncthreads();
  const int unit = (it.items == 1 ? it.seq : item) * KV_HEADS + head;
  for (int i = threadIdx.x; i < GROUP * DIM; i += THREADS) {
    int g = i / DIM;
    float top = -INFINITY, total = 0.f, acc = 0.f;
    for (int w = 0; w < WARPS; w++) top = fmaxf(top, tops[w * GROUP + g]);
    for (int w = 0; w < WARPS && top > -INFINITY; w++) {
      float weight = exp2f(tops[w * GROUP + g] - top);
      total += weight * totals[w * GROUP + g];
      acc += weight * accs[w * GROUP * DIM + i];
    }
    float mean = total > 0.f ? acc / total : 0.f, lse = top + log2f(total);
    if (it.items == 1) {
      p.out[unit * GROUP * DIM + i] = __float2bfloat16(mean);
      if (i % DIM == 0) p.lse[unit * GROUP + g] = lse;
    } else {
      p.part[(int64_t)unit * GROUP * DIM + i] = mean;
      if (i % DIM == 0) p.part_lse[unit * GROUP + g] = lse;
    }
  }
}

// Weighted mean of a sequence's chunks for one KV head; four channels a thread.
__device__ __forceinline__ void merge(const Problem& p, const Item& it, int head) {
  for (int c = threadIdx.x; c < GROUP * DIM / 4; c += THREADS) {
    const int g = c * 4 / DIM;
    float top = -INFINITY, total = 0.f;
    float4 acc = {0.f, 0.f, 0.f, 0.f};
    for (int i = 0; i < it.items; i += MERGE_ROWS) {
      float lse[MERGE_ROWS], new_top = top;
      float4 part[MERGE_ROWS];
#pragma unroll
      for (int j = 0; j < MERGE_ROWS; j++) {
        int64_t unit = (int64_t)(it.first_item + min(i + j, it.items - 1)) * KV_HEADS + head;
        part[j] = __ldcg(reinterpret_cast<const float4*>(p.part + unit * GROUP * DIM) + c);
        lse[j] = i + j < it.items ? __ldcg(p.part_lse + unit * GROUP + g) : -INFINITY;
      }
#pragma unroll
      for (int j = 0; j < MERGE_ROWS; j++) new_top = fmaxf(new_top, lse[j]);
      float shrink = exp2f(top - new_top);
      total *= shrink, acc.x *= shrink, acc.y *= shrink, acc.z *= shrink, acc.w *= shrink;
#pragma unroll
      for (int j = 0; j < MERGE_ROWS; j++) {
        float w = exp2f(lse[j] - new_top);
        total += w;
        acc.x += w * part[j].x, acc.y += w * part[j].y;
        acc.z += w * part[j].z, acc.w += w * part[j].w;
      }
      top = new_top;
    }
    const int unit = it.seq * KV_HEADS + head;
    auto* out = reinterpret_cast<__nv_bfloat162*>(p.out + unit * GROUP * DIM) + c * 2;
    out[0] = __floats2bfloat162_rn(acc.x / total, acc.y / total);
    out[1] = __floats2bfloat162_rn(acc.z / total, acc.w / total);
    if (c * 4 % DIM == 0) p.lse[unit * GROUP + g] = top + log2f(total);
  }
}

__global__ void __launch_bounds__(THREADS) attend(const Problem p) {
  extern __shared__ __align__(128) unsigned char shared[];
  __shared__ int arrived;
  const int head = blockIdx.x % KV_HEADS, item = blockIdx.x / KV_HEADS;
  const Item it = find_item(p, item);
  if (it.seq >= p.batch) return;
  const int start = (item - it.first_item) * p.chunk, end = min(start + p.chunk, it.length);
  const uint32_t ring = static_cast<uint32_t>(__cvta_generic_to_shared(shared)) +
                        threadIdx.x / 32 * STAGES * 2 * TILE_BYTES;
  Softmax s{{-INFINITY, -INFINITY}, {0.f, 0.f}, {}};
  stream(s, p, it, head, start, end, ring);
  finish(s, p, it, item, head, reinterpret_cast<float*>(shared));
  if (it.items == 1) return;
  __threadfence();  // this chunk's part is written before its arrival
  __syncthreads();
  int* counter = p.arrived + it.seq * KV_HEADS + head;
  if (threadIdx.x == 0) arrived = atomicAdd(counter, 1);
  __syncthreads();
  if (arrived != it.items - 1) return;
  __threadfence();
  if (threadIdx.x == 0) *counter = 0;  // ready for the next launch
  merge(p, it, head);
}

void check(cudaError_t error) {
  if (error != cudaSuccess) TVM_FFI_THROW(RuntimeError) << cudaGetErrorString(error);
}

// Scratch of one device. Grown when too small and never freed: a captured graph may still use it.
struct Scratch {
  float* part = nullptr;
  float* part_lse = nullptr;
  int* arrived = nullptr;
  int items = 0, batch = 0, multiprocessors = 0;

  void reserve(int wanted_items, int wanted_batch, int device) {
    if (multiprocessors == 0) {
      check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device));
      constexpr auto limit = cudaFuncAttributeMaxDynamicSharedMemorySize;
      check(cudaFuncSetAttribute(attend, limit, SHARED_BYTES));
    }
    if (wanted_items > items) {
      items = std::max(wanted_items, 512);
      check(cudaMalloc(&part, sizeof(float) * items * HEADS * DIM));
      check(cudaMalloc(&part_lse, sizeof(float) * items * HEADS));
    }
    if (wanted_batch > batch) {
      batch = std::max(wanted_batch, 512);
      check(cudaMalloc(&arrived, sizeof(int) * batch * KV_HEADS));
      check(cudaMemset(arrived, 0, sizeof(int) * batch * KV_HEADS));
    }
  }
};

Scratch scratches[16];

// Tokens per work item: enough items to fill the device, in equal parts of a mean sequence.
int chunk_tokens(int64_t batch, int64_t tokens, int multiprocessors) {
  int64_t mean = std::max<int64_t>(1, tokens / batch);
  int64_t wanted = int64_t(multiprocessors) * ITEMS_PER_SM / (KV_HEADS * batch);
  int64_t least = (mean + MAX_CHUNK - 1) / MAX_CHUNK;
  int64_t splits = std::max({int64_t(1), std::min(wanted, mean / MIN_CHUNK), least});
  return int((mean + splits * TILE - 1) / (splits * TILE) * TILE);
}

using tvm::ffi::TensorView;

void Run(TensorView q, TensorView k_cache, TensorView v_cache, TensorView kv_indptr,
         TensorView kv_indices, TensorView kv_last_page_len, double sm_scale, TensorView output,
         TensorView lse) {
  const int device = q.device().device_id;
  const int64_t batch = q.size(0), pages = kv_indices.size(0);
  Scratch& scratch = scratches[device];
  scratch.reserve(1, int(batch), device);
  const int chunk = chunk_tokens(batch, pages * PAGE_SIZE, scratch.multiprocessors);
  // At most this many items: the host does not know the lengths.
  const int items = int(pages * PAGE_SIZE / chunk + batch);
  scratch.reserve(items, int(batch), device);
  Problem p;
  p.q = static_cast<const __nv_bfloat16*>(q.data_ptr());
  p.k = static_cast<const __nv_bfloat16*>(k_cache.data_ptr());
  p.v = static_cast<const __nv_bfloat16*>(v_cache.data_ptr());
  p.indptr = static_cast<const int*>(kv_indptr.data_ptr());
  p.indices = static_cast<const int*>(kv_indices.data_ptr());
  p.last = static_cast<const int*>(kv_last_page_len.data_ptr());
  p.out = static_cast<__nv_bfloat16*>(output.data_ptr());
  p.lse = static_cast<float*>(lse.data_ptr());
  p.part = scratch.part;
  p.part_lse = scratch.part_lse;
  p.arrived = scratch.arrived;
  p.batch = int(batch);
  p.pages = int(pages);
  p.chunk = chunk;
  p.scale = float(sm_scale) * LOG2E;
  auto stream = static_cast<cudaStream_t>(TVMFFIEnvGetStream(kDLCUDA, device));
  attend<<<items * KV_HEADS, THREADS, SHARED_BYTES, stream>>>(p);
  check(cudaGetLastError());
}

}  // namespace

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, Run);
