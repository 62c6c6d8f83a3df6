"""Other people's kernels for gqa_paged_decode. All write `output`, and `lse` unless they skip it.

FlashInfer's backends are named: its `auto` takes fa3 on Hopper, which decodes several times slower.
"""

from __future__ import annotations

from typing import Any

_FLASHINFER = """
import torch
from flashinfer.decode import BatchDecodeWithPagedKVCacheWrapper


def prepare(q, k_cache, v_cache, kv_indptr, kv_indices, *rest):
    sm_scale, output, lse = rest[-3:]
    page_size, kv_heads = k_cache.shape[1], k_cache.shape[2]
    last = rest[0] if len(rest) == 4 else torch.ones_like(kv_indptr[1:])
    workspace = torch.empty(512 << 20, dtype=torch.uint8, device=q.device)
    wrapper = BatchDecodeWithPagedKVCacheWrapper(
        workspace, "NHD", use_tensor_cores=TENSOR_CORES, backend="fa2"
    )
    wrapper.plan(
        kv_indptr, kv_indices, last, q.shape[1], kv_heads, q.shape[2], page_size,
        q_data_type=q.dtype, kv_data_type=k_cache.dtype, sm_scale=sm_scale,
    )

    def attend():
        wrapper.run(q, (k_cache, v_cache), out=output, lse=lse, return_lse=True)

    return attend
"""

# The TensorRT-LLM XQA kernel as packaged by FlashInfer. It gives no lse, so it does less.
_XQA = """
import torch
from flashinfer.decode import xqa_batch_decode_with_kv_cache


def prepare(q, k_cache, v_cache, kv_indptr, kv_indices, kv_last_page_len, sm_scale, output, lse):
    page_size = k_cache.shape[1]
    pages = (kv_indptr[1:] - kv_indptr[:-1]).long()
    lengths = ((pages - 1) * page_size + kv_last_page_len).clamp(min=0).int()
    column = torch.arange(int(pages.max()), device=q.device)
    at = (kv_indptr[:-1, None].long() + column).clamp(max=kv_indices.shape[0] - 1)
    tables = torch.where(column < pages[:, None], kv_indices[at], 0).int().contiguous()
    longest = int(lengths.max())
    workspace = torch.zeros(256 << 20, dtype=torch.uint8, device=q.device)
    lse.zero_()

    def attend():
        xqa_batch_decode_with_kv_cache(
            q, (k_cache, v_cache), workspace, tables, lengths, longest,
            bmm1_scale=sm_scale, out=output, kv_layout="NHD",
        )

    return attend
"""

_TOKENS = """
import functools
import math

import torch


def lengths_of(kv_indptr, page_size, rest):
    pages = kv_indptr[1:] - kv_indptr[:-1]
    if len(rest) == 3:
        return pages.tolist()
    return torch.where(pages > 0, (pages - 1) * page_size + rest[0], 0).tolist()


def rows_of(kv_indptr, kv_indices, page_size, lengths):
    bounds = kv_indptr.tolist()
    slot = torch.arange(page_size, device=kv_indices.device)
    return [
        (kv_indices[bounds[b] : bounds[b + 1], None].long() * page_size + slot).flatten()[:n]
        for b, n in enumerate(lengths)
    ]


def attend_rows(query, keys, values, rows, sm_scale):
    heads, dim = query.shape
    kv_heads = keys.shape[1]
    k, v = keys[rows], values[rows]
    grouped = query.view(kv_heads, heads // kv_heads, dim)
    # Scores rounded to bfloat16 would be off by several percent once exponentiated.
    wide = {"out_dtype": torch.float32} if grouped.is_cuda and grouped.dtype != torch.float32 else {}
    scores = torch.bmm(grouped, k.permute(1, 2, 0), **wide) * sm_scale
    lse = torch.logsumexp(scores, -1)
    weights = torch.exp(scores - lse[..., None]).to(v.dtype)
    return torch.bmm(weights, v.transpose(0, 1)).view(heads, dim), lse.view(heads) / math.log(2)
"""

_EAGER = (
    _TOKENS
    + """

def prepare(q, k_cache, v_cache, kv_indptr, kv_indices, *rest):
    sm_scale, output, lse = rest[-3:]
    lengths = lengths_of(kv_indptr, k_cache.shape[1], rest)
    tables = rows_of(kv_indptr, kv_indices, k_cache.shape[1], lengths)
    keys, values = k_cache.flatten(0, 1), v_cache.flatten(0, 1)

    def attend():
        for b, rows in enumerate(tables):
            if len(rows):
                output[b], lse[b] = attend_rows(q[b], keys, values, rows, sm_scale)
            else:
                output[b], lse[b] = 0.0, -math.inf

    return attend
"""
)

_COMPILE = (
    _TOKENS
    + """

def attend_padded(q, keys, values, rows, valid, sm_scale, output, lse):
    batch, heads, dim = q.shape
    kv_heads = keys.shape[1]
    k, v = keys[rows], values[rows]
    grouped = q.view(batch, kv_heads, heads // kv_heads, dim)
    scores = torch.einsum("bhgd,bnhd->bhgn", grouped, k).float() * sm_scale
    scores = scores.masked_fill(~valid[:, None, None, :], -math.inf)
    top = scores.amax(-1, keepdim=True).clamp(min=-1e30)
    weights = torch.exp(scores - top)
    total = weights.sum(-1, keepdim=True)
    mean = torch.einsum("bhgn,bnhd->bhgd", weights.to(v.dtype), v) / total.clamp(min=1e-30)
    output.copy_(mean.reshape(batch, heads, dim))
    lse.copy_(((top + torch.log(total)) / math.log(2)).reshape(batch, heads))


def prepare(q, k_cache, v_cache, kv_indptr, kv_indices, *rest):
    sm_scale, output, lse = rest[-3:]
    lengths = lengths_of(kv_indptr, k_cache.shape[1], rest)
    tables = rows_of(kv_indptr, kv_indices, k_cache.shape[1], lengths)
    rows = torch.nn.utils.rnn.pad_sequence(tables, batch_first=True)
    count = torch.tensor(lengths, device=q.device)
    valid = torch.arange(rows.shape[1], device=q.device) < count[:, None]
    compiled = torch.compile(attend_padded, dynamic=False)
    arguments = (
        q, k_cache.flatten(0, 1), v_cache.flatten(0, 1), rows, valid, sm_scale, output, lse
    )
    compiled(*arguments)
    return functools.partial(compiled, *arguments)
"""
)

# Not the same job: keys and values are gathered beforehand, and SDPA gives no lse.
_SDPA = (
    _TOKENS
    + """

def prepare(q, k_cache, v_cache, kv_indptr, kv_indices, *rest):
    sm_scale, output, lse = rest[-3:]
    lengths = lengths_of(kv_indptr, k_cache.shape[1], rest)
    tables = rows_of(kv_indptr, kv_indices, k_cache.shape[1], lengths)
    longest = max(lengths)
    shape = (len(lengths), k_cache.shape[2], longest, k_cache.shape[3])
    k, v = (torch.zeros(shape, dtype=q.dtype, device=q.device) for _ in range(2))
    for b, rows in enumerate(tables):
        for cache, packed in ((k_cache, k), (v_cache, v)):
            packed[b, :, : len(rows)] = cache.flatten(0, 1)[rows].transpose(0, 1)
    mask = None
    if min(lengths) < longest:
        count = torch.tensor(lengths, device=q.device)
        mask = (torch.arange(longest, device=q.device) < count[:, None])[:, None, None, :]
    query = q[:, :, None, :]
    lse.zero_()

    def attend():
        output.copy_(
            torch.nn.functional.scaled_dot_product_attention(
                query, k, v, attn_mask=mask, scale=sm_scale, enable_gqa=True
            )[:, :, 0]
        )

    return attend
"""
)


def _peer(name: str, source: str, **other: Any) -> dict[str, Any]:
    peer = {
        "name": name,
        "requires": ["torch"],
        "devices": ["cuda"],
        "definitions": ["*"],
        "source": source,
        "bound": False,
    }
    return {**peer, **other}


_HALF = {"definitions": ["gqa_paged_decode_h32_*"], "requires": ["torch", "flashinfer"]}

PEERS: list[dict[str, Any]] = [
    _peer(
        "flashinfer_fa2_tensor_cores",
        _FLASHINFER.replace("TENSOR_CORES", "True"),
        description="FlashInfer 0.6.2 paged decode, fa2 backend on tensor cores",
        **_HALF,
    ),
    _peer(
        "flashinfer_fa2",
        _FLASHINFER.replace("TENSOR_CORES", "False"),
        description="FlashInfer 0.6.2 paged decode, fa2 backend without tensor cores",
        **_HALF,
    ),
    _peer(
        "flashinfer_xqa",
        _XQA,
        description="FlashInfer 0.6.2 XQA decode; gives no lse, so it does slightly less",
        definitions=["gqa_paged_decode_h32_*_ps16"],
        requires=["torch", "flashinfer"],
        skips=["lse"],
    ),
    _peer(
        "torch_eager",
        _EAGER,
        devices=["cuda", "cpu"],
        description="gather and two batched products a sequence",
    ),
    _peer(
        "torch_compile",
        _COMPILE,
        devices=["cuda"],
        description="padded gather, compiled",
    ),
    _peer(
        "sdpa_contiguous",
        _SDPA,
        devices=["cuda", "cpu"],
        description="SDPA on keys and values gathered beforehand; gives no lse",
        bound=True,
        skips=["lse"],
    ),
]
