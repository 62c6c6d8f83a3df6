"""What OpenEvolve needs for an operator of ours: evaluator, initial program, configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evaluators import catalog
from evaluators.schema import Definition, Language, Solution
from evolve.errors import UserError
from evolve.llm import background
from evolve.llm.facts import interface_lines

_EVALUATOR = '''"""OpenEvolve's evaluator for {definition}: see evolve.openevolve.evaluator."""

from evolve.openevolve.evaluator import Judge

evaluate = Judge({operator!r}, definition={definition!r}, device={device!r})
'''

_CONFIG = """\
# OpenEvolve's configuration; add your model (llm: api_base, api_key, primary_model).
language: {language}
file_suffix: {suffix}
max_code_length: 100000
early_stopping_metric: combined_score
evaluator:
  timeout: 600
  max_retries: 0            # what a program does is scored; only a broken evaluator raises
  cascade_evaluation: false # it measures cheap things first by itself
  parallel_evaluations: 1   # a device is timed by one at a time
prompt:
  system_message: {message}
"""


def write(
    operator: str, definition: str | None, device: str, seed: str | None, out: Path
) -> dict[str, Any]:
    """Write the three files into `out`; says which, and the command that uses them.

    UserError, CatalogError or DeviceError, one line, for what is unknown or cannot be written.
    """
    from evaluators import devices

    found = catalog.load_operator(operator)
    picked = devices.pick(device)
    wanted = found.definition(definition, picked)
    start = _seed(catalog.seeds(found, wanted, picked), seed)
    language, suffix = start.spec.language, catalog.SUFFIXES[start.spec.language]
    files = {
        "evaluator.py": _EVALUATOR.format(operator=operator, definition=wanted.name, device=picked),
        f"initial_program{suffix}": _marked(start),
        "config.yaml": _CONFIG.format(
            language="python" if suffix == ".py" else language.value,
            suffix=suffix,
            # A JSON text is a YAML text.
            message=json.dumps(_message(operator, wanted, language, picked)),
        ),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path in (out / name for name in files):
            if path.exists():  # it may hold the user's model by now
                raise UserError(f"{path} is there already; remove it or choose another folder")
        for name, text in files.items():
            (out / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from None
    program, evaluator, config = (out / n for n in (f"initial_program{suffix}", *_REST))
    command = f"openevolve-run {program} {evaluator} --config {config}"
    return {"written": [str(out / name) for name in files], "command": command}


_REST = ("evaluator.py", "config.yaml")


def _seed(seeds: list[Solution], name: str | None) -> Solution:
    """The seed of that name, with or without `seed_`; the first without a name."""
    if name is None:
        return seeds[0]
    for seed in seeds:
        if name in (seed.name, seed.name.removeprefix("seed_")):
            return seed
    raise UserError(f"unknown seed {name!r}, known: {', '.join(s.name for s in seeds)}")


def _marked(seed: Solution) -> str:
    """The seed's source, all of it between OpenEvolve's marks of what may change."""
    mark = "#" if catalog.SUFFIXES[seed.spec.language] == ".py" else "//"
    text = seed.entry_source.rstrip("\n")
    if "EVOLVE-BLOCK-START" in text:
        return text + "\n"
    return f"{mark} EVOLVE-BLOCK-START\n{text}\n{mark} EVOLVE-BLOCK-END\n"


def _message(operator: str, definition: Definition, language: Language, device: str) -> str:
    meta = {"operator": operator, "device": {"type": device}}
    known = background.load(meta, definition, cost=lambda workload: (0.0, 0.0))
    parts = [
        f"You write fast, correct kernels in {language.value}. Make `{definition.name}` faster: "
        f"combined_score is the speedup over a fixed kernel, 0 for a wrong one.",
        definition.description or "",
        "\n".join(interface_lines(definition, language)),
        known.notes,
        "\n".join(known.idioms.get(language, ())),
    ]
    return "\n\n".join(part.strip() for part in parts if part.strip())
