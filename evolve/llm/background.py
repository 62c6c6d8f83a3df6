"""What a prompt knows that does not depend on the run's progress: notes, idioms, costs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from evaluators import catalog
from evaluators.schema import Definition, Language, Workload
from evolve.llm.facts import Cost

IDIOMS = {
    Language.TRITON: "triton",
    Language.TILELANG: "tilelang",
    Language.CUDA: "cuda_hopper",
    Language.CPP: "cpp",
}
"""Pages of `docs/knowledge` by language."""
VENDORS = {"metax": "maca", "maca": "maca"}
"""Pages by what a device's name contains."""


@dataclass(frozen=True)
class Background:
    """`notes` is Markdown; `idioms` are list items, the most important first."""

    notes: str = ""
    idioms: Mapping[Language, tuple[str, ...]] = field(default_factory=dict)
    vendor: tuple[str, ...] = ()
    cost: Callable[[Workload], Cost] | None = None


def load(
    meta: Mapping[str, Any],
    definition: Definition,
    root: Path | None = None,
    cost: Callable[[Workload], Cost] | None = None,
) -> Background:
    """The background of a run. CatalogError when its operator is gone.

    Without `cost` the operator is imported for it, and with it torch.
    """
    root = root or catalog.ROOT
    operator = catalog.load_operator(str(meta["operator"]), root)
    if cost is None:
        module = catalog.load_module(operator)
        cost = partial(_cost, module.cost, definition.model_dump(mode="json"))
    pages = root / "docs" / "knowledge"
    device = str(meta["device"]["type"])
    name = str(meta["device"].get("name", "")).lower()
    vendor = next((page for mark, page in VENDORS.items() if mark in name), None)
    return Background(
        notes=for_device(_text(operator.folder / "notes.md"), device),
        idioms={
            x: bullets(for_device(_text(pages / f"{page}.md"), device))
            for x, page in IDIOMS.items()
        },
        vendor=bullets(_text(pages / f"{vendor}.md")) if vendor else (),
        cost=cost,
    )


def for_device(notes: str, device: str) -> str:
    """`notes` without the sections for other devices, such as `## On CUDA: pitfalls`.

    `device` is `cuda` or `cpu`.
    """
    parts = re.split(r"^(?=## )", notes, flags=re.MULTILINE)
    marks = [re.match(r"## On (\w+)\b", part) for part in parts]
    kept = [p for p, m in zip(parts, marks, strict=True) if m is None or m[1].lower() == device]
    return "".join(kept)


def bullets(page: str) -> tuple[str, ...]:
    """The items of a page's lists (`- ...`, with the lines that belong to them), in order."""
    found: list[list[str]] = []
    inside = False
    for line in page.splitlines():
        if line.startswith("- "):
            found.append([line])
            inside = True
        elif inside and (line.startswith("  ") or not line.strip()):
            found[-1].append(line)
        else:
            inside = False
    return tuple("\n".join(lines).rstrip() for lines in found)


def _cost(cost: Callable[..., Cost], definition: dict[str, Any], workload: Workload) -> Cost:
    return cost(definition, workload.axes, workload.make)


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""
