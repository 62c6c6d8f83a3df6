"""Facts for `evolve status` and `evolve list`: plain data, and the lines that show it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evaluators import catalog
from evolve.authors import report
from evolve.phrases import counted
from evolve.store import Store


def summarise(run_dir: Path) -> dict[str, Any]:
    """Where a run stands. Reads beside a live writer."""
    store = Store.open(run_dir, readonly=True)
    meta, counts = store.meta, store.counts()
    best, seed_best, niches = store.standing(counts["epoch"])
    champion = (store.report() or {}).get("champion")
    return {
        "run": str(run_dir),
        "operator": meta["operator"],
        "definition": meta["definition"],
        "device": meta["device"].get("name", ""),
        "budget": meta["config"]["budget"]["evaluations"],
        "evaluations": counts["search"] + counts["remeasure"],
        "counts": counts,
        "pending": len([p for p in store.pending() if p.emitter != "seed"]),
        "best": best,
        "gain_over_seed": best / seed_best if seed_best else None,
        "niches": niches,
        "by_status": store.by("status"),
        "by_rung": store.by_rung(),
        "by_emitter": store.by("emitter"),
        "authors": report.summarise(store),
        "champion": champion["program_id"] if champion else None,
    }


def summary_lines(facts: dict[str, Any]) -> list[str]:
    gain = facts["gain_over_seed"]
    over = f" ({gain:.3f}x the best seed)" if gain else ""
    return [
        f"{facts['definition']} on {facts['device']}: {facts['run']}",
        f"evaluations  {facts['evaluations']}/{facts['budget']}, {facts['pending']} pending, "
        f"epoch {facts['counts']['epoch']}",
        f"best         {facts['best']:.3f}x anchor{over}, {facts['niches']} niches",
        "by status    " + counted(facts["by_status"]),
        "by rung      " + counted(facts["by_rung"]),
        "by emitter   " + counted(facts["by_emitter"]),
        *(report.lines(facts["authors"]) if facts["authors"] else ()),
        f"champion     {facts['champion'] or 'not yet'}",
    ]


def catalogue() -> list[dict[str, Any]]:
    """Every operator with its definitions, and per device the seeds and peers that fit."""
    found = []
    for name in catalog.list_operators():
        operator = catalog.load_operator(name)
        for definition in operator.definitions.values():
            for device in ("cuda", "cpu"):
                try:
                    seeds = [s.name for s in catalog.seeds(operator, definition, device)]
                except catalog.CatalogError:
                    continue  # nothing of it runs on this device
                peers = catalog.peers(operator, definition, device)
                found.append(
                    {
                        "operator": name,
                        "definition": definition.name,
                        "device": device,
                        "default": operator.defaults.get(device) == definition.name,
                        "seeds": seeds,
                        "peers": [p.solution.name for p in peers],
                    }
                )
    return found


def catalogue_lines(facts: list[dict[str, Any]]) -> list[str]:
    lines = []
    for fact in facts:
        default = " (default)" if fact["default"] else ""
        lines.append(f"{fact['operator']}  {fact['definition']}  {fact['device']}{default}")
        lines.append(f"    seeds  {', '.join(fact['seeds'])}")
        lines.append(f"    peers  {', '.join(fact['peers']) or 'none'}")
    return lines
