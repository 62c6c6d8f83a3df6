"""Split-KV decode attention over a paged cache: whole pages, a KV head a warp.

The batch's pages, laid end to end, are cut in equal shares; a program attends HEADS_PER KV heads over one.
Products have the KV heads as batch dimension, which lies along warps: a warp has its head's product, softmax
and output to itself. Nothing crosses warps in the loop or after it, and no product is masked away.
A second launch merges sequences that span several shares.
"""

import torch
import triton
import triton.language as tl

HEADS_PER = 4  # tune: 2 4 8
TILE_PAGES = 1  # tune: 1 2
NUM_WARPS = 4  # tune: 2 4 8
NUM_STAGES = 4  # tune: 2 3 4 5
SHARES_PER_SM = 1  # tune: 1 2 4
MIN_PAGES = 4  # tune: 1 2 4 8 16
MAX_PAGES = 256  # tune: 64 128 256 512 1024 65536
MERGE_ROWS = 64  # tune: 8 16 32 64
MERGE_WARPS = 4  # tune: 2 4 8
KV_EVICTION = "evict_first"  # tune: "evict_first" ""

_state = {}


@triton.jit(do_not_specialize=["batch", "total_pages", "share", "shares"])
def _attend(
    q_ptr, k_ptr, v_ptr, indptr_ptr, indices_ptr, last_ptr, out_ptr, lse_ptr,
    part_ptr, part_lse_ptr, batch, total_pages, share, shares, scale_log2,
    PAGE: tl.constexpr, KV_HEADS: tl.constexpr, GROUP: tl.constexpr, DIM: tl.constexpr,
    BATCH_PAD: tl.constexpr, HEADS_PER: tl.constexpr, TILE_PAGES: tl.constexpr, STAGES: tl.constexpr,
    KV_EVICTION: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    PARTS: tl.constexpr = KV_HEADS // HEADS_PER
    HEADS: tl.constexpr = KV_HEADS * GROUP
    N: tl.constexpr = PAGE * TILE_PAGES
    if PDL:  # the merge may take its place now; it waits for this launch's end
        tl.extra.cuda.gdc_launch_dependents()
    program = tl.program_id(0)
    mine = program // PARTS
    low = mine * share  # in pages of the whole batch
    high = tl.minimum(low + share, total_pages)

    # One entry of each 32-byte sector of the share's table: lookups to come hit a cache.
    WARM: tl.constexpr = 64 if BATCH_PAD == 1 else BATCH_PAD
    near = tl.minimum(low + tl.arange(0, WARM) * 8, high - 1)
    warm = tl.load(indices_ptr + near, mask=near >= 0, other=0)
    if BATCH_PAD == 1:
        first_seq = tl.sum((warm < 0).to(tl.int32))  # 0, as page numbers are not negative
        until_seq = 1
    else:
        b = tl.arange(0, BATCH_PAD)
        begins = tl.load(indptr_ptr + b, mask=b < batch, other=0)
        ends = tl.load(indptr_ptr + b + 1, mask=b < batch, other=0)
        lasts = tl.load(last_ptr + b, mask=b < batch, other=0)
        known = (b < batch) & (lasts >= 0) & (warm >= 0)  # b < batch; keeps the loads alive
        first_seq = tl.sum((known & (ends < low)).to(tl.int32))
        here = (begins < high) | (mine == shares - 1)
        until_seq = tl.sum((known & here).to(tl.int32))

    head = (program % PARTS) * HEADS_PER + tl.arange(0, HEADS_PER)
    row = tl.arange(0, 16)
    col = tl.arange(0, N)
    d = tl.arange(0, DIM)
    # Where a tile's numbers lie in its pages: the same in every tile.
    inside = ((col % PAGE)[None, :] * KV_HEADS + head[:, None]) * DIM
    offset = inside[:, :, None] + d[None, None, :]
    real = (row < GROUP)[None, :] & (head >= 0)[:, None]

    for seq in range(first_seq, until_seq):
        first_page = 0
        until_page = total_pages
        if BATCH_PAD > 1:
            first_page = tl.load(indptr_ptr + seq)
            until_page = tl.load(indptr_ptr + seq + 1)
        pages = until_page - first_page
        start = tl.maximum(first_page, low)
        end = tl.minimum(until_page, high)
        empty_mine = (pages == 0) & (tl.minimum(first_page // share, shares - 1) == mine)
        q_at = (seq * KV_HEADS + head)[:, None] * GROUP + row[None, :]
        if start < end:
            if TILE_PAGES == 1:
                page = tl.load(indices_ptr + start)
            else:
                page = tl.load(indices_ptr + tl.minimum(start + col // PAGE, end - 1))
            tail = tl.load(last_ptr + seq)
            # Slots from the share's begin to the first beyond the segment.
            limit = tl.where(end == until_page, (end - 1 - start) * PAGE + tail, (end - start) * PAGE)
            q = tl.load(q_ptr + q_at[:, :, None] * DIM + d[None, None, :], mask=real[:, :, None], other=0.0)
            top = tl.full([HEADS_PER, 16], float("-inf"), tl.float32)
            total = tl.zeros([HEADS_PER, 16], tl.float32)
            acc = tl.zeros([HEADS_PER, 16, DIM], tl.float32)
            for n in tl.range(start, end, TILE_PAGES, num_stages=STAGES):
                good = (n - start) * PAGE + col < limit
                # Page numbers come one tile ahead.
                base = page.to(tl.int64) * (PAGE * KV_HEADS * DIM)
                if TILE_PAGES == 1:
                    k_at = (k_ptr + base) + offset
                    v_at = (v_ptr + base) + offset
                    page = tl.load(indices_ptr + tl.minimum(n + 1, end - 1))
                else:
                    k_at = k_ptr + (base[None, :, None] + offset)
                    v_at = v_ptr + (base[None, :, None] + offset)
                    page = tl.load(indices_ptr + tl.minimum(n + TILE_PAGES + col // PAGE, end - 1))
                k = tl.load(k_at, mask=good[None, :, None], other=0.0, eviction_policy=KV_EVICTION)
                scores = tl.dot(q, tl.permute(k, (0, 2, 1))) * scale_log2
                scores = tl.where(good[None, None, :], scores, float("-inf"))
                new_top = tl.maximum(top, tl.max(scores, 2))  # every tile has a token
                shrink = tl.exp2(top - new_top)
                p = tl.exp2(scores - new_top[:, :, None])
                total = total * shrink + tl.sum(p, 2)
                v = tl.load(v_at, mask=good[None, :, None], other=0.0, eviction_policy=KV_EVICTION)
                acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, :, None])
                top = new_top
            acc = acc / total[:, :, None]
            lse = top + tl.log2(total)
            if end - start == pages:
                tl.store(
                    out_ptr + q_at[:, :, None] * DIM + d[None, None, :],
                    acc.to(out_ptr.dtype.element_ty),
                    mask=real[:, :, None],
                )
                tl.store(lse_ptr + q_at, lse, mask=real)
            else:
                # A share has at most two divided sequences: one it begins, one it continues.
                part = mine * 2 + (start == first_page).to(tl.int32)
                part_at = part * HEADS + head[:, None] * GROUP + row[None, :]
                tl.store(part_ptr + part_at[:, :, None] * DIM + d[None, None, :], acc, mask=real[:, :, None])
                tl.store(part_lse_ptr + part_at, lse, mask=real)
        elif empty_mine:
            nothing = tl.zeros([HEADS_PER, 16, DIM], tl.float32)
            tl.store(
                out_ptr + q_at[:, :, None] * DIM + d[None, None, :],
                nothing.to(out_ptr.dtype.element_ty),
                mask=real[:, :, None],
            )
            tl.store(lse_ptr + q_at, tl.full([HEADS_PER, 16], float("-inf"), tl.float32), mask=real)


@triton.jit(do_not_specialize=["total_pages", "share"])
def _merge(
    indptr_ptr, part_ptr, part_lse_ptr, out_ptr, lse_ptr, total_pages, share,
    HEADS: tl.constexpr, DIM: tl.constexpr, ROWS: tl.constexpr, ONE: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    seq = program // HEADS
    head = program % HEADS
    begin = 0
    until = total_pages
    if not ONE:
        begin = tl.load(indptr_ptr + seq)
        until = tl.load(indptr_ptr + seq + 1)
    first = begin // share
    count = (until - 1) // share - first + 1
    if PDL:
        tl.extra.cuda.gdc_wait()
    if (until > begin) & (count > 1):
        d = tl.arange(0, DIM)
        top = float("-inf")
        total = 0.0
        acc = tl.zeros([DIM], tl.float32)
        for i in range(0, count, ROWS):
            s = i + tl.arange(0, ROWS)
            there = s < count
            at = ((first + s) * 2 + (s == 0).to(tl.int32)) * HEADS + head
            lse = tl.load(part_lse_ptr + at, mask=there, other=float("-inf"))
            mean = tl.load(
                part_ptr + at[:, None] * DIM + d[None, :], mask=there[:, None], other=0.0
            )
            new_top = tl.maximum(top, tl.max(lse, 0))
            shrink = tl.exp2(top - new_top)
            weight = tl.exp2(lse - new_top)
            total = total * shrink + tl.sum(weight, 0)
            acc = acc * shrink + tl.sum(weight[:, None] * mean, 0)
            top = new_top
        tl.store(out_ptr + program * DIM + d, (acc / total).to(out_ptr.dtype.element_ty))
        tl.store(lse_ptr + program, top + tl.log2(total))


def plan(pages, groups, multiprocessors):
    """(pages a share, shares)."""
    shares = max(1, min(multiprocessors * SHARES_PER_SM // groups, pages // MIN_PAGES))
    shares *= max(1, -(-pages // (shares * MAX_PAGES)))
    share = max(1, -(-pages // shares))
    return share, max(1, -(-pages // share))


def _scratch(device, wanted, dim):
    kept = _state.get(device)
    if kept is None or kept[0].numel() < wanted:
        part = torch.empty(max(wanted, 1 << 22), dtype=torch.float32, device=device)
        part_lse = torch.empty(part.numel() // dim, dtype=torch.float32, device=device)
        kept = _state[device] = (part, part_lse)
    return kept


def multiprocessors(device):
    if device.type != "cuda":
        return 8
    count = _state.get(("multiprocessors", device))
    if count is None:
        count = torch.cuda.get_device_properties(device).multi_processor_count
        _state["multiprocessors", device] = count
    return count


def run(q, k_cache, v_cache, kv_indptr, kv_indices, kv_last_page_len, sm_scale, output, lse):
    batch, heads, dim = q.shape
    page, kv_heads = k_cache.shape[1], k_cache.shape[2]
    pages = kv_indices.shape[0]
    groups = kv_heads // HEADS_PER
    share, shares = plan(pages, groups, multiprocessors(q.device))
    part, part_lse = _scratch(q.device, shares * 2 * heads * dim, dim)
    pdl = q.device.type == "cuda" and shares > 1
    _attend[(shares * groups,)](
        q, k_cache, v_cache, kv_indptr, kv_indices, kv_last_page_len, output, lse, part, part_lse,
        batch, pages, share, shares, sm_scale * 1.4426950408889634,
        PAGE=page, KV_HEADS=kv_heads, GROUP=heads // kv_heads, DIM=dim,
        BATCH_PAD=1 if batch == 1 else max(64, triton.next_power_of_2(batch)),
        HEADS_PER=HEADS_PER, TILE_PAGES=TILE_PAGES, STAGES=NUM_STAGES, KV_EVICTION=KV_EVICTION,
        PDL=pdl, num_warps=NUM_WARPS,
    )  # fmt: skip
    if shares > 1:
        _merge[(batch * heads,)](
            kv_indptr, part, part_lse, output, lse, pages, share,
            HEADS=heads, DIM=dim, ROWS=MERGE_ROWS, ONE=batch == 1, PDL=pdl,
            num_warps=MERGE_WARPS, launch_pdl=pdl,
        )  # fmt: skip
