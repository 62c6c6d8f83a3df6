"""Commands: search, mailbox and reading of runs. Thin: each calls one function."""

from __future__ import annotations

import json
import math
import signal
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from evaluators.catalog import CatalogError
from evolve.config import load
from evolve.errors import UserError
from evolve.openevolve.commands import commands as openevolve

app = typer.Typer(
    name="evolve",
    help="Evolve LLM-inference kernels: search, verify, export.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

BAD_INPUT = 2
INTERRUPTED = 130
UsageError: Any = typer.BadParameter.__base__
"""Of typer's own copy of click, or of click: versions differ."""
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")]
SearchOnly = Annotated[
    bool,
    typer.Option("--search-only", help="No champion, peers and plots now: a later resume does it."),
]
Results = Annotated[Path, typer.Option("--results", help="Directory that holds runs.")]
RunDir = Annotated[Path, typer.Argument(help="Run directory, or a run's name under results/.")]

PromptMode = Annotated[
    str | None,
    typer.Option("--mode", help="diff, rewrite, crossover, translate, repair or simplify."),
]
MaxCost = Annotated[
    float | None, typer.Option("--max-cost", help="Most USD for models; never exceeded.")
]
MaxTokens = Annotated[
    int | None, typer.Option("--max-tokens", help="Most tokens of models, in and out together.")
]
Recall = Annotated[
    list[Path] | None,
    typer.Option("--recall", help="Folder with earlier runs to learn from (repeatable)."),
]
Tokens = Annotated[int, typer.Option(help="Most tokens of a prompt (four characters each).")]


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


def _positive(value: int | None, option: str) -> int | None:
    if value is not None and value <= 0:
        raise UserError(f"{option} must be greater than 0, got {value}")
    return value


def _limits(max_cost: float | None, max_tokens: int | None) -> dict[str, float]:
    """The limits of `[llm]` that were given."""
    if max_cost is not None and not 0 < max_cost < math.inf:
        raise UserError(f"--max-cost must be greater than 0, got {max_cost}")
    given = {"max_cost": max_cost, "max_tokens": _positive(max_tokens, "--max-tokens")}
    return {name: limit for name, limit in given.items() if limit is not None}


def _find_run(given: Path) -> Path:
    """A run directory as given, or by name under results/."""
    from evolve.store import FILE

    for path in (given, Path("results") / given):
        if (path / FILE).is_file():
            return path
    raise UserError(f"no run at {given} (looked for {FILE} there and under results/)")


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, default=str))


@app.command(epilog="Example: evolve run matmul_bias_gelu --device cpu --evaluations 80 --time 3m")
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
        **(_local_model() if local_model else {}),
        "operator": operator or None,
        "definition": definition,
        "device": device,
        "seed": seed,
        "in_flight": _positive(in_flight, "--in-flight"),
        "languages": language or None,
        "peers": None if peers else False,
        "budget.evaluations": _positive(evaluations, "--evaluations"),
        "budget.time_s": _seconds(time),
        "islands.count": _positive(islands, "--islands"),
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
    _finish(outcome, as_json)


@app.command(epilog="Example: evolve resume results/my-run --evaluations 300")
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

    budget, seconds = _positive(evaluations, "--evaluations"), _seconds(time)
    outcome = session.resume(
        _find_run(run),
        budget,
        seconds,
        quiet or as_json,
        search_only,
        _limits(max_cost, max_tokens),
        recall or (),
    )
    _finish(outcome, as_json)


@app.command(epilog="Example: evolve status results/my-run --json")
def status(run: RunDir, as_json: Json = False) -> None:
    """Where a run stands: evaluations, best score, niches, failures; works while it runs."""
    from evolve.summary import summarise, summary_lines

    facts = summarise(_find_run(run))
    if as_json:
        _print_json(facts)
    else:
        print("\n".join(summary_lines(facts)))


@app.command("list", epilog="Example: evolve list")
def list_(as_json: Json = False) -> None:
    """Operators with their definitions, seeds and peers."""
    from evolve.summary import catalogue, catalogue_lines

    facts = catalogue()
    if as_json:
        _print_json(facts)
    else:
        print("\n".join(catalogue_lines(facts)))


@app.command(epilog="Example: evolve export results/my-run --out results/published/h200/my-op")
def export(
    run: RunDir,
    out: Annotated[Path, typer.Option(help="Directory to write to.")],
    as_json: Json = False,
) -> None:
    """Write a finished run's champion, tables and plots to a directory of their own."""
    from evolve import output
    from evolve.store import Store

    store = Store.open(_find_run(run), readonly=True)
    written = output.write(store, out)
    if as_json:
        _print_json({"written": [str(path) for path in written]})
    else:
        print("\n".join(str(path) for path in written))


@app.command(epilog="Example: evolve plot results/my-run")
def plot(
    run: RunDir,
    out: Annotated[Path | None, typer.Option(help="Directory; the run's own by default.")] = None,
    as_json: Json = False,
) -> None:
    """Draw trajectory, archive and latency curves of a run, finished or not."""
    from evolve import output
    from evolve.store import Store

    run_dir = _find_run(run)
    drawn = output.plots(Store.open(run_dir, readonly=True), out or run_dir)
    if as_json:
        _print_json({"drawn": [str(path) for path in drawn]})
    else:
        print("\n".join(str(path) for path in drawn))


@app.command(epilog="Example: evolve verify results/my-run/champion")
def verify(
    path: Annotated[Path, typer.Argument(help="Run, exported folder or solution.json.")],
    device: Annotated[str, typer.Option(help="auto, cuda or cpu.")] = "auto",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the report; default: verification/DEVICE beside PATH."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws the unseen workloads.")] = 1,
    peers: Annotated[bool, typer.Option(help="Measure peers too.")] = True,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """The whole battery on a solution, with a report; exit 0 only when everything holds."""
    from evolve import verification
    from evolve.verification import page

    report, folder = verification.verify(path, device, seed, peers, quiet or as_json, out)
    if as_json:
        _print_json(report.document())
    else:
        print(page.text(report, folder))
    if report.verdict == "UNDECIDED":
        raise UserError(report.reason)
    if not report.passed:
        raise typer.Exit(1)


@app.command(epilog="Example: evolve ask results/my-run -n 8 --out mail")
def ask(
    run: RunDir,
    out: Annotated[Path, typer.Option(help="Folder for the prompts and their answers.")],
    count: Annotated[int, typer.Option("-n", "--count", help="How many prompts.")] = 4,
    mode: PromptMode = None,
    tokens: Tokens = 12_000,
    as_json: Json = False,
) -> None:
    """Write prompts for a model or an agent: what to improve, what is known, how to answer."""
    from evolve import mailbox

    wanted = _mode(mode)
    _positive(count, "-n")
    asked = mailbox.ask(_find_run(run), count, out, wanted, _tokens(tokens))
    if as_json:
        _print_json({"asked": asked})
    else:
        print("\n".join(f"{facts['file']}  about {facts['tokens']} tokens" for facts in asked))


@app.command(epilog="Example: evolve tell results/my-run mail")
def tell(
    run: RunDir,
    folder: Annotated[Path, typer.Argument(help="Folder with the answers to `ask`.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Judge the answers and keep nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Read answers, queue their programs for `resume`, show what became of each so far."""
    from evolve import mailbox

    run_dir = _find_run(run)
    report = mailbox.tell(run_dir, folder, dry_run)
    if as_json:
        _print_json(report)
    else:
        print("\n".join(mailbox.report_lines(report, run_dir)))


@app.command(epilog="Example: evolve prompt results/my-run --mode rewrite")
def prompt(
    run: RunDir, mode: PromptMode = None, tokens: Tokens = 12_000, as_json: Json = False
) -> None:
    """Print the prompt that `ask` would write next; stores nothing."""
    from evolve import mailbox

    facts = mailbox.preview(_find_run(run), _mode(mode), _tokens(tokens))
    if as_json:
        _print_json(facts)
    else:
        print(facts["prompt"], end="")


@app.command(epilog="Example: evolve replay results/my-run --require 0.9")
def replay(
    run: RunDir,
    out: Annotated[str | None, typer.Option(help="Name of the new run's directory.")] = None,
    evaluations: Annotated[
        int | None, typer.Option(help="Budget; enough for every program by default.")
    ] = None,
    exchanges_only: Annotated[
        bool, typer.Option("--exchanges-only", help="Only programs that came from answers.")
    ] = False,
    require: Annotated[
        float | None, typer.Option(help="Exit 1 below this share of the claim, such as 0.9.")
    ] = None,
    peers: Annotated[bool, typer.Option(help="Measure peers at the end.")] = False,
    results: Results = Path("results"),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Repeat a run's proposals without a model; how much of its champion's speed is reached."""
    from evolve import replay as again

    again.check_share(require)
    _positive(evaluations, "--evaluations")
    outcome = again.replay(
        _find_run(run), results, out, evaluations, peers, exchanges_only, quiet or as_json
    )
    facts = again.conclusion(outcome.run_dir)
    _finish(outcome, as_json)
    if facts is not None and not again.holds(facts, require):
        raise typer.Exit(1)


@app.command("serve-local-model", epilog="Example: evolve serve-local-model --port 8080")
def serve_local_model(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: one that is free.")] = 0,
    model: Annotated[Path | None, typer.Option(help="Another GGUF file than SmolLM2's.")] = None,
    with_parent: Annotated[bool, typer.Option("--with-parent", hidden=True)] = False,
    as_json: Json = False,
) -> None:
    """Serve a small language model on 127.0.0.1: no account, no network; until Ctrl-C."""
    from evolve import local_model

    def say(base_url: str) -> None:
        name = model.stem if model else local_model.NAME
        config = local_model.config_text(base_url, name)
        if as_json:
            print(json.dumps({"base_url": base_url, "config": config}), flush=True)
        else:
            print(f"serving {name} at {base_url}; Ctrl-C ends it\n\n{config}", flush=True)

    local_model.serve(model, port, say, with_parent)


def _local_model() -> dict[str, Any]:
    """Settings of a run that starts its own model; UserError: it is not installed."""
    from evolve import local_model

    local_model.find()
    return {"llm": local_model.section(), "islands.emitters": local_model.SHARES}


def _mode(name: str | None) -> Any:
    """The mode of that name; UserError lists those that there are."""
    from evolve.exchanges import Mode

    if name is not None and name not in list(Mode):
        raise UserError(f"unknown mode {name!r}, known: {', '.join(Mode)}")
    return None if name is None else Mode(name)


def _tokens(tokens: int) -> int:
    _positive(tokens, "--tokens")
    return tokens


def _finish(outcome: Any, as_json: bool) -> None:
    replayed = _replayed(outcome)
    if as_json:
        facts = {"run": str(outcome.run_dir), "ended": outcome.reason, "report": outcome.report}
        _print_json(facts | ({"replay": replayed} if replayed else {}))
    elif outcome.report is not None:
        from evolve.output import closing_table

        print(closing_table(outcome.run_dir))
    if replayed and not as_json:
        from evolve.replay import conclusion_lines

        print("\n".join(["", *conclusion_lines(replayed)]))
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)


def _replayed(outcome: Any) -> dict[str, Any] | None:
    """How a closed replay went, kept beside its tables; None for other runs."""
    if outcome.report is None:
        return None
    from evolve import replay as again

    facts = again.conclusion(outcome.run_dir)
    if facts is not None:
        again.write(outcome.run_dir, facts)
    return facts


def _finish_compile(facts: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        _print_json(facts)
        return
    for fact in facts:
        print(f"{fact['solution']}: {fact['status']} {fact['summary']}")


app.add_typer(openevolve)


def main() -> None:
    """Entry point: bad input is one line on stderr and exit code 2."""
    from evaluators.devices import DeviceError
    from evolve.export import ExportError

    # Programs' sources are parsed here: what Python has against them is the guard's affair.
    warnings.simplefilter("ignore", SyntaxWarning)
    command = typer.main.get_command(app)
    arguments = sys.argv[1:] or ["--help"]
    try:
        code = command.main(args=arguments, prog_name="evolve", standalone_mode=False)
    except (UserError, CatalogError, DeviceError, ExportError) as error:
        _say_and_exit(str(error))
    except UsageError as error:
        _say_and_exit(error.format_message())
    except (typer.Abort, KeyboardInterrupt):
        print("evolve: stopped", file=sys.stderr)
        code = INTERRUPTED
    if code == INTERRUPTED:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # once more would break off the cleaning up
    sys.exit(code if isinstance(code, int) else 0)


def _say_and_exit(message: str) -> None:
    print("evolve: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(BAD_INPUT)
