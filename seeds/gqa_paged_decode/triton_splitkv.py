"""Split-KV decode attention over a paged cache, one launch.

A work item is one chunk of one sequence; each program attends one KV head's query group over one
item. Items are laid end to end over the ragged batch (programs find theirs by a prefix sum), so long
sequences do not delay short ones. The last program to finish a sequence's head merges its chunks.
"""

import torch
import triton
import triton.language as tl

BLOCK_N = 64  # tune: 16 32 64 128
NUM_WARPS = 4  # tune: 1 2 4 8
NUM_STAGES = 4  # tune: 1 2 3 4 5 6
ITEMS_PER_SM = 2  # tune: 1 2 3 4 6 8
MIN_CHUNK = 64  # tune: 32 64 128 256 512
MAX_CHUNK = 4096  # tune: 1024 2048 4096 8192 16384
MERGE_ROWS = 4  # tune: 1 2 4 8 16

_state = {}


@triton.jit(do_not_specialize=["batch", "total_pages", "chunk"])
def _attend(
    q_ptr, k_ptr, v_ptr, indptr_ptr, indices_ptr, last_ptr, out_ptr, lse_ptr,
    part_ptr, part_lse_ptr, arrived_ptr, batch, total_pages, chunk, scale_log2,
    PAGE: tl.constexpr, KV_HEADS: tl.constexpr, GROUP: tl.constexpr, DIM: tl.constexpr,
    BATCH_PAD: tl.constexpr, BLOCK_N: tl.constexpr, STAGES: tl.constexpr, MERGE_ROWS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    head = program % KV_HEADS
    item = program // KV_HEADS

    # Which sequence, and which of its chunks? The whole table is first_page 0 .. total_pages, so a
    # single sequence needs no load.
    if BATCH_PAD == 1:
        seq = 0
        first_page = 0
        first_item = 0
        length = total_pages * PAGE
        if PAGE > 1:
            length = tl.where(total_pages > 0, length - PAGE + tl.load(last_ptr), 0)
        items = tl.maximum(tl.cdiv(length, chunk), 1)
    else:
        b = tl.arange(0, BATCH_PAD)
        page_from = tl.load(indptr_ptr + b, mask=b < batch, other=0)
        pages = tl.load(indptr_ptr + b + 1, mask=b < batch, other=0) - page_from
        lengths = pages * PAGE
        if PAGE > 1:
            tail = tl.load(last_ptr + b, mask=b < batch, other=0)
            lengths = tl.where(pages > 0, lengths - PAGE + tail, 0)
        counts = tl.where(b < batch, tl.maximum(tl.cdiv(lengths, chunk), 1), 0)
        upto = tl.cumsum(counts, 0)
        seq = tl.sum((upto <= item).to(tl.int32))
        mine = b == seq
        first_page = tl.sum(tl.where(mine, page_from, 0))
        first_item = tl.sum(tl.where(mine, upto - counts, 0))
        length = tl.sum(tl.where(mine, lengths, 0))
        items = tl.sum(tl.where(mine, counts, 0))
    if seq >= batch or item >= first_item + items:
        return
    start = (item - first_item) * chunk
    end = tl.minimum(start + chunk, length)

    # The group's few query heads fill a 16-row tile, the least that tensor cores take.
    row = tl.arange(0, 16)
    d = tl.arange(0, DIM)
    q_at = (seq * KV_HEADS + head) * GROUP + row
    q = tl.load(q_ptr + q_at[:, None] * DIM + d[None, :], mask=row[:, None] < GROUP, other=0.0)
    top = tl.full([16], float("-inf"), tl.float32)
    total = tl.zeros([16], tl.float32)
    acc = tl.zeros([16, DIM], tl.float32)
    # Page numbers are fetched one tile ahead, so that the cache's loads never wait for them.
    # Tokens past the end repeat the last one: inside the table, so the big loads need no masks.
    token = tl.minimum(start + tl.arange(0, BLOCK_N), end - 1)
    page = tl.load(indices_ptr + first_page + token // PAGE, mask=token >= 0, other=0)
    for n in tl.range(start, end, BLOCK_N, num_stages=STAGES):
        token = n + tl.arange(0, BLOCK_N)
        near = tl.minimum(token, end - 1)
        at = (page.to(tl.int64) * PAGE + near % PAGE) * (KV_HEADS * DIM) + head * DIM
        page = tl.load(indices_ptr + first_page + tl.minimum(token + BLOCK_N, end - 1) // PAGE)
        k = tl.load(k_ptr + at[:, None] + d[None, :])
        scores = tl.dot(q, k.T) * scale_log2
        scores = tl.where(token[None, :] < end, scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, 1))
        shrink = tl.exp2(top - new_top)
        p = tl.exp2(scores - new_top[:, None])
        total = total * shrink + tl.sum(p, 1)
        v = tl.load(v_ptr + at[:, None] + d[None, :])
        acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None])
        top = new_top
    acc = acc / tl.where(total > 0, total, 1.0)[:, None]
    lse = top + tl.log2(total)

    if items == 1:
        tl.store(
            out_ptr + q_at[:, None] * DIM + d[None, :],
            acc.to(out_ptr.dtype.element_ty),
            mask=row[:, None] < GROUP,
        )
        tl.store(lse_ptr + q_at, lse, mask=row < GROUP)
    else:
        part_at = (item * KV_HEADS + head) * GROUP + row
        tl.store(part_ptr + part_at[:, None] * DIM + d[None, :], acc, mask=row[:, None] < GROUP)
        tl.store(part_lse_ptr + part_at, lse, mask=row < GROUP)
        tl.debug_barrier()  # all of this program's stores precede its arrival
        arrived = tl.atomic_add(arrived_ptr + seq * KV_HEADS + head, 1, sem="acq_rel")
        if arrived == items - 1:
            tl.store(arrived_ptr + seq * KV_HEADS + head, 0)  # ready for the next launch
            _merge(
                part_ptr, part_lse_ptr, out_ptr, lse_ptr, first_item, items, seq, head,
                KV_HEADS, GROUP, DIM, MERGE_ROWS,
            )  # fmt: skip


@triton.jit
def _merge(
    part_ptr, part_lse_ptr, out_ptr, lse_ptr, first_item, items, seq, head,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, DIM: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Weighted mean of a sequence's chunks, for the GROUP * DIM numbers of one KV head."""
    c = tl.arange(0, GROUP * DIM)
    top = tl.full([GROUP * DIM], float("-inf"), tl.float32)
    total = tl.zeros([GROUP * DIM], tl.float32)
    acc = tl.zeros([GROUP * DIM], tl.float32)
    for i in range(0, items, ROWS):
        s = i + tl.arange(0, ROWS)
        there = (s < items)[:, None]
        at = ((first_item + s) * KV_HEADS + head)[:, None]
        lse = tl.load(
            part_lse_ptr + at * GROUP + (c // DIM)[None, :],
            mask=there, other=float("-inf"), cache_modifier=".cg",
        )  # fmt: skip
        part = tl.load(
            part_ptr + at * (GROUP * DIM) + c[None, :], mask=there, other=0.0, cache_modifier=".cg"
        )
        new_top = tl.maximum(top, tl.max(lse, 0))
        weight = tl.exp2(lse - new_top[None, :])
        shrink = tl.exp2(top - new_top)
        total = total * shrink + tl.sum(weight, 0)
        acc = acc * shrink + tl.sum(weight * part, 0)
        top = new_top
    at = (seq * KV_HEADS + head) * GROUP
    tl.store(out_ptr + at * DIM + c, (acc / total).to(out_ptr.dtype.element_ty))
    tl.store(lse_ptr + at + c // DIM, top + tl.log2(total), mask=c % DIM == 0)


def chunk_tokens(batch, tokens, kv_heads, multiprocessors):
    """Tokens per work item: enough items to fill the device, in equal parts of a mean sequence."""
    mean = max(1, tokens // batch)
    wanted = multiprocessors * ITEMS_PER_SM // (kv_heads * batch)
    splits = max(1, min(wanted, mean // MIN_CHUNK), -(-mean // MAX_CHUNK))
    return -(-mean // (splits * BLOCK_N)) * BLOCK_N


def _scratch(device, items, heads, dim, batch, kv_heads):
    """(partial outputs, their lse, arrival counters): kept between calls, grown when too small."""
    wanted = (items * heads * dim, batch * kv_heads)
    kept = _state.get(device)
    if kept is None or kept[0].numel() < wanted[0] or kept[2].numel() < wanted[1]:
        part = torch.empty(max(wanted[0], 1 << 22), dtype=torch.float32, device=device)
        part_lse = torch.empty(part.numel() // dim, dtype=torch.float32, device=device)
        arrived = torch.zeros(max(wanted[1], 4096), dtype=torch.int32, device=device)
        kept = _state[device] = (part, part_lse, arrived)
    return kept


def multiprocessors(device):
    if device.type != "cuda":
        return 8
    count = _state.get(("multiprocessors", device))
    if count is None:
        count = torch.cuda.get_device_properties(device).multi_processor_count
        _state["multiprocessors", device] = count
    return count


def run(*args):
    """(q, k_cache, v_cache, kv_indptr, kv_indices[, kv_last_page_len], sm_scale, output, lse)."""
    q, k_cache, v_cache, kv_indptr, kv_indices = args[:5]
    sm_scale, output, lse = args[-3:]
    last = args[5] if len(args) == 9 else kv_indptr
    batch, heads, dim = q.shape
    page, kv_heads = k_cache.shape[1], k_cache.shape[2]
    pages = kv_indices.shape[0]
    chunk = chunk_tokens(batch, pages * page, kv_heads, multiprocessors(q.device))
    items = pages * page // chunk + batch  # at most: the host does not know the lengths
    part, part_lse, arrived = _scratch(q.device, items, heads, dim, batch, kv_heads)
    _attend[(items * kv_heads,)](
        q, k_cache, v_cache, kv_indptr, kv_indices, last, output, lse, part, part_lse, arrived,
        batch, pages, chunk, sm_scale * 1.4426950408889634,
        PAGE=page, KV_HEADS=kv_heads, GROUP=heads // kv_heads, DIM=dim,
        BATCH_PAD=1 if batch == 1 else max(64, triton.next_power_of_2(batch)),
        BLOCK_N=BLOCK_N, STAGES=NUM_STAGES, MERGE_ROWS=MERGE_ROWS, num_warps=NUM_WARPS,
    )  # fmt: skip
