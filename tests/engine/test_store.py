"""The store against a naive model of it: any order of calls, closed and opened at any time."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
)

from evaluators.schema import BuildFacts, Evaluation, Solution, Status, Workload, WorkloadResult
from evolve.errors import UserError
from evolve.store import FILE, VERSION, Store
from islands.program import Program, program_id
from tests.engine.driver import seed_solution

FAILURES = [status for status in Status if status is not Status.PASSED]
positive = st.floats(1e-6, 1e6)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


def a_program(number: int, island: int, ordinal: int, emitter: str, note: str) -> Program:
    source = f"def run(x, output):\n    output.copy_(x * {number})\n"
    data = seed_solution().model_dump(mode="json")
    data["sources"] = [{"path": "kernel.py", "content": source}]
    solution = Solution.model_validate(data)
    return Program(
        id=program_id(solution),
        solution=solution,
        island=island,
        ordinal=ordinal,
        emitter=emitter,
        note=note,
    )


programs = st.builds(
    a_program,
    number=st.integers(0, 40),
    island=st.integers(0, 3),
    ordinal=st.integers(0, 50),
    emitter=st.sampled_from(["seed", "tuner", "crossover"]),
    note=texts,
)
results = st.builds(
    WorkloadResult,
    workload=st.text(min_size=1, max_size=8),
    max_absolute_error=st.floats(0, 1),
    max_relative_error=st.floats(0, 1),
    latency_ms=positive,
    anchor_ms=positive,
    speedup=st.just(1.5) | st.floats(0.1, 10),
    speedup_low=st.just(0.05),
    speedup_high=st.just(20.0),
    weight=st.floats(0.1, 10),
)
facts = st.none() | st.builds(
    BuildFacts, seconds=positive, kernels=st.tuples(texts), registers=st.integers(0, 255)
)
passed = st.builds(
    Evaluation,
    status=st.just(Status.PASSED),
    epoch=st.just(0),
    results=st.lists(results, min_size=1, max_size=3).map(tuple),
    build=facts,
    log=texts,
)
failed = st.builds(
    Evaluation, status=st.sampled_from(FAILURES), epoch=st.just(0), log=texts, build=facts
)


class StoreMachine(RuleBasedStateMachine):
    """Lists and dicts beside the store; after every step they must agree."""

    stored = Bundle("stored")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="store-"))
        self.store = Store.create(self.folder / "run", {"operator": "toy"})
        self.programs: dict[str, Program] = {}
        self.rows: list[tuple[str, str, Evaluation]] = []
        self.outcomes: dict[int, tuple[str, str]] = {}
        self.epochs: list[list[Workload]] = []
        self.meta: dict[str, Any] = {"operator": "toy"}

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    @rule(target=stored, program=programs)
    def propose(self, program: Program) -> str:
        assert self.store.propose(program) == (program.id not in self.programs)
        self.programs.setdefault(program.id, program)
        return program.id

    @precondition(lambda self: self.epochs)
    @rule(
        program=stored,
        kind=st.sampled_from(["seed", "search", "remeasure"]),
        evaluation=passed | failed,
    )
    def record(self, program: str, kind: Any, evaluation: Evaluation) -> None:
        evaluation = evaluation.model_copy(update={"epoch": len(self.epochs) - 1})
        if any(p == program and e.epoch == evaluation.epoch for p, _, e in self.rows):
            with pytest.raises(sqlite3.IntegrityError):
                self.store.record(program, kind, evaluation)
        else:
            self.rows.append((program, kind, evaluation))
            assert self.store.record(program, kind, evaluation) == len(self.rows)

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), niche=st.text(max_size=10), outcome=st.sampled_from(["NEW", "REJECTED"]))
    def set_outcome(self, data: st.DataObject, niche: str, outcome: str) -> None:
        seq = data.draw(st.integers(1, len(self.rows)))
        self.store.set_outcome(seq, niche, outcome)
        self.outcomes[seq] = (niche, outcome)

    @rule(tokens=st.lists(st.integers(0, 4096), max_size=3))
    def open_epoch(self, tokens: list[int]) -> None:
        number = len(self.epochs)
        workloads = [
            Workload(uuid=f"{number}-{i}", axes={"n": n}, make={"label": f"n={n}"})
            for i, n in enumerate(tokens)
        ]
        self.store.open_epoch(number, workloads)
        self.epochs.append(workloads)

    @rule(key=st.sampled_from(["report", "config"]), value=st.dictionaries(texts, texts))
    def set_meta(self, key: str, value: dict[str, str]) -> None:
        self.store.set_meta({key: value})
        self.meta[key] = value

    @rule(moved=st.booleans())
    def open_again(self, moved: bool) -> None:
        self.store.close()
        run_dir = self.store.run_dir
        if moved:
            run_dir = Path(shutil.move(run_dir, tempfile.mkdtemp(dir=self.folder)))
        self.store = Store.open(run_dir)

    @rule(program=consumes(stored))
    def forget(self, program: str) -> None:
        """Some programs stay pending."""

    @invariant()
    def programs_agree(self) -> None:
        assert list(self.store.programs()) == list(self.programs.values())
        evaluated = {program for program, _, _ in self.rows}
        assert self.store.pending() == [p for p in self.programs.values() if p.id not in evaluated]
        for known in self.programs:
            assert self.store.has(known)
            assert self.store.evaluated(known) == (known in evaluated)
        by_island: dict[int, list[int]] = {}
        for program in self.programs.values():
            if program.emitter != "seed":
                by_island.setdefault(program.island, []).append(program.ordinal)
        assert self.store.proposed_by_island() == {
            island: (len(ordinals), max(ordinals) + 1) for island, ordinals in by_island.items()
        }

    @invariant()
    def evaluations_agree(self) -> None:
        found = list(self.store.evaluations())
        assert [(r.program_id, r.kind, r.evaluation) for r in found] == self.rows
        assert [r.seq for r in found] == list(range(1, len(found) + 1))
        assert all(r.emitter == self.programs[r.program_id].emitter for r in found)
        shown = {r.seq: (r.niche, r.status_in_archive) for r in found if r.seq in self.outcomes}
        assert shown == self.outcomes

    @invariant()
    def counts_agree(self) -> None:
        epoch = len(self.epochs) - 1
        counts = self.store.counts()
        for kind in ("seed", "search", "remeasure"):
            assert counts[kind] == sum(k == kind for _, k, _ in self.rows)
        assert counts["epoch"] == epoch
        inside = [(k, e) for _, k, e in self.rows if e.epoch == epoch]
        assert counts["searched"] == sum(k == "search" for k, _ in inside)
        assert counts["remeasured"] == sum(k == "remeasure" for k, _ in inside)
        assert sum(self.store.by("status").values()) == len(self.rows)
        assert self.store.standing(epoch)[0] == max((e.score for _, e in inside), default=0)

    @invariant()
    def facts_agree(self) -> None:
        assert self.store.epochs() == dict(enumerate(self.epochs))
        meta = self.store.meta
        assert {k: meta[k] for k in self.meta} == self.meta
        assert meta["version"] == VERSION
        assert self.store.report() == self.meta.get("report")


StoreMachine.TestCase.settings = settings(
    max_examples=50,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
test_store_agrees_with_a_naive_model = StoreMachine.TestCase


# -- what a person meets --------------------------------------------------------------------------


def test_a_reader_reads_beside_the_writer(tmp_path: Path) -> None:
    writer = Store.create(tmp_path, {})
    reader = Store.open(tmp_path, readonly=True)
    program = a_program(1, 0, 0, "tuner", "")
    assert writer.propose(program)
    assert [p.id for p in reader.programs()] == [program.id]
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.propose(a_program(2, 0, 1, "tuner", ""))


def test_a_program_is_known_by_its_normalised_source(tmp_path: Path) -> None:
    store = Store.create(tmp_path, {})
    program = a_program(1, 0, 0, "tuner", "")
    data = program.solution.model_dump(mode="json")
    data["sources"][0]["content"] += "\n\n# a remark\n"
    remarked = Program.of(Solution.model_validate(data), island=1, emitter="tuner", ordinal=7)
    assert store.propose(program)
    assert not store.propose(remarked)
    assert store.program(program.id) == program
    with pytest.raises(KeyError):
        store.program("0" * 32)


def test_create_refuses_a_taken_or_impossible_place(tmp_path: Path) -> None:
    Store.create(tmp_path / "run", {}).close()
    with pytest.raises(UserError, match="already holds a run"):
        Store.create(tmp_path / "run", {})
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write a run"):
        Store.create(tmp_path / "file" / "run", {})


@pytest.mark.parametrize("readonly", [True, False])
def test_open_refuses_what_is_no_run(tmp_path: Path, readonly: bool) -> None:
    with pytest.raises(UserError, match="no run at"):
        Store.open(tmp_path, readonly=readonly)
    (tmp_path / FILE).write_bytes(b"x" * 4096)
    with pytest.raises(UserError, match="not a readable run"):
        Store.open(tmp_path, readonly=readonly)


def test_open_refuses_a_newer_version(tmp_path: Path) -> None:
    store = Store.create(tmp_path, {})
    store.set_meta({"version": VERSION + 1})
    store.close()
    with pytest.raises(UserError, match=f"newer version .format {VERSION + 1}"):
        Store.open(tmp_path)
