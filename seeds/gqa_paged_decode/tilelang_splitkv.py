"""Split-KV decode attention over a paged cache, in TileLang.

Every sequence is cut in the same number of chunks, chosen from the mean length; one block attends
one KV head's query group over one chunk. A second kernel merges the chunks.
"""

import functools

import tilelang
import tilelang.language as T
import torch

BLOCK_N = 64  # tune: 32 64 128
THREADS = 128  # tune: 64 128 256
STAGES = 2  # tune: 1 2 3 4
BLOCKS_PER_SM = 2  # tune: 1 2 3 4 6 8
MIN_CHUNK = 64  # tune: 64 128 256 512
MAX_CHUNK = 4096  # tune: 1024 2048 4096 8192 16384
MERGE_THREADS = 128  # tune: 32 64 128

ROWS = 16  # the group's few query heads fill a 16-row tile, the least that tensor cores take
LOG2E = 1.4426950408889634

_scratch = {}


@functools.cache
def compiled(page, kv_heads, group, dim, dtype):
    heads = kv_heads * group
    batch, num_pages, len_indptr, used = (
        T.dynamic(n) for n in ("batch", "num_pages", "len_indptr", "used")
    )
    splits, last_size = T.dynamic("splits"), T.dynamic("last_size")

    @T.prim_func
    def kernel(
        q: T.Tensor((batch, heads, dim), dtype),
        k_cache: T.Tensor((num_pages, page, kv_heads, dim), dtype),
        v_cache: T.Tensor((num_pages, page, kv_heads, dim), dtype),
        kv_indptr: T.Tensor((len_indptr,), "int32"),
        kv_indices: T.Tensor((used,), "int32"),
        kv_last_page_len: T.Tensor((last_size,), "int32"),
        sm_scale: T.float32,
        part: T.Tensor((splits, batch, heads, dim), "float32"),
        part_lse: T.Tensor((splits, batch, heads), "float32"),
        output: T.Tensor((batch, heads, dim), dtype),
        lse: T.Tensor((batch, heads), "float32"),
    ):
        with T.Kernel(kv_heads, splits, batch, threads=THREADS) as (h, s, b):
            q_tile = T.alloc_shared((ROWS, dim), dtype)
            k_tile = T.alloc_shared((BLOCK_N, dim), dtype)
            v_tile = T.alloc_shared((BLOCK_N, dim), dtype)
            p_tile = T.alloc_shared((ROWS, BLOCK_N), dtype)
            scores = T.alloc_fragment((ROWS, BLOCK_N), "float32")
            acc = T.alloc_fragment((ROWS, dim), "float32")
            top = T.alloc_fragment((ROWS,), "float32")
            old_top = T.alloc_fragment((ROWS,), "float32")
            shrink = T.alloc_fragment((ROWS,), "float32")
            row_sum = T.alloc_fragment((ROWS,), "float32")
            total = T.alloc_fragment((ROWS,), "float32")

            # Variables of their own: plain expressions would be computed again wherever they occur.
            first = T.alloc_var("int32")
            chunk = T.alloc_var("int32")
            start = T.alloc_var("int32")
            end = T.alloc_var("int32")
            tiles = T.alloc_var("int32")
            first = kv_indptr[b]
            end = (kv_indptr[b + 1] - first) * page
            if page > 1:
                if end > 0:
                    end = end - page + kv_last_page_len[b]
            chunk = T.ceildiv(T.ceildiv(end, splits), BLOCK_N) * BLOCK_N
            start = s * chunk
            end = T.min(start + chunk, end)
            tiles = T.ceildiv(end - start, BLOCK_N)

            for i, d in T.Parallel(ROWS, dim):
                q_tile[i, d] = T.if_then_else(
                    i < group, q[b, h * group + T.min(i, group - 1), d], T.cast(0, dtype)
                )
            T.fill(acc, 0)
            T.fill(total, 0)
            T.fill(top, -1e30)
            # At least STAGES tiles, so that the pipeline's drain is a constant; spare ones are masked.
            if start < end:
                for t in T.Pipelined(T.max(tiles, STAGES), num_stages=STAGES):
                    for n, d in T.Parallel(BLOCK_N, dim):
                        k_tile[n, d] = k_cache[
                            kv_indices[first + T.min(start + t * BLOCK_N + n, end - 1) // page],
                            T.min(start + t * BLOCK_N + n, end - 1) % page,
                            h,
                            d,
                        ]
                    T.clear(scores)
                    T.gemm(
                        q_tile, k_tile, scores, transpose_B=True, policy=T.GemmWarpPolicy.FullCol
                    )
                    for i, n in T.Parallel(ROWS, BLOCK_N):
                        scores[i, n] = T.if_then_else(
                            start + t * BLOCK_N + n < end,
                            scores[i, n] * (sm_scale * LOG2E),
                            -T.infinity("float32"),
                        )
                    T.copy(top, old_top)
                    T.reduce_max(scores, top, dim=1, clear=False)
                    for i in T.Parallel(ROWS):
                        shrink[i] = T.exp2(old_top[i] - top[i])
                    for i, n in T.Parallel(ROWS, BLOCK_N):
                        scores[i, n] = T.exp2(scores[i, n] - top[i])
                    T.reduce_sum(scores, row_sum, dim=1)
                    for i in T.Parallel(ROWS):
                        total[i] = total[i] * shrink[i] + row_sum[i]
                    for i, d in T.Parallel(ROWS, dim):
                        acc[i, d] *= shrink[i]
                    T.copy(scores, p_tile)
                    for n, d in T.Parallel(BLOCK_N, dim):
                        v_tile[n, d] = v_cache[
                            kv_indices[first + T.min(start + t * BLOCK_N + n, end - 1) // page],
                            T.min(start + t * BLOCK_N + n, end - 1) % page,
                            h,
                            d,
                        ]
                    T.gemm(p_tile, v_tile, acc, policy=T.GemmWarpPolicy.FullCol)
            for i, d in T.Parallel(ROWS, dim):
                if i < group:
                    part[s, b, h * group + i, d] = acc[i, d] / T.max(total[i], 1e-30)
            for i in T.Parallel(ROWS):
                if i < group:
                    part_lse[s, b, h * group + i] = top[i] + T.log2(total[i])

        with T.Kernel(heads, batch, threads=MERGE_THREADS) as (h, b):
            sums = T.alloc_fragment((dim,), "float32")
            best = T.alloc_var("float32")
            weights = T.alloc_var("float32")
            best = -1e30  # finite: an empty sequence has no chunk's lse above -inf
            weights = 0.0
            for s in T.serial(splits):
                best = T.max(best, part_lse[s, b, h])
            T.fill(sums, 0)
            for s in T.serial(splits):
                weights += T.exp2(part_lse[s, b, h] - best)
                for d in T.Parallel(dim):
                    sums[d] += T.exp2(part_lse[s, b, h] - best) * part[s, b, h, d]
            for d in T.Parallel(dim):
                output[b, h, d] = sums[d] / T.max(weights, 1e-30)
            lse[b, h] = best + T.log2(weights)

    return tilelang.compile(
        kernel,
        target="cuda",
        pass_configs={
            "tl.disable_safe_memory_legalize": True,
            "tl.UnrollLoop": {"explicit_unroll": True},  # waits in the drain need constants
        },
    )


def count_splits(batch, tokens, kv_heads, multiprocessors):
    """Chunks per sequence: enough blocks to fill the device, none too short or too long."""
    mean = max(1, tokens // batch)
    wanted = multiprocessors * BLOCKS_PER_SM // (kv_heads * batch)
    return max(1, min(wanted, mean // MIN_CHUNK), -(-mean // MAX_CHUNK))


def scratch(device, rows, dim):
    """Flat float32 buffers for at least `rows` partial rows and their lse; kept between calls."""
    kept = _scratch.get(device)
    if kept is None or kept[1].numel() < rows:
        rows = max(rows, 1 << 15)
        kept = _scratch[device] = (
            torch.empty(rows * dim, dtype=torch.float32, device=device),
            torch.empty(rows, dtype=torch.float32, device=device),
        )
    return kept


@functools.cache
def multiprocessors(device):
    return torch.cuda.get_device_properties(device).multi_processor_count


def run(*args):
    """(q, k_cache, v_cache, kv_indptr, kv_indices[, kv_last_page_len], sm_scale, output, lse)."""
    q, k_cache, v_cache, kv_indptr, kv_indices = args[:5]
    sm_scale, output, lse = args[-3:]
    last = args[5] if len(args) == 9 else kv_indptr
    batch, heads, dim = q.shape
    page, kv_heads = k_cache.shape[1], k_cache.shape[2]
    tokens = kv_indices.shape[0] * page
    splits = count_splits(batch, tokens, kv_heads, multiprocessors(q.device))
    rows = splits * batch * heads
    part, part_lse = scratch(q.device, rows, dim)
    kernel = compiled(page, kv_heads, heads // kv_heads, dim, str(q.dtype).removeprefix("torch."))
    kernel(
        q, k_cache, v_cache, kv_indptr, kv_indices, last, sm_scale,
        part[: rows * dim].view(splits, batch, heads, dim),
        part_lse[:rows].view(splits, batch, heads), output, lse,
    )  # fmt: skip
