"""The fixed words of prompts: what each mode asks for, and the rules that every answer keeps."""

from __future__ import annotations

from evaluators.schema import Language
from evolve.exchanges import Mode
from evolve.llm.answer import EDIT_FORMAT, REWRITE_FORMAT

NAMES = {
    Language.TRITON: "Triton",
    Language.TILELANG: "TileLang",
    Language.CUDA: "CUDA C++",
    Language.CPP: "C++",
}
FENCES = {Language.CUDA: "cpp", Language.CPP: "cpp"}
"""Info words of code blocks; `python` for the rest."""

ASKS = {
    Mode.DIFF: (
        "Make this {language} kernel faster with a few precise edits. Choose one idea against what "
        "limits it (see its measurements) and carry it through."
    ),
    Mode.REWRITE: (
        "Write a faster {language} kernel for the same job. Take what is good in the parent below, "
        "and change its structure where the measurements say that structure is what limits it."
    ),
    Mode.CROSSOVER: (
        "Two kernels below are good in different ways. Write one {language} kernel that joins what "
        "is good in both, such as one's way to split the work with the other's way to move data."
    ),
    Mode.TRANSLATE: (
        "Write this kernel in {language}: the same algorithm, using what {language} does better "
        "than {source_language}, not a line-by-line copy. It is to be fast for {language}."
    ),
    Mode.REPAIR: (
        "This {language} kernel failed. Find the cause, say it in your CHANGE line, and repair it. "
        "Keep its idea: going back to the program that it was made from is of no use."
    ),
    Mode.SIMPLIFY: (
        "Make this {language} kernel simpler without making it slower: drop code, branches and "
        "state that do not pay for themselves, so that later changes become easier. It has done "
        "its work when lines are fewer and the score is the parent's or better."
    ),
}

SCORE = (
    "A kernel is scored only if it is right on every workload. Its score is the geometric mean "
    "over workloads of the anchor's latency over its own. Workloads are redrawn as the search goes "
    "on, so it must be right and fast for all sizes that the interface allows, not only for those "
    "shown. Small gains count when they exceed the noise."
)

RIGHT = (
    "Right means: on every workload, and on edge cases such as sizes around tiles and large or "
    "equal values, the error against the exact result is no larger than about that of a plain "
    "implementation which takes its operands as given and sums in float32; and two calls on equal "
    "inputs agree."
)

RULES = (
    "- The kernel is {language}, complete in itself. No library may do the work.",
    "- Do the work{where} in each call: no own {own}, files or clocks, no result kept from one "
    "call to the next, nothing recognised by its address. Compiled kernels, workspaces{kept} and "
    "what follows from shapes alone may be kept.",
    "- The call may be captured in a CUDA graph: no synchronisation, and no look at a tensor's "
    "values on the host.",
    "- Declare every number that could as well be another as a tunable, a plain line such as "
    "{tunable}. A tuner then searches these values by itself around your program: spend your idea "
    "on structure. The values written must work.",
)
"""Rules of all answers; the third is for CUDA alone."""

PLACES = {
    "cuda": {
        "where": " on the device, on the current stream,",
        "own": "streams, events, threads",
        "kept": "",
    },
    "cpu": {
        "where": "",
        "own": "threads but OpenMP's",
        "kept": " (`static thread_local`)",
    },
}
PYTHON_RULES = (
    "- Imports: `torch` (only to allocate, describe and ask the device), {package}, and of the "
    "standard library `functools`, `math`, `itertools`, `collections`, `dataclasses`, `typing`. No "
    "`try` around launches, no `eval`, `getattr` with computed names, or private attributes.",
)
C_RULES = (
    "- Headers: the C++ standard library's, `tvm/ffi/...`, {own}. No globals whose constructors "
    "run code, no counters of calls.",
)
HEADERS = {
    Language.CUDA: "CUDA's own",
    Language.CPP: "`omp.h`, and the compiler's intrinsics (`immintrin.h` and the like)",
}
"""What the languages may include beside that."""

TIMED = {
    "cuda": "Every timed call has new inputs, and the L2 cache is flushed before it.",
    "cpu": (
        "Every timed call has new inputs, which another core has just written: what fits into the "
        "last cache may lie there, the private caches hold none of it."
    ),
}
"""In which state of the caches a device's latencies are measured."""

TUNABLES = {
    Language.TRITON: "`BLOCK_N = 64  # tune: 32 64 128`",
    Language.TILELANG: "`BLOCK_N = 64  # tune: 32 64 128`",
    Language.CUDA: "`constexpr int BLOCK_N = 64;  // tune: 32 64 128`",
    Language.CPP: "`constexpr int TILE_N = 64;  // tune: 32 64 128`",
}

_CHANGE = (
    "Begin with one line `CHANGE: what you change and why it should help` (at most 160 characters, "
    "the rest is cut; it is kept with the program and shown to whoever works on it next). A short "
    "explanation may follow, and one line `INSIGHT: what others should know about this kernel or "
    "device`, kept for later prompts.\n\n"
)
_NEW_FILE = """\
Answer with the complete file in exactly one fenced code block.
"""


def ask(mode: Mode, language: Language, source_language: Language) -> str:
    """What a mode asks for."""
    return ASKS[mode].format(language=NAMES[language], source_language=NAMES[source_language])


def rules(language: Language, device: str) -> tuple[str, ...]:
    """Rules for an answer in `language` on a device of type `cuda` or `cpu`."""
    common = [
        r.format(language=NAMES[language], tunable=TUNABLES[language], **PLACES[device])
        for r in RULES
    ]
    if device == "cpu":
        del common[2]
    if language in (Language.CUDA, Language.CPP):
        return (*common, *(r.format(own=HEADERS[language]) for r in C_RULES))
    package = "`triton`" if language is Language.TRITON else "`tilelang`"
    return (*common, *(r.format(package=package) for r in PYTHON_RULES))


def answer_format(mode: Mode, file: str | None) -> str:
    """How to answer, and where to: `file` is the answer's name, None when nobody reads files."""
    text = f"Write the answer to the file `{file}` beside this one.\n\n" if file else ""
    text += _CHANGE
    if mode is Mode.TRANSLATE:
        return text + _NEW_FILE
    if mode in (Mode.REWRITE, Mode.CROSSOVER):
        return text + REWRITE_FORMAT
    return (
        text + EDIT_FORMAT + "\nWhere most lines would change, give the complete new file in one "
        "fenced code block instead."
    )
