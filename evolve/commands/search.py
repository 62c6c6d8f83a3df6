"""`evolve run` and `evolve resume`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from evolve.commands.options import Json, Quiet, Results, RunDir, find_run, positive
from evolve.commands.printing import finish, print_json
from evolve.config import load
from evolve.errors import UserError

commands = typer.Typer()

SearchOnly = Annotated[
    bool,
    typer.Option("--search-only", help="No champion, peers and plots now: a later resume does it."),
]
MaxCost = Annotated[
    float | None, typer.Option("--max-cost", help="Most USD for models; never exceeded.")
]
MaxTokens = Annotated[
    int | None, typer.Option("--max-tokens", help="Most tokens of models, in and out together.")
]
Recall = Annotated[
    list[Path] | None,
    typer.Option(
        "--recall",
        help="Folder with earlier runs to learn from (repeatable).",
        exists=True,
        file_okay=False,
    ),
]


@commands.command(
    epilog="Example: evolve run matmul_bias_gelu --device cpu --evaluations 80 --time 3m"
)
def run(
    operator: Annotated[str, typer.Argument(help="Operator, such as gqa_paged_decode.")] = "",
    definition: Annotated[str | None, typer.Option(help="One definition of the operator.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cuda or cpu.")] = None,
    evaluations: Annotated[int | None, typer.Option(help="Budget in evaluations.")] = None,
    time: Annotated[str | None, typer.Option(help="Budget in time: 90s, 10m, 1.5h.")] = None,
    islands: Annotated[int | None, typer.Option(help="Number of islands.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all random streams.")] = None,
    in_flight: Annotated[int | None, typer.Option(help="Evaluations at once.")] = None,
    language: Annotated[
        list[str] | None, typer.Option(help="Only seeds in this language (repeatable).")
    ] = None,
    peers: Annotated[bool, typer.Option(help="Measure peers at the end.")] = True,
    config: Annotated[Path | None, typer.Option(help="TOML file with any of the settings.")] = None,
    local_model: Annotated[
        bool, typer.Option("--local-model", help="Ask SmolLM2 on this machine too: no account.")
    ] = False,
    results: Results = Path("results"),
    name: Annotated[str | None, typer.Option(help="Name of the run's directory.")] = None,
    compile_only: Annotated[
        str | None, typer.Option(help="Only compile the CUDA seeds for a target such as sm_90a.")
    ] = None,
    search_only: SearchOnly = False,
    max_cost: MaxCost = None,
    max_tokens: MaxTokens = None,
    recall: Recall = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Evolve an operator: search, verify the champion, export it, draw the plots."""
    overrides = {
        **(_local_model(config) if local_model else {}),
        "operator": operator or None,
        "definition": definition,
        "device": device,
        "seed": seed,
        "in_flight": positive(in_flight, "--in-flight"),
        "languages": language or None,
        "peers": None if peers else False,
        "budget.evaluations": positive(evaluations, "--evaluations"),
        "budget.time_s": _seconds(time),
        "islands.count": positive(islands, "--islands"),
        **{f"llm.{name}": limit for name, limit in _limits(max_cost, max_tokens).items()},
    }
    settings = load(config, overrides)
    if compile_only is not None:
        from evolve.compile_only import compile_seeds

        facts = compile_seeds(settings, compile_only)
        _finish_compile(facts, as_json)
        return
    from evolve import session

    outcome = session.run(settings, results, name, quiet or as_json, search_only, recall or ())
    finish(outcome, as_json)


@commands.command(epilog="Example: evolve resume results/my-run --evaluations 300")
def resume(
    run: RunDir,
    evaluations: Annotated[int | None, typer.Option(help="New total budget.")] = None,
    time: Annotated[str | None, typer.Option(help="Time budget from now on.")] = None,
    search_only: SearchOnly = False,
    max_cost: MaxCost = None,
    max_tokens: MaxTokens = None,
    recall: Recall = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Continue a run that was stopped, killed or moved here, or give a finished one more."""
    from evolve import session

    budget, seconds = positive(evaluations, "--evaluations"), _seconds(time)
    outcome = session.resume(
        find_run(run),
        budget,
        seconds,
        quiet or as_json,
        search_only,
        _limits(max_cost, max_tokens),
        recall or (),
    )
    finish(outcome, as_json)


def _seconds(text: str | None) -> float | None:
    """`90`, `90s`, `10m`, `1.5h` -> seconds."""
    if text is None:
        return None
    scale = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:].lower())
    try:
        seconds = float(text[:-1] if scale else text) * (scale or 1.0)
    except ValueError:
        raise UserError(f"--time takes seconds or 90s, 10m, 1.5h; got {text!r}") from None
    if not 0 < seconds < math.inf:
        raise UserError(f"--time must be greater than 0, got {text!r}")
    return seconds


def _limits(max_cost: float | None, max_tokens: int | None) -> dict[str, float]:
    """The limits of `[llm]` that were given."""
    if max_cost is not None and not 0 < max_cost < math.inf:
        raise UserError(f"--max-cost must be greater than 0, got {max_cost}")
    given = {"max_cost": max_cost, "max_tokens": positive(max_tokens, "--max-tokens")}
    return {name: limit for name, limit in given.items() if limit is not None}


def _local_model(config: Path | None) -> dict[str, Any]:
    """Settings of a run that starts its own model; UserError: it is not installed."""
    from evolve import local_model

    local_model.find()
    return local_model.overrides(config)


def _finish_compile(facts: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(facts)
        return
    for fact in facts:
        print(f"{fact['solution']}: {fact['status']} {fact['summary']}")
