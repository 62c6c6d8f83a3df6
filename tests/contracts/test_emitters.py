"""What every emitter must hold to, run over each of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.schema import Evaluation, Language
from evolve.emitters import EMITTERS
from islands.archive import AddStatus, Archive
from islands.descriptor import describe
from islands.emitter import Emitter, Proposal
from islands.program import Program
from tests.islands.samples import failed, passed, program, solution, tunable_source

pytestmark = pytest.mark.parametrize("name", sorted(EMITTERS))

CHOICES = {
    "BLOCK_M": [16, 32, 64, 128],
    "BLOCK_N": [16, 32, 64, 128],
    "NUM_WARPS": [1, 2, 4, 8],
    "NUM_STAGES": [1, 2, 3, 4],
    "UNROLL": [1, 2, 4],
}
TEMPLATES = [
    tunable_source(CHOICES),
    tunable_source(CHOICES, "\n\ndef helper(x):\n    return x\n"),
    tunable_source(CHOICES, "\n\ndef helper(x):\n    return x + 1  # one more\n"),
]


class Search:
    """An archive and one emitter, told of each other's doings."""

    def __init__(self, name: str) -> None:
        self.emitter: Emitter = EMITTERS[name]()
        self.archive = Archive()
        self.told: set[str] = set()

    def tell(self, told: Program, evaluation: Evaluation) -> AddStatus:
        status = self.archive.add(told, evaluation, describe(told, evaluation))
        self.emitter.learn(told, evaluation, status)
        self.told.add(told.id)
        return status

    def start(self) -> Search:
        """Elites in several niches, from three templates."""
        for number, template in enumerate(TEMPLATES):
            for size in (16, 64):
                text = template.replace("BLOCK_M = 16", f"BLOCK_M = {size}")
                text = text.replace("NUM_STAGES = 1", f"NUM_STAGES = {number + 1}")
                self.tell(program(text), passed(1.0 + number / 10 + size / 1000))
        return self

    def step(self, ordinal: int) -> Program | None:
        """One proposal, with an outcome that follows from the program alone."""
        proposal = self.emitter.propose(self.archive, np.random.default_rng([3, ordinal]))
        if proposal is None:
            return None
        proposed = Program.of(proposal.solution, parents=proposal.parents, note=proposal.note)
        rng = np.random.default_rng(int(proposed.id[:12], 16))
        score = math.exp(rng.normal(0, 0.3))
        self.tell(proposed, passed(score, 0.01) if rng.random() < 0.8 else failed())
        return proposed


def test_it_is_registered_under_its_name(name: str) -> None:
    assert EMITTERS[name].name == name
    assert issubclass(EMITTERS[name], Emitter)


def test_an_empty_archive_gives_nothing(name: str) -> None:
    assert EMITTERS[name]().propose(Archive(), np.random.default_rng(0)) is None


def test_it_proposes_new_valid_programs_with_known_parents(name: str) -> None:
    search = Search(name).start()
    count = 0
    for ordinal in range(100):
        before = set(search.told)
        proposed = search.step(ordinal)
        if proposed is None:
            continue
        count += 1
        assert proposed.id not in before
        assert proposed.parents
        assert set(proposed.parents) <= before
        assert proposed.note
        compile(proposed.solution.entry_source, "kernel.py", "exec")
    assert count > 5


def test_the_same_calls_give_the_same_proposals(name: str) -> None:
    one, other = Search(name).start(), Search(name).start()
    assert [one.step(k) for k in range(60)] == [other.step(k) for k in range(60)]


def test_proposing_changes_no_state(name: str) -> None:
    """A resumed search, which learned all but proposed nothing, goes on like the first."""
    first, resumed = Search(name).start(), Search(name).start()
    for ordinal in range(60):
        proposed = first.step(ordinal)
        for extra in range(3):
            first.emitter.propose(first.archive, np.random.default_rng([ordinal, extra]))
        if proposed is None:
            continue
        rng = np.random.default_rng(int(proposed.id[:12], 16))
        score = math.exp(rng.normal(0, 0.3))
        resumed.tell(proposed, passed(score, 0.01) if rng.random() < 0.8 else failed())
    assert [first.step(k) for k in range(60, 90)] == [resumed.step(k) for k in range(60, 90)]


def test_caches_decide_nothing(name: str) -> None:
    """One emitter proposed while programs were under way, another was only told of them."""
    first, resumed = Search(name).start(), Search(name).start()
    for ordinal in range(30):
        proposal = first.emitter.propose(first.archive, np.random.default_rng([1, ordinal]))
        if proposal is not None:
            proposed = Program.of(proposal.solution)
            first.emitter.known(proposed.id)
            resumed.emitter.known(proposed.id)
        for extra in range(5):  # meets what is under way, and remembers it
            first.emitter.propose(first.archive, np.random.default_rng([1, extra]))
    for ordinal in range(40):
        rng, same = (np.random.default_rng([2, ordinal]) for _ in range(2))
        one = first.emitter.propose(first.archive, rng)
        assert one == resumed.emitter.propose(resumed.archive, same)
        assert rng.random() == same.random()


def test_it_leaves_the_archive_alone(name: str) -> None:
    search = Search(name).start()
    before = dict(search.archive.items())
    search.emitter.propose(search.archive, np.random.default_rng(0))
    assert dict(search.archive.items()) == before


def test_following_up_a_gain_keeps_to_the_contract(name: str) -> None:
    """None, or a new program of the structure that gained; and no state beside `learn`."""
    search, resumed = Search(name).start(), Search(name).start()
    gained = Program.of(
        solution(TEMPLATES[0] + "\n\ndef better(x):\n    return x\n"), emitter="mailbox"
    )
    for each in (search, resumed):
        assert each.tell(gained, passed(9.0)) is not AddStatus.REJECTED
    before = dict(search.archive.items())
    for ordinal in range(20):
        rng, same = (np.random.default_rng([4, ordinal]) for _ in range(2))
        search.emitter.follow_up(search.archive, np.random.default_rng([5, ordinal]))
        proposal = search.emitter.follow_up(search.archive, rng)
        assert proposal == resumed.emitter.follow_up(resumed.archive, same)
        assert dict(search.archive.items()) == before
        if proposal is not None:
            proposed = Program.of(proposal.solution)
            assert proposed.id not in search.told
            assert set(proposal.parents) <= search.told


def test_known_programs_are_not_proposed(name: str) -> None:
    search = Search(name).start()
    known: set[str] = set()
    for ordinal in range(40):
        proposal = search.emitter.propose(search.archive, np.random.default_rng(ordinal))
        if proposal is not None:
            proposed = Program.of(proposal.solution)
            assert proposed.id not in known | search.told
            known.add(proposed.id)
            search.emitter.known(proposed.id)
    assert len(known) > 5


def test_another_seed_gives_other_proposals(name: str) -> None:
    search = Search(name).start()
    seen = set()
    for seed in range(20):
        proposal = search.emitter.propose(search.archive, np.random.default_rng(seed))
        assert proposal is not None
        seen.add(Program.of(proposal.solution).id)
    assert len(seen) > 5


fragments = st.sampled_from(
    ["X = 1  # tune: 1 2", "X = 3  # tune: 3", "Y = a  // tune: a b c", "def run(x):", "@jit",
     "    return x", "    return X", "def f(a, *b, c=1, **d):", "class A:", "    Z = 1 # tune: 1 9",
     "import a.b as c", "\t", "é = 1", "#define W 1  // tune: 1 2", "return", "\f", "a\rb", "\\",
     "'''"]
)  # fmt: skip
texts = st.one_of(
    st.lists(fragments, min_size=1, max_size=12).map("\n".join), st.text(min_size=1, max_size=40)
)


@given(
    st.lists(st.tuples(texts, st.sampled_from(Language)), min_size=2, max_size=4), st.integers(0, 9)
)
@settings(max_examples=150, deadline=None)
def test_no_source_makes_it_raise(
    name: str, sources: list[tuple[str, Language]], seed: int
) -> None:
    search = Search(name)
    for number, (source, language) in enumerate(sources):
        told = Program.of(solution(source, language))
        evaluation = passed(1.0 + number)
        status = search.archive.add(told, evaluation, describe(told, evaluation))
        search.emitter.learn(told, evaluation, status)
        search.told.add(told.id)
    for ordinal in range(4):
        rng = np.random.default_rng([seed, ordinal])
        proposal = search.emitter.propose(search.archive, rng)
        assert proposal is None or isinstance(proposal, Proposal)
        if proposal is not None:
            assert Program.of(proposal.solution).id not in search.told
