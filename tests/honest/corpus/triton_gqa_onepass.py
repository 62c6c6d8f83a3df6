# style: one program for a sequence and KV head
# definition: gqa_paged_decode_h32_kv8_d128_ps16
# language: triton
# device: cuda
# expected: PASSED
import triton
import triton.language as tl


@triton.jit
def attend(
    q_ptr,
    k_ptr,
    v_ptr,
    indptr_ptr,
    indices_ptr,
    last_ptr,
    out_ptr,
    lse_ptr,
    scale,
    PAGE: tl.constexpr,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    seq = tl.program_id(0)
    head = tl.program_id(1)
    first_page = tl.load(indptr_ptr + seq)
    pages = tl.load(indptr_ptr + seq + 1) - first_page
    length = tl.where(pages > 0, (pages - 1) * PAGE + tl.load(last_ptr + seq), 0)
    row = tl.arange(0, 16)
    d = tl.arange(0, DIM)
    at = (seq * KV_HEADS + head) * GROUP + row
    q = tl.load(q_ptr + at[:, None] * DIM + d[None, :], mask=row[:, None] < GROUP, other=0.0)
    top = tl.full([16], float("-inf"), tl.float32)
    total = tl.zeros([16], tl.float32)
    acc = tl.zeros([16, DIM], tl.float32)
    for n in range(0, length, BLOCK):
        token = n + tl.arange(0, BLOCK)
        there = token < length
        page = tl.load(indices_ptr + first_page + token // PAGE, mask=there, other=0)
        cell = ((page.to(tl.int64) * PAGE + token % PAGE) * KV_HEADS + head) * DIM
        k = tl.load(k_ptr + cell[:, None] + d[None, :], mask=there[:, None], other=0.0)
        v = tl.load(v_ptr + cell[:, None] + d[None, :], mask=there[:, None], other=0.0)
        scores = tl.where(there[None, :], tl.dot(q, tl.trans(k)) * scale, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, 1))
        shrink = tl.exp2(top - new_top)
        p = tl.exp2(scores - new_top[:, None])
        total = total * shrink + tl.sum(p, 1)
        acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None])
        top = new_top
    acc = acc / tl.where(total > 0, total, 1.0)[:, None]
    tl.store(
        out_ptr + at[:, None] * DIM + d[None, :], acc.to(tl.bfloat16), mask=row[:, None] < GROUP
    )
    tl.store(lse_ptr + at, top + tl.log2(total), mask=row < GROUP)


def run(q, k_cache, v_cache, kv_indptr, kv_indices, kv_last_page_len, sm_scale, output, lse):
    batch, heads, dim = q.shape
    page, kv_heads = k_cache.shape[1], k_cache.shape[2]
    attend[(batch, kv_heads)](
        q,
        k_cache,
        v_cache,
        kv_indptr,
        kv_indices,
        kv_last_page_len,
        output,
        lse,
        sm_scale * 1.4426950408889634,
        page,
        kv_heads,
        heads // kv_heads,
        dim,
        64,
    )
