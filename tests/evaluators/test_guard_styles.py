"""Styles that honest kernels are written in, a few lines each: the guard refuses none."""

from __future__ import annotations

import pytest

from tests.evaluators.test_guard import c_source, check

HEAD = """\
import dataclasses
import enum
import functools
import itertools
import math
import typing
import torch
import triton
import triton.language as tl
"""

PYTHON = {
    "abc": (
        "from collections.abc import Callable, Sequence\n",
        "pass",
    ),
    "slots": (
        ("class C:\n    __slots__ = ('a',)\n    def __init__(self, a):\n        self.a = a\n"),
        "pass",
    ),
    "all": (
        "__all__ = ['run']\n",
        "pass",
    ),
    "namedtuple": (
        ("class Config(typing.NamedTuple):\n    mode: int\n    max: int\n"),
        "c = Config(1, 2)\nn = c.mode + c.max",
    ),
    "intenum": (
        "class Mode(enum.IntEnum):\n    SPLIT = 1\n",
        "n = Mode.SPLIT.value",
    ),
    "dataclass": (
        (
            "@dataclasses.dataclass(frozen=True)\n"
            "class Config:\n"
            "    mode: int\n"
            "    def blocks(self, n):\n"
            "        return (n + self.mode - 1) // self.mode\n"
        ),
        "c = Config(1)\nn = c.mode * 2",
    ),
    "classmethod": (
        (
            "class Config:\n"
            "    def __init__(self, n):\n"
            "        self.n = n\n"
            "    @classmethod\n"
            "    def of(cls, n):\n"
            "        return cls(n * 2)\n"
        ),
        "c = Config.of(x.shape[0])",
    ),
    "nested": (
        "",
        (
            "def grid(meta):\n"
            "    return (triton.cdiv(x.numel(), meta['BLOCK']),)\n"
            "n = x.numel()\n"
            "k = [i * n for i in range(3)]"
        ),
    ),
    "finfo": (
        "",
        (
            "lowest = torch.finfo(torch.float32).min\n"
            "big = torch.iinfo(torch.int32).max\n"
            "half = lowest / 2"
        ),
    ),
    "shapes": (
        "",
        (
            "rows, cols = x.shape\n"
            "total = rows * cols\n"
            "last = x.shape[-1] % 16\n"
            "B, H = x.shape[:2]\n"
            "m = B * H\n"
            "s = x.stride(0) * 2\n"
            "e = x.element_size() * x.numel()\n"
            "d = x.dim() - 1"
        ),
    ),
    "math": (
        "",
        (
            "n = math.ceil(x.numel() / 128)\n"
            "p = 1 << (n - 1).bit_length()\n"
            "q = int(math.log2(n + 1))\n"
            "r = max(1, min(n, 64))\n"
            "t = sum([n, p])\n"
            "u = abs(n - p)\n"
            "v = math.prod(x.shape)\n"
            "w = float(factor) * math.log2(math.e)"
        ),
    ),
    "heuristics": (
        (
            "@triton.heuristics({'EVEN': lambda a: a['N'] % a['B'] == 0})\n"
            "@triton.jit\n"
            "def k(x, y, N, B: tl.constexpr, EVEN: tl.constexpr):\n"
            "    pass\n"
        ),
        "k[(1,)](x, y)",
    ),
    "autotune": (
        (
            "def configs():\n"
            "    return [triton.Config({'B': b}, num_warps=w, num_stages=s) for b, w, s in "
            "itertools.product([64, 128], [4, 8], [2, 3])]\n"
            "@triton.autotune(configs=configs(), key=['N'], "
            "prune_configs_by={'early_config_prune': lambda cs, *a, **k: [c for c in cs if "
            "c.num_warps > 2]})\n"
            "@triton.jit\n"
            "def k(x, y, N, B: tl.constexpr):\n"
            "    pass\n"
        ),
        "k[(1,)](x, y)",
    ),
    "constexpr": (
        (
            "LOG2E: tl.constexpr = 1.44\n"
            "HALF = tl.constexpr(0.5)\n"
            "@triton.jit\n"
            "def helper(a, B: tl.constexpr):\n"
            "    return tl.sum(a, 0) * HALF\n"
            "@triton.jit\n"
            "def k(x):\n"
            "    a = tl.load(x + tl.arange(0, 8))\n"
            "    a = a.to(tl.float32) * a\n"
            "    a = helper(a, 8) + tl.max(a, 0)\n"
            "    tl.store(x, a)\n"
        ),
        "pass",
    ),
    "libdevice": (
        (
            "from triton.language.extra import libdevice\n"
            "@triton.jit\n"
            "def k(x):\n"
            "    tl.store(x, libdevice.tanh(tl.load(x)))\n"
        ),
        "pass",
    ),
    "libdevice cuda": (
        (
            "from triton.language.extra.cuda import libdevice\n"
            "@triton.jit\n"
            "def k(x):\n"
            "    tl.store(x, libdevice.fast_expf(tl.load(x)))\n"
        ),
        "pass",
    ),
    "inline asm": (
        (
            "@triton.jit\n"
            "def k(x):\n"
            "    a = tl.inline_asm_elementwise('tanh.approx.f32 $0, $1;', '=f,f', "
            "[tl.load(x)], dtype=tl.float32, is_pure=True, pack=1)\n"
            "    tl.store(x, a)\n"
        ),
        "pass",
    ),
    "workspace cache": (
        ("_W = {}\n@triton.jit\ndef k(a, b):\n    pass\n"),
        (
            "key = (x.shape, x.dtype, x.device)\n"
            "if key not in _W:\n"
            "    _W[key] = torch.empty(x.shape, dtype=torch.float32, device=x.device)\n"
            "w = _W[key]\n"
            "k[(1,)](x, w)\n"
            "k[(1,)](w, y)"
        ),
    ),
    "lru": (
        (
            "@functools.lru_cache(maxsize=None)\n"
            "def pick(n: int) -> tuple[int, int]:\n"
            "    return (64, 4) if n < 128 else (128, 8)\n"
        ),
        "b, w = pick(x.shape[0])\ng = b * w",
    ),
    "dict configs": (
        ("CONFIGS = {torch.float32: dict(block=64), torch.float16: {'block': 128}}\n"),
        (
            "c = CONFIGS.get(x.dtype, CONFIGS[torch.float32])\n"
            "b = c['block'] * 2\n"
            "for name, v in c.items():\n"
            "    v = v + 1"
        ),
    ),
    "isinstance": (
        "",
        (
            "if not isinstance(x, torch.Tensor): raise TypeError(f'{type(x)} {x.dtype}')\n"
            "assert x.is_contiguous(), f'strides {x.stride()}'"
        ),
    ),
    "print": (
        "",
        "print(x.shape, x.dtype, x.device)",
    ),
    "match": (
        "",
        ("match x.dtype:\n    case torch.float16:\n        n = 1\n    case _:\n        n = 2"),
    ),
    "walrus": (
        "",
        "if (n := x.numel()) > 16: m = n * 2",
    ),
    "ternary": (
        ("@triton.jit\ndef k(a, b):\n    pass\n"),
        "z = x if x.is_contiguous() else x.contiguous()\nk[(1,)](z, y)",
    ),
    "views": (
        ("@triton.jit\ndef k(a, b, c):\n    pass\n"),
        (
            "a = x.view(-1, 4)\n"
            "b = a.transpose(0, 1).unsqueeze(0)\n"
            "c = b.permute(2, 1, 0)[:, 0]\n"
            "k[(1,)](c, a.t(), y)\n"
            "n = a.size(0) * b.shape[1] + c.stride(0)"
        ),
    ),
    "prop": (
        "",
        ("p = torch.cuda.get_device_properties(x.device)\nn = p.multi_processor_count * 2"),
    ),
    "driver": (
        "",
        (
            "n = "
            "triton.runtime.driver.active.utils.get_device_properties(x.device.index)['mult"
            "iprocessor_count'] * 2"
        ),
    ),
    "device ctx": (
        ("@triton.jit\ndef k(a, b):\n    pass\n"),
        "with torch.cuda.device(x.device):\n    k[(1,)](x, y)",
    ),
    "args tuple": (
        ("@triton.jit\ndef k(a, b, n):\n    pass\n"),
        "args = (x, y, x.numel())\nk[(1,)](*args)\nn = args[2] * 2",
    ),
    "launch helper": (
        (
            "@triton.jit\n"
            "def k(a, b, n, s):\n"
            "    pass\n"
            "def _launch(a, b, n, scale):\n"
            "    grid = (triton.cdiv(n, 64), 1)\n"
            "    k[grid](a, b, n * 2, scale * 1.44)\n"
        ),
        "_launch(x, y, x.shape[0] * 2, float(factor))",
    ),
    "none compare": (
        "",
        "if x is None or y is not None and x.shape == y.shape: n = 1",
    ),
    "set": (
        "",
        (
            "seen = set()\n"
            "seen.add(x.dtype)\n"
            "names = ['a', 'b']\n"
            "names.sort()\n"
            "names.index('a')\n"
            "names.count('a')\n"
            "s = 'a,b'.split(',')\n"
            "d = {}\n"
            "d.update(a=1)\n"
            "d.pop('a')\n"
            "t = names.copy()"
        ),
    ),
    "descriptor": (
        (
            "from triton.tools.tensor_descriptor import TensorDescriptor\n"
            "@triton.jit\n"
            "def k(d):\n"
            "    pass\n"
        ),
        "d = TensorDescriptor(x, x.shape, x.stride(), [16, 16])\nk[(1,)](d)",
    ),
    "allocator": (
        "",
        (
            "triton.set_allocator(lambda size, align, stream: torch.empty(size, "
            "dtype=torch.int8, device=x.device))"
        ),
    ),
    "type ok": (
        "",
        "if type(factor) is float: n = 1",
    ),
    "zip ints": (
        "",
        (
            "for s, t in zip(x.shape, x.stride()):\n"
            "    n = s * t\n"
            "for i, s in enumerate(x.shape):\n"
            "    n = i * s\n"
            "for t in (x, y):\n"
            "    assert t.is_cuda\n"
            "n = sum(s - 1 for s in x.shape)\n"
            "ok = all(t.is_contiguous() for t in (x, y))"
        ),
    ),
    "divmod": (
        "",
        (
            "q, r = divmod(x.shape[0], 16)\n"
            "r = round(q / 3)\n"
            "p = pow(2, r)\n"
            "l = list(x.shape)\n"
            "t = tuple(x.stride())\n"
            "b = sorted(l)"
        ),
    ),
    "factor math": (
        "",
        ("s = float(factor)\nt = s * 2 + factor * 3\nif factor != 1.0: t = -factor"),
    ),
    "lambda grid": (
        "",
        (
            "grid = lambda m: (m['B'] * 2, x.shape[0] * 2)\n"
            "f = lambda n, b: (n + b - 1) // b\n"
            "n = f(x.numel(), 16)"
        ),
    ),
    "reduce ints": (
        "",
        "n = functools.reduce(lambda a, b: a * b, x.shape, 1)",
    ),
    "partial": (
        "def launch(a, n):\n    m = n * 2\n",
        "f = functools.partial(launch, n=2)\nf(x)",
    ),
    "jit call": (
        (
            "def _k(a, b, n: tl.constexpr):\n"
            "    v = tl.load(a + tl.arange(0, n))\n"
            "    v = v * 2 + v.sum(0)\n"
            "    tl.store(b, v)\n"
            "k2 = triton.jit(_k)\n"
        ),
        "k2[(1,)](x, y)",
    ),
    "main": (
        (
            "def run(x, factor, y):\n"
            "    pass\n"
            "if __name__ == '__main__':\n"
            "    print('a kernel, no program')\n"
        ),
        "",
    ),
    "type checking": (
        "if typing.TYPE_CHECKING:\n    from torch import Tensor\n",
        "pass",
    ),
    "protocol": (
        (
            "class P(typing.Protocol):\n"
            "    n: int\n"
            "class G(typing.Generic[typing.TypeVar('T')]):\n"
            "    pass\n"
            "class E(Exception):\n"
            "    pass\n"
            "class D(dict):\n"
            "    pass\n"
            "class S(P):\n"
            "    pass\n"
        ),
        "pass",
    ),
    "wraps": (
        (
            "def deco(f):\n"
            "    @functools.wraps(f)\n"
            "    def inner(*a, **k):\n"
            "        return f(*a, **k)\n"
            "    return inner\n"
        ),
        "pass",
    ),
    "plan obj": (
        (
            "class Plan:\n"
            "    def __init__(self, n):\n"
            "        self.split = n // 64\n"
            "        self.blocks = self.split + 1\n"
            "        self.total = 0\n"
            "        self.total += n\n"
            "@triton.jit\n"
            "def k(a, b, n):\n"
            "    pass\n"
        ),
        "p = Plan(x.shape[0])\nk[(p.blocks,)](x, y, p.split)\nz = p.split * 2",
    ),
    "scale default": (
        "def run(x, factor, y, *, block=64):\n    n = block * 2\n",
        "",
    ),
    "star arguments": (
        (
            "@triton.jit\n"
            "def k(a, b, f):\n"
            "    pass\n"
            "def run(*args):\n"
            "    x, factor, y = args\n"
            "    n = x.shape[0] * 2\n"
            "    s = factor * 1.44\n"
            "    k[(n,)](x, y, s)\n"
        ),
        "",
    ),
    "kernel tuple": (
        ("@triton.jit\ndef k(a, b):\n    pass\n"),
        "for kern, out in ((k, y),):\n    kern[(1,)](x, out)",
    ),
    "strides dict": (
        ("@triton.jit\ndef k(a, sx, n):\n    pass\n"),
        (
            "meta = {'sx': x.stride(0), 'n': x.numel()}\n"
            "n = meta['sx'] * meta['n']\n"
            "k[(1,)](x, **meta)"
        ),
    ),
    "bool flags": (
        "",
        (
            "even = x.shape[0] % 16 == 0\n"
            "big = bool(even and x.numel() > 4)\n"
            "n = int(big)\n"
            "s = str(x.dtype)\n"
            "f = f'{x.shape}'"
        ),
    ),
    "tl ops host": (
        "",
        "n = triton.next_power_of_2(x.shape[1])\nw = 4 if n < 1024 else 8",
    ),
    "half cast": (
        ("@triton.jit\ndef k(a, b):\n    pass\n"),
        "z = x.to(torch.float16)\nw = torch.empty_like(z)\nk[(1,)](z, w)",
    ),
    "global lazily": (
        "_buf = None\n",
        (
            "global _buf\n"
            "if _buf is None or _buf.numel() < x.numel():\n"
            "    _buf = torch.empty(x.numel(), device=x.device)\n"
            "n = _buf.numel() * 2"
        ),
    ),
    "return fmt": (
        "",
        "raise ValueError('bad shape {} {:.2f}'.format(x.shape, 1.0))",
    ),
    "version": (
        "if hasattr(tl, 'make_tensor_descriptor'):\n    OLD = False\n",
        "pass",
    ),
    "tl basic": (
        (
            "import tilelang\n"
            "import tilelang.language as T\n"
            "import torch\n"
            "\n"
            "@tilelang.jit(pass_configs={tilelang.PassConfigKey.TL_ENABLE_FAST_MATH: "
            "True})\n"
            "def make(n, block, dtype='float32', acc=T.float32):\n"
            "    num = (n + block - 1) // block\n"
            "    @T.prim_func\n"
            "    def main(X: T.Tensor((n,), dtype), F: T.float32, Y: T.Tensor((n,), "
            "dtype)):\n"
            "        with T.Kernel(T.ceildiv(n, block), threads=128) as bx:\n"
            "            s = T.alloc_shared((block,), dtype)\n"
            "            f = T.alloc_fragment((block,), acc)\n"
            "            T.annotate_layout({s: tilelang.layout.make_swizzled_layout(s)})\n"
            "            T.copy(X[bx * block], s)\n"
            "            for i in T.Parallel(block):\n"
            "                f[i] = s[i] * F\n"
            "            T.reduce_max(f, f, dim=0)\n"
            "            T.copy(f, Y[bx * block])\n"
            "    return main\n"
            "\n"
            "_kernels = {}\n"
            "def run(x, factor, y):\n"
            "    n = x.shape[0]\n"
            "    if n not in _kernels:\n"
            "        _kernels[n] = make(n, 128)\n"
            "    _kernels[n](x, float(factor), y)\n"
        ),
        "",
    ),
    "tl macro": (
        (
            "import tilelang\n"
            "import tilelang.language as T\n"
            "import torch\n"
            "\n"
            "@T.macro\n"
            "def scale(a, b, n):\n"
            "    for i in T.Parallel(n):\n"
            "        b[i] = a[i] * 2\n"
            "@tilelang.jit(out_idx=[-1])\n"
            "def make(n):\n"
            "    @T.prim_func\n"
            "    def main(X: T.Tensor((n,), 'float32'), Y: T.Tensor((n,), 'float32')):\n"
            "        with T.Kernel(1, threads=64) as bx:\n"
            "            f = T.alloc_fragment((n,), 'float32')\n"
            "            scale(X, f, n)\n"
            "            T.copy(f, Y)\n"
            "    return main\n"
            "def run(x, factor, y):\n"
            "    make(x.shape[0])(x, y)\n"
        ),
        "",
    ),
}

NATIVE = {
    "vars": (
        "",
        (
            "int open = 3, write = 4; float time = 0, nice[4]; auto signal = open + write; "
            "(void)signal; for (int pipe = 0; pipe < write; ++pipe) { nice[pipe] = time * "
            "open; }"
        ),
    ),
    "struct fields": (
        "struct Args { int write; int open; const float* bind; };",
        "Args a{1, 2, nullptr}; a.write = a.open + 1; f(a.bind);",
    ),
    "enum": (
        "enum Mode { accept, wait4x, listen_ };\nenum class M { open, closed };",
        "auto m = M::open; if (m == M::open) return;",
    ),
    "template int": (
        (
            "template <int clock, int time = 3> struct P { static constexpr int value = "
            "clock * time; };"
        ),
        "f(P<3>::value);",
    ),
    "lambda": (
        "",
        "int time = 3; auto g = [time](int x) { return x + time; }; g(time);",
    ),
    "own fn": (
        (
            "static float sleep(float x) { return x * 2; }\n"
            "template <class T> T signal(T x) { return x; }"
        ),
        "f(sleep(1.f) + signal(2.f));",
    ),
    "namespace fn": (
        "namespace detail { inline int open(int x) { return x; } }",
        "f(detail::open(3));",
    ),
    "designated": (
        "struct O { int write; };",
        "O o{.write = 3}; f(o);",
    ),
    "fence macro": (
        (
            '#define FENCE() asm volatile("fence.proxy.async;" ::: "memory")\n'
            '#define CP(d, s) asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\\n" '
            ':: "r"(d), "l"(s))'
        ),
        "FENCE();",
    ),
    "ptx": (
        "",
        (
            'asm volatile("{\\n.reg .pred p;\\nsetp.ne.b32 p, %0, 0;\\nLAB_WAIT:\\n@p bra '
            'DONE;\\nbra LAB_WAIT;\\nDONE:\\n}\\n" :: "r"(x));\n'
            'asm volatile("mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;" :: '
            '"r"(a), "r"(b) : "memory");\n'
            'asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0, %1}, '
            '%2, %3, p, 1, 1, 0, 0;" : "+f"(d[0]), "+f"(d[1]) : "l"(a), "l"(b));\n'
            'asm("mov.u32 %0, %%laneid;" : "=r"(lane));\n'
            'asm volatile("bar.sync 1, 128;");\n'
            "asm "
            'volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx'
            '::bytes [%0], [%1, {%3, %4}], [%2];" :: "r"(s), "l"(t), "r"(m), "r"(x), '
            '"r"(y) : "memory");\n'
            'asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");\n'
            'asm volatile("griddepcontrol.wait;" ::: "memory");\n'
            'asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, '
            '[%4];" : "=r"(r) : "l"(p));\n'
            'if (x) asm volatile("trap;");'
        ),
    ),
    "x86 asm": (
        "",
        (
            'asm volatile("vfmadd231ps %1, %2, %0" : "+x"(a) : "x"(b), "x"(c)); asm '
            'volatile("prefetcht0 (%0)" :: "r"(p)); asm volatile("" ::: "memory"); asm '
            'volatile("pause");'
        ),
    ),
    "cg": (
        (
            "#include <cooperative_groups.h>\n"
            "#include <cooperative_groups/reduce.h>\n"
            "namespace cg_ { }"
        ),
        "auto g = cooperative_groups::this_grid(); g.sync();",
    ),
    "cg alias": (
        "#include <cooperative_groups.h>\nnamespace cg = cooperative_groups;",
        "auto g = cg::this_thread_block(); g.sync();",
    ),
    "cuda barrier": (
        (
            "#include <cuda/barrier>\n"
            "#include <cuda/pipeline>\n"
            "#include <cuda/std/utility>\n"
            "#include <cuda/atomic>"
        ),
        (
            "cuda::barrier<cuda::thread_scope_block>* b; b->arrive_and_wait(); "
            "cuda::pipeline<cuda::thread_scope_thread> p = cuda::make_pipeline(); "
            "p.producer_commit();"
        ),
    ),
    "wmma": (
        "#include <mma.h>\nusing namespace nvcuda;",
        ("wmma::fragment<wmma::accumulator, 16, 16, 16, float> c; wmma::fill_fragment(c, 0.f);"),
    ),
    "cluster": (
        "#include <cooperative_groups.h>",
        (
            "cudaLaunchConfig_t config{}; cudaLaunchAttribute attr[1]; attr[0].id = "
            "cudaLaunchAttributeClusterDimension; attr[0].val.clusterDim.x = 2; "
            "config.attrs = attr; config.numAttrs = 1; config.stream = stream; "
            "cudaLaunchKernelEx(&config, kernel, x);"
        ),
    ),
    "stream": (
        "",
        (
            "cudaStream_t stream = "
            "static_cast<cudaStream_t>(TVMFFIEnvGetStream(x.device().device_type, "
            "x.device().device_id)); kernel<<<grid, block, 0, stream>>>(x);"
        ),
    ),
    "stream reinterpret": (
        "",
        (
            "auto stream = reinterpret_cast<cudaStream_t>(TVMFFIEnvGetStream(kDLCUDA, 0)); "
            "kernel<<<1, 1, 0, stream>>>(x);"
        ),
    ),
    "device props": (
        "",
        (
            "static int sms = [] { int n, d; cudaGetDevice(&d); cudaDeviceGetAttribute(&n, "
            "cudaDevAttrMultiProcessorCount, d); return n; }(); f(sms);"
        ),
    ),
    "static vector": (
        "",
        (
            "static std::vector<float> scratch; if (scratch.size() < n) scratch.resize(n); "
            "std::fill(scratch.begin(), scratch.end(), 0.f);"
        ),
    ),
    "thread_local scratch": (
        "",
        (
            "thread_local std::vector<float> local; local.assign(n, 0.f); alignas(64) "
            "static thread_local float tile[64]; tile[0] = 1;"
        ),
    ),
    "static counters reset": (
        "",
        (
            "static int counts[256]; for (int i = 0; i < n; ++i) counts[i] = 0; for (int i "
            "= 0; i < n; ++i) counts[id[i]]++;"
        ),
    ),
    "locals count": (
        "",
        (
            "int n = 0; n++; n += 2; n ^= 1; int* p = &n; (*p)++; std::atomic<int> "
            "done{0}; done.fetch_add(1);"
        ),
    ),
    "max size": (
        "",
        ("static size_t size = 0; if (need > size) { size = need; buffer = grow(need); }"),
    ),
    "constexpr table": (
        (
            "constexpr int kTable[] = {1, 2, 3};\n"
            "static const float kScale = 1.0f / 3;\n"
            "constexpr auto kF = [](int x) { return x * 2; };\n"
            "static constexpr int pick(int n) { return n * 2; }\n"
            "static constexpr int kN = pick(3);"
        ),
        "",
    ),
    "types": (
        (
            "struct Tile { int m = 64; int n{128}; float scale = 1.0f / 8; constexpr int "
            "size() const { return m * n; } };\n"
            "static const Tile kTile;\n"
            "struct Params { float* p = nullptr; Params() = default; explicit "
            "Params(float* q) : p(q) {} };"
        ),
        "Params p(nullptr); Tile t; f(t.size());",
    ),
    "template class": (
        (
            "template <class T, int N> struct Vec { T data[N]; __device__ T& "
            "operator[](int i) { return data[i]; } template <class F> void each(F f) { for "
            "(int i = 0; i < N; ++i) f(data[i]); } };\n"
            "template <int N> constexpr int log2_v = N < 2 ? 0 : 1 + log2_v<N / 2>;\n"
            "template <> constexpr int log2_v<1> = 0;\n"
            "template <class T> inline constexpr bool is_half = false;\n"
            "template <class T> struct Traits { static constexpr int width = sizeof(T); "
            "static const int other = 3; };"
        ),
        "Vec<float, 4> v; v.each([](float& x) { x = 0; });",
    ),
    "raii in run": (
        (
            "struct Guard { int d; explicit Guard(int x) : d(x) { cudaSetDevice(x); } "
            "~Guard() { cudaSetDevice(0); } };"
        ),
        "Guard g(1);",
    ),
    "check macro": (
        (
            "#define CHECK(x) do { cudaError_t e = (x); if (e != cudaSuccess) throw "
            "std::runtime_error(cudaGetErrorString(e)); } while (0)\n"
            "#define STR(x) #x\n"
            '#define UNROLL _Pragma("unroll")\n'
            "#define DISPATCH(N) case N: launch<N>(x); break"
        ),
        ("CHECK(cudaGetLastError()); UNROLL for (;;) {} switch (n) { DISPATCH(4); DISPATCH(8); }"),
    ),
    "paste": (
        (
            "#define KERNEL(name) kernel_##name\n"
            "#define MAKE(T, s) void launch_##s(T* p) { p[0] = 1; }\n"
            "MAKE(float, f32)"
        ),
        "launch_f32(p);",
    ),
    "pragma": (
        "",
        (
            "#pragma omp parallel for schedule(static)\n"
            "for (int i = 0; i < n; ++i) {}\n"
            "#pragma GCC unroll 4\n"
            "for (;;) {}\n"
            "#pragma omp simd reduction(+:sum)\n"
            "for (;;) {}\n"
            "#pragma GCC ivdep\n"
            "for (;;) {}"
        ),
    ),
    "gcc pragma": (
        ('#pragma GCC optimize("O3")\n#pragma GCC target("avx2,fma")\n#pragma once'),
        "",
    ),
    "attrs": (
        (
            "__attribute__((noinline)) float f1(float x) { return x; }\n"
            "[[gnu::always_inline]] inline float f2(float x) { return x; }\n"
            '__attribute__((target("avx512f"))) void f3() {}\n'
            "typedef float v8 __attribute__((vector_size(32)));\n"
            "struct alignas(64) A { float x; } __attribute__((packed));\n"
            'extern "C" __attribute__((visibility("default"))) int v1() { return 1; }\n'
            "[[maybe_unused]] static int unused = 1;\n"
            "[[nodiscard]] int nd() { return 1; }\n"
            '__attribute__((target_clones("avx2", "default"))) void tc() {}'
        ),
        "",
    ),
    "restrict launch": (
        (
            "template <int N> __global__ void __launch_bounds__(128, 2) k(const float* "
            "__restrict__ x) { extern __shared__ float s[]; __shared__ float t[N]; t[0] = "
            "s[0]; __syncthreads(); }\n"
            'extern "C" __global__ void k2(float* x) { x[0] = clock_rate(x); }'
        ),
        "k<4><<<1, 2, 0, stream>>>(p);",
    ),
    "extern shared": (
        "extern __shared__ __align__(128) unsigned char smem[];",
        "",
    ),
    "device globals": (
        (
            "__device__ unsigned int barrier_state;\n"
            "__constant__ float table[64];\n"
            "__device__ __managed_like int q;"
        ),
        "",
    ),
    "occupancy": (
        "",
        (
            "int b; cudaOccupancyMaxActiveBlocksPerMultiprocessor(&b, k, 128, 0); "
            "cudaFuncSetAttribute(k, cudaFuncAttributeMaxDynamicSharedMemorySize, 65536); "
            "cudaMemsetAsync(w, 0, 4, stream);"
        ),
    ),
    "tensormap": (
        "#include <cudaTypedefs.h>\n#include <cuda.h>",
        (
            "void* p = nullptr; cudaDriverEntryPointQueryResult q; "
            'cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &p, cudaEnableDefault, &q); '
            "auto encode = reinterpret_cast<PFN_cuTensorMapEncodeTiled>(p); CUtensorMap "
            "map{}; encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, x, d, s, b, e, "
            "CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, "
            "CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);"
        ),
    ),
    "tvm alloc": (
        "",
        (
            "auto t = tvm::ffi::Tensor::FromEnvAlloc(TVMFFIEnvTensorAlloc, {n}, x.dtype(), "
            'x.device()); TVM_FFI_ICHECK(x.size(0) > 0) << "empty"; '
            'TVM_FFI_THROW(ValueError) << "no";'
        ),
    ),
    "using": (
        (
            "using tvm::ffi::TensorView;\n"
            "using bf16 = __nv_bfloat16;\n"
            "using namespace std;\n"
            "typedef unsigned short u16;"
        ),
        "",
    ),
    "std": (
        (
            "#include <algorithm>\n"
            "#include <array>\n"
            "#include <bit>\n"
            "#include <cfenv>\n"
            "#include <compare>\n"
            "#include <ranges>\n"
            "#include <ratio>\n"
            "#include <cstdarg>\n"
            "#include <any>\n"
            "#include <charconv>\n"
            "#include <forward_list>\n"
        ),
        (
            "std::array<int, 4> a{}; std::sort(a.begin(), a.end()); auto v = "
            "std::bit_cast<float>(1); auto it = std::remove(a.begin(), a.end(), 3); "
            "std::exchange(v, 0.f); std::accumulate(a.begin(), a.end(), 0);"
        ),
    ),
    "experimental simd": (
        "#include <experimental/simd>\nnamespace stdx = std::experimental;",
        "stdx::native_simd<float> v = 0; f(v);",
    ),
    "goto": (
        "",
        "retry: if (n) goto retry;",
    ),
    "ternary": (
        "",
        (
            "auto f = n > 4 ? launch<4> : launch<8>; f(x); void (*g)(int) = &launch_one; "
            "g(1); static void (*const table[])(int) = {launch_one, launch_two}; "
            "table[n](1);"
        ),
    ),
    "static table fn": (
        (
            "void launch_one(int) {}\n"
            "void launch_two(int) {}\n"
            "using Fn = void (*)(int);\n"
            "static const Fn kTable[] = {launch_one, launch_two};\n"
            "static constexpr Fn kMore[2] = {&launch_one, &launch_two};"
        ),
        "kTable[0](1);",
    ),
    "nullptr cmp": (
        "",
        (
            "static float* buffer = nullptr; static size_t size = 0; if (buffer == nullptr "
            "|| size < n) { if (buffer != nullptr) cudaFree(buffer); cudaMalloc(&buffer, "
            "n); size = n; }"
        ),
    ),
    "ptr args cmp": (
        "",
        (
            "const float* p = a; const float* end = a + n; while (p != end) { ++p; } if (p "
            "== q) return;"
        ),
    ),
    "map by shape": (
        "",
        (
            "static std::map<std::pair<int, int>, int> plans; static "
            "std::unordered_map<std::string, int> by_name; static std::map<const char*, "
            "int> names; plans[{m, n}] = 3;"
        ),
    ),
    "mutex-free once": (
        "",
        "static const bool ready = configure(); (void)ready;",
    ),
    "digit sep": (
        "",
        ("int n = 1'000'000; char c = '\"'; auto s = u8\"x\"; auto r = R\"(fork())\"; f('\\'');"),
    ),
    "vector ext": (
        "",
        (
            "auto p = [&](auto... xs) { return (xs + ...); }; f(p(1, 2)); if constexpr (N "
            "> 2) {} auto [a, b] = pair; for (auto& [k, v] : m) {}"
        ),
    ),
    "std::min": (
        (
            "static const int kMin = std::min(3, 4);\n"
            "static const float kInf = std::numeric_limits<float>::infinity();"
        ),
        "",
    ),
    "extern template": (
        "extern template void go<4>(int);",
        "",
    ),
    "fwd": (
        ("void later(int x);\nstruct Later;\nstatic int helper(int);\n"),
        "later(1);",
    ),
    "local fn ptr": (
        "",
        (
            "auto read = [&](int i) { return x[i]; }; auto write = [&](int i, float v) { "
            "y[i] = v; }; for (int i = 0; i < n; ++i) write(i, read(i));"
        ),
    ),
    "method names": (
        (
            "struct Pipe { void wait() {} void open(int) {} int read() { return 1; } void "
            "commit() { wait(); open(1); } };"
        ),
        "Pipe p; p.wait(); p.open(2); (&p)->read();",
    ),
    "namespaced static": (
        (
            "namespace { int helper(int x) { return x; } constexpr int kA = 3; }\n"
            "namespace a::b { inline int g() { return 1; } }\n"
            "inline namespace v1 { int h() { return 2; } }"
        ),
        "helper(kA); a::b::g();",
    ),
    "printf": (
        "",
        ('printf("%d\\n", n); std::cerr << "x" << std::endl; assert(n > 0); std::abs(-1);'),
    ),
    "trap": (
        "",
        (
            "__trap(); __builtin_unreachable(); __builtin_assume(n > 0); "
            "__builtin_expect(n, 1); __builtin_prefetch(p); __builtin_memcpy(a, b, 4); "
            "__builtin_ia32_pause(); __builtin_popcount(3); __nanosleep(20);"
        ),
    ),
}


@pytest.mark.parametrize("name", PYTHON)
def test_python(name: str) -> None:
    top, body = PYTHON[name]
    source = HEAD + top
    if body:
        source += "\ndef run(x, factor, y):\n" + "".join(f"    {x}\n" for x in body.split("\n"))
    compile(source, name, "exec")
    assert check("tilelang" if "tilelang" in source else "triton", source) == []


@pytest.mark.parametrize("name", NATIVE)
def test_native(name: str) -> None:
    assert check("cuda", c_source(*NATIVE[name])) == []
