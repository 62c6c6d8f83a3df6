"""Ways around the guard, and the word that each gets. Every row once passed or was tried to."""

from __future__ import annotations

import pytest

from tests.evaluators.test_guard import c_source, check

HEAD = """\
import functools
import torch
import triton
import triton.language as tl
"""

PYTHON = {
    "getattr alias": ("", "g = getattr\ng(x, 'mat' + 'mul')(x)", "under another name or handed on"),
    "reduce getattr": (
        "",
        "functools.reduce(getattr, ['softmax'], x)(0)",
        "under another name or handed on",
    ),
    "map getattr": (
        "",
        "f, = map(getattr, [x], ['softmax'])\nf(0)",
        "under another name or handed on",
    ),
    "type alias": ("", "t = type\nC = t('T', (), {})", "under another name or handed on"),
    "id via map": ("", "k = list(map(id, [x]))", "under another name or handed on"),
    "match class": ("", "match x:\n    case object(softmax=f):\n        f(0)", "'softmax'"),
    "format attr": ("", "s = '{0.__class__.__mro__}'.format(x)", "formats an object's inside"),
    "get_type_hints": (
        "import typing\ndef f(a: \"__import__('os').system('ls')\"): pass\n",
        "typing.get_type_hints(f)",
        "'typing.get_type_hints'",
    ),
    "singledispatch": ("", "functools.singledispatch(run)", "'functools.singledispatch'"),
    "make_dataclass": (
        "import dataclasses\n",
        "C = dataclasses.make_dataclass('C', [], bases=(torch.Tensor,))",
        "'dataclasses.make_dataclass'",
    ),
    "base alias": ("B = torch.Tensor\nclass T(B):\n    pass\n", "pass", "a subclass of"),
    "base type(x)": ("", "class T(type(x)):\n    pass", "a subclass of"),
    "update_wrapper": (
        "",
        "functools.update_wrapper(torch.Tensor, run, assigned=('shape',))",
        "'functools.update_wrapper'",
    ),
    "wraps call": (
        "",
        "functools.wraps(run, assigned=('shape',))(torch.Tensor)",
        "as a decorator only",
    ),
    "global_enum": (
        "import enum\nclass E(enum.Enum):\n    A = 1\n",
        "enum.global_enum(E)",
        "'enum.global_enum'",
    ),
    "class rebinds triton": (
        "class triton:\n    @staticmethod\n    def jit(f):\n        return f\n"
        "@triton.jit\ndef k(a, b):\n    b.copy_(a.softmax(0))\n",
        "k(x, y)",
        "must not rebind",
    ),
    "def rebinds tl": ("def tl(): pass\n", "pass", "must not rebind"),
    "param shadows torch": ("def f(torch):\n    return torch.softmax\n", "pass", "must not rebind"),
    "import twice": ("from torch import empty as triton\n", "pass", "two imports"),
    "builtin sum": ("", "s = sum(x)", "arithmetic on a tensor"),
    "builtin abs": ("", "s = abs(x)", "arithmetic on a tensor"),
    "builtin pow": ("", "s = pow(x, 2)", "arithmetic on a tensor"),
    "builtin max": ("", "s = max(x, y)", "arithmetic on a tensor"),
    "float(x)": ("", "s = float(x[0])", "must not wait for a tensor's values"),
    "int view": ("", "s = int(x.view(-1)[0])", "must not wait for a tensor's values"),
    "bool if": ("", "if x[0]: pass", "must not wait for a tensor's values"),
    "str": ("", "s = str(x)", "must not wait for a tensor's values"),
    "fstring": ("", "s = f'{x}'", "must not wait for a tensor's values"),
    "loop": ("", "for row in x:\n    row = row * 2", "arithmetic on a tensor"),
    "comprehension": ("", "[r * 2 for r in x]", "arithmetic on a tensor"),
    "zip": ("", "for a, b in zip(x, y):\n    b += a", "arithmetic on a tensor"),
    "tuple loop": ("", "for t in (x, y):\n    t += 1", "arithmetic on a tensor"),
    "lambda": ("", "f = lambda a: a * 2\nf(x)", "arithmetic on a tensor"),
    "map lambda": ("", "list(map(lambda a: a * 2, [x]))", "arithmetic on a tensor"),
    "reduce lambda": ("", "functools.reduce(lambda a, b: a + b, x)", "arithmetic on a tensor"),
    "nested def": ("", "def g(a):\n    return a * 2\ng(x)", "arithmetic on a tensor"),
    "method": (
        "class C:\n    def go(self, a):\n        return a * 2\n",
        "C().go(x)",
        "arithmetic on a tensor",
    ),
    "self.x": (
        "class C:\n    def __init__(self, a):\n        self.a = a\n    def go(self):\n"
        "        return self.a * 2\n",
        "C(x).go()",
        "arithmetic on a tensor",
    ),
    "returned": ("def same(a):\n    return a\n", "z = same(x) * 2", "arithmetic on a tensor"),
    "list box": ("", "box = [x, 1]\nz = box[0] * 2", "arithmetic on a tensor"),
    "dict box": ("", "box = {'a': x}\nz = box['a'] * 2", "arithmetic on a tensor"),
    "star args": ("def run(*a):\n    z = a[0] * 2\n", "", "arithmetic on a tensor"),
    "star unpack": ("def run(*a):\n    x, f, y = a\n    z = x * 2\n", "", "arithmetic on a tensor"),
    "starred unpack": (
        "def run(*a):\n    x, *r = a\n    z = x * 2\n",
        "",
        "arithmetic on a tensor",
    ),
    "alias run": (
        "def impl(x, factor, y):\n    z = x * 2\nrun = impl\n",
        "",
        "arithmetic on a tensor",
    ),
    "lambda run": ("run = lambda x, factor, y: x * 2\n", "", "arithmetic on a tensor"),
    "closure run": (
        "def make():\n    def inner(x, factor, y):\n        z = x * factor\n"
        "    return inner\nrun = make()\n",
        "",
        "arithmetic on a tensor",
    ),
    "partial run": (
        "def inner(x, factor, y, k=1):\n    z = x * factor\nrun = functools.partial(inner, k=2)\n",
        "",
        "arithmetic on a tensor",
    ),
    "tuple target": ("", "y[0], n = x[0], 1", "written outside a kernel"),
    "for target": ("", "for y[0] in [x]: pass", "written outside a kernel"),
    "ann target": ("", "y[0]: int = x[0]", "written outside a kernel"),
    "comp target": ("", "[0 for y[0] in [x]]", "written outside a kernel"),
    "with as": ("", "with torch.no_grad() as y[0]: pass", "written outside a kernel"),
    "x.abs()": ("", "x.abs()", "'abs'"),
    "x.add(y)": ("", "x.add(y)", "'add'"),
    "x.expm1()": ("", "x.expm1()", "'expm1'"),
    "x.sin_": ("", "x.sin_()", "'sin_'"),
    "x.addcmul_": ("", "x.addcmul_(y, y)", "'addcmul_'"),
    "x.cross": ("", "x.cross(y)", "'cross'"),
    "x.flip": ("", "x.flip(0)", "'flip'"),
    "x.apply_": ("", "x.apply_(f)", "'apply_'"),
    "x.lerp_": ("", "x.lerp_(y, 0.5)", "'lerp_'"),
    "x.grad": ("", "x.requires_grad_().backward()", "'backward'"),
    "x.put_": ("", "x.put_(y, y)", "'put_'"),
    "x.fill_(from)": ("", "y.fill_(x[0])", "must not wait for a tensor's values"),
    "extern_elementwise": (
        "@triton.jit\ndef k(a):\n"
        "    tl.extern_elementwise('l', '/tmp/x.bc', [a], {}, is_pure=True)\n",
        "pass",
        "'extern_elementwise'",
    ),
    "call_intrin": (
        "import tilelang.language as T\ndef run(x, factor, y):\n"
        "    T.call_intrin('int32', 'tir.tvm_call_packed', 'f')\n",
        "",
        "'tir.tvm_call_packed'",
    ),
    "unicode": ("", "ｅxec('1')", "'exec'"),
    "walrus": ("", "(t := torch).softmax(x, 0)", "'torch'"),
    "default arg": ("def f(m=torch.softmax): pass\n", "pass", "'torch.softmax'"),
    "annotation exec": ("def f(a: exec('1')): pass\n", "pass", "'exec'"),
    "builtins route": ("", "print.__self__.eval('1')", "'__self__'"),
    "class getattr": ("class C:\n    __getattr__ = print\n", "pass", "'__getattr__'"),
    "star_expr print": ("", "print(*x)", "must not wait for a tensor's values"),
    "any": ("", "a = any(x)", "must not wait for a tensor's values"),
    "sorted": ("", "a = sorted(x)", "arithmetic on a tensor"),
    "math.fsum": ("import math\n", "a = math.fsum(x)", "arithmetic on a tensor"),
    "itertools.accumulate": (
        "import itertools\n",
        "a = list(itertools.accumulate(x))",
        "arithmetic on a tensor",
    ),
    "counter nonlocal": (
        "def make():\n    n = 0\n    def run_(x, factor, y):\n        nonlocal n\n"
        "        n += 1\n    return run_\nrun = make()\n",
        "",
        "calls are counted",
    ),
    "counter default list": (
        "def run(x, factor, y, n=[0]):\n    n[0] += 1\n",
        "",
        "calls are counted",
    ),
    "counter function attr": ("", "run.n += 1", "'n'"),
    "counter class": ("class C:\n    n = 0\n", "C.n += 1", "calls are counted"),
    "counter iterator": ("it = iter(range(100))\n", "next(it)", "calls are counted"),
    "counter len": ("kept = []\n", "kept.append(1)\nif len(kept) < 3: return", "returns early"),
    "cache default": (
        "def run(x, factor, y, kept={}):\n    kept[x.shape] = y\n",
        "",
        "kept for later calls",
    ),
    "cache class attr": (
        "class C:\n    kept = {}\n",
        "C.kept[x.shape] = y",
        "kept for later calls",
    ),
    "cache global": ("last = None\n", "global last\nlast = y", "kept for later calls"),
    "torch.full out": (
        "",
        "torch.full(y.shape, 1.0, out=y)",
        "line 7: torch must not write an output (out=): write it in the kernel",
    ),
    "sys via dataclasses": (
        "import dataclasses\n",
        "dataclasses.sys.modules",
        "'dataclasses.sys.modules'",
    ),
    "typing.sys": ("import typing\n", "typing.sys", "'typing.sys'"),
    "functools.partial bound": (
        "",
        "functools.partial(torch.Tensor.softmax, x)(0)",
        "'torch.Tensor.softmax'",
    ),
    "methodcaller T": ("", "f = torch.Tensor\nf.softmax(x, 0)", "'softmax'"),
    "generator frame": ("", "(i for i in x).gi_frame", "'gi_frame'"),
    "global import alias": ("import torch._C as c\n", "pass", "'torch._C'"),
    "torch.Tensor ctor": (
        "",
        "torch.Tensor._make_subclass(torch.Tensor, x)",
        "'torch.Tensor._make_subclass'",
    ),
    "print hook": (
        "",
        "triton.knobs.runtime.launch_enter_hook = print",
        "'triton.knobs.runtime.launch_enter_hook'",
    ),
    "jit hook": ("", "k.add_pre_run_hook(print)", "'add_pre_run_hook'"),
    "pre_hook": ("", "k.pre_run_hooks.append(print)", "'pre_run_hooks'"),
}

NATIVE = {
    "trigraph": ("", "fo??/\nrk();", "trigraph"),
    "trigraph include": ("??=include <unistd.h>", "", "trigraph"),
    "bitand": ("", "f(bitand dlsym);", "loads no code"),
    "paste posix_": ("#define P(x) posix_##x", "P(spawn)(0);", "pasted from parts"),
    "paste clock_": ("#define P(x) clock_##x", "", "pasted from parts"),
    "paste memfd": ("#define P(x) x##_create", "", "pasted from parts"),
    "_Pragma weak": ('_Pragma("weak fork")', "", "#pragma weak"),
    "_Pragma computed": ('#define S "weak x"\n_Pragma(S)', "", "#pragma weak"),
    "std::system value": ("", 'auto f = std::system; f("ls");', "'std::system'"),
    "using std::system": ("using std::system;", "", "'std::system'"),
    "unary plus": ("", "auto f = +fork;", "'fork'"),
    "template arg": ("", "call<fork>();", "'fork'"),
    "logical": ("", "g(a || fork);", "'fork'"),
    "cast to": ("", "auto f = (void*)fork;", "'fork'"),
    "asm macro": ("#define A asm\n", 'A("syscall");', "asm without its text"),
    "asm string macro": ('#define S "syscall"', "asm volatile(S);", "system calls"),
    "asm escape": ("", 'asm volatile("\\x73yscall");', "system calls"),
    "asm octal": ("", 'asm volatile("\\163yscall");', "system calls"),
    "asm 2byte": ("", 'asm volatile(".2byte 0x050f");', "inline assembly"),
    "asm word": ("", 'asm volatile(".value 0x050f");', "inline assembly"),
    "asm macro directive": (
        "",
        'asm volatile(".macro m a b\\n\\\\a\\\\b\\n.endm\\nm sys call");',
        "inline assembly",
    ),
    "asm int 128": ("", 'asm volatile("int $128");', "system calls"),
    "asm call": ("", 'asm volatile("call fork");', "inline assembly"),
    "asm jmp": ("", 'asm volatile("jmp system@PLT");', "inline assembly"),
    "asm got": ("", 'asm volatile("mov system@GOTPCREL(%%rip), %0" : "=r"(p));', "inline assembly"),
    "asm lea": ("", 'asm volatile("lea fork(%%rip), %0" : "=r"(p));', "inline assembly"),
    "asm movabs": ("", 'asm volatile("movabs $fork, %0" : "=r"(p));', "inline assembly"),
    "asm pushsection": (
        "",
        'asm volatile(".pushsection .init_array\\n.popsection");',
        "inline assembly",
    ),
    "asm label array": ('extern char* e[3] asm("environ");', "", "names another symbol"),
    "asm label arrow": ('auto f() -> int* asm("fork");', "", "names another symbol"),
    "asm label macro": ('#define L asm("fork")\nint f() L;', "", "names another symbol"),
    "asm label after noexcept": ('int f() noexcept __asm__("fork");', "", "names another symbol"),
    "ctor macro": ("#define C constructor\n__attribute__((C)) void f() {}", "", "load time"),
    "attr weak": ("__attribute__((weak)) void f() {}", "", "'weak'"),
    "gnu::constructor": ("[[gnu::constructor]] void f() {}", "", "load time"),
    "gnu ifunc": ('extern "C" int f() __attribute__((ifunc("r")));', "", "'ifunc'"),
    "symver": ('__attribute__((symver("a@b"))) int f() { return 1; }', "", "'symver'"),
    "init_array": (
        'static void (*p)() __attribute__((section(".init_array"))) = f;',
        "",
        "'section'",
    ),
    "builtin fork": ("", "__builtin_fork();", "'fork'"),
    "builtin execl": ("", '__builtin_execl("a", "b");', "'execl'"),
    "builtin exit": ("", "__builtin_exit(0);", "'exit'"),
    "extern typedef": ('typedef int F();\nextern "C" F mystery;', "", "another library's function"),
    "extern nested ns": (
        'extern "C" { namespace a { int mystery(); } }',
        "",
        "another library's function",
    ),
    "extern var": ('extern "C" int some_state;', "", "another library's function"),
    "extern using": (
        'using F = int();\nextern "C" { F mystery; }',
        "",
        "another library's function",
    ),
    "template var init": (
        "template <int I> int v = prepare(I);\ntemplate int v<3>;",
        "",
        "load time",
    ),
    "static member template": (
        "template <class T> struct S { static int n; };\n"
        "template <class T> int S<T>::n = prepare();\ntemplate struct S<int>;",
        "",
        "load time",
    ),
    "static inline member": ("struct S { static inline int n = prepare(); };", "", "load time"),
    "struct tail": ("struct E { E() { go(); } } early;", "", "load time"),
    "brace temp": ("struct E { E() { go(); } };\nauto early = E{};", "", "load time"),
    "new E": ("struct E { E() { go(); } };\nE* early = new E;", "", "load time"),
    "init list": ("struct E { int n; E() : n(go()) {} };\nE early;", "", "load time"),
    "default member": ("struct E { int n = go(); };\nE early;", "", "load time"),
    "inherit": ("struct E { E() { go(); } };\nstruct F : E {};\nF early;", "", "load time"),
    "ns type": ("namespace a { struct E { E() { go(); } }; }\na::E early;", "", "load time"),
    "member of working": (
        "struct E { E() { go(); } };\nstruct G { E e; };\nG early;",
        "",
        "load time",
    ),
    "optional of working": (
        "struct E { E() { go(); } };\nstd::vector<E> early(2);",
        "",
        "load time",
    ),
    "global lambda": ("static auto once = [] { go(); return 1; }();", "", "load time"),
    "comma": ("int ready = (go(), 1);", "", "load time"),
    "static n[0]++": ("", "static int n[1]; if (n[0]++ < 3) return;", "counts calls"),
    "static struct": ("", "static struct { int n; } s; if (s.n++ < 3) return;", "counts calls"),
    "static object": (
        "struct S { int n; };\nstatic S s;",
        "if (++s.n < 3) return;",
        "counts calls",
    ),
    "ref": ("", "static int n; int& r = n; if (r++ < 3) return;", "counts calls"),
    "ptr": ("", "static int n; int* p = &n; if ((*p)++ < 3) return;", "counts calls"),
    "heap": ("", "static int* n = new int(0); if ((*n)++ < 3) return;", "counts calls"),
    "heap pre": ("", "static int* n = new int(0); if (++*n < 3) return;", "counts calls"),
    "xor": ("", "static int n; n ^= 1; if (n) return;", "counts calls"),
    "shift": ("", "static int n = 1; n <<= 1; if (n > 8) return;", "counts calls"),
    "mul": ("", "static int n = 1; n *= 2;", "counts calls"),
    "one plus": ("", "static int n; n = 1 + n;", "counts calls"),
    "exchange": ("", "static int n; std::exchange(n, n + 1);", "counts calls"),
    "fetch_xor": ("", "static std::atomic<int> n; n.fetch_xor(1);", "counts calls"),
    "atomic builtin": ("", "static int n; __atomic_add_fetch(&n, 1, 0);", "counts calls"),
    "sync builtin": ("", "static int n; __sync_fetch_and_add(&n, 1);", "counts calls"),
    "std atomic free": (
        "",
        "static std::atomic<int> n; std::atomic_fetch_add(&n, 1);",
        "counts calls",
    ),
    "mutable lambda": (
        "",
        "static auto tick = [n = 0]() mutable { return n++; }; if (tick() < 3) return;",
        "state of its own",
    ),
    "call_once": ("", "static std::once_flag f; std::call_once(f, go);", "'std::call_once'"),
    "dprintf": ("", 'dprintf(3, "x");', "'dprintf'"),
    "vdprintf": ("", 'vdprintf(3, "x", a);', "'vdprintf'"),
    "on_exit": ("", "on_exit(f, 0);", "'on_exit'"),
    "clock()": ("", "auto t = clock();", "look at the clock"),
    "time()": ("", "auto t = time(nullptr);", "look at the clock"),
    "rdpmc": ("", "auto t = __rdpmc(0);", "look at the clock"),
    "clock64": ("__global__ void k() { auto t = clock64(); }", "", "look at the clock"),
    "globaltimer": (
        "",
        'asm volatile("mov.u64 %0, %globaltimer;" : "=l"(t));',
        "look at the clock",
    ),
    "clock sreg": ("", 'asm volatile("mov.u64 %0, %%clock64;" : "=l"(t));', "look at the clock"),
    "stream cast": ("", "auto s = reinterpret_cast<cudaStream_t>(0x2);", "made of a number"),
    "stream cast c": ("", "auto s = (cudaStream_t)2;", "made of a number"),
    "lone cr": ("// c\rint g() { return fork(); }", "", "CR alone"),
    "mapped string concat": ("", 'auto p = "/proc" "/self/maps";', "path of the system"),
    "static ptr ref": (
        "",
        "static const void* last; const void*& l = last; if (l == x.data_ptr()) return;",
        "recognised by its address",
    ),
    "address int": (
        "",
        "static uintptr_t last; auto p = (uintptr_t)x.data_ptr(); if (p == last) return; last = p;",
        "recognised by its address",
    ),
    "mprotect via fp": ("", "auto m = &mprotect;", "'mprotect'"),
    "using namespace": (
        "using namespace tvm::ffi;",
        'auto f = Function::GetGlobal("x");',
        "'GetGlobal'",
    ),
    "unicode ident": (
        "int ｓystem = 1;",
        '\\u0073ystem("ls");',
        "line 8: a stray backslash is not allowed",
    ),
    "cutlass": ("#include <cutlass/gemm/device/gemm.h>", "", "no library"),
    "cub device": ("#include <cub/cub.cuh>", "", "no library"),
    "thrust": ("#include <thrust/sort.h>", "", "no library"),
    "remove file": ("", 'std::remove("results.json");', "removes and renames"),
    "scanf": ("", "int n; std::cin >> n;", "'std::cin'"),
    "operator new": (
        "void* operator new(std::size_t n) { return go(n); }",
        "",
        "operator new must not",
    ),
    "extern C override": (
        'extern "C" int clock_gettime(int, void*) { return 0; }',
        "",
        "look at the clock",
    ),
    "dlopen string": ("", 'auto h = f("libcublas.so.12");', "loads no code"),
    "inline namespace ext": (
        "namespace std { int system(const char*); }",
        'std::system("x");',
        "'system'",
    ),
    "quoted include up": ('#include "../../other.h"', "", "'../../other.h'"),
    "line directive": ('#line 1 "/proc/self/x"', "", "path of the system"),
}


@pytest.mark.parametrize("name", PYTHON)
def test_python(name: str) -> None:
    top, body, words = PYTHON[name]
    source = HEAD + top
    if body:
        source += "\ndef run(x, factor, y):\n" + "".join(f"    {x}\n" for x in body.split("\n"))
    language = "tilelang" if "tilelang" in source else "triton"
    refused(check(language, source), words, len(source.splitlines()))


@pytest.mark.parametrize("name", NATIVE)
def test_native(name: str) -> None:
    top, body, words = NATIVE[name]
    source = c_source(top, body)
    refused(check("cuda", source), words, source.count("\n"))


def refused(reasons: list[str], words: str, lines: int) -> None:
    assert any(words in reason for reason in reasons), reasons
    places = [int(reason.split(":")[0].removeprefix("line ")) for reason in reasons]
    assert all(0 < place <= lines for place in places), reasons
