"""What exchanges are worth, and that a history made step by step is a history made at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from evolve.authors import rewards
from evolve.authors.calls import Call, Calls
from evolve.exchanges import Exchange, Exchanges, Mode, Reply, Verdict
from evolve.llm import prompt
from evolve.llm.exchange import Answer, Reason, Refused, Usage
from evolve.llm.history import History
from evolve.llm.modes import choose
from evolve.llm.settings import LlmSettings, Model
from evolve.store import Store
from islands.program import Program
from tests.llm import sample_run


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return sample_run.make(tmp_path / "run")


def ask(store: Store, folder: Path, mode: Mode = Mode.DIFF) -> Exchange:
    history = History(store)
    task = choose(history, history.exchanges.next_number(), mode)
    about = sample_run.Background()
    exchange = prompt.build(history, about, task, emitter="llm", as_file=False)
    Exchanges(store).add(exchange)
    return exchange


def answer(store: Store, exchange: Exchange, cost: float = 0.01) -> Program:
    """An answer that applies; not evaluated."""
    parent = store.program(exchange.parents[0])
    source = parent.solution.entry_source + f"\n\ndef by_{exchange.number}(x):\n    return x\n"
    program = Program.of(
        parent.solution.with_entry_source(source),
        parents=exchange.parents,
        island=exchange.island,
        emitter="llm",
    )
    store.propose(program)
    Exchanges(store).reply(
        Reply(
            exchange=exchange.id, attempt=1, answer="...", verdict=Verdict.QUEUED,
            program=program.id,
        )
    )  # fmt: skip
    charge(store, exchange, cost)
    return program


def charge(store: Store, exchange: Exchange, cost: float, model: str = "m") -> None:
    calls, call = Calls(store), Call(about=exchange.id, emitter="llm", model=model)
    used = Usage(input_tokens=1, cost=cost)
    calls.close(
        calls.open(call), call, Answer(model=model, text="x", usage=used, attempts=1, seconds=0)
    )


def found(store: Store) -> list[tuple[float, float]]:
    return [(o.reward, o.cost) for o in rewards.outcomes(History(store), Calls(store))]


def test_nothing_is_learned_before_the_evaluation(store: Store, tmp_path: Path) -> None:
    exchange = ask(store, tmp_path)
    assert found(store) == []
    answer(store, exchange)
    assert found(store) == []


def test_a_failure_earns_nothing_a_pass_little_an_elite_by_its_gain(
    store: Store, tmp_path: Path
) -> None:
    for evaluation in (
        sample_run.failed(),
        sample_run.passed(0.9, 0.9),
        sample_run.passed(1.15, 1.42),
        sample_run.passed(2.6, 3.2),
    ):
        sample_run_record(store, answer(store, ask(store, tmp_path)), evaluation)
    earned = [reward for reward, _ in found(store)]
    assert earned[0] == 0
    assert earned[1] == rewards.PASSED
    assert rewards.ELITE <= earned[2] < earned[3] <= 1
    assert all(cost == 0.01 for _, cost in found(store))


def sample_run_record(store: Store, program: Program, evaluation: sample_run.Evaluation) -> None:
    seq = store.record(program.id, "search", evaluation)
    better = evaluation.passed and evaluation.score > 1.2
    store.set_outcome(seq, "a/niche", "IMPROVED" if better else "REJECTED")


def test_answers_that_never_apply_and_refusals_earn_nothing(store: Store, tmp_path: Path) -> None:
    hopeless, refused, again = (ask(store, tmp_path) for _ in range(3))
    for attempt in (1, 2):
        Exchanges(store).reply(
            Reply(
                exchange=hopeless.id, attempt=attempt, answer="?", verdict=Verdict.UNREADABLE,
                reason="no block",
            )
        )  # fmt: skip
    calls = Calls(store)
    for exchange, reason in ((refused, Reason.EMPTY), (again, Reason.OUTAGE)):
        call = Call(about=exchange.id, emitter="llm", model="m")
        calls.close(calls.open(call), call, Refused(model="m", reason=reason))
    settled = rewards.outcomes(History(store), calls)
    assert [(o.exchange.id, o.reward) for o in settled] == [(hopeless.id, 0), (refused.id, 0)]


@pytest.mark.parametrize(
    ("reason", "times", "unserved"),
    [
        (Reason.BAD_REQUEST, 1, True),
        (Reason.WRONG_KEY, 3, True),
        (Reason.SERVER_ERROR, 3, True),
        (Reason.EMPTY, 1, False),
    ],
)
def test_a_failing_service_says_something_of_the_model_and_nothing_of_the_mode(
    store: Store, tmp_path: Path, reason: Reason, times: int, unserved: bool
) -> None:
    exchange, calls = ask(store, tmp_path), Calls(store)
    call = Call(about=exchange.id, emitter="llm", model="m")
    for _ in range(times):
        calls.close(calls.open(call), call, Refused(model="m", reason=reason))
    (outcome,) = rewards.outcomes(History(store), calls)
    assert outcome.unserved == unserved
    assert rewards.modes([outcome], 0.01).state()["diff"].pulls == (0 if unserved else 1)
    settings = LlmSettings(models=(Model(name="m", base_url="http://localhost/v1"),))
    assert rewards.models([outcome], settings).state()["m"].pulls == 1


def test_bandits_learn_by_mode_and_by_model(store: Store, tmp_path: Path) -> None:
    for mode, evaluation in (
        (Mode.DIFF, sample_run.passed(2.6, 3.2)),
        (Mode.REWRITE, sample_run.failed()),
    ):
        sample_run_record(store, answer(store, ask(store, tmp_path, mode)), evaluation)
    outcomes = rewards.outcomes(History(store), Calls(store))
    arms = rewards.modes(outcomes, 0.01).state()
    assert (arms["diff"].pulls, arms["rewrite"].pulls, arms["repair"].pulls) == (1, 1, 0)
    assert arms["diff"].rewards > arms["rewrite"].rewards == 0
    settings = LlmSettings(models=(Model(name="m", base_url="http://localhost/v1"),))
    assert rewards.models(outcomes, settings).state()["m"].pulls == 2


def test_a_history_made_step_by_step_equals_one_made_at_once(store: Store, tmp_path: Path) -> None:
    history = History(store)
    for speed in (1.5, 0.5, 2.5):
        exchange = ask(store, tmp_path)
        history = History(store, history)
        program = answer(store, exchange)
        history = History(store, history)
        seq = store.record(program.id, "search", sample_run.passed(speed, speed))
        history = History(store, history)  # told of it before the archive has said anything
        store.set_outcome(seq, "a/niche", "NEW")
        history = History(store, history)
        whole = History(store)
        assert history.rows == whole.rows
        assert history.programs == whole.programs
        assert history.asked() == whole.asked()
        assert history.attempts() == whole.attempts()
        assert [e.program.id for e in history.elites()] == [e.program.id for e in whole.elites()]
