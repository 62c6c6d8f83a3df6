"""What Python, Triton and TileLang sources may import, name and call. Data only."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


STANDARD = frozenset({
    "__future__", "collections", "dataclasses", "enum", "functools", "itertools", "math", "typing",
})  # fmt: skip
"""Standard modules whose public names may be used; a module that they import may not."""

NOT_EXPORTED = frozenset({
    "itertools.count", "itertools.cycle",  # endless iterators in module state count calls
    "dataclasses.make_dataclass", "enum.global_enum", "functools.singledispatch",
    "functools.singledispatchmethod", "functools.update_wrapper", "typing.ForwardRef",
    "typing.get_type_hints",  # these make classes, run text or write into other objects
})  # fmt: skip
"""Public names of standard modules that a kernel's host code has no use for."""

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
    "tilelang.JITKernel", "tilelang.Layout", "tilelang.PassConfigKey", "tilelang.autotune",
    "tilelang.autotuner.autotune", "tilelang.carver.arch.driver.get_num_sms", "tilelang.cdiv",
    "tilelang.compile", "tilelang.intrinsics", "tilelang.jit", "tilelang.language",
    "tilelang.layout", "tilelang.math", "tilelang.next_power_of_2", "tilelang.transform",
    "triton.Config", "triton.autotune", "triton.cdiv", "triton.constexpr_function",
    "triton.experimental.gluon", "triton.heuristics", "triton.jit", "triton.language",
    "triton.next_power_of_2", "triton.set_allocator", "triton.tools.experimental_descriptor",
    "triton.tools.tensor_descriptor", "tvm.DataType", "tvm.script", "tvm.tir",
)  # fmt: skip
"""Names of compilers' packages that may be used, with all below them."""

CLOSED = "tilelang.jit"
BELOW_CLOSED = frozenset(
    {"tilelang.jit", "tilelang.jit.JITKernel", "tilelang.jit.kernel.JITKernel"}
)
"""Below the first nothing but these may be used: the rest writes, builds and loads libraries."""

PASSED_ON = _words("""
    abc arith ast builtins concurrent contextlib ctypes diagnostics driver functools gluon_ir
    importlib inspect itertools knobs linecache logger logging multiprocessing np numpy nvcc os
    pathlib pickle pkgutil re runtime shutil signal socket subprocess sys tempfile textwrap
    threading time tl_nvcc torch tvm tvm_ffi tvm_ir typing warnings weakref
""")
"""What the compilers' modules import themselves: not theirs to hand on."""

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

REFLECTION = BANNED_CALLS - {"classmethod"} | {"getattr", "hasattr", "type"}
"""Built-ins that may not be handed on or renamed: where they are called they are judged."""

ALLOWED_DUNDERS = frozenset({
    "__all__", "__doc__", "__init__", "__name__", "__post_init__", "__slots__", "__version__",
})  # fmt: skip
"""Double-underscore attributes that may be read; the others reach the interpreter's inside."""

ALLOWED_METHODS = frozenset({"__init__", "__post_init__", "__call__", "__repr__", "__len__"})
"""Double-underscore methods that a class may define."""

INSIDES = frozenset({
    "builtins", "cache_info", "cell_contents", "cr_frame", "ctypes", "f_back", "f_builtins",
    "f_globals", "f_locals", "gc", "gi_frame", "importlib", "inspect", "mro", "os",
    "subprocess", "sys", "tb_frame", "tb_next", "threading",
})  # fmt: skip
"""Attributes that lead from an innocent object to the interpreter's inside."""

STREAM_METHODS = frozenset({
    "capture_begin", "capture_end", "elapsed_time", "record_event", "record_stream", "replay",
    "wait_event", "wait_stream",
})  # fmt: skip

REACHING_METHODS = frozenset({
    "adapter", "add_pre_run_hook", "artifact", "cache_hook", "export_library", "export_ptx",
    "export_sass", "export_sources", "fn", "from_database", "from_tilelang_function",
    "get_profiler", "pre_run_hooks", "register_hook", "run_once", "set_", "share_memory_",
    "storage", "untyped_storage", "update_tuner_result",
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
    abs absolute_ acos acosh addcdiv_ addcmul_ addmv_ addr_ apply_ arccos arccosh arcsin arcsinh
    arctan arctan2 arctanh argwhere asin asinh atan atan2 atanh baddbmm_ bitwise_and_
    bitwise_left_shift bitwise_not bitwise_or_ bitwise_right_shift bitwise_xor bitwise_xor_ ceil
    cholesky copysign copysign_ corrcoef cos_ cosh_ count_nonzero cumprod_ cumsum_ deg2rad
    digamma divide divide_ erf_ erfc erfc_ erfinv erfinv_ exp2_ expm1 expm1_ fliplr flipud
    float_power floor floor_divide floor_divide_ fmax fmin fmod_ frac frac_ heaviside
    heaviside_ hypot hypot_ igamma index_reduce index_reduce_ isclose isinf kron ldexp ldexp_
    lerp_ lgamma lgamma_ log10 log10_ log1p_ log2_ log_ logaddexp2 logdet logical_and
    logical_and_ logical_not logical_not_ logical_or logical_or_ logical_xor logical_xor_
    logit logit_ lu_solve map2_ map_ masked_scatter_ matrix_exp matrix_power multiply_
    mvlgamma nan_to_num_ nanmean nanmedian nanquantile nansum narrow_copy ne_ negative_ nextafter
    pinverse polygamma prelu put_ rad2deg reciprocal_ relu6 remainder_ renorm_ rot90 round rsqrt_
    scatter_reduce_ sgn sgn_ sign_ sin_ sinc sinc_ sinh sinh_ slogdet square_ subtract_
    sum_to_size svd tan_ tensordot tril_ triu_ true_divide_ trunc_ unique_consecutive xlogy_
""")
"""Tensor methods that compute or copy; list, dict and set have none of these."""

TENSOR_ATTRIBUTES = frozenset({"H", "T", "data", "imag", "mH", "mT", "real"})
"""Attributes of a tensor that are tensors."""

VIEWS = TENSOR_ATTRIBUTES | {
    "as_strided", "bfloat16", "bool", "broadcast_to", "byte", "char", "chunk", "contiguous",
    "detach", "diagonal", "double", "expand", "expand_as", "fill_", "flatten", "float", "half",
    "int", "long", "moveaxis", "movedim", "narrow", "permute", "ravel", "requires_grad_",
    "reshape", "reshape_as", "select", "short", "split", "split_with_sizes", "squeeze",
    "squeeze_", "swapaxes", "swapdims", "t", "t_", "tensor_split", "to", "transpose",
    "transpose_", "type", "type_as", "unbind", "unflatten", "unfold", "unsqueeze", "unsqueeze_",
    "view", "view_as", "zero_",
}  # fmt: skip
"""The same with methods that give a tensor."""

METADATA = frozenset({
    "const_data_ptr", "data_ptr", "device", "dim", "dim_order", "dtype", "element_size",
    "get_device", "is_complex", "is_contiguous", "is_cpu", "is_cuda", "is_floating_point",
    "is_leaf", "is_pinned", "is_signed", "itemsize", "layout", "nbytes", "ndim", "ndimension",
    "nelement", "new_empty", "new_empty_strided", "new_full", "new_ones", "new_zeros", "numel",
    "requires_grad", "shape", "size", "storage_offset", "stride",
})  # fmt: skip
"""What a tensor may be asked besides: where it is, how large, and for workspaces like it."""

DEVICE_DECORATORS = (
    "triton.jit", "triton.experimental.gluon.jit", "tilelang.language.prim_func",
    "tilelang.language.macro", "tvm.script.tir.prim_func",
)  # fmt: skip
"""A function under one of these is compiled: its body never runs as Python."""

DECORATORS = (
    *DEVICE_DECORATORS, "dataclasses.dataclass", "functools.cache", "functools.lru_cache",
    "functools.wraps", "tilelang.autotune", "tilelang.autotuner.autotune", "tilelang.jit",
    "torch.inference_mode", "torch.no_grad", "triton.autotune", "triton.constexpr_function",
    "triton.experimental.gluon", "triton.heuristics",
)  # fmt: skip
BUILTIN_DECORATORS = frozenset({"classmethod", "property", "staticmethod"})

ONLY_DECORATORS = frozenset({"dataclasses.dataclass", "functools.wraps"})
"""Decorators that would write into whatever they were called with."""

CACHES = frozenset({"functools.cache", "functools.lru_cache"})

FOREIGN_CODE = frozenset({
    "call_cpacked", "call_packed", "extern_elementwise", "import_source", "register_cuda_postproc",
    "register_func", "tvm_call_cpacked", "tvm_call_packed",
})  # fmt: skip
"""Calls of the compilers' languages that run code which is not in the kernel."""

EXTERNAL_CALLS = frozenset({"call_extern", "call_pure_extern"})
"""Called by these names alone, so that what they call is judged."""
