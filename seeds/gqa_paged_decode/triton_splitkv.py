"""Split-KV decode attention over a paged cache, one launch.

The batch's tokens, laid end to end, are cut in equal shares; a program attends one KV head's query group
over one share, so ragged batches are balanced. A share is a run of segments, each of one sequence.
Where a sequence spans several shares, the last program to arrive merges them.
"""

import torch
import triton
import triton.language as tl

BLOCK_N = 64  # tune: 16 32 64 128
NUM_WARPS = 4  # tune: 1 2 4 8
NUM_STAGES = 4  # tune: 1 2 3 4 5 6
SHARES_PER_SM = 1  # tune: 1 2 3 4 6 8
MIN_CHUNK = 128  # tune: 32 64 128 256 512
MAX_CHUNK = 4096  # tune: 1024 2048 4096 8192 16384 65536 1048576
MERGE_ROWS = 8  # tune: 1 2 4 8 16
HEADS_INNER = 1  # tune: 0 1
KV_EVICTION = "evict_first"  # tune: "evict_first" "evict_last" ""

TILE = tl.constexpr(16)  # shares are cut at multiples of this in a sequence

_state = {}


@triton.jit(do_not_specialize=["batch", "total_pages", "share", "shares"])
def _attend(
    q_ptr, k_ptr, v_ptr, indptr_ptr, indices_ptr, last_ptr, out_ptr, lse_ptr,
    part_ptr, part_lse_ptr, arrived_ptr, batch, total_pages, share, shares, scale_log2,
    PAGE: tl.constexpr, KV_HEADS: tl.constexpr, GROUP: tl.constexpr, DIM: tl.constexpr,
    BATCH_PAD: tl.constexpr, BLOCK_N: tl.constexpr, STAGES: tl.constexpr, MERGE_ROWS: tl.constexpr,
    HEADS_INNER: tl.constexpr, KV_EVICTION: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    if HEADS_INNER:  # neighbours read the same tokens' heads, which lie side by side
        head = program % KV_HEADS
        mine = program // KV_HEADS
    else:
        head = program // shares
        mine = program % shares
    low = mine * share
    high = low + share

    # Which sequences? A sequence's slots are its tokens up to the end of its last page; cutting in
    # slots needs no look at the last page's filling. A single sequence owns the whole table.
    if BATCH_PAD == 1:
        first_seq = 0
        until_seq = 1
    else:
        b = tl.arange(0, BATCH_PAD)
        begins = tl.load(indptr_ptr + b, mask=b < batch, other=0) * PAGE
        ends = tl.load(indptr_ptr + b + 1, mask=b < batch, other=0) * PAGE
        first_seq = tl.sum(((b < batch) & (ends < low)).to(tl.int32))
        here = (begins < high) | (mine == shares - 1)
        until_seq = tl.sum(((b < batch) & here).to(tl.int32))

    row = tl.arange(0, 16)  # the group's few query heads fill 16 rows, the least tensor cores take
    d = tl.arange(0, DIM)
    for seq in range(first_seq, until_seq):
        first_page = 0
        pages = total_pages
        if BATCH_PAD > 1:
            first_page = tl.load(indptr_ptr + seq)
            pages = tl.load(indptr_ptr + seq + 1) - first_page
        begin = first_page * PAGE
        slots = pages * PAGE
        start = _cut(low - begin, slots)
        end = _cut(high - begin, slots)
        # An empty sequence belongs to the share where it would begin.
        empty_mine = (slots == 0) & (tl.minimum(begin // share, shares - 1) == mine)
        if (start < end) | empty_mine:
            limit = end
            if PAGE > 1:
                tail = tl.load(last_ptr + seq)
                limit = tl.minimum(end, tl.where(slots > 0, slots - PAGE + tail, 0))
            q_at = (seq * KV_HEADS + head) * GROUP + row
            q = tl.load(
                q_ptr + q_at[:, None] * DIM + d[None, :], mask=row[:, None] < GROUP, other=0.0
            )
            top = tl.full([16], float("-inf"), tl.float32)
            total = tl.zeros([16], tl.float32)
            acc = tl.zeros([16, DIM], tl.float32)
            # Page numbers are fetched one tile ahead, so that the cache's loads never wait for them.
            # Tokens past the end repeat the last one: inside the table, so big loads need no masks.
            token = tl.minimum(start + tl.arange(0, BLOCK_N), end - 1)
            page = tl.load(indices_ptr + first_page + token // PAGE, mask=token >= 0, other=0)
            for n in tl.range(start, end, BLOCK_N, num_stages=STAGES):
                token = n + tl.arange(0, BLOCK_N)
                slot = tl.minimum(token, limit - 1) % PAGE
                at = (page.to(tl.int64) * PAGE + slot) * (KV_HEADS * DIM) + head * DIM
                later = tl.minimum(token + BLOCK_N, end - 1)
                page = tl.load(indices_ptr + first_page + later // PAGE)
                k = tl.load(k_ptr + at[:, None] + d[None, :], eviction_policy=KV_EVICTION)
                scores = tl.dot(q, k.T) * scale_log2
                scores = tl.where(token[None, :] < limit, scores, float("-inf"))
                new_top = tl.maximum(top, tl.max(scores, 1))
                shrink = tl.exp2(top - new_top)
                p = tl.exp2(scores - new_top[:, None])
                total = total * shrink + tl.sum(p, 1)
                v = tl.load(v_ptr + at[:, None] + d[None, :], eviction_policy=KV_EVICTION)
                acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None])
                top = new_top
            acc = acc / tl.where(total > 0, total, 1.0)[:, None]
            lse = top + tl.log2(total)

            if end - start == slots:
                tl.store(
                    out_ptr + q_at[:, None] * DIM + d[None, :],
                    acc.to(out_ptr.dtype.element_ty),
                    mask=row[:, None] < GROUP,
                )
                tl.store(lse_ptr + q_at, lse, mask=row < GROUP)
            else:
                # A share has at most two divided sequences: one it begins, one it continues.
                part = mine * 2 + (start == 0).to(tl.int32)
                part_at = (part * KV_HEADS + head) * GROUP + row
                tl.store(
                    part_ptr + part_at[:, None] * DIM + d[None, :], acc, mask=row[:, None] < GROUP
                )
                tl.store(part_lse_ptr + part_at, lse, mask=row < GROUP)
                tl.debug_barrier()  # all of this program's stores precede its arrival
                first = (begin + tl.minimum(TILE, slots) - 1) // share
                count = (begin + slots - 1) // share - first + 1
                counter = arrived_ptr + seq * KV_HEADS + head
                if tl.atomic_add(counter, 1, sem="acq_rel") == count - 1:
                    tl.store(counter, 0)  # ready for the next launch
                    _merge(
                        part_ptr, part_lse_ptr, out_ptr, lse_ptr, first, count, seq, head,
                        KV_HEADS, GROUP, DIM, MERGE_ROWS,
                    )  # fmt: skip


@triton.jit
def _cut(at, slots):
    """Where a cut `at` slots behind a sequence's begin falls: on a tile's edge."""
    return tl.where(at >= slots, slots, tl.maximum(at, 0) // TILE * TILE)


@triton.jit
def _merge(
    part_ptr, part_lse_ptr, out_ptr, lse_ptr, first, count, seq, head,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, DIM: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Weighted mean of a sequence's shares, for the GROUP * DIM numbers of one KV head."""
    c = tl.arange(0, GROUP * DIM)
    top = tl.full([GROUP * DIM], float("-inf"), tl.float32)
    total = tl.zeros([GROUP * DIM], tl.float32)
    acc = tl.zeros([GROUP * DIM], tl.float32)
    for i in range(0, count, ROWS):
        s = i + tl.arange(0, ROWS)
        there = (s < count)[:, None]
        part = (first + s) * 2 + (s == 0).to(tl.int32)
        at = (part * KV_HEADS + head)[:, None]
        lse = tl.load(
            part_lse_ptr + at * GROUP + (c // DIM)[None, :],
            mask=there, other=float("-inf"), cache_modifier=".cg",
        )  # fmt: skip
        mean = tl.load(
            part_ptr + at * (GROUP * DIM) + c[None, :], mask=there, other=0.0, cache_modifier=".cg"
        )
        new_top = tl.maximum(top, tl.max(lse, 0))
        weight = tl.exp2(lse - new_top[None, :])
        shrink = tl.exp2(top - new_top)
        total = total * shrink + tl.sum(weight, 0)
        acc = acc * shrink + tl.sum(weight * mean, 0)
        top = new_top
    at = (seq * KV_HEADS + head) * GROUP
    tl.store(out_ptr + at * DIM + c, (acc / total).to(out_ptr.dtype.element_ty))
    tl.store(lse_ptr + at + c // DIM, top + tl.log2(total), mask=c % DIM == 0)


def plan(batch, tokens, page, kv_heads, multiprocessors):
    """(tokens a share, shares of one KV head).

    Equal shares, one a sequence on average; more where that leaves the device idle, or where a share
    would exceed MAX_CHUNK.
    """
    room = multiprocessors * SHARES_PER_SM // kv_heads
    shares = max(batch, min(room, tokens // MIN_CHUNK))
    shares *= max(1, -(-tokens // (shares * MAX_CHUNK)))
    for fewer in range(shares, shares * 15 // 16 - 1, -1):
        if fewer and (fewer % batch == 0 or batch % fewer == 0):
            shares = fewer  # equal sequences stay whole where that costs little
            break
    share = max(TILE.value, -(-tokens // (shares * page)) * page)
    return share, max(1, -(-tokens // share))


def _scratch(device, rows, heads, dim, batch, kv_heads):
    """(partial outputs, their lse, arrival counters): kept between calls, grown when too small."""
    wanted = (rows * heads * dim, batch * kv_heads)
    kept = _state.get(device)
    if kept is None or kept[0].numel() < wanted[0] or kept[2].numel() < wanted[1]:
        part = torch.empty(max(wanted[0], 1 << 22), dtype=torch.float32, device=device)
        part_lse = torch.empty(part.numel() // dim, dtype=torch.float32, device=device)
        arrived = torch.zeros(max(wanted[1], 4096), dtype=torch.int32, device=device)
        kept = _state[device] = (part, part_lse, arrived)
    return kept


def multiprocessors(device):
    if device.type != "cuda":
        return 64
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
    share, shares = plan(batch, pages * page, page, kv_heads, multiprocessors(q.device))
    part, part_lse, arrived = _scratch(q.device, shares * 2, heads, dim, batch, kv_heads)
    _attend[(shares * kv_heads,)](
        q, k_cache, v_cache, kv_indptr, kv_indices, last, output, lse, part, part_lse, arrived,
        batch, pages, share, shares, sm_scale * 1.4426950408889634,
        PAGE=page, KV_HEADS=kv_heads, GROUP=heads // kv_heads, DIM=dim,
        BATCH_PAD=1 if batch == 1 else max(64, triton.next_power_of_2(batch)),
        BLOCK_N=BLOCK_N, STAGES=NUM_STAGES, MERGE_ROWS=MERGE_ROWS, HEADS_INNER=HEADS_INNER,
        KV_EVICTION=KV_EVICTION, num_warps=NUM_WARPS,
    )  # fmt: skip
