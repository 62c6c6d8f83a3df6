"""Whether a solution has its entry point, and whether it takes the definition's arguments."""

from __future__ import annotations

import ast

from evaluators.guard import lexer
from evaluators.guard.lexer import Token
from evaluators.schema import Definition, Language, Solution

PYTHON_LANGUAGES = frozenset({Language.PYTHON, Language.TRITON, Language.TILELANG})

EXPORT = "TVM_FFI_DLL_EXPORT_TYPED_FUNC"


def entry_reasons(solution: Solution, definition: Definition) -> list[str]:
    """Reasons why the entry point is missing, or does not take the definition's inputs and outputs.

    A source that does not parse gives that one reason.
    """
    wanted = len(definition.inputs)
    if solution.spec.destination_passing_style:
        wanted += len(definition.outputs)
    name = solution.spec.entry_function
    if solution.spec.language in PYTHON_LANGUAGES:
        return _python_entry(solution.entry_source, name, wanted)
    return _c_entry(solution.entry_source, name, wanted)


def parse(text: str) -> ast.Module | str:
    """The syntax tree of Python `text`, or the reason why there is none."""
    try:
        return ast.parse(text)
    except SyntaxError as error:
        return f"line {error.lineno or 0}: does not parse: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:  # NUL bytes, absurd nesting
        return f"line 0: does not parse: {error}"


def _python_entry(text: str, name: str, wanted: int) -> list[str]:
    tree = parse(text)
    if isinstance(tree, str):
        return [tree]
    found: ast.stmt | None = None
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            found = node
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(t, ast.Name) and t.id == name for t in targets):
            found = node
    if found is None:
        return [f"line 0: entry point {name!r} is not defined at the top level"]
    if isinstance(found, ast.AsyncFunctionDef):
        return [f"line {found.lineno}: entry point {name!r} must not be async"]
    if not isinstance(found, ast.FunctionDef):
        return []  # run = something(...): what it takes shows at the first call
    return _arity(found, wanted)


def _arity(function: ast.FunctionDef, wanted: int) -> list[str]:
    args = function.args
    most = len(args.posonlyargs) + len(args.args)
    least = most - len(args.defaults)
    reasons = []
    if least > wanted or (most < wanted and args.vararg is None):
        takes = str(most) if least == most else f"{least} to {most}"
        reasons.append(
            f"line {function.lineno}: {function.name} takes {takes} positional parameters, "
            f"the definition has {wanted} inputs and outputs"
        )
    if any(default is None for default in args.kw_defaults):
        reasons.append(f"line {function.lineno}: {function.name} has required keyword parameters")
    return reasons


def _c_entry(text: str, name: str, wanted: int) -> list[str]:
    tokens = lexer.tokens(text)
    function = _exported(tokens, name)
    if function is None:
        return [f"line 0: entry point {name!r} is not exported; write {EXPORT}({name}, Function);"]
    for at, token in enumerate(tokens):
        if token.text != function or at + 1 >= len(tokens) or tokens[at + 1].text != "(":
            continue
        end = lexer.matching(tokens, at + 1)
        if lexer.text_at(tokens, end + 1) not in {"{", "noexcept"}:
            continue
        takes = _parameters(tokens[at + 2 : end])
        if takes == wanted:
            return []
        return [
            f"line {token.line}: {function} takes {takes} parameters, "
            f"the definition has {wanted} inputs and outputs"
        ]
    return []  # a lambda or a template: the compiler judges


def _exported(tokens: list[Token], name: str) -> str | None:
    """The function that the export macro names for `name`, without its namespace."""
    for at, token in enumerate(tokens):
        if token.text != EXPORT or token.directive:
            continue
        end = lexer.matching(tokens, at + 1)
        inside = [t.text for t in tokens[at + 2 : end]]
        if inside[:2] == [name, ","] and inside[2:]:
            return inside[-1]
    return None


def _parameters(tokens: list[Token]) -> int:
    """How many parameters stand between a function's parentheses."""
    depth = 0
    count = 1 if tokens else 0
    for token in tokens:
        depth += token.text in {"(", "<", "[", "{"}
        depth -= token.text in {")", ">", "]", "}"}
        count += token.text == "," and depth == 0
    return count
