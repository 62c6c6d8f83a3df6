"""Paged decode attention with grouped-query heads: reference, inputs, cost.

One query token per sequence attends over the sequence's whole KV cache. The cache is a pool of
pages of `page_size` tokens, layout [num_pages, page_size, num_kv_heads, head_dim]; sequence b owns
the pages kv_indices[kv_indptr[b]:kv_indptr[b+1]], the last of which holds kv_last_page_len[b] tokens
(definitions with page size 1 leave that input out). Query head h reads KV head
h // (num_qo_heads // num_kv_heads). See notes.md for the maths.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

TOLERANCES: dict[str, tuple[float, float]] = {
    "bfloat16": (0.1, 0.0),
    "lse": (0.006, 0.0),
    "float32": (1e-4, 0.0),
}

MAX_TOKENS = 184_320
"""Longest sequence that `axes_of` makes."""

CHUNK_TOKENS = 32_768
"""Tokens that the reference gathers at a time (268 MB of float32 keys and values at 8 x 128)."""

QUERY_STD = 3.0
"""Standard deviation of the scores: peaked enough that the output's size hardly depends on length."""


def run(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    kv_indptr: Tensor,
    kv_indices: Tensor,
    *rest: Tensor | float,
) -> tuple[Tensor, Tensor]:
    """Reference. `rest` is (kv_last_page_len, sm_scale), or (sm_scale,) at page size 1.

    Returns (output [batch_size, num_qo_heads, head_dim] in q's dtype, lse [batch_size,
    num_qo_heads] float32, base 2). Online softmax in float32 over chunks of `CHUNK_TOKENS`.
    """
    batch, num_qo_heads, head_dim = q.shape
    page_size, num_kv_heads = k_cache.shape[1], k_cache.shape[2]
    last = rest[0].tolist() if len(rest) == 2 else [page_size] * batch
    sm_scale = float(rest[-1])
    group = num_qo_heads // num_kv_heads
    keys, values = k_cache.flatten(0, 1), v_cache.flatten(0, 1)
    output = torch.zeros(batch, num_qo_heads, head_dim, dtype=torch.float32, device=q.device)
    lse = torch.full((batch, num_qo_heads), -math.inf, dtype=torch.float32, device=q.device)
    bounds = kv_indptr.tolist()
    for b in range(batch):
        pages = kv_indices[bounds[b] : bounds[b + 1]].long()
        if len(pages) == 0:
            continue
        length = (len(pages) - 1) * page_size + last[b]
        query = q[b].float().reshape(num_kv_heads, group, head_dim) * sm_scale
        top = torch.full((num_kv_heads, group, 1), -math.inf, device=q.device)
        total = torch.zeros(num_kv_heads, group, 1, device=q.device)
        acc = torch.zeros(num_kv_heads, group, head_dim, device=q.device)
        for rows in _token_rows(pages, page_size, length):
            k = keys[rows].float().transpose(0, 1)
            scores = query @ k.transpose(1, 2)
            new_top = torch.maximum(top, scores.amax(-1, keepdim=True))
            shrink, p = torch.exp(top - new_top), torch.exp(scores - new_top)
            total = total * shrink + p.sum(-1, keepdim=True)
            acc = acc * shrink + p @ values[rows].float().transpose(0, 1)
            top = new_top
        output[b] = (acc / total).reshape(num_qo_heads, head_dim)
        lse[b] = (top / math.log(2) + torch.log2(total)).flatten()
    return output.to(q.dtype), lse


def _token_rows(pages: Tensor, page_size: int, length: int) -> Iterator[Tensor]:
    """Rows of a sequence's tokens in the flattened cache, in chunks."""
    for start in range(0, length, CHUNK_TOKENS):
        token = torch.arange(start, min(start + CHUNK_TOKENS, length), device=pages.device)
        yield pages[token // page_size] * page_size + token % page_size


def axes_of(
    definition: dict[str, Any], sample: dict[str, Any]
) -> tuple[dict[str, int], dict[str, Any]]:
    """Axes and `make` of a workload.

    `sample` holds `batch_size`, `seq_len` and optionally `spread` in [0, 1] (lengths lie within
    seq_len * (1 +- spread)), or `trace_axes`: the axes of a recorded workload, whose lengths then
    share its tokens unevenly. `make` holds `seq_lens`, one per sequence.
    """
    page_size = definition["axes"]["page_size"]["value"]
    if "trace_axes" in sample:
        axes = {name: int(value) for name, value in sample["trace_axes"].items()}
        counts = _share(axes["num_kv_indices"], axes["batch_size"])
        lens = [max(0, n * page_size - i % page_size) for i, n in enumerate(counts)]
        label = f"trace B{axes['batch_size']} {axes['num_kv_indices']} pages"
        return axes, {"seq_lens": lens, "label": label}
    batch, seq_len = int(sample["batch_size"]), int(sample["seq_len"])
    spread = float(sample.get("spread", 0.0))
    lens = [
        min(MAX_TOKENS, max(1, round(seq_len * (1 + spread * (2 * _uneven(i) - 1)))))
        for i in range(batch)
    ]
    used = sum(-(-n // page_size) for n in lens)
    axes = {
        "batch_size": batch,
        "num_pages": used + used // 32 + 16,
        "len_indptr": batch + 1,
        "num_kv_indices": used,
    }
    label = f"B{batch} L{seq_len}" + (f" +-{spread:.0%}" if spread else "")
    return axes, {"seq_lens": lens, "label": label}


def _uneven(i: int) -> float:
    """The i-th point of a golden-ratio sequence: spread evenly over [0, 1), in scattered order."""
    return (0.5 + i * 0.6180339887498949) % 1.0


def _share(total: int, parts: int) -> list[int]:
    """`total` split in `parts` uneven whole shares (at least one each where that is possible)."""
    floor = 1 if total >= parts else 0
    weights = [0.25 + _uneven(i) for i in range(parts)]
    left = total - floor * parts
    shares = [floor + int(left * w / sum(weights)) for w in weights]
    for i in range(total - sum(shares)):
        shares[i % parts] += 1
    return shares


def make_inputs(
    definition: dict[str, Any],
    axes: dict[str, int],
    make: dict[str, Any],
    scalars: dict[str, float],
    generator: torch.Generator,
    device: str | torch.device,
) -> dict[str, Any]:
    """Inputs by name, in the definition's order; pages of all sequences are shuffled over the pool.

    Keys and values are standard normal, made on `device` without temporaries of their size. The
    first and last key of each sequence point at its first query head, so that a kernel that drops
    a boundary token is caught at any length.
    """
    device = torch.device(device)
    generator = _on(generator, device)
    fixed = {n: a["value"] for n, a in definition["axes"].items() if a["type"] == "const"}
    page_size, head_dim = fixed["page_size"], fixed["head_dim"]
    dtype = getattr(torch, definition["inputs"]["q"]["dtype"])
    lens = torch.tensor(make["seq_lens"], dtype=torch.int64)
    counts = (lens + page_size - 1) // page_size
    indptr = torch.zeros(axes["len_indptr"], dtype=torch.int32)
    indptr[1:] = counts.cumsum(0)
    if int(indptr[-1]) != axes["num_kv_indices"]:
        raise ValueError(f"seq_lens need {int(indptr[-1])} pages, not {axes['num_kv_indices']}")
    last = torch.where(counts > 0, lens - (counts - 1) * page_size, 0).int()
    q = torch.empty(axes["batch_size"], fixed["num_qo_heads"], head_dim, device=device)
    q.normal_(0.0, QUERY_STD, generator=generator)
    pool = (axes["num_pages"], page_size, fixed["num_kv_heads"], head_dim)
    k_cache, v_cache = (_normal(pool, dtype, generator, device) for _ in range(2))
    order = torch.randperm(axes["num_pages"], generator=generator, device=device)
    kv_indices = order[: axes["num_kv_indices"]].int()
    sm_scale = float(scalars.get("sm_scale", 1.0 / math.sqrt(head_dim)))
    _point_boundary_keys(q, k_cache, indptr, kv_indices, last, lens, sm_scale)
    inputs = {
        "q": q.to(dtype),
        "k_cache": k_cache,
        "v_cache": v_cache,
        "kv_indptr": indptr.to(device),
        "kv_indices": kv_indices,
        "kv_last_page_len": last.to(device),
        "sm_scale": sm_scale,
    }
    return {name: inputs[name] for name in definition["inputs"]}


def _on(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """`generator`, or one on `device` seeded from it."""
    if generator.device.type == device.type:
        return generator
    seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
    return torch.Generator(device).manual_seed(seed)


def _normal(
    shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, device: torch.device
) -> Tensor:
    """Standard normal values, filled piecewise in place: a cache may take tens of gigabytes."""
    tensor = torch.empty(shape, dtype=dtype, device=device)
    for piece in tensor.view(-1).split(1 << 28):
        piece.normal_(generator=generator)
    return tensor


def _point_boundary_keys(
    q: Tensor,
    k_cache: Tensor,
    indptr: Tensor,
    kv_indices: Tensor,
    last: Tensor,
    lens: Tensor,
    sm_scale: float,
) -> None:
    """Set first and last key of each sequence so that each takes a fair share of head 0's softmax."""
    group = q.shape[1] // k_cache.shape[2]
    some = lens > 0
    if not bool(some.any()):
        return
    query = q[some.to(q.device), ::group]  # [sequences, num_kv_heads, head_dim]
    score = torch.log(lens[some].float()) + QUERY_STD**2 / 2  # log of the others' expected sum
    unit = query / query.square().sum(-1, keepdim=True)
    key = (unit * (score.to(q.device) / sm_scale)[:, None, None]).to(k_cache.dtype)
    first_page = kv_indices[indptr[:-1][some].long().to(q.device)].long()
    last_page = kv_indices[(indptr[1:][some].long() - 1).to(q.device)].long()
    k_cache[last_page, (last[some].long() - 1).to(q.device)] = key
    k_cache[first_page, torch.zeros_like(first_page)] = key


def cost(
    definition: dict[str, Any], axes: dict[str, int], make: dict[str, Any]
) -> tuple[float, float]:
    """(flops, least bytes): two multiply-adds per token, query head and channel; each token's key
    and value, and each table, query and output read or written once."""
    fixed = {n: a["value"] for n, a in definition["axes"].items() if a["type"] == "const"}
    tokens = sum(make["seq_lens"])
    width = getattr(torch, definition["inputs"]["q"]["dtype"]).itemsize
    rows = axes["batch_size"] * fixed["num_qo_heads"]
    flops = 4.0 * tokens * fixed["num_qo_heads"] * fixed["head_dim"]
    cache = 2.0 * tokens * fixed["num_kv_heads"] * fixed["head_dim"] * width
    tables = 4.0 * (axes["num_kv_indices"] + 2 * axes["batch_size"] + 1)
    return flops, cache + tables + rows * (2.0 * fixed["head_dim"] * width + 4.0)
