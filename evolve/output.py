"""What a run leaves for people: champion folder, tables, plots, the closing table."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from analysis import archive_map, frames, latency_curves, report, trajectory
from evaluators import catalog
from evaluators.schema import Definition, Solution, Workload
from evolve.authors import table as authors
from evolve.errors import UserError
from evolve.export import export_champion
from evolve.store import Store

Say = Callable[[str], None]


def frame(store: Store) -> frames.Run:
    """The run as tables."""
    return frames.run_of(store.meta, store.evaluations(), store.report())


def plots(store: Store, folder: Path) -> list[Path]:
    """Draw trajectory.png, archive.png and, once there is a closing report, latency.png."""
    run = frame(store)
    if run.evaluations.empty:
        raise UserError(f"{store.run_dir} holds no evaluation to draw yet")
    _make(folder)
    drawn = [folder / "trajectory.png", folder / "archive.png"]
    trajectory.draw(run.evaluations, run.entries, drawn[0], title=run.title)
    archive_map.draw(run.evaluations, drawn[1], title=run.title)
    if run.entries["latency_us"].notna().any():
        drawn.append(folder / "latency.png")
        latency_curves.draw(run.entries, run.ceilings, drawn[2], title=run.title)
    return drawn


def write(store: Store, folder: Path, say: Say = lambda line: None) -> list[Path]:
    """Champion folder, tables and plots of a finished run. UserError when it has no champion."""
    closing = store.report()
    if not closing or not closing.get("champion"):
        raise UserError(f"{store.run_dir} has no champion yet; evolve resume it to its end")
    _make(folder)
    run = frame(store)
    written = report.write(run, folder)
    written += authors.write(store, folder, texts=folder.resolve() != store.run_dir.resolve())
    written += plots(store, folder)
    written += _champion(store, closing, run, folder / "champion")
    for path in written:
        say(f"wrote {path}")
    return written


def _make(folder: Path) -> None:
    """The folder, writable; UserError when it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise UserError(f"cannot write to {folder}: permission denied")


def _champion(store: Store, closing: dict[str, Any], run: frames.Run, folder: Path) -> list[Path]:
    meta = store.meta
    found = catalog.load_operator(meta["operator"])
    solution = Solution.model_validate(closing["champion"]["solution"])
    shown = report.tables(run)
    return export_champion(
        folder,
        solution=solution.model_copy(update={"name": champion_name(solution, meta)}),
        definition=Definition.model_validate(meta["definition_record"]),
        operator_file=found.folder / "operator.py",
        workloads=[Workload.model_validate(w) for w in closing["workloads"]],
        facts={
            "operator": meta["operator"],
            "run": store.run_dir.name,
            "device": meta["device"],
            "evaluations": sum(store.by("status").values()),
        },
        report=closing,
        table="\n\n".join(f"### {head}\n\n{report.markdown_table(t)}" for head, t in shown[:2]),
    )


def champion_name(solution: Solution, meta: dict[str, Any]) -> str:
    """Name of an exported champion: definition, language, device, and its source's digest."""
    device = str(meta["device"].get("name", "")).lower().replace("nvidia ", "").replace(" ", "_")
    return "_".join(
        [solution.definition, solution.spec.language.value, device, solution.digest()[:8]]
    )


def closing_table(run_dir: Path, width: int = 140) -> str:
    """The closing report of a finished run as text."""
    store = Store.open(run_dir, readonly=True)
    lines = [report.text(frame(store), width=width).rstrip()]
    lines += ["", f"run       {run_dir}", f"champion  {run_dir / 'champion'}"]
    lines += [f"plot      {path}" for path in sorted(run_dir.glob("*.png"))]
    return "\n".join(lines)
