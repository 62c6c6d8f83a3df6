"""Decode attention over a paged cache, one program per sequence and KV head, no split.

Nothing to merge and no scratch memory: the plainest strategy, best where the batch alone fills the
device.
"""

import triton
import triton.language as tl

BLOCK_N = 64  # tune: 16 32 64 128
NUM_WARPS = 4  # tune: 1 2 4 8
NUM_STAGES = 4  # tune: 1 2 3 4 5 6
HEADS_FIRST = 1  # tune: 0 1


@triton.jit(do_not_specialize=["batch"])
def _attend(
    q_ptr, k_ptr, v_ptr, indptr_ptr, indices_ptr, last_ptr, out_ptr, lse_ptr, batch, scale_log2,
    PAGE: tl.constexpr, KV_HEADS: tl.constexpr, GROUP: tl.constexpr, DIM: tl.constexpr,
    BLOCK_N: tl.constexpr, STAGES: tl.constexpr, HEADS_FIRST: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    if HEADS_FIRST:  # neighbours read the same tokens' heads, which lie side by side
        head = program % KV_HEADS
        seq = program // KV_HEADS
    else:
        head = program // batch
        seq = program % batch
    first_page = tl.load(indptr_ptr + seq)
    pages = tl.load(indptr_ptr + seq + 1) - first_page
    length = pages * PAGE
    if PAGE > 1:
        length = tl.where(pages > 0, length - PAGE + tl.load(last_ptr + seq), 0)

    # The group's few query heads fill a 16-row tile, the least that tensor cores take.
    row = tl.arange(0, 16)
    d = tl.arange(0, DIM)
    q_at = (seq * KV_HEADS + head) * GROUP + row
    q = tl.load(q_ptr + q_at[:, None] * DIM + d[None, :], mask=row[:, None] < GROUP, other=0.0)
    top = tl.full([16], float("-inf"), tl.float32)
    total = tl.zeros([16], tl.float32)
    acc = tl.zeros([16, DIM], tl.float32)
    if length > 0:
        token = tl.minimum(tl.arange(0, BLOCK_N), length - 1)  # inside the table: no masks needed
        page = tl.load(indices_ptr + first_page + token // PAGE)
        for n in tl.range(0, length, BLOCK_N, num_stages=STAGES):
            token = n + tl.arange(0, BLOCK_N)
            near = tl.minimum(token, length - 1)
            at = (page.to(tl.int64) * PAGE + near % PAGE) * (KV_HEADS * DIM) + head * DIM
            later = tl.minimum(token + BLOCK_N, length - 1)
            page = tl.load(indices_ptr + first_page + later // PAGE)
            k = tl.load(k_ptr + at[:, None] + d[None, :])
            scores = tl.dot(q, k.T) * scale_log2
            scores = tl.where(token[None, :] < length, scores, float("-inf"))
            new_top = tl.maximum(top, tl.max(scores, 1))
            shrink = tl.exp2(top - new_top)
            p = tl.exp2(scores - new_top[:, None])
            total = total * shrink + tl.sum(p, 1)
            v = tl.load(v_ptr + at[:, None] + d[None, :])
            acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None])
            top = new_top
    acc = acc / tl.where(total > 0, total, 1.0)[:, None]
    tl.store(
        out_ptr + q_at[:, None] * DIM + d[None, :],
        acc.to(out_ptr.dtype.element_ty),
        mask=row[:, None] < GROUP,
    )
    tl.store(lse_ptr + q_at, top + tl.log2(total), mask=row < GROUP)


def run(*args):
    """(q, k_cache, v_cache, kv_indptr, kv_indices[, kv_last_page_len], sm_scale, output, lse)."""
    q, k_cache, v_cache, kv_indptr, kv_indices = args[:5]
    sm_scale, output, lse = args[-3:]
    last = args[5] if len(args) == 9 else kv_indptr
    batch, heads, dim = q.shape
    page, kv_heads = k_cache.shape[1], k_cache.shape[2]
    _attend[(batch * kv_heads,)](
        q, k_cache, v_cache, kv_indptr, kv_indices, last, output, lse, batch,
        sm_scale * 1.4426950408889634,
        PAGE=page, KV_HEADS=kv_heads, GROUP=heads // kv_heads, DIM=dim,
        BLOCK_N=BLOCK_N, STAGES=NUM_STAGES, HEADS_FIRST=HEADS_FIRST, num_warps=NUM_WARPS,
    )  # fmt: skip
