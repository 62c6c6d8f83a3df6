#!/usr/bin/env python3
"""Honest kernels and cheats, in units of an honest implementation's error: where budgets lie.

python benchmarks/error_budget.py [--long] [--operator NAME]

One line and one JSON line per workload and style. `rms`, `rows` and `largest` are the measures of
`evaluators/correctness.py` over the honest error, of the output where they are largest; `used` is
the share of the budget: an honest style must stay below 1, a cheat must pass it somewhere. The
budget is of one draw, the outputs are of the next. float32 styles are the CPU kernels of the two
corpora in `tests/`; styles in bfloat16, whose kernels need a GPU, are emulated. `--long` adds a
sequence of 180,000 tokens (4 GB of memory, minutes). Exit code 1 when a style is on the wrong
side.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

from evaluators import catalog, correctness, deviation
from evaluators.builders import builder_for
from evaluators.schema import BuildSpec, Definition, Language, Solution, SourceFile

CORPORA = Path(__file__).resolve().parents[1] / "tests"
INEXACT = (
    "bfloat16_inside", "half_of_k", "int8_weights", "relu_for_gelu", "weight_sparsified",
    "gqa_12_bit_position", "gqa_every_second_token", "gqa_half_heads", "gqa_int8_cache",
    "gqa_no_scale", "gqa_skips_middle", "gqa_skips_tail", "gqa_whole_pages",
)  # fmt: skip
"""Cheats of the corpus that compute something else, and the same in every call."""

Outputs = tuple[Tensor, ...]

KINDS = {True: "honest", False: "cheat", None: "edge"}


@dataclass(frozen=True)
class Style:
    """A way to compute an operator; `honest` says on which side of the budget it belongs, None for
    styles at the edge, which may be on either."""

    name: str
    honest: bool | None
    compute: Callable[..., Outputs]


# -- matmul_bias_gelu in bfloat16 -----------------------------------------------------------------


def by_blocks(
    x: Tensor, w: Tensor, bias: Tensor, block: int = 64, splits: int = 1, narrow: bool = False
) -> Outputs:
    """Sums block by block, in `splits` parts added at the end; `narrow`: these in bfloat16."""
    parts = []
    for xs, ws in zip(x.float().chunk(splits, 1), w.float().chunk(splits, 1), strict=True):
        acc = torch.zeros(len(x), len(w))
        for a, b in zip(xs.split(block, 1), ws.split(block, 1), strict=True):
            acc = acc + a @ b.T
        parts.append(acc.to(x.dtype).float() if narrow else acc)
    return (gelu_exp2(torch.stack(parts).sum(0) + bias.float()).to(x.dtype),)


def truncating(x: Tensor, w: Tensor, bias: Tensor) -> Outputs:
    """Sums of 16 products at a time, truncated to float32 as tensor cores do."""
    acc = torch.zeros(len(x), len(w))
    for a, b in zip(x.double().split(16, 1), w.double().split(16, 1), strict=True):
        total = acc.double() + a @ b.T
        near = total.float()
        away = near.double().abs() > total.abs()
        acc = torch.where(away, torch.nextafter(near, torch.zeros_like(near)), near)
    return (gelu_exp2(acc + bias.float()).to(x.dtype),)


def gelu_exp2(y: Tensor) -> Tensor:
    return y / (1 + torch.exp2(-2.302208198 * (y + 0.044715 * y**3)))


def rounded_between(x: Tensor, w: Tensor, bias: Tensor) -> Outputs:
    """The linear layer's result in bfloat16, then the activation: as a framework's operators do."""
    linear = (x.float() @ w.float().T + bias.float()).to(x.dtype)
    return (torch.nn.functional.gelu(linear.float(), approximate="tanh").to(x.dtype),)


def changed(
    weight: Callable[[Tensor], Tensor], x: Callable[[Tensor], Tensor] | None = None
) -> Callable[..., Outputs]:
    """The layer with something done to its weight, and to x."""

    def compute(values: Tensor, w: Tensor, bias: Tensor) -> Outputs:
        rows = x(values.float()) if x else values.float()
        return (by_blocks(rows, weight(w.float()), bias)[0].to(values.dtype),)

    return compute


def same(t: Tensor) -> Tensor:
    return t


def float8(t: Tensor) -> Tensor:
    """e4m3, one scale a row."""
    scale = t.abs().amax(-1, keepdim=True).clamp(min=1e-30) / 448
    return (t / scale).to(torch.float8_e4m3fn).float() * scale


def integers(t: Tensor, bits: int = 8, group: int = 0) -> Tensor:
    """Signed integers, one scale a row or a group of the row."""
    rows = t.reshape(-1, group or t.shape[-1])
    scale = rows.abs().amax(-1, keepdim=True).clamp(min=1e-30) / (2 ** (bits - 1) - 1)
    return ((rows / scale).round() * scale).reshape(t.shape)


def sparse(w: Tensor) -> Tensor:
    """Two of four weights kept, the largest."""
    four = w.reshape(-1, 4)
    return (four * (four.abs() >= four.abs().topk(2, -1).values[:, -1:])).reshape(w.shape)


def without(w: Tensor, start: int, count: int) -> Tensor:
    w = w.clone()
    w[:, start : start + count] = 0
    return w


MATMUL = [
    Style("blocks of 64", True, by_blocks),
    Style("blocks of 16", True, partial(by_blocks, block=16)),
    Style("split-K 8", True, partial(by_blocks, splits=8)),
    Style("truncating sums of 16", True, truncating),
    Style("rounded before the activation", True, rounded_between),
    Style("split-K 4, parts in bfloat16", None, partial(by_blocks, splits=4, narrow=True)),
    Style("weight in int8, a scale per 32", None, changed(partial(integers, group=32))),
    Style("weight in int8, a scale per row", False, changed(integers)),
    Style("both in int8", False, changed(integers, integers)),
    Style("weight in fp8", False, changed(float8)),
    Style("both in fp8", False, changed(float8, float8)),
    Style("weight in int4, a scale per 32", False, changed(partial(integers, bits=4, group=32))),
    Style("weight 2:4 sparse", False, changed(sparse)),
    Style("one k lost", False, changed(partial(without, start=1000, count=1))),
    Style("16 k lost", False, changed(partial(without, start=1008, count=16))),
    Style("half of k lost", False, changed(partial(without, start=0, count=1 << 12))),
]


# -- gqa_paged_decode in bfloat16 -----------------------------------------------------------------


@dataclass(frozen=True)
class Attention:
    """Decode attention with one thing or another done differently.

    `keep`: n -> mask of the tokens that are read; `splits`: parts that are merged, `narrow_parts`
    in bfloat16; `tile`: tokens of an online softmax step; `p`: dtype of the probabilities;
    `sum_rounded`: whether their sum is taken after the rounding.
    """

    splits: int = 1
    tile: int = 1 << 30
    p: torch.dtype = torch.bfloat16
    sum_rounded: bool = False
    narrow_parts: bool = False
    narrow_query: bool = False
    keys: Callable[[Tensor], Tensor] = same
    values: Callable[[Tensor], Tensor] = same
    keep: Callable[[int], Tensor] | None = None
    pages: float = 1.0  # share of the pages read, those with the largest scores

    def __call__(self, *inputs: Any) -> Outputs:
        q, k_cache, v_cache, indptr, indices, *rest = inputs
        page = k_cache.shape[1]
        batch, heads, dim = q.shape
        output, lse = torch.zeros(q.shape), torch.full((batch, heads), -math.inf)
        for b in range(batch):
            owned = indices[indptr[b] : indptr[b + 1]].long()
            if not len(owned):
                continue
            length = (len(owned) - 1) * page + (int(rest[0][b]) if len(rest) == 2 else page)
            token = torch.arange(length)
            if self.keep:
                token = token[self.keep(length)]
            at = owned[token // page] * page + token % page
            k = self.keys(k_cache.flatten(0, 1)[at].float()).transpose(0, 1)
            v = self.values(v_cache.flatten(0, 1)[at].float()).transpose(0, 1)
            scale = float(rest[-1]) * math.log2(math.e)
            query = q[b].float().reshape(k.shape[0], -1, dim) * scale
            if self.narrow_query:
                query = query.to(q.dtype).float()
            output[b], lse[b] = self._one(query, k, v, page)
        return output.to(q.dtype), lse

    def _one(self, query: Tensor, k: Tensor, v: Tensor, page: int) -> tuple[Tensor, Tensor]:
        if self.pages < 1.0:
            k, v = self._best_pages(query, k, v, page)
        size = -(-k.shape[1] // self.splits)
        parts = [
            self._online(query, ks, vs)
            for ks, vs in zip(k.split(size, 1), v.split(size, 1), strict=True)
        ]
        lses = torch.stack([lse for _, lse in parts])
        lse = torch.logsumexp(lses * math.log(2), 0) / math.log(2)
        outs = torch.stack(
            [out.bfloat16().float() if self.narrow_parts else out for out, _ in parts]
        )
        merged = (torch.exp2(lses - lse)[..., None] * outs).sum(0)
        return merged.flatten(0, 1), lse.flatten()

    def _online(self, query: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        top = torch.full((*query.shape[:2], 1), -math.inf)
        total, acc = torch.zeros_like(top), torch.zeros_like(query)
        for ks, vs in zip(k.split(self.tile, 1), v.split(self.tile, 1), strict=True):
            scores = query @ ks.transpose(1, 2)
            new = torch.maximum(top, scores.amax(-1, keepdim=True))
            p = torch.exp2(scores - new)
            shrink = torch.exp2(top - new)
            narrow = p.to(self.p).float()
            total = total * shrink + (narrow if self.sum_rounded else p).sum(-1, keepdim=True)
            acc = acc * shrink + narrow @ vs
            top = new
        return acc / total, (top + torch.log2(total))[..., 0]

    def _best_pages(self, query: Tensor, k: Tensor, v: Tensor, page: int) -> tuple[Tensor, Tensor]:
        scores = (query @ k.transpose(1, 2)).amax((0, 1))
        pages = torch.stack([s.amax() for s in scores.split(page)])
        chosen = pages.topk(max(1, int(self.pages * len(pages)))).indices.sort().values
        at = (chosen[:, None] * page + torch.arange(page)).flatten()
        at = at[at < k.shape[1]]
        return k[:, at], v[:, at]


def but(start: float, count: int) -> Callable[[int], Tensor]:
    """All tokens but `count` that begin at the share `start` of the sequence (1.0: the last)."""

    def keep(length: int) -> Tensor:
        first = min(int(start * length), length - count)
        mask = torch.ones(length, dtype=torch.bool)
        mask[max(0, first) : max(0, first) + count] = False
        return mask if mask.any() else ~mask

    return keep


def sinks_and_latest(length: int) -> Tensor:
    """The first 64 tokens and the latest three quarters."""
    token = torch.arange(length)
    return (token < 64) | (token >= length // 4)


GQA = [
    Style("probabilities in float32", True, Attention(p=torch.float32)),
    Style("sum of unrounded probabilities", True, Attention()),
    Style("tiles of 64", True, Attention(tile=64, sum_rounded=True)),
    Style("tiles of 16, 16 splits", True, Attention(tile=16, splits=16)),
    Style("64 splits", True, Attention(tile=128, splits=64)),
    Style("probabilities in float16", True, Attention(tile=64, p=torch.float16)),
    Style("8 splits, partial outputs in bfloat16", None, Attention(splits=8, narrow_parts=True)),
    Style("scaled query rounded to bfloat16", None, Attention(narrow_query=True)),
    Style("values in int8", False, Attention(values=integers)),
    Style("keys in int8", False, Attention(keys=integers)),
    Style("cache in int8", False, Attention(keys=integers, values=integers)),
    Style("values in fp8", False, Attention(values=float8)),
    Style("cache in fp8", False, Attention(keys=float8, values=float8)),
    Style("probabilities in fp8", False, Attention(p=torch.float8_e4m3fn)),
    Style("last token lost", False, Attention(keep=but(1.0, 1))),
    Style("first token lost", False, Attention(keep=but(0.0, 1))),
    Style("a tile of 64 in the middle lost", False, Attention(keep=but(0.4, 64))),
    Style("a tile of 16 near the end lost", None, Attention(keep=but(0.9, 16))),
    Style("first and latest tokens only", False, Attention(keep=sinks_and_latest)),
    Style("best half of the pages", False, Attention(pages=0.5)),
]


# -- float32, the kernels of the corpora ----------------------------------------------------------


def corpus(definition: Definition, folder: Path) -> list[Style]:
    """C++ kernels of both corpora for a definition, built here."""
    found = []
    for kind, honest in (("honest", True), ("hacks", False)):
        for path in sorted((CORPORA / kind / "corpus").glob("*.cpp")):
            ours = f"// definition: {definition.name}\n" in path.read_text()
            if ours and (honest or path.stem in INEXACT):
                found.append(_built(path, honest, definition, folder / path.stem))
    return found


def _built(path: Path, honest: bool, definition: Definition, folder: Path) -> Style:
    solution = Solution(
        name=path.stem,
        definition=definition.name,
        author="corpus",
        spec=BuildSpec(
            language=Language.CPP,
            target_hardware=("cpu",),
            entry_point="kernel.cpp::run",
            binding="tvm-ffi",
        ),
        sources=(SourceFile(path="kernel.cpp", content=path.read_text()),),
    )
    folder.mkdir(parents=True)
    call = builder_for(Language.CPP).build(solution, folder, "cpu").call

    def compute(*inputs: Any) -> Outputs:
        first = inputs[0]
        shapes = [first.shape, first.shape[:2]]
        if len(inputs) == 3:
            shapes = [torch.Size((len(first), inputs[1].shape[0]))]
        outputs = tuple(torch.full(shape, math.nan) for shape in shapes)
        call(*inputs, *outputs)
        return outputs

    return Style(path.stem, honest, compute)


# -- the table ------------------------------------------------------------------------------------


def rows(
    definition: Definition, module: Any, styles: list[Style], samples: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """One row per workload (cases included) and style."""
    spec = definition.model_dump(mode="json")
    allowance = getattr(module, "ALLOWANCE", {})
    for axes, make in [*module.cases(spec), *(module.axes_of(spec, s) for s in samples)]:
        generator = torch.Generator().manual_seed(1)
        inputs = module.make_inputs(spec, axes, make, {}, generator, "cpu")
        first = _tuple(module.exact(*inputs.values())), _tuple(module.honest(*inputs.values()))
        budget = correctness.budget_of(*first, definition, allowance)
        module.vary(spec, axes, make, inputs, generator)
        exact = _tuple(module.exact(*inputs.values()))
        for style in styles:
            outputs = style.compute(*inputs.values())
            found = correctness.compare(outputs, exact, budget, definition)
            yield {
                "definition": definition.name,
                "workload": make["label"],
                "style": style.name,
                "honest": style.honest,
                **_ratios(outputs, exact, budget, definition),
                "used": found.budget_used,
                "right": not found.fault,
            }


def _ratios(
    outputs: Outputs, exact: Outputs, budget: correctness.Budget, definition: Definition
) -> dict[str, float]:
    """Errors over the honest ones, of the output with the largest."""
    most = {"rms": 0.0, "rows": 0.0, "largest": 0.0}
    for (name, spec), got, want in zip(definition.outputs.items(), outputs, exact, strict=True):
        share, found = budget.outputs[name], deviation.measure(got, want, spec.dtype)
        size = found.size or 1.0
        pairs = {
            "rms": (found.rms / size, share.rms),
            "rows": (found.rows, share.rows),
            "largest": (found.largest / size, share.largest),
        }
        for key, (value, honest) in pairs.items():
            ratio = value / honest if honest else (math.inf if value else 0.0)
            most[key] = max(most[key], ratio)
            most[f"{key} of {name}"] = ratio
    return most


def _tuple(value: Any) -> Outputs:
    return value if isinstance(value, tuple) else (value,)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--operator", choices=catalog.list_operators())
    parser.add_argument("--long", action="store_true", help="add a sequence of 180,000 tokens")
    options = parser.parse_args()
    long = [{"batch_size": 1, "seq_len": 180_000}] if options.long else []
    plan: list[tuple[str, str, list[Style] | None, list[dict[str, Any]]]] = [
        ("matmul_bias_gelu", "matmul_bias_gelu_bf16_k7168_n2048", MATMUL, [{"num_tokens": 100}]),
        ("matmul_bias_gelu", "matmul_bias_gelu_f32_k512_n512", None,
         [{"num_tokens": 32}, {"num_tokens": 333}]),
        ("gqa_paged_decode", "gqa_paged_decode_h32_kv8_d128_ps16", GQA,
         [{"batch_size": 1, "seq_len": 1024}, {"batch_size": 3, "seq_len": 8000, "spread": 0.5},
          *long]),
        ("gqa_paged_decode", "gqa_paged_decode_f32_h8_kv2_d64_ps16", None,
         [{"batch_size": 1, "seq_len": 5000}, {"batch_size": 3, "seq_len": 700, "spread": 0.5}]),
    ]  # fmt: skip
    wrong = 0
    for operator_name, name, styles, samples in plan:
        if options.operator not in (None, operator_name):
            continue
        operator = catalog.load_operator(operator_name)
        definition, module = operator.definitions[name], catalog.load_module(operator)
        with tempfile.TemporaryDirectory() as folder:
            chosen = styles if styles is not None else corpus(definition, Path(folder))
            found = list(rows(definition, module, chosen, samples))
        for row in found:
            _show(row)
        wrong += _summary(name, chosen, found)
    return 1 if wrong else 0


def _show(row: dict[str, Any]) -> None:
    measures = "  ".join(f"{key} {row[key]:8.3g}" for key in ("rms", "rows", "largest", "used"))
    print(
        f"{row['definition'][:28]:28}  {row['workload'][:32]:32}  {KINDS[row['honest']]:6}  "
        f"{row['style'][:32]:32}  {measures}"
    )
    print(json.dumps(row))


def _summary(name: str, styles: list[Style], found: list[dict[str, Any]]) -> int:
    """Per style the most and the least of the budget used; returns how many are on the wrong side.

    An honest style has to be right in every workload, a cheat wrong in at least one.
    """
    wrong = 0
    for style in styles:
        mine = [row["used"] for row in found if row["style"] == style.name]
        bad = (style.honest is True and max(mine) > 1) or (style.honest is False and max(mine) <= 1)
        wrong += bad
        caught = sum(u > 1 for u in mine)
        print(
            f"{'WRONG SIDE ' if bad else ''}{name} {style.name!r} "
            f"({ {True: 'honest', False: 'cheat', None: 'edge'}[style.honest] }): "
            f"used {min(mine):.3g} to {max(mine):.3g}, wrong in {caught} of {len(mine)}"
        )
    return wrong


if __name__ == "__main__":
    sys.exit(main())
