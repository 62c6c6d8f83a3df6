"""The archive: an elite is the best of its niche, and noise does not replace it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.schema import Status
from islands.archive import AddStatus, Archive
from islands.niche import Niche
from islands.program import Program
from islands.selection import ranked, select
from tests.islands.samples import failed, passed, program

HERE, THERE = Niche(language="triton"), Niche(language="cuda")
BASE = program("def run(x):\n    pass\n")


def numbered(number: int) -> Program:
    return BASE.model_copy(update={"id": f"{number:032x}"})


def test_add_says_what_it_did() -> None:
    archive = Archive()
    assert archive.add(numbered(1), passed(1.0), HERE) is AddStatus.NEW
    assert archive.add(numbered(2), passed(0.5), THERE) is AddStatus.NEW
    assert archive.add(numbered(3), passed(0.9), HERE) is AddStatus.REJECTED
    assert archive.add(numbered(4), passed(1.1), HERE) is AddStatus.IMPROVED
    assert {n: e.program.id for n, e in archive.items()} == {
        HERE: numbered(4).id,
        THERE: numbered(2).id,
    }


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.PASSED])
def test_a_failure_is_never_a_member(status: Status) -> None:
    archive = Archive()
    assert archive.add(numbered(1), failed(status), HERE) is AddStatus.REJECTED
    assert len(archive) == 0
    assert archive.best() is None


@pytest.mark.parametrize(
    ("gain", "elite_noise", "noise", "status"),
    [
        (0.05, 0.0, 0.0, AddStatus.IMPROVED),
        (
            0.05,
            0.03,
            0.03,
            AddStatus.IMPROVED,
        ),  # 0.05 > hypot = 0.042, though the intervals overlap
        (0.05, 0.04, 0.04, AddStatus.REJECTED),  # hypot = 0.057
        (0.05, 0.06, 0.0, AddStatus.REJECTED),
        (0.05, 0.0, 0.06, AddStatus.REJECTED),
    ],
)
def test_a_gain_must_exceed_the_noise(
    gain: float, elite_noise: float, noise: float, status: AddStatus
) -> None:
    archive = Archive()
    archive.add(numbered(1), passed(1.0, elite_noise), HERE)
    assert archive.add(numbered(2), passed(float(np.exp(gain)), noise), HERE) is status


niches = st.sampled_from([HERE, THERE, Niche(), Niche(tile="t64")])
offers = st.lists(
    st.tuples(niches, st.one_of(st.none(), st.floats(0.1, 10)), st.floats(0, 0.5)), max_size=40
)


@given(offers)
def test_invariants(offered: list[tuple[Niche, float | None, float]]) -> None:
    archive = Archive()
    best: dict[Niche, float] = {}
    for number, (niche, score, noise) in enumerate(offered):
        evaluation = failed() if score is None else passed(score, noise)
        score = evaluation.score if evaluation.passed else None
        status = archive.add(numbered(number), evaluation, niche)
        elite = archive.get(niche)
        if status is AddStatus.REJECTED:
            assert score is None or score <= best[niche] or noise > 0 or elite.noise > 0
        else:
            assert (status is AddStatus.NEW) == (niche not in best)
            assert elite.program.id == numbered(number).id
            assert score == elite.score
            assert elite.score >= best.get(niche, 0)
            best[niche] = elite.score
        assert len(archive) == len(best)
        assert {n: e.score for n, e in archive.items()} == best
        top = archive.best()
        assert (top.score if top else None) == max(best.values(), default=None)
    assert [e.score for e in ranked(archive)] == sorted(best.values(), reverse=True)


def test_sampling_reaches_every_niche_and_repeats_with_its_seed() -> None:
    archive = Archive()
    for number, tile in enumerate(["t8", "t16", "t32", "t64"]):
        archive.add(numbered(number), passed(1 + number), Niche(tile=tile))

    def draws(pick) -> list[str]:
        rng = np.random.default_rng(5)
        return [pick(rng).niche.tile for _ in range(200)]

    uniform = draws(archive.sample)
    biased = draws(lambda rng: select(archive, rng))
    assert set(uniform) == set(biased) == {"t8", "t16", "t32", "t64"}
    assert uniform == draws(archive.sample)
    assert biased.count("t64") > 1.5 * uniform.count("t64")
    assert biased.count("t8") < uniform.count("t8")


def test_cleared_is_empty() -> None:
    archive = Archive()
    archive.add(numbered(1), passed(2.0), HERE)
    archive.clear()
    assert len(archive) == 0
    assert archive.best() is None
    with pytest.raises(LookupError):
        archive.sample(np.random.default_rng(0))
    assert archive.add(numbered(2), passed(1.0), HERE) is AddStatus.NEW
