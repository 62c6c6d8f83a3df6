"""The mailbox: prompts go out as files, answers come back as files, programs wait in the store.

`ask` and `tell` need no device and no Ray: a run can be asked and told on one machine and resumed
on another. Telling the same answers twice changes nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evaluators.schema import Definition
from evolve.errors import UserError
from evolve.exchanges import ATTEMPTS, Exchange, Exchanges, Mode, Reply, Verdict
from evolve.llm import background, prompt, sections
from evolve.llm.answering import Judged, judge
from evolve.llm.background import Background
from evolve.llm.counsel import Counsel
from evolve.llm.fit import tokens_of
from evolve.llm.history import History, tail
from evolve.llm.modes import choose
from evolve.lock import sole_writer
from evolve.phrases import waiting_line
from evolve.rows import together
from evolve.store import Store
from islands.program import Program

EMITTER = "mailbox"
ANSWER, REJECTED = ".answer.md", ".rejected.md"
LONGEST = 1 << 20
"""Bytes of an answer file; longer ones are not read."""
LOG = 1200
"""Most characters of a failure's log in what `tell` shows."""


def preview(run_dir: Path, mode: Mode | None, tokens: int) -> dict[str, Any]:
    """The prompt that `ask` would write next; stores nothing."""
    store = Store.open(run_dir, readonly=True)
    try:
        return _facts(_Desk(store, tokens).next(mode))
    finally:
        store.close()


def ask(
    run_dir: Path, count: int, out: Path, mode: Mode | None, tokens: int
) -> list[dict[str, Any]]:
    """Write up to `count` prompts to `out`, each kept in the store first; facts of each.

    Fewer when the wanted `mode` has no more to work on. UserError: nothing to work on at all, `out`
    not writable, `tokens` too small.
    """
    with sole_writer(run_dir):
        return _ask(run_dir, count, out, mode, tokens)


def _ask(
    run_dir: Path, count: int, out: Path, mode: Mode | None, tokens: int
) -> list[dict[str, Any]]:
    store = Store.open(run_dir)
    try:
        desk = _Desk(store, tokens)
        exchange = desk.next(mode)
        _writable(out)
        asked: list[dict[str, Any]] = []
        while True:
            desk.history.exchanges.add(exchange)
            file = out / f"{exchange.id}.md"
            file.write_text(exchange.prompt)
            facts = _facts(exchange)
            del facts["prompt"]
            answer = str(out / prompt.answer_file(exchange.id))
            asked.append({**facts, "file": str(file), "answer": answer})
            if len(asked) == count:
                return asked
            try:
                exchange = desk.next(mode)
            except NothingToDo:
                return asked
    finally:
        store.close()


class NothingToDo(UserError):
    """The wanted mode has no program to work on."""


class _Desk:
    """Makes one prompt after the other from a store."""

    def __init__(self, store: Store, tokens: int) -> None:
        self.history = History(store)
        self._tokens = tokens
        self._store = store
        if not self.history.elites():
            raise UserError(f"{store.run_dir} has no program that passed yet: resume it first")
        self._background = background.load(self.history.meta, self.history.definition)
        self._counsel = Counsel(store, self._background, emitter=EMITTER)

    def next(self, mode: Mode | None) -> Exchange:
        """The exchange that comes next; not stored."""
        task = choose(self.history, self.history.exchanges.next_number(), mode)
        if mode is not None and task.mode is not mode:
            raise NothingToDo(f"nothing to {mode.value}: this run has no program that fits")
        exchange = prompt.build(
            self.history,
            self._background,
            task,
            emitter=EMITTER,
            tokens=self._tokens,
            learned=[
                sections.asked_before(self.history, task),
                *self._counsel.sections(self.history, task.island, sections.PRIORITY),
            ],
        )
        return exchange.model_copy(update={"told": self._store.evaluated_of(task.island)})


def _facts(exchange: Exchange) -> dict[str, Any]:
    return {
        "id": exchange.id,
        "mode": exchange.mode.value,
        "language": exchange.language.value,
        "island": exchange.island,
        "parents": list(exchange.parents),
        "tokens": tokens_of(exchange.prompt),
        "prompt": exchange.prompt,
    }


def _writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".write"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from None


# -- telling ----------------------------------------------------------------------------------


def tell(run_dir: Path, folder: Path, dry: bool = False) -> dict[str, Any]:
    """Read every answer in `folder`, queue what is usable, say what became of each so far.

    A reason goes into `<exchange>.rejected.md` beside an answer that could not be used. `dry`
    judges only, and writes nothing anywhere. UserError: no such folder, or no answer in it.
    """
    if dry:
        return _tell(run_dir, folder, dry)
    with sole_writer(run_dir):
        return _tell(run_dir, folder, dry)


def _tell(run_dir: Path, folder: Path, dry: bool) -> dict[str, Any]:
    store = Store.open(run_dir, readonly=dry)
    try:
        files = _answers(folder)
        exchanges = Exchanges(store)
        definition = History(store).definition
        told: list[dict[str, Any]] = []
        for file in files:
            name = file.name.removesuffix(ANSWER)
            exchange = exchanges.get(name)
            if exchange is None:
                told.append({"id": name, "state": "UNKNOWN", "reason": "this run did not ask it"})
                continue
            before = exchanges.replies(name)
            reply, program = _judge(file, exchange, before, store, definition)
            told.append({"id": name, "new": reply is not None})
            if dry and reply is not None:
                told[-1] |= {"state": reply.verdict.value, "reason": reply.reason}
            elif not dry:
                _keep(file, exchange, before, reply, program, exchanges, store)
        return _report(store, told)
    finally:
        store.close()


def _answers(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"no folder {folder}")
    files = sorted(folder.glob(f"*{ANSWER}"))
    if not files:
        raise UserError(f"no answer in {folder}: an answer is a file <prompt's name>{ANSWER}")
    return files


def _judge(
    file: Path, exchange: Exchange, before: list[Reply], store: Store, definition: Definition
) -> tuple[Reply | None, Program | None]:
    """The reply that an answer makes, with its program; None for one that was told before."""
    answer, problem = _read(file)
    settled = any(r.verdict is Verdict.QUEUED for r in before) or len(before) >= ATTEMPTS
    if settled or any(r.answer == answer for r in before):
        return None, None
    judged = (
        Judged(Verdict.UNREADABLE, "", problem)
        if problem
        else judge(answer, exchange, store, definition)
    )
    reply = Reply(
        exchange=exchange.id,
        attempt=len(before) + 1,
        answer=answer,
        verdict=judged.verdict,
        reason=judged.reason,
        note=judged.note,
        program=judged.program.id if judged.program else None,
        staleness=max(0, store.evaluated_of(exchange.island) - exchange.told),
    )
    return reply, judged.program


def _keep(
    file: Path,
    exchange: Exchange,
    before: list[Reply],
    reply: Reply | None,
    program: Program | None,
    exchanges: Exchanges,
    store: Store,
) -> None:
    """Store a new reply, with its program where it is usable; explain beside the answer."""
    if reply is not None:
        with together(store.connection):
            exchanges.reply(reply)
            if reply.verdict is Verdict.QUEUED and program is not None:
                store.propose(program)
        Counsel(store, Background(), emitter=EMITTER).told(exchange, reply.answer, reply.program)
        before = [*before, reply]
    _explain(file, before)


def _read(file: Path) -> tuple[str, str]:
    """(text, problem) of an answer file."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
    if len(data) > LONGEST:
        return "", f"the answer has {len(data)} bytes; at most {LONGEST} are read"
    try:
        return data.decode(), ""
    except UnicodeDecodeError as error:
        return data.decode(errors="replace"), f"the answer is not UTF-8 text: {error}"


def _explain(file: Path, replies: list[Reply]) -> None:
    """Write or remove the note beside an answer that says why it was not used."""
    note = file.with_name(file.name.removesuffix(ANSWER) + REJECTED)
    last = replies[-1]
    if last.verdict is Verdict.QUEUED:
        note.unlink(missing_ok=True)
        return
    left = ATTEMPTS - len(replies)
    then = (
        f"Write a better answer into `{file.name}` and tell again. It applies to the program as "
        "the prompt shows it, not to this answer's. There is no further attempt after that."
        if left
        else "This exchange is closed: no further answer to it is read."
    )
    note.write_text(f"# {last.verdict.value}\n\n{last.reason}\n\n{then}\n")


def _report(store: Store, told: list[dict[str, Any]]) -> dict[str, Any]:
    """What became of each answer, with its evaluation where there is one, and what waits."""
    history = History(store)
    by_id = {a.exchange.id: a for a in history.attempts()}
    for facts in told:
        attempt = by_id.get(facts["id"])
        if attempt is None or "state" in facts:
            continue
        reply, row = attempt.reply, attempt.row
        facts["mode"], facts["note"] = attempt.exchange.mode.value, reply.note
        facts["program"], facts["reason"] = reply.program, reply.reason
        facts["state"] = reply.verdict.value
        facts["attempts_left"] = 0 if reply.verdict is Verdict.QUEUED else ATTEMPTS - reply.attempt
        if row is None:
            continue
        facts["state"], facts["archive"] = row.evaluation.status.value, row.status_in_archive
        if row.evaluation.passed:
            facts["score"], facts["rung"] = row.evaluation.score, row.evaluation.rung
            facts["gain"] = history.gain(row.program_id, attempt.exchange.parents[0])
        else:
            facts["log"] = tail(row.evaluation.log, LOG)
    counts = store.counts()
    done, budget = counts["search"] + counts["remeasure"], history.config.budget.evaluations
    waiting = len([p for p in store.pending() if p.emitter != "seed"])
    return {
        "kept": not store.readonly,
        "answers": told,
        "pending": waiting,
        "evaluations": done,
        "budget": budget,
    }


def report_lines(report: dict[str, Any], run: Path) -> list[str]:
    """`tell`'s report for people."""
    lines = [_answer_line(facts) for facts in report["answers"]]
    if not report["kept"]:
        return [*lines, "dry run: nothing was kept"]
    done, budget = report["evaluations"], report["budget"]
    return [*lines, waiting_line(report["pending"], done, budget, run)]


def _answer_line(facts: dict[str, Any]) -> str:
    text = f"{facts['id']}  {facts['state']}"
    if facts.get("rung") == "screen":
        text += "  clearly slower than its niche's elite on the first workloads; not timed further"
    elif "score" in facts:
        gain = f", {facts['gain']:.3f}x its parent" if facts["gain"] else ""
        text += f"  {facts['score']:.3f}x anchor{gain}, {facts['archive'] or 'not told'}"
    reason = str(facts.get("log") or facts.get("reason") or "").strip()
    if reason:
        text += "  " + (reason.splitlines()[-1] if facts.get("log") else reason.splitlines()[0])
    if facts.get("attempts_left") and facts["state"] in {v.value for v in Verdict}:
        text += "  (answer once more)"
    return text
