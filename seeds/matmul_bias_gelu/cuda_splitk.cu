// bf16 linear + bias + tanh-GELU, one launch for any number of tokens, split along K in a cluster.
//
// Operands are swapped: 64 rows of the weight are the left side of a wgmma, the tokens are its right
// side, which may be as narrow as 8. A cluster of blocks owns one output tile and each of its blocks
// a part of K, so that few tokens keep every SM reading the weight. One thread streams both operands
// by TMA through a ring of stages; one warp group per 64 weight rows multiplies. Blocks send their
// partial sums straight into each other's shared memory (each block finishes a part of the tile), in
// a fixed order: no workspace, no atomics.

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/error.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

#include <algorithm>
#include <cstdint>

namespace {

// SPLIT_K is the largest cluster; stages beyond what shared memory holds are left out.
constexpr int BLOCK_N_FEW = 64;      // tune: 64 128 256
constexpr int BLOCK_K_FEW = 128;     // tune: 64 128 256
constexpr int SPLIT_K_FEW = 4;       // tune: 1 2 4 8
constexpr int NUM_STAGES_FEW = 8;    // tune: 2 3 4 6 8 12 16

constexpr int BLOCK_N_SOME = 64;     // tune: 64 128 256
constexpr int BLOCK_K_SOME = 128;    // tune: 64 128 256
constexpr int SPLIT_K_SOME = 4;      // tune: 1 2 4 8
constexpr int NUM_STAGES_SOME = 8;   // tune: 2 3 4 6 8 12

constexpr int BLOCK_N_MIDDLE = 128;  // tune: 64 128
constexpr int BLOCK_K_MIDDLE = 64;   // tune: 64 128
constexpr int SPLIT_K_MIDDLE = 8;    // tune: 1 2 4 8
constexpr int NUM_STAGES_MIDDLE = 6; // tune: 2 3 4 5 6 7

constexpr int BLOCK_N_MANY = 128;    // tune: 64 128
constexpr int BLOCK_K_MANY = 64;     // tune: 64 128
constexpr int SPLIT_K_MANY = 8;      // tune: 1 2 4 8
constexpr int NUM_STAGES_MANY = 4;   // tune: 2 3 4 5

constexpr int FEW_TOKENS = 16;       // tune: 8 16 32
constexpr int SOME_TOKENS = 64;      // tune: 32 64
constexpr int MIDDLE_TOKENS = 128;   // tune: 64 128 256 512 1024
constexpr int SPLIT_COST = 512;      // tune: 128 256 512 1024 2048
constexpr int GROUP_M = 8;           // tune: 1 2 4 8 16

constexpr int SHARED_LIMIT = 227 * 1024;
constexpr int ATOM = 64;  // columns of K in one 128-byte swizzled row

// Sizes of one kernel: BLOCK_N weight rows by TOKENS tokens, BLOCK_K columns a stage.
template <int TOKENS_, int BLOCK_N_, int WANTED_K, int WANTED_STAGES>
struct Plan {
  static constexpr int TOKENS = TOKENS_, BLOCK_N = BLOCK_N_;
  static constexpr int PIECES = TOKENS / 8;          // a thread's accumulators come in fours
  static constexpr int GROUPS = BLOCK_N / 64;        // multiplying warp groups
  static constexpr int MULTIPLIERS = GROUPS * 128;   // their threads
  static constexpr int THREADS = MULTIPLIERS + 32;   // and the warp that copies
  // Partial sums from all blocks of a cluster; wide tiles receive them where the stages were.
  static constexpr bool REUSE = TOKENS > 64;
  static constexpr int PARTIAL_BYTES = std::max(PIECES, 8) * MULTIPLIERS * 16;
  static constexpr int BUFFER_BYTES = REUSE ? 0 : 2 * PARTIAL_BYTES;
  static constexpr int ROOM = SHARED_LIMIT - 2048 - BUFFER_BYTES;
  static constexpr int ROW_BYTES = (BLOCK_N + TOKENS) * 2;  // of one column of K
  static constexpr int fit(int k) {
    return k <= ATOM || ROOM / (k * ROW_BYTES) >= 2 ? k : fit(k / 2);
  }
  static constexpr int BLOCK_K = fit(WANTED_K);
  static constexpr int WEIGHT_BYTES = BLOCK_N * BLOCK_K * 2;
  static constexpr int STAGE_BYTES = ROW_BYTES * BLOCK_K;
  static constexpr int STAGES = std::min(WANTED_STAGES, ROOM / STAGE_BYTES);
  static constexpr int RING_BYTES =
      REUSE ? std::max(STAGES * STAGE_BYTES, PARTIAL_BYTES) : STAGES * STAGE_BYTES;
  static constexpr int SHARED_BYTES = 1024 + RING_BYTES + BUFFER_BYTES + (2 * STAGES + 2) * 8;
  static_assert(STAGES >= 2 && SHARED_BYTES <= SHARED_LIMIT, "two stages must fit");
};

struct Problem {
  const __nv_bfloat16* bias;
  __nv_bfloat16* output;
  int m, n, steps;       // steps of BLOCK_K in all of K
  int tiles_m, tiles_n;  // output tiles
};

// ---- what PTX offers ----

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

__device__ __forceinline__ uint32_t cluster_rank() {
  uint32_t x;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(x));
  return x;
}

__device__ __forceinline__ uint32_t cluster_size() {
  uint32_t x;
  asm volatile("mov.u32 %0, %%cluster_nctarank;" : "=r"(x));
  return x;
}

__device__ __forceinline__ void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}

__device__ __forceinline__ void cluster_arrive_relaxed() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}

__device__ __forceinline__ void cluster_wait() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// Address in block `rank` of the cluster of what lies at `address` in this block.
__device__ __forceinline__ uint32_t in_block(uint32_t address, uint32_t rank) {
  uint32_t x;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(x) : "r"(address), "r"(rank));
  return x;
}

__device__ __forceinline__ void barrier_init(uint32_t barrier, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count));
}

__device__ __forceinline__ void arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

__device__ __forceinline__ void arrive_expecting(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}

#define WAIT(SCOPE, barrier, parity)                                               \
  asm volatile(                                                                    \
      "{\n.reg .pred done;\nagain:\n"                                              \
      "mbarrier.try_wait.parity.acquire." SCOPE ".shared::cta.b64 done, [%0], %1;\n" \
      "@!done bra again;\n}" ::"r"(barrier),                                       \
      "r"(parity)                                                                  \
      : "memory")

__device__ __forceinline__ void wait(uint32_t barrier, uint32_t parity) {
  WAIT("cta", barrier, parity);
}

__device__ __forceinline__ void wait_for_cluster(uint32_t barrier, uint32_t parity) {
  WAIT("cluster", barrier, parity);
}

__device__ __forceinline__ void prefetch_map(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// A box of the matrix that `map` describes, from column k and row `row` on, to shared memory.
__device__ __forceinline__ void copy_box(uint32_t to, const CUtensorMap* map, int k, int row,
                                         uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], "
      "[%1, {%2, %3}], [%4];" ::"r"(to),
      "l"(map), "r"(k), "r"(row), "r"(barrier)
      : "memory");
}

__device__ __forceinline__ void send(uint32_t to, const float (&v)[4], uint32_t barrier) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, "
      "[%5];" ::"r"(to),
      "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3]), "r"(barrier)
      : "memory");
}

// Descriptor of a K-major operand: rows of 128 swizzled bytes, groups of 8 rows 1024 bytes apart.
__device__ __forceinline__ uint64_t operand(uint32_t address) {
  return uint64_t(address & 0x3FFFF) >> 4 | uint64_t(1) << 16 | uint64_t(1024 >> 4) << 32 |
         uint64_t(1) << 62;
}

#define REGISTERS_8 "%0, %1, %2, %3"
#define REGISTERS_16 REGISTERS_8 ", %4, %5, %6, %7"
#define REGISTERS_32 REGISTERS_16 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define REGISTERS_64                                                                            \
  REGISTERS_32 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define REGISTERS_128                                                                              \
  REGISTERS_64 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47" \
               ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define REGISTERS_256                                                                               \
  REGISTERS_128 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79" \
                ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95" \
                ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109" \
                ", %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122"   \
                ", %123, %124, %125, %126, %127"
#define SUMS_8(j) "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])
#define SUMS_16(j) SUMS_8(j), SUMS_8(j + 1)
#define SUMS_32(j) SUMS_16(j), SUMS_16(j + 2)
#define SUMS_64(j) SUMS_32(j), SUMS_32(j + 4)
#define SUMS_128(j) SUMS_64(j), SUMS_64(j + 8)
#define SUMS_256(j) SUMS_128(j), SUMS_128(j + 16)
#define WGMMA(TOKENS, A, B)                                                               \
  asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, 1, 0;\n"                             \
               "wgmma.mma_async.sync.aligned.m64n" #TOKENS "k16.f32.bf16.bf16 "           \
               "{" REGISTERS_##TOKENS "}, %" #A ", %" #B ", add, 1, 1, 0, 0;\n}"          \
               : SUMS_##TOKENS(0)                                                         \
               : "l"(a), "l"(b))

// d[64 weight rows, TOKENS] += a[64, 16] * b[TOKENS, 16]^T, by one warp group. A thread's d[j] holds
// rows lane / 4 (elements 0, 1) and + 8 (2, 3) of its warp's 16, tokens j * 8 + lane % 4 * 2 and + 1.
template <int TOKENS>
__device__ __forceinline__ void multiply(float (&d)[TOKENS / 8][4], uint64_t a, uint64_t b) {
  if constexpr (TOKENS == 8) WGMMA(8, 4, 5);
  if constexpr (TOKENS == 16) WGMMA(16, 8, 9);
  if constexpr (TOKENS == 32) WGMMA(32, 16, 17);
  if constexpr (TOKENS == 64) WGMMA(64, 32, 33);
  if constexpr (TOKENS == 128) WGMMA(128, 64, 65);
  if constexpr (TOKENS == 256) WGMMA(256, 128, 129);
}

template <int LEFT>
__device__ __forceinline__ void wait_multiplied() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}

// The compiler may not move a use of the sums to before this place.
template <int PIECES>
__device__ __forceinline__ void pin(float (&d)[PIECES][4]) {
#pragma unroll
  for (int j = 0; j < PIECES; j++) asm volatile("" : SUMS_8(j)::"memory");
}

__device__ __forceinline__ uint32_t transpose(uint32_t x) {
  uint32_t y;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}

// ---- the kernel ----

__device__ __forceinline__ float gelu_tanh(float y) {
  // 0.5 * y * (1 + tanh(u)) = y / (1 + exp(-2u)), u = sqrt(2 / pi) * (y + 0.044715 * y^3)
  return __fdividef(y, 1.f + exp2f(-2.302208198f * (y + 0.044715f * y * y * y)));
}

// First token and first weight row of an output tile: GROUP_M token tiles go down the weight
// together, so that L2 serves what they share.
template <class P>
__device__ __forceinline__ int2 origin(const Problem& p, int tile) {
  const int group = tile / (GROUP_M * p.tiles_n), within = tile % (GROUP_M * p.tiles_n);
  const int width = min(p.tiles_m - group * GROUP_M, GROUP_M);
  return {(group * GROUP_M + within % width) * P::TOKENS, within / width * P::BLOCK_N};
}

// Place in the ring of stages; the parity of its barriers turns with every round.
template <int STAGES>
struct Cursor {
  int slot = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void next() {
    if (++slot == STAGES) slot = 0, parity ^= 1;
  }
};

// Applies bias and GELU to 16 weight rows x 8 tokens held by a warp and stores them. Transposed, and
// after neighbours have swapped halves, a lane holds 4 features of one token.
__device__ __forceinline__ void finish(const Problem& p, const float (&sum)[4],
                                       const float (&bias)[2], int token, int row) {
  const int lane = threadIdx.x % 32;
  float y[4];
  for (int i = 0; i < 4; i++) y[i] = gelu_tanh(sum[i] + bias[i / 2]);
  __nv_bfloat162 upper = __floats2bfloat162_rn(y[0], y[1]);
  __nv_bfloat162 lower = __floats2bfloat162_rn(y[2], y[3]);
  uint32_t a = transpose(*reinterpret_cast<uint32_t*>(&upper));  // token lane / 4, 2 of rows 0..7
  uint32_t b = transpose(*reinterpret_cast<uint32_t*>(&lower));  // the same of rows 8..15
  uint32_t other = __shfl_xor_sync(~0u, lane % 2 ? a : b, 1);
  uint2 four = lane % 2 ? make_uint2(other, b) : make_uint2(a, other);
  token += lane / 4;
  row += lane % 2 * 8 + lane % 4 / 2 * 4;
  if (token < p.m) *reinterpret_cast<uint2*>(p.output + int64_t(token) * p.n + row) = four;
}

template <class P>
__global__ void __launch_bounds__(P::THREADS, 1)
    linear_gelu(const __grid_constant__ CUtensorMap weight, const __grid_constant__ CUtensorMap x,
                const Problem p) {
  extern __shared__ unsigned char shared[];
  const uint32_t ring = (shared_address(shared) + 1023) & ~1023u;  // alike in all blocks
  const uint32_t buffers = P::REUSE ? ring : ring + P::RING_BYTES;
  const uint32_t full = ring + P::RING_BYTES + P::BUFFER_BYTES, empty = full + P::STAGES * 8;
  const uint32_t received = empty + P::STAGES * 8;  // two, for tiles in turn
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int rank = cluster_rank(), size = cluster_size(), log2_size = 31 - __clz(size);
  const int first_tile = blockIdx.x / size, tile_step = gridDim.x / size;
  const int first_step = p.steps * rank / size, end_step = p.steps * (rank + 1) / size;

  if (threadIdx.x == 0) {
    for (int i = 0; i < P::STAGES; i++) {
      barrier_init(full + i * 8, 1);
      barrier_init(empty + i * 8, P::MULTIPLIERS / 32);
    }
    for (int i = 0; i < 2; i++) barrier_init(received + i * 8, 1);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }
  __syncthreads();
  cluster_arrive_relaxed();  // whoever sends to a block first waits for its barriers

  if (warp == P::MULTIPLIERS / 32) {
    if (lane == 0) {
      prefetch_map(&weight);
      prefetch_map(&x);
      Cursor<P::STAGES> at;
      for (int tile = first_tile; tile < p.tiles_m * p.tiles_n; tile += tile_step) {
        const int2 from = origin<P>(p, tile);
#pragma unroll 1
        for (int step = first_step; step < end_step; step++, at.next()) {
          const uint32_t stage = ring + at.slot * P::STAGE_BYTES, ready = full + at.slot * 8;
          wait(empty + at.slot * 8, at.parity ^ 1);
          arrive_expecting(ready, P::STAGE_BYTES);
#pragma unroll
          for (int i = 0; i < P::BLOCK_K / ATOM; i++) {
            const int k = step * P::BLOCK_K + i * ATOM;
            copy_box(stage + i * P::BLOCK_N * 128, &weight, k, from.y, ready);
            copy_box(stage + P::WEIGHT_BYTES + i * P::TOKENS * 128, &x, k, from.x, ready);
          }
        }
      }
    }
    __syncwarp();
    cluster_wait();
    if (P::REUSE && size > 1) cluster_arrive(), cluster_wait();
    return;
  }

  cluster_wait();
  Cursor<P::STAGES> at;
  int turn = 0;
  for (int tile = first_tile; tile < p.tiles_m * p.tiles_n; tile += tile_step, turn++) {
    const int2 from = origin<P>(p, tile);
    const int row = from.y + warp * 16;  // the warp's first weight row
    const float bias[2] = {__bfloat162float(p.bias[row + lane / 4]),
                           __bfloat162float(p.bias[row + lane / 4 + 8])};
    float sums[P::PIECES][4];
#pragma unroll
    for (int j = 0; j < P::PIECES; j++) sums[j][0] = sums[j][1] = sums[j][2] = sums[j][3] = 0.f;

    uint32_t used = 0;  // barrier of the stage whose multiplication may still run
#pragma unroll 1
    for (int step = first_step; step < end_step; step++, at.next()) {
      const uint32_t stage = ring + at.slot * P::STAGE_BYTES;
      wait(full + at.slot * 8, at.parity);
      asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
      for (int k = 0; k < P::BLOCK_K; k += 16) {
        const uint32_t within = k % ATOM * 2;
        const uint32_t a = stage + k / ATOM * P::BLOCK_N * 128 + warp / 4 * 64 * 128 + within;
        const uint32_t b = stage + P::WEIGHT_BYTES + k / ATOM * P::TOKENS * 128 + within;
        multiply<P::TOKENS>(sums, operand(a), operand(b));
      }
      asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
      wait_multiplied<1>();
      if (used != 0 && lane == 0) arrive(used);
      used = empty + at.slot * 8;
    }
    wait_multiplied<0>();
    pin(sums);
    if (used != 0 && lane == 0) arrive(used);

    if (size == 1) {
#pragma unroll
      for (int j = 0; j < P::PIECES; j++) finish(p, sums[j], bias, from.x + j * 8, row);
      continue;
    }
    if (P::REUSE) cluster_arrive(), cluster_wait();  // no stage of the cluster is in use any more
    // Block j % size finishes piece j of the tile; `mine` pieces come here from every block.
    const int slots = (P::PIECES + size - 1) >> log2_size;
    const int mine = (P::PIECES - rank + size - 1) >> log2_size, owners = min(P::PIECES, size);
    const uint32_t buffer = buffers + (P::REUSE ? 0 : turn % 2 * P::PARTIAL_BYTES);
    const uint32_t arrival = received + turn % 2 * 8;
    // Blocks take turns with two buffers: one that sends again to an owner has its data of the turn
    // between, so that the owner has read the first. Blocks that own nothing are sent some for that.
    const bool more = !P::REUSE && tile + tile_step < p.tiles_m * p.tiles_n;
    if (threadIdx.x == 0) {
      const int messages = mine > 0 ? size * mine : more ? owners : 0;
      arrive_expecting(arrival, messages * P::MULTIPLIERS * 16);
    }
    int shift = log2_size;
    asm volatile("" : "+r"(shift));  // addresses wait until now: registers are scarce before
#pragma unroll
    for (int j = 0; j < P::PIECES; j++) {
      const int owner = j & (size - 1), slot = rank * slots + (j >> shift);
      const uint32_t to = buffer + (slot * P::MULTIPLIERS + threadIdx.x) * 16;
      send(in_block(to, owner), sums[j], in_block(arrival, owner));
    }
    if (more && rank < owners) {
      const uint32_t to = buffer + (rank * P::MULTIPLIERS + threadIdx.x) * 16;
      for (int r = owners; r < size; r++) send(in_block(to, r), sums[0], in_block(arrival, r));
    }
    wait_for_cluster(arrival, turn / 2 % 2);
    for (int s = 0; s < mine; s++) {
      float total[4] = {0.f, 0.f, 0.f, 0.f};
      for (int block = 0; block < size; block++) {
        uint32_t place = buffer + ((block * slots + s) * P::MULTIPLIERS + threadIdx.x) * 16;
        float v[4];
        asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                     : "=f"(v[0]), "=f"(v[1]), "=f"(v[2]), "=f"(v[3])
                     : "r"(place)
                     : "memory");
        for (int i = 0; i < 4; i++) total[i] += v[i];
      }
      finish(p, total, bias, from.x + (s * size + rank) * 8, row);
    }
  }
}

// ---- the host's part ----

void check(cudaError_t error) {
  if (error != cudaSuccess) TVM_FFI_THROW(RuntimeError) << cudaGetErrorString(error);
}

using tvm::ffi::TensorView;

// Map of a [rows, columns] bf16 matrix for boxes of `box` rows x 64 columns, swizzled by 128 bytes.
CUtensorMap describe(const TensorView& matrix, int box) {
  static const auto encode = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result;
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000,
                                           cudaEnableDefault, &result));
    if (found == nullptr) TVM_FFI_THROW(RuntimeError) << "the driver has no tensor maps";
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(found);
  }();
  CUtensorMap map;
  const cuuint64_t extents[2] = {cuuint64_t(matrix.size(1)), cuuint64_t(matrix.size(0))};
  const cuuint64_t pitch[1] = {extents[0] * 2};
  const cuuint32_t box_extents[2] = {ATOM, cuuint32_t(box)}, strides[2] = {1, 1};
  CUresult result = encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, matrix.data_ptr(), extents,
                           pitch, box_extents, strides, CU_TENSOR_MAP_INTERLEAVE_NONE,
                           CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                           CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) TVM_FFI_THROW(RuntimeError) << "no tensor map: error " << result;
  return map;
}

template <class P>
cudaLaunchConfig_t launch_of(cudaLaunchAttribute* attribute, int clusters, int size) {
  attribute->id = cudaLaunchAttributeClusterDimension;
  attribute->val.clusterDim.x = size;
  attribute->val.clusterDim.y = attribute->val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(clusters * size);
  config.blockDim = dim3(P::THREADS);
  config.dynamicSmemBytes = P::SHARED_BYTES;
  config.attrs = attribute;
  config.numAttrs = 1;
  return config;
}

// How many clusters of 1, 2, 4 and 8 blocks run at the same time.
template <class P>
const int* capacities(int device) {
  static int found[16][4] = {};
  int* of_device = found[device % 16];
  if (of_device[0] == 0) {
    constexpr auto limit = cudaFuncAttributeMaxDynamicSharedMemorySize;
    check(cudaFuncSetAttribute(linear_gelu<P>, limit, P::SHARED_BYTES));
    for (int i = 3; i >= 0; i--) {
      cudaLaunchAttribute attribute;
      auto config = launch_of<P>(&attribute, 132, 1 << i);
      check(cudaOccupancyMaxActiveClusters(of_device + i, linear_gelu<P>, &config));
    }
  }
  return of_device;
}

template <class P, int SPLIT_K>
void launch(const TensorView& x, const TensorView& weight, const TensorView& bias,
            const TensorView& output) {
  const int device = x.device().device_id;
  Problem p;
  p.bias = static_cast<const __nv_bfloat16*>(bias.data_ptr());
  p.output = static_cast<__nv_bfloat16*>(output.data_ptr());
  p.m = int(x.size(0)), p.n = int(weight.size(0));
  const int k = int(x.size(1));
  p.steps = (k + P::BLOCK_K - 1) / P::BLOCK_K;
  p.tiles_m = (p.m + P::TOKENS - 1) / P::TOKENS, p.tiles_n = p.n / P::BLOCK_N;
  if (p.n % P::BLOCK_N != 0 || k % 8 != 0) TVM_FFI_THROW(ValueError) << "N or K is not a multiple";

  // Rounds of clusters over the tiles, each as long as a block's part of K and a fixed cost.
  const int* capacity = capacities<P>(device);
  const int tiles = p.tiles_m * p.tiles_n;
  int split = 0, least = 0;
  for (int i = 0; i < 4 && (1 << i) <= SPLIT_K; i++) {
    if (capacity[i] == 0) continue;
    int cost = (tiles + capacity[i] - 1) / capacity[i] * ((k >> i) + SPLIT_COST);
    if (least == 0 || cost < least) split = i, least = cost;
  }
  // Blocks whose stages become buffers take one tile each; others keep their ring running.
  const int clusters = P::REUSE && split > 0 ? tiles : std::min(tiles, capacity[split]);
  cudaLaunchAttribute attribute;
  auto config = launch_of<P>(&attribute, clusters, 1 << split);
  config.stream = static_cast<cudaStream_t>(TVMFFIEnvGetStream(kDLCUDA, device));
  check(cudaLaunchKernelEx(&config, linear_gelu<P>, describe(weight, P::BLOCK_N),
                           describe(x, P::TOKENS), p));
}

template <int TOKENS>
void run_some(const TensorView& x, const TensorView& weight, const TensorView& bias,
              const TensorView& output) {
  if constexpr (TOKENS <= FEW_TOKENS) {
    launch<Plan<TOKENS, BLOCK_N_FEW, BLOCK_K_FEW, NUM_STAGES_FEW>, SPLIT_K_FEW>(x, weight, bias,
                                                                                output);
  } else {
    launch<Plan<TOKENS, BLOCK_N_SOME, BLOCK_K_SOME, NUM_STAGES_SOME>, SPLIT_K_SOME>(x, weight, bias,
                                                                                    output);
  }
}

void Run(TensorView x, TensorView weight, TensorView bias, TensorView output) {
  const int64_t m = x.size(0);
  if (m == 0) return;
  using Middle = Plan<128, BLOCK_N_MIDDLE, BLOCK_K_MIDDLE, NUM_STAGES_MIDDLE>;
  using Many = Plan<256, BLOCK_N_MANY, BLOCK_K_MANY, NUM_STAGES_MANY>;
  if (m <= 8) return run_some<8>(x, weight, bias, output);
  if (m <= 16) return run_some<16>(x, weight, bias, output);
  if (m <= 32) return run_some<32>(x, weight, bias, output);
  if (m <= SOME_TOKENS) return run_some<64>(x, weight, bias, output);
  if (m <= MIDDLE_TOKENS) return launch<Middle, SPLIT_K_MIDDLE>(x, weight, bias, output);
  launch<Many, SPLIT_K_MANY>(x, weight, bias, output);
}

}  // namespace

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, Run);
