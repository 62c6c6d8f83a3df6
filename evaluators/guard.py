"""Static checks on a solution's source, before anything of it is compiled or imported.

`check` returns reasons with line numbers; an empty list means the source may be built. The tables
at the top say what is refused. The checks keep honest candidates honest and give a language model
a precise message; isolation in a child process is what contains a hostile one.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from evaluators import tunables
from evaluators.schema import Definition, Language, Solution, SourceFile

ALLOWED_IMPORTS = frozenset({
    "__future__", "collections", "contextlib", "dataclasses", "enum", "functools", "itertools",
    "math", "numpy", "operator", "tilelang", "torch", "triton", "tvm", "typing",
})  # fmt: skip
"""Top-level packages that a Python, Triton or TileLang source may import."""

BANNED_NAMES = frozenset({
    "__builtins__", "__import__", "__loader__", "breakpoint", "compile", "delattr", "eval", "exec",
    "globals", "locals", "open", "setattr", "vars",
})  # fmt: skip
"""Built-in names that a kernel has no use for, however they are used."""

BANNED_MODULES = (
    "numpy.ctypeslib", "numpy.distutils", "numpy.f2py", "torch._C", "torch.classes",
    "torch.cuda.CUDAGraph", "torch.cuda.Event", "torch.cuda.ExternalStream", "torch.cuda.Stream",
    "torch.cuda.graph", "torch.cuda.graphs", "torch.cuda.set_stream", "torch.cuda.stream",
    "torch.cuda.streams", "torch.distributed", "torch.hub", "torch.jit", "torch.library",
    "torch.load",
    "torch.multiprocessing", "torch.save", "torch.utils", "triton.testing", "tvm.contrib",
    "tvm.rpc",
)  # fmt: skip
"""Dotted names, with all below them, inside allowed packages: files, processes, other compilers,
and the streams, events and graphs that measuring relies on."""

ALLOWED_DUNDERS = frozenset({"__name__", "__doc__", "__init__", "__post_init__"})
"""Double-underscore attributes that may be read; the others reach the interpreter's inside."""

BANNED_CALLS = frozenset({
    "atexit", "dlopen", "dlsym", "execl", "execle", "execlp", "execv", "execve", "execvp", "exit",
    "_exit", "_Exit", "fopen", "fork", "freopen", "getenv", "kill", "mmap", "mprotect", "open",
    "openat", "popen", "prctl", "ptrace", "putenv", "quick_exit", "setenv", "shm_open",
    "sigaction", "socket", "syscall", "system", "unlink", "vfork",
})  # fmt: skip
"""C and C++ functions that a kernel has no use for; names that kernels do give to their own
functions (`signal`, `clone`) are left out."""

BANNED_INCLUDES = (
    "csetjmp", "csignal", "dirent.h", "dlfcn.h", "fcntl.h", "filesystem", "fstream", "signal.h",
    "spawn.h", "sys/", "unistd.h", "netinet/", "arpa/", "netdb.h", "Python.h",
)  # fmt: skip
"""Headers (or folders of them) that a C++ or CUDA source may not include."""

PYTHON_LANGUAGES = frozenset({Language.PYTHON, Language.TRITON, Language.TILELANG})


def check(solution: Solution, definition: Definition) -> list[str]:
    """Reasons why `solution` must not be built for `definition`; empty when it may be."""
    reasons = entry_reasons(solution, definition)
    local = {PurePosixPath(s.path).stem for s in solution.sources}
    for source in solution.sources:
        found = list(_source_reasons(source, solution.spec.language, local))
        prefix = f"{source.path}: " if len(solution.sources) > 1 else ""
        reasons.extend(prefix + reason for reason in found if reason not in reasons)
    return reasons


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


def _source_reasons(source: SourceFile, language: Language, local: set[str]) -> Iterator[str]:
    try:
        tunables.find(source.content)
    except ValueError as error:
        yield str(error)
    if language in PYTHON_LANGUAGES:
        if source.path.endswith(".py"):
            yield from _python_reasons(source.content, local)
    else:
        yield from _c_reasons(source.content)


# --- Python, Triton, TileLang ---


def _parse(text: str) -> ast.Module | str:
    try:
        return ast.parse(text)
    except SyntaxError as error:
        return f"line {error.lineno or 0}: does not parse: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:  # NUL bytes, absurd nesting
        return f"line 0: does not parse: {error}"


def _python_entry(text: str, name: str, wanted: int) -> list[str]:
    tree = _parse(text)
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


def _python_reasons(text: str, local: set[str]) -> Iterator[str]:
    tree = _parse(text)
    if isinstance(tree, str):
        yield tree
        return
    modules = _imported_names(tree)
    for node in ast.walk(tree):
        for what in _node_reasons(node, modules, local):
            yield f"line {getattr(node, 'lineno', 0)}: {what}"


def _imported_names(tree: ast.Module) -> dict[str, str]:
    """Local name -> dotted name of everything imported, so that aliases do not hide anything."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def _node_reasons(node: ast.AST, modules: dict[str, str], local: set[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield from _import_reasons(alias.name, local)
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            full = f"{node.module}.{alias.name}" if node.module else alias.name
            yield from [] if node.level else _import_reasons(full, local)
    elif isinstance(node, ast.Name) and node.id in BANNED_NAMES:
        yield f"{node.id!r} is not allowed"
    elif isinstance(node, ast.Attribute):
        yield from _attribute_reasons(node, modules)


def _import_reasons(name: str, local: set[str]) -> Iterator[str]:
    top = name.split(".")[0]
    if top in local:
        return
    if top not in ALLOWED_IMPORTS:
        yield f"import of {top!r} is not allowed"
    elif _banned_module(name):
        yield f"{name!r} is not allowed"


def _attribute_reasons(node: ast.Attribute, modules: dict[str, str]) -> Iterator[str]:
    attribute = node.attr
    if attribute.startswith("__") and attribute.endswith("__") and attribute not in ALLOWED_DUNDERS:
        yield f"attribute {attribute!r} is not allowed"
    dotted = _dotted(node, modules)
    if dotted is None:
        return
    if dotted in BANNED_MODULES:  # once, at the shortest banned prefix
        yield f"{dotted!r} is not allowed"
    if isinstance(node.ctx, ast.Store | ast.Del):
        yield f"must not change the imported {dotted!r}"


def _dotted(node: ast.expr, modules: dict[str, str]) -> str | None:
    """Dotted name of an attribute chain that starts at an imported name, else None."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in modules:
        return None
    return ".".join([modules[node.id], *reversed(parts)])


def _banned_module(name: str) -> bool:
    return any(name == banned or name.startswith(banned + ".") for banned in BANNED_MODULES)


# --- C++ and CUDA ---

_C_TOKENS = re.compile(
    r"//[^\n]*|/\*.*?\*/|R\"(\w*)\(.*?\)\1\"|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL
)
_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*[<\"]([^>\"\n]+)[>\"]", re.MULTILINE)
_EXPORT = r"\bTVM_FFI_DLL_EXPORT_TYPED_FUNC\s*\(\s*{name}\s*,\s*(?P<function>[\w:]+)\s*\)"
_CONSTRUCTOR = re.compile(r"__attribute__\s*\(\(.*?constructor|\[\[gnu::constructor")
_CALL = re.compile(r"(?<![\w.>])(?P<name>[A-Za-z_]\w*)\s*\(")
_ASM = re.compile(r"\b(?:asm|__asm__|__asm)\b")


def _blank(text: str) -> str:
    """`text` with comments and literals blanked, line numbers kept."""
    return _C_TOKENS.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _c_entry(text: str, name: str, wanted: int) -> list[str]:
    blank = _blank(text)
    export = re.search(_EXPORT.format(name=re.escape(name)), blank)
    if export is None:
        return [
            f"line 0: entry point {name!r} is not exported; "
            f"write TVM_FFI_DLL_EXPORT_TYPED_FUNC({name}, Function);"
        ]
    function = export["function"].rpartition("::")[2]
    head = re.search(rf"\b{re.escape(function)}\s*\(([^(){{}};]*)\)\s*(?:noexcept\s*)?\{{", blank)
    if head is None:
        return []  # a lambda or a template: the compiler judges
    depth_free = re.sub(r"<[^<>]*>", "", head[1])
    takes = depth_free.count(",") + 1 if depth_free.strip() else 0
    if takes == wanted:
        return []
    return [
        f"line {_line(blank, head.start())}: {function} takes {takes} parameters, "
        f"the definition has {wanted} inputs and outputs"
    ]


def _c_reasons(text: str) -> Iterator[str]:
    blank = _blank(text)
    if not blank.strip():
        yield "line 0: the source is empty"
    for open_, close in ("{}", "()"):
        if blank.count(open_) != blank.count(close):
            count = f"{blank.count(open_)} {open_!r} and {blank.count(close)} {close!r}"
            yield f"line 0: unbalanced source: {count}"
    for match in _INCLUDE.finditer(text):
        if match[1].startswith(BANNED_INCLUDES):
            yield f"line {_line(text, match.start())}: include of {match[1]!r} is not allowed"
    for match in _CONSTRUCTOR.finditer(blank):
        yield f"line {_line(blank, match.start())}: code that runs at load time is not allowed"
    for match in _CALL.finditer(blank):
        if match["name"] in BANNED_CALLS:
            yield f"line {_line(blank, match.start())}: {match['name']!r} is not allowed"
    for match in _ASM.finditer(text):
        if re.search(r"\b(?:syscall|int\s+\$?0x80)\b", text[match.end() : match.end() + 200]):
            yield f"line {_line(text, match.start())}: system calls are not allowed"
