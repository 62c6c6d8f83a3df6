"""Prompts say what a run knows, in a fixed form, within their budget.

The golden files are rewritten by TILEVOLVE_GOLDEN=write; read the difference before keeping it.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from evaluators.schema import Language, Status
from evolve.errors import UserError
from evolve.exchanges import Exchange, Exchanges, Mode, Reply, Verdict
from evolve.llm import facts, listing, prompt, sections
from evolve.llm.background import Background, bullets, for_device, load
from evolve.llm.fit import CHARS_PER_TOKEN, REQUIRED, Section, fit, tokens_of
from evolve.llm.history import History, tail, telling
from evolve.llm.modes import ROUND, choose, mode_of
from evolve.store import Store
from islands.program import Program
from tests.llm import sample_run

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return sample_run.make(tmp_path / "run")


@pytest.fixture
def background(tmp_path: Path) -> Background:
    return sample_run.the_background(tmp_path)


def build(store: Store, background: Background, mode: Mode, tokens: int = 8000) -> Exchange:
    history = History(store)
    task = choose(history, history.exchanges.next_number(), mode)
    return prompt.build(history, background, task, emitter="mailbox", tokens=tokens)


def parts(text: str) -> list[str]:
    return re.findall(r"^## (.*)$", text, re.MULTILINE)


# -- what prompts say -----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", list(Mode))
def test_golden(store: Store, background: Background, mode: Mode) -> None:
    exchange = build(store, background, mode)
    assert exchange.mode is mode
    text = re.sub(r"(?<=[a-z]-)[0-9a-f]{6}(?=\.answer)", "digest", exchange.prompt)
    file = GOLDEN / f"{mode.value}.md"
    if os.environ.get("TILEVOLVE_GOLDEN") == "write":
        file.write_text(text)
    assert text == file.read_text()


def test_equal_stores_give_equal_prompts(tmp_path: Path, background: Background) -> None:
    first, second = (sample_run.make(tmp_path / name) for name in ("a", "b"))
    for mode in Mode:
        assert build(first, background, mode) == build(second, background, mode)


def test_a_parent_is_shown_with_its_measurements(store: Store, background: Background) -> None:
    exchange = build(store, background, Mode.DIFF)
    parent = store.program(exchange.parents[0])
    assert parent.solution.entry_source.strip() in exchange.prompt
    # 4096 rows x 8 KiB at 4000 GB/s are 8.4 us; the tuned program takes 20 / 1.4 us.
    assert "| rows=4096 | 33.6 | 14.29 | 1.400 [1.359, 1.442] | 59% / 1% |" in exchange.prompt
    assert "40 registers a thread, none spilled" in exchange.prompt
    assert "BLOCK_N 128 -> 256" in exchange.prompt


def test_a_translation_asks_for_the_other_language(store: Store, background: Background) -> None:
    exchange = build(store, background, Mode.TRANSLATE)
    assert exchange.language in (Language.TILELANG, Language.CUDA)
    assert "exactly one fenced code block" in exchange.prompt
    assert "<<<<<<< SEARCH" not in exchange.prompt
    assert "Extents are powers of two" not in exchange.prompt


def test_a_repair_shows_the_message_and_what_was_changed(
    store: Store, background: Background
) -> None:
    exchange = build(store, background, Mode.REPAIR)
    assert "no attribute 'stor'" in exchange.prompt
    assert re.search(r"^-.*tl\.store\(out_ptr", exchange.prompt, re.MULTILINE)
    failed = store.program(exchange.parents[0])
    assert failed.solution.entry_source == sample_run.BROKEN


def test_what_failed_for_a_repair_is_not_listed_twice(store: Store, background: Background) -> None:
    text = build(store, background, Mode.REPAIR).prompt
    after = text.split("## Failures not to repeat")[1]
    assert "out of resource" in after
    assert "stor'" not in after


# -- earlier answers ------------------------------------------------------------------------------


def answered(store: Store, exchange: Exchange, verdict: Verdict, **more: str) -> None:
    exchanges = Exchanges(store)
    exchanges.add(exchange)
    exchanges.reply(Reply(exchange=exchange.id, attempt=1, answer="x", verdict=verdict, **more))


def written(store: Store, exchange: Exchange, source: str, note: str) -> Program:
    program = Program.of(
        sample_run.solution(source, "written"),
        parents=exchange.parents,
        emitter="mailbox",
        note=f"diff: {note}",
    )
    answered(store, exchange, Verdict.QUEUED, program=program.id, note=note)
    store.propose(program)
    return program


def test_later_prompts_tell_what_became_of_answers(store: Store, background: Background) -> None:
    first = build(store, background, Mode.DIFF)
    assert "What became of earlier answers" not in first.prompt
    faster = sample_run.TILED.replace("row = tl.program_id(0)", "row = tl.program_id(0) + 0")
    program = written(store, first, faster, "rows first")
    waiting = build(store, background, Mode.REWRITE).prompt
    assert f"{first.id} (rows first): not evaluated yet" in waiting
    sample_run.record(store, program, sample_run.passed(1.32, 1.68))
    done = build(store, background, Mode.REWRITE).prompt
    parent = History(store).last(first.parents[0])
    assert parent is not None
    gain = (1.32 * 1.68) ** 0.5 / parent.evaluation.score
    score = (1.32 * 1.68) ** 0.5
    assert f"PASSED, {score:.3f}x the anchor, {gain:.3f}x its parent" in done


def test_a_failed_answer_comes_back_with_its_log(store: Store, background: Background) -> None:
    first = build(store, background, Mode.DIFF)
    source = sample_run.TILED.replace("tl.program_id(1)", "tl.program_id(7)")
    program = written(store, first, source, "seven axes")
    sample_run.record(store, program, sample_run.failed(Status.COMPILE_ERROR, "error: axis 7"))
    text = build(store, background, Mode.DIFF).prompt
    assert f"{first.id} (seven axes): COMPILE_ERROR" in text
    assert "error: axis 7" in text
    repair = build(store, background, Mode.REPAIR)
    assert repair.parents == (program.id,)


def test_a_rejected_answer_is_told_by_its_reason(store: Store, background: Background) -> None:
    first = build(store, background, Mode.DIFF)
    answered(store, first, Verdict.UNREADABLE, reason="Block 1: no such lines\nmore")
    text = build(store, background, Mode.DIFF).prompt
    assert f"{first.id}: UNREADABLE, Block 1: no such lines\n" in text


def test_a_failure_is_repaired_once(store: Store, background: Background) -> None:
    first = build(store, background, Mode.REPAIR)
    Exchanges(store).add(first)
    history = History(store)
    assert choose(history, 1, Mode.REPAIR).mode is Mode.DIFF  # the tuner's failure is not for us


# -- the choice of modes --------------------------------------------------------------------------


def test_every_round_has_the_same_mix() -> None:
    rounds = [[mode_of(3, r * len(ROUND) + i) for i in range(len(ROUND))] for r in range(5)]
    assert all(Counter(r) == Counter(ROUND) for r in rounds)
    assert len({tuple(r) for r in rounds}) > 1
    assert rounds == [[mode_of(3, r * len(ROUND) + i) for i in range(len(ROUND))] for r in range(5)]


def test_tasks_follow_from_seed_and_number(store: Store) -> None:
    history = History(store)
    tasks = [choose(history, n) for n in range(16)]
    assert tasks == [choose(History(store), n) for n in range(16)]
    assert {t.island for t in tasks if t.mode is not Mode.REPAIR} == {0, 1}
    assert len({t.parent.id for t in tasks}) > 1


def test_a_crossover_joins_different_code(store: Store) -> None:
    task = choose(History(store), 0, Mode.CROSSOVER)
    assert task.partner is not None
    sources = {task.parent.solution.entry_source, task.partner.solution.entry_source}
    assert {"_persistent_scale" in s for s in sources} == {True, False}


def test_parents_are_of_the_latest_epoch(store: Store) -> None:
    store.open_epoch(1, sample_run.WORKLOADS)
    seed = next(p for p in store.programs() if p.ordinal == 1)
    sample_run.record(store, seed, sample_run.passed(1.0, 1.0, epoch=1), "remeasure")
    assert {choose(History(store), n).parent.id for n in range(8)} >= {seed.id}
    assert all(e.evaluation.epoch == 1 for e in History(store).elites())


# -- the budget -----------------------------------------------------------------------------------


def least_tokens(store: Store, background: Background, mode: Mode) -> int:
    with pytest.raises(UserError) as error:
        build(store, background, mode, 10)
    return int(str(error.value).split()[-1])


@pytest.mark.parametrize("mode", list(Mode))
def test_prompts_keep_to_their_budget(store: Store, background: Background, mode: Mode) -> None:
    full = build(store, background, mode, 100_000)
    parent = store.program(full.parents[0]).solution.entry_source.strip()
    lengths = []
    for tokens in range(least_tokens(store, background, mode), tokens_of(full.prompt) + 50, 50):
        text = build(store, background, mode, tokens).prompt
        assert len(text) <= tokens * CHARS_PER_TOKEN
        assert "## Answer" in text
        assert parent in text
        lengths.append(len(text))
    assert len(set(lengths)) > 5
    assert lengths[-1] == len(full.prompt)


def test_what_matters_least_goes_first(store: Store, background: Background) -> None:
    least = least_tokens(store, background, Mode.DIFF)
    seen = []
    for tokens in range(least, least + 1500, 25):
        titles = parts(build(store, background, Mode.DIFF, tokens).prompt)
        seen.append(titles)
        if "Code of other elites" in titles:
            assert {"Device", "Measurements of the parent", "The operator"} <= set(titles)
    assert any("Code of other elites" not in t and "Device" in t for t in seen)
    assert "Code of other elites" in seen[-1]


def test_fit_goes_by_priority() -> None:
    texts = [
        Section(name, place, ((name * 39,),)) for place, name in ((3, "c"), (1, "a"), (2, "b"))
    ]
    kept = [fit(texts, tokens) for tokens in range(1, 45)]
    found = ["".join(x for x in "abc" if x * 39 in text) for text in kept]
    assert list(dict.fromkeys(found)) == ["", "a", "ab", "abc"]
    assert kept[-1].index("c" * 39) < kept[-1].index("a" * 39)  # the order read is the order given


def test_too_small_a_budget_says_what_is_needed(store: Store, background: Background) -> None:
    with pytest.raises(UserError, match=r"--tokens 100 is too small.* take \d{3,}"):
        build(store, background, Mode.DIFF, 100)


def test_fit_shares_room_before_it_fills_up() -> None:
    greedy = Section("Greedy", 1, tuple((f"g{i} " * 10,) for i in range(40)), share=0.3)
    modest = Section("Modest", 2, tuple((f"m{i} " * 10,) for i in range(4)))
    head = Section("", REQUIRED, (("head",),))
    text = fit([head, greedy, modest], 200)
    assert all(f"m{i} " in text for i in range(4))
    assert "more left out for room" in text
    assert len(text) > 190 * CHARS_PER_TOKEN * 0.9


def test_fit_takes_the_fullest_variant_that_fits() -> None:
    section = Section("Code", 1, (("full " * 100, "short " * 5),))
    head = Section("", REQUIRED, (("head",),))
    assert "full" in fit([head, section], 200)
    assert "short" in fit([head, section], 40)
    assert fit([head, section], 5) == "head\n"


# -- pieces ---------------------------------------------------------------------------------------


def test_priorities_are_those_of_the_sections() -> None:
    assert list(sections.PRIORITY.values()) == list(range(1, len(sections.PRIORITY) + 1))


def test_the_telling_line_of_a_log() -> None:
    assert telling(sample_run.LOG).startswith("AttributeError")
    gcc = "In file:\nkernel.cpp:3:1: error: no semicolon\nkernel.cpp:9:1: error: and then\n"
    assert telling(gcc) == "kernel.cpp:3:1: error: no semicolon"
    assert telling("") == "no log"
    assert len(telling("error " * 100)) <= 240


def test_the_tail_of_a_log_begins_with_a_line() -> None:
    log = "\n".join(f"line {i}" for i in range(100))
    assert tail(log, 30) == "... line 97\nline 98\nline 99"
    assert tail("short", 30) == "short"


def test_bullets_are_whole_items() -> None:
    page = "# T\n\nIntro.\n\n- one\n  more\n- two\n\nafter\n- three\n"
    assert bullets(page) == ("- one\n  more", "- two", "- three")


@pytest.mark.parametrize("page", ["triton", "tilelang", "cuda_hopper", "cpp", "maca"])
def test_the_pages_of_idioms_are_lists(page: str) -> None:
    text = (ROOT / "docs" / "knowledge" / f"{page}.md").read_text()
    items = bullets(text)
    assert len(items) >= 7
    assert all(len(item) < 800 for item in items)
    assert sum(map(len, items)) > 0.8 * len(text)


def test_idioms_are_those_of_the_device() -> None:
    text = (ROOT / "docs" / "knowledge" / "tilelang.md").read_text()
    cuda, cpu = (bullets(for_device(text, device)) for device in ("cuda", "cpu"))
    assert cuda[0] == cpu[0]
    assert "wgmma" in "".join(cuda)
    assert "wgmma" not in "".join(cpu)
    assert 'target="c"' in "".join(cpu)
    assert 'target="c"' not in "".join(cuda)


def test_a_run_made_before_exchanges_existed(store: Store, tmp_path: Path) -> None:
    store.close()
    old = Store.open(tmp_path / "run", readonly=True)
    assert Exchanges(old).all() == []
    assert Exchanges(old).next_number() == 0
    new = Store.open(tmp_path / "run")
    assert Exchanges(new).next_number() == 0
    assert Exchanges(Store.open(tmp_path / "run", readonly=True)).all() == []


def test_a_processor_is_described_by_its_instructions_and_caches() -> None:
    device = {
        "name": "Some CPU",
        "cores": 2,
        "instructions": "avx2 fma",
        "caches": "L1 48 KiB, L2 1024 KiB",
        "type": "cpu",
        "versions": {"g++": "12.2.0", "triton": "3.9.0"},
    }
    text = "\n".join(facts.device_lines(device))
    assert "built by g++ 12.2.0\n" in text
    assert "avx2 fma" in text
    assert "L1 48 KiB, L2 1024 KiB" in text
    assert "nstructions" not in "\n".join(facts.device_lines({"name": "Some CPU", "cores": 2}))


def test_code_that_was_given_out_before_is_said_to_be(store: Store, background: Background) -> None:
    history = History(store)
    first = choose(history, 0, Mode.DIFF)
    assert not sections.asked_before(history, first).items
    history.exchanges.add(build(store, background, Mode.DIFF))
    again = sections.asked_before(history, replace(first, mode=Mode.REWRITE))
    assert "given out 1 time before" in again.items[0][0]
    other = replace(first, language=Language.TILELANG)
    assert not sections.asked_before(history, other).items


def test_code_much_like_the_parent_is_shown_by_its_difference(store: Store) -> None:
    seed = History(store).elites()[-1].program.solution
    changed = seed.with_entry_source(seed.entry_source.replace("128", "512"))
    (text,) = listing.beside(changed, seed)
    assert "+" in text
    assert "-BLOCK" in text
    assert len(text) < len(listing.code(changed))
    other = seed.with_entry_source("import triton\n" + "\n".join(f"x{i} = {i}" for i in range(200)))
    assert other.entry_source.strip() in listing.beside(other, seed)[0]


def test_a_gain_within_the_noise_is_said_to_be(store: Store) -> None:
    history = History(store)
    pairs = [(p.id, p.parents[0]) for p in history.programs.values() if p.parents]
    told = {pair: history.telling_gain(*pair) for pair in pairs if history.gain(*pair)}
    assert told
    for (mine, over), text in told.items():
        gain = history.gain(mine, over)
        assert text.startswith(f"{gain:.3f}x")
        assert text.endswith("(within the noise)") is not history.gained(mine, over)
    assert {history.gained(*pair) for pair in told} == {True}
    first = next(iter(told))[0]
    assert not history.gained(first, first)
    assert history.telling_gain(first, first) == "1.000x its parent (within the noise)"


def test_data_out_of_caches_is_not_held_against_the_roof_of_memory(store: Store) -> None:
    history = History(store)
    row = next(r for r in history.rows if r.evaluation.passed)
    device = {"ceilings": {"copy_gbps": 1.0, "tflops": {"float32": 1.0}}}
    costs = {r.workload: (1.0, 1e9 * r.latency_ms) for r in row.evaluation.results}
    (line,) = facts.limiter_lines(row.evaluation, history.workloads, costs, device)
    assert "caches" in line
    assert "only less work" not in line


def test_notes_for_another_device_are_left_out(tmp_path: Path) -> None:
    notes = (
        "# op\n\nMaths.\n\n## Pitfalls\n\n- All.\n\n## On CUDA: pitfalls\n\n- Warps.\n\n"
        "## On CPU\n\n- Caches.\n"
    )
    root = sample_run.root(tmp_path)
    (root / "kernels" / "scale_rows" / "notes.md").write_text(notes)
    for device, there, absent in (("cuda", "Warps", "Caches"), ("cpu", "Caches", "Warps")):
        meta = {**sample_run.meta(), "device": {**sample_run.DEVICE, "type": device}}
        found = load(meta, sample_run.DEFINITION, root).notes
        assert there in found
        assert absent not in found
        assert "Maths." in found
        assert "- All." in found
