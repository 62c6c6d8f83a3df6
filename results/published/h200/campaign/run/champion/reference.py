"""Paged decode attention with grouped-query heads: exact and honest results, inputs, cost.

One query token per sequence attends over the sequence's whole KV cache. The cache is a pool of
pages of `page_size` tokens, layout [num_pages, page_size, num_kv_heads, head_dim]; sequence b owns
the pages kv_indices[kv_indptr[b]:kv_indptr[b+1]], the last of which holds kv_last_page_len[b] tokens
(definitions with page size 1 leave that input out). Query head h reads KV head
h // (num_qo_heads // num_kv_heads). See notes.md for the maths.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

MAX_TOKENS = 184_320
"""Longest sequence that `axes_of` makes."""

CHUNK_TOKENS = 32_768
"""Tokens that the reference gathers at a time (268 MB of float32 keys and values at 8 x 128)."""

QUERY_STDS = (3.0, 2.0, 1.0, 0.3)
"""Standard deviation of the scores of a group's first, second, ... query head (and so on again).

Peaked heads show errors of scores, flat ones show lost tokens: there the output is a mean of all
values, and each of n tokens is worth 1 / sqrt(n) of its size.
"""

SIZES = {"normal": (1.0, 1.0), "large": (16.0, 64.0), "zeros": (0.0, 1.0)}
"""`make["values"]` -> what queries and values are multiplied by. "large" scores pass 100, and their
exponentials overflow float32; "zeros" weighs all tokens alike. A fourth style, "negative", makes keys
and values negative and queries positive, so that all scores and outputs are negative."""

EDGES = (0, 1, 15, 16, 17, 31, 32, 33, 0, 63, 64, 65, 127, 128, 129)
"""Lengths on, before and behind the edges of pages and tiles, with empty sequences among them."""


def exact(*inputs: Any) -> tuple[Tensor, Tensor]:
    """(output [batch_size, num_qo_heads, head_dim], lse [batch_size, num_qo_heads], base 2).

    Inputs in the definition's order; see `run`. float64 for float32 inputs, else float32.
    """
    wide = torch.float64 if inputs[0].dtype == torch.float32 else torch.float32
    return _attend(inputs, wide, None)


def run(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    kv_indptr: Tensor,
    kv_indices: Tensor,
    *rest: Tensor | float,
) -> tuple[Tensor, Tensor]:
    """The exact result rounded: output to q's dtype, lse to float32.

    `rest` is (kv_last_page_len, sm_scale), or (sm_scale,) at page size 1.
    """
    output, lse = exact(q, k_cache, v_cache, kv_indptr, kv_indices, *rest)
    return output.to(q.dtype), lse.float()


def honest(*inputs: Any) -> tuple[Tensor, Tensor]:
    """As a good kernel computes: float32 scores and sums, probabilities rounded to q's dtype for
    the product with the values, and their sum taken after the rounding."""
    dtype = inputs[0].dtype
    output, lse = _attend(inputs, torch.float32, dtype)
    return output.to(dtype), lse


def _attend(
    inputs: Sequence[Any], wide: torch.dtype, narrow: torch.dtype | None
) -> tuple[Tensor, Tensor]:
    """Online softmax in `wide` over chunks of `CHUNK_TOKENS`; probabilities rounded to `narrow`."""
    q, k_cache, v_cache, indptr, indices, *rest = inputs
    batch, num_qo_heads, head_dim = q.shape
    page_size, num_kv_heads = k_cache.shape[1], k_cache.shape[2]
    last = rest[0].tolist() if len(rest) == 2 else [page_size] * batch
    group = num_qo_heads // num_kv_heads
    keys, values = k_cache.flatten(0, 1), v_cache.flatten(0, 1)
    output = torch.zeros(batch, num_qo_heads, head_dim, dtype=wide, device=q.device)
    lse = torch.full((batch, num_qo_heads), -math.inf, dtype=wide, device=q.device)
    bounds = indptr.tolist()
    for b in range(batch):
        pages = indices[bounds[b] : bounds[b + 1]].long()
        if len(pages) == 0:
            continue
        length = (len(pages) - 1) * page_size + last[b]
        query = q[b].to(wide).reshape(num_kv_heads, group, head_dim)
        top = torch.full((num_kv_heads, group, 1), -math.inf, dtype=wide, device=q.device)
        total = torch.zeros_like(top)
        acc = torch.zeros_like(query)
        for rows in _token_rows(pages, page_size, length):
            k = keys[rows].to(wide).transpose(0, 1)
            scores = (query @ k.transpose(1, 2)).mul_(float(rest[-1]))
            new_top = torch.maximum(top, scores.amax(-1, keepdim=True))
            shrink, p = torch.exp(top - new_top), torch.exp(scores - new_top)
            p = p if narrow is None else p.to(narrow).to(wide)
            total = total * shrink + p.sum(-1, keepdim=True)
            acc = acc * shrink + p @ values[rows].to(wide).transpose(0, 1)
            top = new_top
        output[b] = (acc / total).reshape(num_qo_heads, head_dim)
        lse[b] = (top / math.log(2) + torch.log2(total)).flatten()
    return output, lse


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


def cases(definition: dict[str, Any]) -> list[tuple[dict[str, int], dict[str, Any]]]:
    """Edge lengths, and unusual values."""
    rows: list[tuple[str, Sequence[int], str]] = [
        ("edge lengths", EDGES, "normal"),
        ("one token", (1,), "normal"),
        ("on a tile and one past it", (256, 257), "large"),
        ("ragged", (300, 5, 64), "zeros"),
        ("ragged", (1, 130, 47), "negative"),
    ]
    return [_case(definition, label, list(lens), style) for label, lens, style in rows]


def _case(
    definition: dict[str, Any], label: str, lens: list[int], style: str
) -> tuple[dict[str, int], dict[str, Any]]:
    used = sum(-(-n // definition["axes"]["page_size"]["value"]) for n in lens)
    axes = {
        "batch_size": len(lens),
        "num_pages": used + 5,
        "len_indptr": len(lens) + 1,
        "num_kv_indices": used,
    }
    return axes, {"seq_lens": lens, "label": f"{label}, {style} values", "values": style}


def make_inputs(
    definition: dict[str, Any],
    axes: dict[str, int],
    make: dict[str, Any],
    scalars: dict[str, float],
    generator: torch.Generator,
    device: str | torch.device,
) -> dict[str, Any]:
    """Inputs by name, in the definition's order; pages of all sequences are shuffled over the pool.

    Keys and values are standard normal (or a style of `SIZES`), made on `device` without temporaries
    of their size. The first and last key of each sequence point at its first query head, so that a
    kernel that drops a boundary token is caught at any length.
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
    pool = (axes["num_pages"], page_size, fixed["num_kv_heads"], head_dim)
    k_cache, v_cache = (_normal(pool, dtype, generator, device) for _ in range(2))
    heads = (axes["batch_size"], fixed["num_qo_heads"], head_dim)
    inputs = {
        "q": torch.empty(heads, dtype=dtype, device=device),
        "k_cache": k_cache,
        "v_cache": v_cache.mul_(SIZES.get(_style(make), (1.0, 1.0))[1]),
        "kv_indptr": indptr.to(device),
        "kv_indices": torch.empty(axes["num_kv_indices"], dtype=torch.int32, device=device),
        "kv_last_page_len": last.to(device),
        "sm_scale": float(scalars.get("sm_scale", 1.0 / math.sqrt(head_dim))),
    }
    if _style(make) == "negative":
        k_cache.abs_().neg_()
        v_cache.abs_().neg_()
    _draw_queries_and_pages(inputs, make, generator)
    return {name: inputs[name] for name in definition["inputs"]}


def vary(
    definition: dict[str, Any],
    axes: dict[str, int],
    make: dict[str, Any],
    inputs: dict[str, Any],
    generator: torch.Generator,
) -> None:
    """New values in place, one pass over the cache: queries and page table drawn anew, keys and values
    with random signs per channel. The table holds pages of the pool at any instant."""
    q, k_cache, v_cache = (inputs[name] for name in ("q", "k_cache", "v_cache"))
    generator = _on(generator, q.device)
    for key in _boundary_keys(inputs, make):  # keys like any other, wherever their page goes
        shape = (len(key[0]), *k_cache.shape[2:])
        k_cache[key] = _normal(shape, k_cache.dtype, generator, q.device)
    if _style(make) == "negative":
        for cache in (k_cache, v_cache):
            _normal(cache.shape, cache.dtype, generator, q.device, cache).abs_().neg_()
    else:
        for cache in (k_cache, v_cache):
            _flip_signs(cache, generator)
    _draw_queries_and_pages(inputs, make, generator)


def _flip_signs(cache: Tensor, generator: torch.Generator) -> None:
    """Random signs per head and channel, in place. Flips bits of 8-byte words: a product of narrow
    floats with a row of signs reaches a fraction of a device's bandwidth."""
    integers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    dtype = integers[cache.element_size()]
    bits = torch.randint(
        2, cache.shape[2:], generator=generator, device=cache.device, dtype=dtype
    ).mul_(torch.iinfo(dtype).min)
    cache.view(torch.int64).flatten(2).bitwise_xor_(bits.flatten().view(torch.int64))


def _draw_queries_and_pages(
    inputs: dict[str, Any], make: dict[str, Any], generator: torch.Generator
) -> None:
    """Draw q and kv_indices in place, and set the boundary keys that belong to them."""
    q, k_cache, indices = inputs["q"], inputs["k_cache"], inputs["kv_indices"]
    group, style = q.shape[1] // k_cache.shape[2], _style(make)
    known = _known(tuple(make["seq_lens"]), k_cache.shape[1], q.shape[1], group, q.device)
    query = torch.empty(q.shape, device=q.device).normal_(generator=generator) * known.stds
    query = query.abs() if style == "negative" else query * SIZES[style][0]
    order = torch.randperm(len(k_cache), generator=generator, device=q.device)
    q.copy_(query)
    indices.copy_(order[: len(indices)])
    if style != "normal":
        return
    sm_scale = float(inputs["sm_scale"])
    first = query[known.rows, ::group]  # [sequences, num_kv_heads, head_dim]
    unit = first / first.square().sum(-1, keepdim=True)
    key = (unit * (known.scores / sm_scale)).to(k_cache.dtype)
    for place in _boundary_keys(inputs, make):
        k_cache[place] = key


def _boundary_keys(inputs: dict[str, Any], make: dict[str, Any]) -> list[tuple[Tensor, Tensor]]:
    """(pages, slots) in the cache of the first, then of the last token of each sequence not empty."""
    q, k_cache, indices = inputs["q"], inputs["k_cache"], inputs["kv_indices"]
    heads, page_size, group = q.shape[1], k_cache.shape[1], q.shape[1] // k_cache.shape[2]
    known = _known(tuple(make["seq_lens"]), page_size, heads, group, q.device)
    return [
        (indices[known.lasts].long(), known.slots),
        (indices[known.firsts].long(), torch.zeros_like(known.slots)),
    ]


class _Known(NamedTuple):
    """What all draws of a workload have in common, on the device. int64 tensors have one element
    for each sequence that is not empty."""

    stds: Tensor  # float32 [num_qo_heads, 1]
    rows: Tensor  # which sequence
    firsts: Tensor  # positions of its first and last page in the page table
    lasts: Tensor
    slots: Tensor  # of its last token in the last page
    scores: Tensor  # float32 [sequences, 1, 1]: log of the expected sum of its exponentials


@lru_cache(maxsize=64)
def _known(
    seq_lens: tuple[int, ...], page_size: int, heads: int, group: int, device: torch.device
) -> _Known:
    """Kept, because each of these tensors costs a wait for the device, and draws are many."""
    rows = [row for row, length in enumerate(seq_lens) if length]
    lens = torch.tensor([seq_lens[row] for row in rows], dtype=torch.int64)
    pages = (lens + page_size - 1) // page_size
    stds = [QUERY_STDS[head % group % len(QUERY_STDS)] for head in range(heads)]
    scores = torch.log(lens.float()) + QUERY_STDS[0] ** 2 / 2
    found = _Known(
        stds=torch.tensor(stds)[:, None],
        rows=torch.tensor(rows, dtype=torch.int64),
        firsts=pages.cumsum(0) - pages,
        lasts=pages.cumsum(0) - 1,
        slots=(lens - 1) % page_size,
        scores=scores[:, None, None],
    )
    return _Known(*(tensor.to(device) for tensor in found))


def _style(make: dict[str, Any]) -> str:
    return str(make.get("values", "normal"))


def _on(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """`generator`, or one on `device` seeded from it."""
    if generator.device.type == device.type:
        return generator
    seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
    return torch.Generator(device).manual_seed(seed)


def _normal(
    shape: Sequence[int],
    dtype: torch.dtype,
    generator: torch.Generator,
    device: torch.device,
    out: Tensor | None = None,
) -> Tensor:
    """Standard normal values, filled piecewise in place: a cache may take tens of gigabytes."""
    tensor = torch.empty(shape, dtype=dtype, device=device) if out is None else out
    for piece in tensor.view(-1).split(1 << 28):
        piece.normal_(generator=generator)
    return tensor


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
