// Split-KV decode attention over a paged cache (page size 16), one launch.
//
// The batch's tokens, laid end to end, are cut in equal shares; a group of blocks attends one KV head's
// query group over one share, so ragged batches are balanced. A share is a run of segments, each of one
// sequence. Each warp streams its own 16-token tiles through its own cp.async ring: the main loop has no
// block barrier, and the next segment's first tiles are on their way while this one is merged. Scores
// are computed transposed (tokens x heads), so that the group of 4 query heads fills the short side of
// mma.m16n8k16. Blocks of a cluster merge through distributed shared memory; where a sequence spans
// several shares, the last to arrive merges them through global memory.

#include <cooperative_groups.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/error.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

#include <algorithm>
#include <cstdint>

namespace {

constexpr int WARPS = 8;             // tune: 2 4 6 8 12
constexpr int STAGES = 3;            // tune: 2 3 4 5 6
constexpr int BLOCKS_PER_SM = 1;     // tune: 1 2 3 4 6
constexpr int MIN_CHUNK = 128;       // tune: 32 64 128 256 512
constexpr int MAX_CHUNK = 8192;      // tune: 1024 2048 4096 8192 16384 65536 1048576
constexpr int MAX_CLUSTER = 8;       // tune: 1 2 4 8 16
constexpr int CLUSTER_TOKENS = 4096;  // tune: 2048 4096 8192 16384 1048576
constexpr int MERGE_ROWS = 8;        // tune: 2 4 8 16
constexpr bool HEADS_INNER = true;   // tune: true false
#define L2_FETCH 128                 // tune: 64 128 256
#define L2_POLICY evict_first        // tune: evict_first evict_normal evict_unchanged

constexpr int HEADS = 32, KV_HEADS = 8, DIM = 128, PAGE_SIZE = 16;
constexpr int GROUP = HEADS / KV_HEADS;
constexpr int CELLS = GROUP * DIM;            // outputs of one KV head
constexpr int TILE = 16;                      // tokens a warp takes at a time
constexpr int THREADS = WARPS * 32;
constexpr int ROW_BYTES = DIM * 2;            // one token's key (or value) of one head
constexpr int TILE_BYTES = TILE * ROW_BYTES;
constexpr int RING_BYTES = STAGES * 2 * TILE_BYTES;
constexpr int SLICES = 16;                    // each has its own copy of the lse: see put()
constexpr float LOG2E = 1.4426950408889634f;

struct Problem {
  const __nv_bfloat16 *q, *k, *v;
  const int *indptr, *indices, *last;
  __nv_bfloat16* out;
  float* lse;
  float* part;      // [groups, 2, KV_HEADS, CELLS]: attention over a group's first and last segment
  float* part_lse;  // [groups, 2, KV_HEADS, SLICES]
  int* arrived;     // [batch, KV_HEADS, SLICES], zero between launches
  int batch, pages;
  int share, groups, cluster;  // tokens a group, groups a KV head, blocks a group
  float scale;                 // to base-2 scores
};

// What the warps of a block leave for each other, and the blocks of a cluster for each other.
struct Board {
  float acc[WARPS][CELLS], top[WARPS][GROUP], total[WARPS][GROUP];
  float mean[CELLS], lse[GROUP];
  int arrived;
};
constexpr int SHARED_BYTES = WARPS * RING_BYTES + sizeof(Board);
// Blocks of an SM that registers are kept for: no more than shared memory and the accumulators allow.
constexpr int ROOM = std::min(228 * 1024 / (SHARED_BYTES + 1024), 12 / WARPS);
constexpr int RESIDENT = std::max(1, std::min(BLOCKS_PER_SM, ROOM));
static_assert(SHARED_BYTES <= 227 * 1024, "the rings exceed a block's shared memory");

// Tokens [start, end) of one sequence. `slots` counts the sequence's tokens up to the end of its last
// page: shares are cut in slots, so that cutting needs no look at the last page's filling.
struct Segment {
  int seq, first_page, slots, start, end, length;
};

// Where a cut `at` slots behind the sequence's begin falls: on a tile's edge.
__device__ __forceinline__ int cut(int at, int slots) {
  return at >= slots ? slots : at <= 0 ? 0 : at / TILE * TILE;
}

// The group's first segment from sequence `seq` on; seq = batch if none. An empty sequence belongs to
// the group where it would begin.
__device__ __forceinline__ Segment segment_from(const Problem& p, int group, int seq) {
  const int low = group * p.share, high = low + p.share;
  for (; seq < p.batch; seq++) {
    // A batch of one owns the whole table: no need to read where it starts.
    int first = p.batch == 1 ? 0 : p.indptr[seq], next = p.batch == 1 ? p.pages : p.indptr[seq + 1];
    int begin = first * PAGE_SIZE, slots = (next - first) * PAGE_SIZE;
    if (begin >= high && group < p.groups - 1) break;
    int start = cut(low - begin, slots), end = cut(high - begin, slots);
    bool mine = slots > 0 ? start < end : min(begin / p.share, p.groups - 1) == group;
    if (!mine) continue;
    int length = PAGE_SIZE > 1 && slots > 0 ? slots - PAGE_SIZE + p.last[seq] : slots;
    return {seq, first, slots, start, end, length};
  }
  return {p.batch, 0, 0, 0, 0, 0};
}

// Number of sequences that end before the group begins.
__device__ __forceinline__ int first_sequence(const Problem& p, int group) {
  if (p.batch == 1) return 0;
  const int lane = threadIdx.x % 32, low = group * p.share;
  int ended = 0;
  for (int base = 0; base == ended && base < p.batch; base += 64) {
    int b = base + lane;
    bool near = b < p.batch && p.indptr[b + 1] * PAGE_SIZE < low;
    bool far = b + 32 < p.batch && p.indptr[b + 33] * PAGE_SIZE < low;
    ended += __popc(__ballot_sync(~0u, near)) + __popc(__ballot_sync(~0u, far));
  }
  return ended;
}

#define STRING_(x) #x
#define STRING(x) STRING_(x)

// Keys and values are read once: their lines should be the first to leave the cache.
__device__ __forceinline__ uint64_t cache_policy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::" STRING(L2_POLICY) ".b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

__device__ __forceinline__ void copy16(uint32_t to, const void* from, uint64_t policy) {
  asm volatile("cp.async.cg.shared.global.L2::cache_hint.L2::" STRING(L2_FETCH)
               "B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "l"(policy));
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

// One warp's share of a segment: every `step`-th tile from `first` on.
struct Stream {
  uint32_t ring, q[DIM / 16][2];
  uint64_t policy;
  int head, first, step, rows;  // rows: of the tile that is fetched next

  // Row in the cache of token lane % 16 of a tile; tokens past the end repeat the last one.
  __device__ __forceinline__ int row_of(const Problem& p, const Segment& seg, int tile) const {
    int token = seg.start + tile * TILE + threadIdx.x % 16;
    if (seg.slots == 0) return 0;
    int page = p.indices[seg.first_page + min(token, seg.slots - 1) / PAGE_SIZE];
    return page * PAGE_SIZE + min(token, seg.length - 1) % PAGE_SIZE;
  }

  __device__ __forceinline__ void fetch(const Problem& p, int slot, int tile_rows) const {
    const int lane = threadIdx.x % 32;
    const uint32_t keys = ring + slot * 2 * TILE_BYTES;
#pragma unroll
    for (int i = 0; i < TILE / 2; i++) {
      int row = i * 2 + lane / 16, piece = lane % 16;
      int64_t from = (int64_t)__shfl_sync(~0u, tile_rows, row) * (KV_HEADS * DIM);
      from += head * DIM + piece * 8;
      copy16(at(keys, row, piece), p.k + from, policy);
      copy16(at(keys + TILE_BYTES, row, piece), p.v + from, policy);
    }
  }

  // Starts on a segment: its first tiles are fetched, its queries loaded.
  __device__ __forceinline__ void begin(const Problem& p, const Segment& seg) {
    const int tiles = (seg.end - seg.start + TILE - 1) / TILE;
    const int lane = threadIdx.x % 32, query = (seg.seq * KV_HEADS + head) * GROUP + lane / 4;
    int ready[STAGES - 1];
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++) ready[i] = row_of(p, seg, first + i * step);
    rows = row_of(p, seg, first + (STAGES - 1) * step);
#pragma unroll
    for (int i = 0; i < DIM / 16; i++)
      for (int j = 0; j < 2; j++) {
        int d = i * 16 + j * 8 + lane % 4 * 2;
        q[i][j] = lane / 4 < GROUP ? *reinterpret_cast<const uint32_t*>(p.q + query * DIM + d) : 0u;
      }
    __syncwarp();  // the ring is free
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++) {
      if (first + i * step < tiles) fetch(p, i, ready[i]);
      asm volatile("cp.async.commit_group;");
    }
  }

  __device__ __forceinline__ void run(const Problem& p, const Segment& seg, Softmax& s) {
    const int tiles = (seg.end - seg.start + TILE - 1) / TILE;
    int slot = 0;
    for (int tile = first; tile < tiles; tile += step) {
      asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2));
      __syncwarp();
      int ahead = tile + (STAGES - 1) * step;
      if (ahead < tiles) fetch(p, (slot + STAGES - 1) % STAGES, rows);
      asm volatile("cp.async.commit_group;");
      rows = row_of(p, seg, ahead + step);
      uint32_t keys = ring + slot * 2 * TILE_BYTES;
      int valid = min(seg.end, seg.length) - seg.start - tile * TILE;
      attend_tile(s, q, keys, keys + TILE_BYTES, valid, p.scale);
      slot = (slot + 1) % STAGES;
    }
  }
};

// Hands a segment's result for cell i on: to the output, or to `part` where the sequence has more
// shares. Blocks of a cluster own whole slices, and read no other slice's lse when they merge shares.
__device__ __forceinline__ void put(const Problem& p, const Segment& seg, int group, int head, int i,
                                    float mean, float lse) {
  if (seg.end - seg.start == seg.slots) {
    const int64_t unit = seg.seq * KV_HEADS + head;
    p.out[unit * CELLS + i] = __float2bfloat16(mean);
    if (i % DIM == 0) p.lse[unit * GROUP + i / DIM] = lse;
  } else {
    const int64_t unit = (group * 2 + (seg.start == 0)) * KV_HEADS + head;
    p.part[unit * CELLS + i] = mean;
    if (i % (CELLS / SLICES) == 0) p.part_lse[unit * SLICES + i / (CELLS / SLICES)] = lse;
  }
}

// Merges the warps of a block, then the blocks of a cluster: block `rank` its part of the cells.
__device__ __forceinline__ void finish(Softmax& s, const Problem& p, const Segment& seg, int group,
                                       int head, int rank, Board& board) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  __syncthreads();  // nobody reads the board any more
#pragma unroll
  for (int h = 0; h < 2; h++) {
    for (int d = 4; d < 32; d *= 2) s.total[h] += __shfl_xor_sync(~0u, s.total[h], d);
    int g = lane % 4 * 2 + h;
    if (g < GROUP) {
#pragma unroll
      for (int i = 0; i < DIM / 16; i++) {
        board.acc[warp][g * DIM + i * 16 + lane / 4] = s.acc[i][h];
        board.acc[warp][g * DIM + i * 16 + lane / 4 + 8] = s.acc[i][h + 2];
      }
      if (lane < 4) board.top[warp][g] = s.top[h], board.total[warp][g] = s.total[h];
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < CELLS; i += THREADS) {
    const int g = i / DIM;
    float top = -INFINITY, total = 0.f, acc = 0.f;
    for (int w = 0; w < WARPS; w++) top = fmaxf(top, board.top[w][g]);
    for (int w = 0; w < WARPS && top > -INFINITY; w++) {
      float weight = exp2f(board.top[w][g] - top);
      total += weight * board.total[w][g];
      acc += weight * board.acc[w][i];
    }
    float mean = total > 0.f ? acc / total : 0.f, lse = top + log2f(total);
    if (p.cluster == 1) {
      put(p, seg, group, head, i, mean, lse);
    } else {
      board.mean[i] = mean;
      if (i % DIM == 0) board.lse[g] = lse;
    }
  }
  if (p.cluster == 1) return;
  auto cluster = cooperative_groups::this_cluster();
  cluster.sync();
  const int cells = CELLS / p.cluster;
  for (int i = rank * cells + threadIdx.x; i < (rank + 1) * cells; i += THREADS) {
    float top = -INFINITY, total = 0.f, acc = 0.f, lse[MAX_CLUSTER], mean[MAX_CLUSTER];
#pragma unroll
    for (int c = 0; c < MAX_CLUSTER; c++) {
      const Board* other = cluster.map_shared_rank(&board, min(c, p.cluster - 1));
      lse[c] = c < p.cluster ? other->lse[i / DIM] : -INFINITY;
      mean[c] = other->mean[i];
      top = fmaxf(top, lse[c]);
    }
#pragma unroll
    for (int c = 0; c < MAX_CLUSTER; c++) {
      float weight = top > -INFINITY ? exp2f(lse[c] - top) : 0.f;
      total += weight;
      acc += weight * mean[c];
    }
    put(p, seg, group, head, i, total > 0.f ? acc / total : 0.f, top + log2f(total));
  }
  cluster.sync();  // all have read; then the board may change, or the block end
}

// If this block is the last of a divided sequence to arrive: the weighted mean of the sequence's
// shares, for the block's part of the cells; four a thread.
__device__ __forceinline__ void merge(const Problem& p, const Segment& seg, int head, int rank,
                                      Board& board) {
  const int begin = seg.first_page * PAGE_SIZE;
  const int from = (begin + min(TILE, seg.slots) - 1) / p.share;  // the groups that took part
  const int count = (begin + seg.slots - 1) / p.share - from + 1;
  __threadfence();  // this share's part is written before its arrival
  __syncthreads();
  int* counter = p.arrived + (seg.seq * KV_HEADS + head) * SLICES + rank;
  if (threadIdx.x == 0) board.arrived = atomicAdd(counter, 1);
  __syncthreads();
  if (board.arrived != count - 1) return;
  __threadfence();
  if (threadIdx.x == 0) *counter = 0;  // ready for the next launch
  const int quads = CELLS / 4 / p.cluster;
  for (int c = rank * quads + threadIdx.x; c < (rank + 1) * quads; c += THREADS) {
    float top = -INFINITY, total = 0.f;
    float4 acc = {0.f, 0.f, 0.f, 0.f};
    for (int i = 0; i < count; i += MERGE_ROWS) {
      float lse[MERGE_ROWS], new_top = top;
      float4 part[MERGE_ROWS];
#pragma unroll
      for (int j = 0; j < MERGE_ROWS; j++) {
        int k = min(i + j, count - 1);
        int64_t unit = ((from + k) * 2 + (k == 0)) * KV_HEADS + head;
        part[j] = __ldcg(reinterpret_cast<const float4*>(p.part + unit * CELLS) + c);
        lse[j] = __ldcg(p.part_lse + unit * SLICES + c * 4 / (CELLS / SLICES));
        if (i + j >= count) lse[j] = -INFINITY;
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
    const int64_t unit = seg.seq * KV_HEADS + head;
    auto* out = reinterpret_cast<__nv_bfloat162*>(p.out + unit * CELLS) + c * 2;
    out[0] = __floats2bfloat162_rn(acc.x / total, acc.y / total);
    out[1] = __floats2bfloat162_rn(acc.z / total, acc.w / total);
    if (c * 4 % DIM == 0) p.lse[unit * GROUP + c * 4 / DIM] = top + log2f(total);
  }
}

__global__ void __launch_bounds__(THREADS, RESIDENT) attend(const Problem p) {
  extern __shared__ __align__(128) unsigned char shared[];
  Board& board = *reinterpret_cast<Board*>(shared + WARPS * RING_BYTES);
  const int rank = blockIdx.x % p.cluster, unit = blockIdx.x / p.cluster;
  const int head = HEADS_INNER ? unit % KV_HEADS : unit / p.groups;
  const int group = HEADS_INNER ? unit / KV_HEADS : unit % p.groups;
  const int warp = threadIdx.x / 32;
  Stream stream;
  stream.ring = static_cast<uint32_t>(__cvta_generic_to_shared(shared)) + warp * RING_BYTES;
  stream.policy = cache_policy();
  stream.head = head;
  stream.first = rank * WARPS + warp;
  stream.step = p.cluster * WARPS;
  Segment seg = segment_from(p, group, first_sequence(p, group));
  if (seg.seq < p.batch) stream.begin(p, seg);
  while (seg.seq < p.batch) {
    Segment next = segment_from(p, group, seg.seq + 1);
    Softmax s{{-INFINITY, -INFINITY}, {0.f, 0.f}, {}};
    stream.run(p, seg, s);
    if (next.seq < p.batch) stream.begin(p, next);
    finish(s, p, seg, group, head, rank, board);
    if (seg.end - seg.start < seg.slots) merge(p, seg, head, rank, board);
    seg = next;
  }
}

void check(cudaError_t error) {
  if (error != cudaSuccess) TVM_FFI_THROW(RuntimeError) << cudaGetErrorString(error);
}

// Scratch of one device. Grown when too small and never freed: a captured graph may still use it.
struct Scratch {
  float* part = nullptr;
  float* part_lse = nullptr;
  int* arrived = nullptr;
  int groups = 0, batch = 0, multiprocessors = 0;

  void prepare(int device) {
    if (multiprocessors > 0) return;
    check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device));
    constexpr auto limit = cudaFuncAttributeMaxDynamicSharedMemorySize;
    check(cudaFuncSetAttribute(attend, limit, SHARED_BYTES));
    if (MAX_CLUSTER > 8) {
      check(cudaFuncSetAttribute(attend, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
    }
  }

  void reserve(int wanted_groups, int wanted_batch) {
    if (wanted_groups > groups) {
      groups = std::max(wanted_groups, 512);
      check(cudaMalloc(&part, sizeof(float) * groups * 2 * KV_HEADS * CELLS));
      check(cudaMalloc(&part_lse, sizeof(float) * groups * 2 * KV_HEADS * SLICES));
    }
    if (wanted_batch > batch) {
      batch = std::max(wanted_batch, 512);
      check(cudaMalloc(&arrived, sizeof(int) * batch * KV_HEADS * SLICES));
      check(cudaMemset(arrived, 0, sizeof(int) * batch * KV_HEADS * SLICES));
    }
  }
};

Scratch scratches[16];

struct Plan {
  int share, groups, cluster;
};

// Equal shares that fill the device in one wave, or in several where a block's share would exceed
// MAX_CHUNK tokens. In a short batch, blocks that it leaves idle join others as clusters.
Plan plan(int64_t batch, int64_t tokens, int multiprocessors) {
  const int64_t room = std::max(1, multiprocessors * BLOCKS_PER_SM / KV_HEADS);
  const int64_t blocks = std::min(room, std::max(batch, tokens / MIN_CHUNK));
  int64_t cluster = 1;
  const int64_t most = tokens <= CLUSTER_TOKENS ? MAX_CLUSTER : 1;  // their launch costs 5 us
  while (cluster * 2 <= most && cluster * 2 * batch <= blocks) cluster *= 2;
  int64_t groups = blocks / cluster;
  groups *= std::max<int64_t>(1, (tokens + blocks * MAX_CHUNK - 1) / (blocks * MAX_CHUNK));
  // Equal sequences stay whole where that costs little.
  for (int64_t g = groups; g * 16 >= groups * 15; g--) {
    if (g % batch == 0 || batch % g == 0) {
      groups = g;
      break;
    }
  }
  int64_t pages = (tokens + groups * PAGE_SIZE - 1) / (groups * PAGE_SIZE);
  int64_t share = std::max<int64_t>(TILE, pages * PAGE_SIZE);
  groups = std::max<int64_t>(1, (tokens + share - 1) / share);
  return {int(share), int(groups), int(cluster)};
}

using tvm::ffi::TensorView;

void Run(TensorView q, TensorView k_cache, TensorView v_cache, TensorView kv_indptr,
         TensorView kv_indices, TensorView kv_last_page_len, double sm_scale, TensorView output,
         TensorView lse) {
  const int device = q.device().device_id;
  const int64_t batch = q.size(0), pages = kv_indices.size(0);
  if (batch == 0) return;
  Scratch& scratch = scratches[device];
  scratch.prepare(device);
  const Plan cuts = plan(batch, pages * PAGE_SIZE, scratch.multiprocessors);
  scratch.reserve(cuts.groups, int(batch));
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
  p.share = cuts.share;
  p.groups = cuts.groups;
  p.cluster = cuts.cluster;
  p.scale = float(sm_scale) * LOG2E;
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = cuts.cluster;
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t launch = {};
  launch.gridDim = dim3(cuts.groups * KV_HEADS * cuts.cluster);
  launch.blockDim = dim3(THREADS);
  launch.dynamicSmemBytes = SHARED_BYTES;
  launch.stream = static_cast<cudaStream_t>(TVMFFIEnvGetStream(kDLCUDA, device));
  launch.attrs = &attribute;
  launch.numAttrs = cuts.cluster > 1;
  check(cudaLaunchKernelEx(&launch, attend, p));
}

}  // namespace

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, Run);
