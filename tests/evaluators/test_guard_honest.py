"""Honest sources stay honest under edits that change nothing: the guard refuses none of them.

The honest corpus and all seeds, renamed, wrapped, commented and respelled by small rewriting
functions; each result is still a program that does the same.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from evaluators import catalog, guard
from evaluators.catalog import CatalogError
from evaluators.guard import lexer
from evaluators.guard.entry import PYTHON_LANGUAGES
from evaluators.schema import Definition, Solution
from tests.hacks import cases

Rewrite = Callable[[str], str]
Honest = tuple[Solution, Definition]

WORDS = ("mode", "scale", "norm", "where", "t", "out", "cover", "tally", "kept", "flow", "cell")
"""Names that mean something on a tensor or to the system, and names that do not."""


def _honest() -> Iterator[Honest]:
    for case in cases.read(Path(__file__).parents[1] / "honest" / "corpus"):
        yield case.solution, case.definition
    for operator in catalog.list_operators():
        known = catalog.load_operator(operator)
        for definition in known.definitions.values():
            for device in ("cuda", "cpu"):
                try:
                    found = catalog.seeds(known, definition, device)
                except CatalogError:
                    continue
                yield from ((solution, definition) for solution in found)


HONEST = {(s.spec.language, s.name): (s, d) for s, d in _honest()}
PYTHON = [h for h in HONEST.values() if h[0].spec.language in PYTHON_LANGUAGES]
NATIVE = [h for h in HONEST.values() if h[0].spec.language not in PYTHON_LANGUAGES]


def rewritten(solution: Solution, rewrite: Rewrite) -> Solution:
    source = solution.sources[0]
    changed = source.model_copy(update={"content": rewrite(source.content)})
    return solution.model_copy(update={"sources": (changed, *solution.sources[1:])})


def accepted(honest: list[Honest], rewrite: Rewrite) -> list[str]:
    """Refusals of the rewritten sources; their tunables may have gone, so those are not judged."""
    found = []
    for solution, definition in honest:
        reasons = guard.check(rewritten(solution, rewrite), definition)
        found += [f"{solution.name}: {reason}" for reason in reasons]
    return found


# -- Python ---------------------------------------------------------------------------------------


class _Rename(ast.NodeTransformer):
    """New names for the host functions' local variables."""

    def __init__(self, names: dict[str, str]) -> None:
        self._names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.copy_location(ast.Name(self._names.get(node.id, node.id), node.ctx), node)


def _entry(tree: ast.Module) -> ast.FunctionDef:
    return next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "run")


def rename_locals(text: str) -> str:
    tree = ast.parse(text)
    run = _entry(tree)
    stored = {n.id for n in ast.walk(run) if isinstance(n, ast.Name)} & {
        n.id
        for n in ast.walk(run)
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store) and not n.id.isupper()
    }
    shared = {n for node in ast.walk(run) if isinstance(node, ast.Global) for n in node.names}
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    free = (word for word in (*WORDS, *(f"name_{i}" for i in range(99))) if word not in used)
    _Rename(dict(zip(sorted(stored - shared), free, strict=False))).visit(run)
    return ast.unparse(tree)


def star_arguments(text: str) -> str:
    """`def run(*tensors): a, b = tensors; ...`."""
    tree = ast.parse(text)
    run = _entry(tree)
    names = [a.arg for a in run.args.args]
    if run.args.defaults or run.args.kwonlyargs or run.args.vararg:
        return text
    run.args = ast.arguments([], [], ast.arg("tensors"), [], [], None, [])
    run.body.insert(0, ast.parse(f"{', '.join(names)}, = tensors").body[0])
    return ast.unparse(ast.fix_missing_locations(tree))


def inner_function(text: str) -> str:
    """The work of `run` in a function of its own, called with everything."""
    tree = ast.parse(text)
    run = _entry(tree)
    if any(isinstance(n, ast.Global) for n in ast.walk(run)) or run.args.vararg:
        return text
    names = ", ".join(a.arg for a in run.args.args)
    inner = ast.parse(f"def launch_all({names}):\n    pass").body[0]
    assert isinstance(inner, ast.FunctionDef)
    inner.body = run.body
    run.body = ast.parse(f"launch_all({names})").body
    tree.body.insert(tree.body.index(run), inner)
    return ast.unparse(ast.fix_missing_locations(tree))


def nested_function(text: str) -> str:
    tree = ast.parse(text)
    run = _entry(tree)
    if any(isinstance(n, ast.Global) for n in ast.walk(run)):
        return text
    inner = ast.parse("def go():\n    pass").body[0]
    assert isinstance(inner, ast.FunctionDef)
    inner.body = run.body
    run.body = [inner, *ast.parse("return go()").body]
    return ast.unparse(ast.fix_missing_locations(tree))


CLASS = '''

class LaunchPlan:
    """Numbers of a launch."""

    __slots__ = ("mode", "split", "total")
    names = ("mode", "split")

    def __init__(self, rows, mode=1):
        self.mode = mode
        self.split = max(1, rows // 64)
        self.total = 0
        for part in range(self.split):
            self.total += part * mode

    @classmethod
    def of(cls, shape):
        rows, *rest = shape
        return cls(rows * len(rest))

    @property
    def blocks(self):
        return self.split * self.mode

'''
CONFIGS = """

CONFIGS = {"small": {"block": 64, "warps": 4}, "large": dict(block=128, warps=8)}
ORDER = [name for name in CONFIGS if CONFIGS[name]["block"] > 32]
LIMIT = sum(c["block"] * c["warps"] for c in CONFIGS.values())


def pick(rows, key=lambda name: CONFIGS[name]["block"]):
    best = min(ORDER, key=key) if rows < LIMIT else max(ORDER, key=key)
    if (found := CONFIGS.get(best)) is None:
        raise ValueError(f"no configuration for {rows} rows: {best!r}")
    block, warps = found["block"], found["warps"]
    return block * 2 if rows % block == 0 else block, warps

"""


def _before_run(text: str, more: str, call: str) -> str:
    tree = ast.parse(text)
    run = _entry(tree)
    place = tree.body.index(run)
    tree.body[place:place] = ast.parse(more).body
    first = run.args.args[0].arg if run.args.args else None
    if first:
        run.body[0:0] = ast.parse(call.replace("FIRST", first)).body
    return ast.unparse(ast.fix_missing_locations(tree))


PYTHON_REWRITES: dict[str, Rewrite] = {
    "unchanged": lambda text: text,
    "unparsed": lambda text: ast.unparse(ast.parse(text)),
    "renamed": rename_locals,
    "star arguments": star_arguments,
    "in a function": inner_function,
    "in a nested function": nested_function,
    "in both": lambda text: inner_function(nested_function(text)),
    "class": lambda text: _before_run(
        text,
        CLASS,
        "numbers = LaunchPlan.of(FIRST.shape)\n"
        "units = numbers.blocks * numbers.mode + numbers.total",
    ),
    "configurations": lambda text: _before_run(
        text,
        CONFIGS,
        "chosen, width = pick(FIRST.shape[0])\n"
        "assert FIRST.is_contiguous() and chosen * width > 0, f'{FIRST.shape} {FIRST.dtype}'\n"
        "sizes = [s * t for s, t in zip(FIRST.shape, FIRST.stride())]\n"
        "if not sizes: raise ValueError('no rows in {}'.format(FIRST.shape))",
    ),
    "comments": lambda text: (
        re.sub(r"(?m)$", "  # os.system, torch.softmax(x) @ y", text)
        if "'''" not in text and '"""' not in text and "\\\n" not in text
        else text
    ),
}


@pytest.mark.parametrize("name", PYTHON_REWRITES)
def test_python(name: str) -> None:
    assert len(PYTHON) >= 20
    assert accepted(PYTHON, PYTHON_REWRITES[name]) == []


# -- C++ and CUDA ---------------------------------------------------------------------------------

SYSTEM_WORDS = ("time", "clock", "write", "open", "signal", "bind", "nice", "accept", "pipe")
KEPT = frozenset({"run", "Run", "main", "x"})


def _words(text: str) -> list[str]:
    """Names that the source declares as local variables: `int name =`, `float name[`."""
    kinds = r"(?:int|float|int64_t|int32_t|size_t|auto|bool|unsigned)"
    found = re.findall(rf"\b{kinds}\s+([a-z_]\w*)\s*[=;]", text)
    members = set(re.findall(r"(?:\.|->|::)(\w+)", text))
    return [n for n in dict.fromkeys(found) if n not in KEPT | members and text.count(n) < 40]


def rename_to_system_words(text: str) -> str:
    """Local variables named as functions of the system are."""
    code = [t.text for t in lexer.tokens(text)]
    free = [word for word in SYSTEM_WORDS if word not in code]
    for old, new in zip(_words(text), free, strict=False):
        if not re.search(rf"#.*\b{old}\b|\b{old}\s*\(", text):
            text = re.sub(rf"(?<![\w.>])\b{old}\b", new, text)
    return text


def _outside_directives(text: str, rewrite: Rewrite) -> str:
    """A rewrite of the tokens of lines that are no directives and hold no text."""
    lines = text.split("\n")
    plain = [
        bool(line.strip())
        and not re.search(r"[\"'\\]|^\s*#|//|/\*|\*/", line)
        and not (at and lines[at - 1].endswith("\\"))
        for at, line in enumerate(lines)
    ]
    return "\n".join(rewrite(line) if ok else line for line, ok in zip(lines, plain, strict=True))


def spell_differently(text: str) -> str:
    spellings = {"&&": " and ", "||": " or ", "{": "<%", "}": "%>", "[": "<:", "]": ":>"}
    digraphs = lambda line: re.sub(  # noqa: E731
        r"&&(?=\s)|\|\||[{}\[\]]", lambda m: spellings[m[0]], line
    )
    return _outside_directives(text, digraphs)


def comment_between(text: str) -> str:
    return _outside_directives(
        text, lambda line: re.sub(r"(?<=[;,])", ' /* fork("x"), # */ ', line)
    )


def splice_lines(text: str) -> str:
    return _outside_directives(text, lambda line: re.sub(r"(?<=[,;]) ", " \\\\\n", line))


MORE_CODE = """
#define TILE_OF(n) (((n) + 15) / 16)
#define REPEAT _Pragma("GCC unroll 4")
#define MAKE_SUM(suffix, type) \\
  static inline type sum_##suffix(type a, type b) { return a + b; }
namespace more {
namespace inner {
constexpr int kTiles[] = {1, 2, 4};
constexpr auto kHalf = [](int n) { return n / 2; };
static const char* const kNames[] = {"open()", "fork"};
template <class T, int N = 4>
struct Tile {
  T data[N] = {};
  int rows = N, columns{2};
  Tile() = default;
  explicit Tile(int n) : rows(n) { columns = rows * 2; }
  template <class F>
  void each(F&& f) { for (int i = 0; i < N; ++i) f(data[i]); }
  T& operator[](int i) { return data[i]; }
  static constexpr int size() { return N * int(sizeof(T)); }
};
template <int N> constexpr int kLog = N < 2 ? 0 : 1 + kLog<N / 2>;
template <> inline constexpr int kLog<1> = 0;
enum class Mode { open, closed };
enum Order { first_order, accept };
using Step = void (*)(int);
MAKE_SUM(ints, int)
inline void one(int) {}
static constexpr Step kSteps[] = {one, &one};
inline int work(int n) {
  static int counts[8];
  for (int& c : counts) c = 0;
  thread_local Tile<float> tile;
  Tile<int, 2> local(n);
  auto add = [&, total = 0](int k) mutable { total += k; return total; };
  local.each([&](int& v) { v = add(TILE_OF(n)); });
  for (int i = 0; i < n; ++i) ++counts[i % 8];
  int calls = 0, write = 4, *time = &calls;
  if (n > write) (*time)++;
  tile[0] += 1.0f;
  if (Mode::open == Mode::closed || accept == first_order) kSteps[0](sum_ints(n, calls));
  return counts[n % 8] + kTiles[0] + kHalf(4) + local.rows;
}
}  // namespace inner
}  // namespace more
"""


def add_code(text: str) -> str:
    """Own templates, lambdas, macros and scratch memory right after the includes."""
    last = [m.end() for m in re.finditer(r"(?m)^#include.*\n", text)][-1]
    return text[:last] + MORE_CODE + text[last:]


NATIVE_REWRITES: dict[str, Rewrite] = {
    "unchanged": lambda text: text,
    "named like the system": rename_to_system_words,
    "spelled differently": spell_differently,
    "comments": comment_between,
    "spliced lines": splice_lines,
    "more code": add_code,
    "windows lines": lambda text: text.replace("\n", "\r\n"),
}


@pytest.mark.parametrize("name", NATIVE_REWRITES)
def test_native(name: str) -> None:
    assert len(NATIVE) >= 20
    assert accepted(NATIVE, NATIVE_REWRITES[name]) == []


def test_rewrites_do_something() -> None:
    for honest, rewrites in ((PYTHON, PYTHON_REWRITES), (NATIVE, NATIVE_REWRITES)):
        for name, rewrite in rewrites.items():
            texts = [s.sources[0].content for s, _ in honest]
            changed = sum(rewrite(text) != text for text in texts)
            assert changed >= len(texts) / 3 or name in {"unchanged", "comments"}, name
