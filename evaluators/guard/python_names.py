"""What Python, Triton and TileLang sources may import, name and call. Data only."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


STANDARD = frozenset({
    "__future__", "collections", "dataclasses", "enum", "functools", "itertools", "math", "typing",
})  # fmt: skip
"""Standard modules whose public names may be used; a module that they import may not."""

NOT_EXPORTED = frozenset({"itertools.count", "itertools.cycle"})
"""Endless iterators in module state count calls."""

PACKAGES = frozenset({"tilelang", "torch", "triton", "tvm"})

LOOSE_STANDARD = STANDARD | {"contextlib", "numpy", "operator"}
"""The same for plain Python solutions, which may compute with torch."""

TORCH_DTYPES = frozenset(
    f"torch.{name}"
    for name in (
        "bfloat16", "bool", "double", "float", "float16", "float32", "float64", "float8_e4m3fn",
        "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "half", "int",
        "int16", "int32", "int64", "int8", "long", "short", "uint16", "uint32", "uint64", "uint8",
    )
)  # fmt: skip

TORCH = TORCH_DTYPES | {
    f"torch.{name}"
    for name in (
        "Size", "Tensor", "channels_last", "contiguous_format", "device", "dtype", "empty",
        "empty_like", "empty_strided", "finfo", "full", "full_like", "iinfo", "inference_mode",
        "is_tensor", "no_grad", "preserve_format", "strided", "zeros", "zeros_like",
        "cuda.current_device", "cuda.current_stream", "cuda.device", "cuda.device_count",
        "cuda.get_device_capability", "cuda.get_device_name", "cuda.get_device_properties",
        "cuda.is_available", "cuda.synchronize", "version.cuda",
    )
}  # fmt: skip
"""All of torch that a kernel's host code may use: allocate, describe, ask the device."""

OPEN_PREFIXES = (
    "tilelang.Layout", "tilelang.PassConfigKey", "tilelang.autotune", "tilelang.cdiv",
    "tilelang.compile", "tilelang.intrinsics", "tilelang.jit", "tilelang.language",
    "tilelang.layout", "tilelang.math", "tilelang.next_power_of_2", "tilelang.transform",
    "triton.Config", "triton.autotune", "triton.cdiv", "triton.constexpr_function",
    "triton.experimental.gluon", "triton.heuristics", "triton.jit", "triton.language",
    "triton.next_power_of_2", "triton.set_allocator", "triton.tools.experimental_descriptor",
    "triton.tools.tensor_descriptor", "tvm.DataType", "tvm.script", "tvm.tir",
)  # fmt: skip
"""Names of compilers' packages that may be used, with all below them."""

DRIVER = "triton.runtime.driver.active."
DRIVER_QUESTIONS = ("get_current_device", "get_current_target", "get_device_properties")
"""What may be asked of Triton's driver: names that end so, below `DRIVER`."""

LOOSE_BANNED = (
    "numpy.ctypeslib", "numpy.distutils", "numpy.f2py", "torch._C", "torch.classes",
    "torch.cuda.CUDAGraph", "torch.cuda.Event", "torch.cuda.ExternalStream", "torch.cuda.Stream",
    "torch.cuda.graph", "torch.cuda.graphs", "torch.cuda.set_stream", "torch.cuda.stream",
    "torch.cuda.streams", "torch.distributed", "torch.hub", "torch.jit", "torch.library",
    "torch.load", "torch.multiprocessing", "torch.save", "torch.utils", "triton.testing",
    "tvm.contrib", "tvm.rpc",
)  # fmt: skip
"""Dotted names, with all below them, that plain Python solutions may not use either."""

BANNED_NAMES = frozenset({
    "__builtins__", "__import__", "__loader__", "__spec__", "breakpoint", "compile", "delattr",
    "eval", "exec", "globals", "locals", "open", "setattr", "vars",
})  # fmt: skip
"""Built-in names that a kernel has no use for, however they are used."""

BANNED_CALLS = frozenset({"classmethod", "exit", "hash", "id", "input", "memoryview", "quit"})
"""Built-ins that Triton and TileLang sources may not call, unless the name is their own."""

ALLOWED_DUNDERS = frozenset({"__name__", "__doc__", "__init__", "__post_init__", "__version__"})
"""Double-underscore attributes that may be read; the others reach the interpreter's inside."""

ALLOWED_METHODS = frozenset({"__init__", "__post_init__", "__call__", "__repr__", "__len__"})
"""Double-underscore methods that a class may define."""

INSIDES = frozenset({
    "builtins", "cell_contents", "cr_frame", "ctypes", "f_back", "f_builtins", "f_globals",
    "f_locals", "gc", "gi_frame", "importlib", "inspect", "mro", "os", "subprocess", "sys",
    "tb_frame", "tb_next", "threading",
})  # fmt: skip
"""Attributes that lead from an innocent object to the interpreter's inside."""

STREAM_METHODS = frozenset({
    "capture_begin", "capture_end", "elapsed_time", "record_event", "record_stream", "replay",
    "wait_event", "wait_stream",
})  # fmt: skip

REACHING_METHODS = frozenset({
    "cache_hook", "fn", "get_profiler", "register_hook", "set_", "share_memory_", "storage",
    "untyped_storage",
})  # fmt: skip
"""Attributes that reach past a tensor's own elements, or past a compiled kernel."""

HOST_READS = frozenset({"cpu", "item", "numpy", "tolist"})
"""Methods that make the host wait for values of a tensor."""

COMPUTE_METHODS = _words("""
    abs_ absolute add_ addbmm addcdiv addcmul addmm addmm_ addmv addr all allclose amax amin
    aminmax argmax argmin argsort baddbmm bernoulli_ bincount bitwise_and bitwise_or bmm bmm_
    ceil_ clamp clamp_ clamp_max clamp_min clip clone copy_ cos cosh cummax cummin cumprod cumsum
    diff div div_ dot einsum eq erf exp exp2 exp_ exponential_ fill_diagonal_ floor_ fmod gather
    ge gelu ger gt histc inner index_add_ index_copy_ index_fill_ index_put index_put_
    index_select inverse isfinite isnan kthvalue le lerp log log1p log2 log_softmax logaddexp
    logcumsumexp logsumexp lt masked_fill masked_fill_ masked_scatter masked_select matmul max
    maximum mean median min minimum mm mode msort mul mul_ multinomial multiply mv nan_to_num ne
    neg neg_ nonzero norm normal_ normalize outer pow pow_ prod quantile random_ reciprocal relu
    relu_ remainder renorm repeat repeat_interleave roll round_ rsqrt scatter scatter_ scatter_add
    scatter_add_ scatter_reduce sigmoid sigmoid_ sign silu sin softmax sqrt sqrt_ square std sub
    sub_ subtract sum take take_along_dim tan tanh tanh_ topk tril triu true_divide trunc uniform_
    unique var vdot where xlogy
""")
"""Tensor methods that compute or copy; list, dict and set have none of these."""

VIEWS = frozenset({
    "T", "as_strided", "bfloat16", "contiguous", "detach", "expand", "flatten", "float", "half",
    "int", "long", "mT", "movedim", "narrow", "permute", "reshape", "select", "squeeze", "t", "to",
    "transpose", "type", "unflatten", "unsqueeze", "view", "view_as",
})  # fmt: skip
"""Methods and attributes of a tensor that give a tensor."""

DEVICE_DECORATORS = (
    "triton.jit", "triton.experimental.gluon.jit", "tilelang.language.prim_func",
    "tilelang.language.macro", "tvm.script.tir.prim_func",
)  # fmt: skip
"""A function under one of these is compiled: its body never runs as Python."""

DECORATORS = (
    *DEVICE_DECORATORS, "dataclasses.dataclass", "functools.cache", "functools.lru_cache",
    "functools.wraps", "tilelang.autotune", "tilelang.jit", "torch.inference_mode",
    "torch.no_grad", "triton.autotune", "triton.constexpr_function",
    "triton.experimental.gluon", "triton.heuristics",
)  # fmt: skip
BUILTIN_DECORATORS = frozenset({"property", "staticmethod"})

CACHES = frozenset({"functools.cache", "functools.lru_cache"})

FOREIGN_CODE = frozenset({
    "call_cpacked", "call_packed", "import_source", "register_func", "register_cuda_postproc",
    "tvm_call_cpacked", "tvm_call_packed",
})  # fmt: skip
"""TileLang and TVM calls that run code which is not in the kernel."""

EXTERNAL_CALLS = frozenset({"call_extern", "call_pure_extern"})
