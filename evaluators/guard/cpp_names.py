"""What C++ and CUDA sources may include, call and name. Data only."""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SYSTEM_PATH = re.compile(r"(?:^|[^\w.])/(?:proc|sys|dev|etc)/")
"""A path that no kernel opens."""

_FUNCTIONS = {
    "a kernel starts and ends no process": """
        _Exit _exit on_exit abort atexit at_quick_exit clone clone3 daemon execl execle execlp
        execv execve execvp execvpe exit fexecve fork kill killpg longjmp popen posix_spawn
        posix_spawnp prctl ptrace quick_exit raise setjmp setrlimit setsid sigaction signal
        sigprocmask siglongjmp sigsetjmp syscall system tgkill tkill unshare vfork wait4 waitpid""",
    "a kernel opens no files, sockets or shared memory": """
        accept bind connect creat dprintf vdprintf fdopen fopen fopen64 fopencookie freopen
        freopen64 tmpfile64 ftruncate getsockopt ioctl listen lseek memfd_create mkstemp mmap
        mprotect mremap munmap msync open open64 openat opendir pipe pipe2 process_vm_readv
        process_vm_writev pread pwrite readlink recv recvmsg rename rmdir sendmsg sendto shm_open
        shmat shmget socket socketpair tmpfile truncate unlink write mkdtemp realpath fileno scanf
        fscanf getchar getc fgetc fgets fread""",
    "a kernel does not read or change its environment": """
        clearenv confstr environ __environ getauxval getenv getopt gethostname getpid getppid
        program_invocation_name putenv secure_getenv setenv sysconf unsetenv uname""",
    "a kernel loads no code": """
        dlclose dlmopen dlopen dlsym dlvsym dladdr dl_iterate_phdr""",
    "a kernel starts no threads; OpenMP's parallel regions are all that it needs": """
        async jthread pthread_create sched_setaffinity sched_setscheduler setpriority thrd_create
        sched_yield nice""",
    "a kernel does not look at the clock or sleep": """
        clock clock64 time times clock_gettime clock_nanosleep ftime getrusage gettimeofday
        nanosleep omp_get_wtime sleep timespec_get usleep globaltimer __rdpmc _rdpmc __rdtsc
        __rdtscp _rdtsc __builtin_ia32_rdtsc __builtin_ia32_rdtscp __builtin_readcyclecounter
        __builtin_ia32_rdpmc""",
    "a kernel does not walk the stack": """
        __builtin_frame_address __builtin_return_address backtrace backtrace_symbols getcontext
        makecontext setcontext swapcontext __builtin_extract_return_addr _Unwind_Backtrace""",
    "a kernel reaches no function outside its source": """
        GetGlobal GetGlobalRequired SetGlobal LoadFromFile TVMFFIFunctionGetGlobal
        TVMFFIFunctionSetGlobal TVMFFIEnvSetStream TVMFFIEnvSetDLPackManagedTensorAllocator
        TVMFFIEnvModLookupFromImports TVMFFIEnvModRegisterSystemLibSymbol""",
    "code that runs at load time is not allowed": """
        TVM_FFI_STATIC_INIT_BLOCK TVM_FFI_STATIC_INIT_BLOCK_DEF_""",
    "a kernel leaves the process's error handling alone": """
        set_new_handler set_terminate set_unexpected mallopt malloc_hook __malloc_hook madvise
        mlock mlockall personality""",
}  # fmt: skip

FUNCTIONS: dict[str, str] = {
    name: reason for reason, text in _FUNCTIONS.items() for name in text.split()
}
"""Names that a kernel has no use for, and why. A source may define functions of the same name."""

REGISTRY = frozenset({"GetGlobal", "GetGlobalRequired", "SetGlobal", "LoadFromFile"})
"""Of these, the members of tvm-ffi's classes: banned below any name."""

PREFIXES = (
    ("__gthr", "a kernel starts no threads; OpenMP's parallel regions are all that it needs"),
    ("pthread_", "a kernel starts no threads; OpenMP's parallel regions are all that it needs"),
    ("cublas", "the kernel computes, no library"),
    ("cudnn", "the kernel computes, no library"),
    ("cufft", "the kernel computes, no library"),
    ("cusolver", "the kernel computes, no library"),
    ("cusparse", "the kernel computes, no library"),
    ("cutensor", "the kernel computes, no library"),
    ("cblas_", "the kernel computes, no library"),
    ("nvrtc", "a kernel loads no code"),
    ("nvJitLink", "a kernel loads no code"),
    ("nccl", "a kernel talks to no other device"),
    ("nvshmem", "a kernel talks to no other device"),
    ("cupti", "a kernel does not measure itself"),
    ("nvml", "a kernel does not look at the device's state"),
    ("PyRun", "a kernel does not call Python"),
    ("PyEval", "a kernel does not call Python"),
    ("PyObject", "a kernel does not call Python"),
    ("PyImport", "a kernel does not call Python"),
    ("PyGILState", "a kernel does not call Python"),
)

STD_NAMES = frozenset({
    "abort", "async", "atexit", "at_quick_exit", "call_once", "chrono", "cin", "clock",
    "execution", "exit", "filesystem", "fopen", "freopen", "fstream", "getenv", "ifstream",
    "jthread", "ofstream", "pmr", "quick_exit", "raise", "set_new_handler", "set_terminate",
    "signal", "system", "terminate", "this_thread", "thread", "time", "tmpfile",
})  # fmt: skip
"""Names of namespace std that a kernel has no use for."""

STD_HEADERS = _words("""
    algorithm any array atomic bit bitset cassert cfenv cfloat charconv cinttypes climits cmath
    compare complex concepts cstdarg cstddef cstdint cstdio cstdlib cstring deque exception
    experimental/simd forward_list functional initializer_list iomanip iosfwd iostream iterator
    limits list map memory new numbers numeric optional ostream queue ranges ratio set span
    sstream stack stdexcept string string_view tuple type_traits typeinfo unordered_map
    unordered_set utility valarray variant vector version
    assert.h float.h inttypes.h limits.h malloc.h math.h stdalign.h stdbool.h stddef.h stdint.h
    stdio.h stdlib.h string.h omp.h
    immintrin.h x86intrin.h xmmintrin.h emmintrin.h pmmintrin.h smmintrin.h tmmintrin.h
    avxintrin.h avx2intrin.h arm_neon.h arm_sve.h arm_bf16.h arm_fp16.h
""")

CUDA_HEADERS = _words("""
    cooperative_groups.h cuComplex.h cuda.h cudaTypedefs.h cuda_bf16.h cuda_bf16.hpp cuda_fp16.h
    cuda_fp16.hpp cuda_fp4.h cuda_fp6.h cuda_fp8.h cuda_pipeline.h cuda_runtime.h
    cuda_runtime_api.h cuda_awbarrier.h cuda_awbarrier_primitives.h cuda_pipeline_primitives.h
    device_launch_parameters.h device_types.h driver_types.h math_constants.h mma.h sm_90_rt.h
    vector_functions.h vector_types.h maca.h maca_runtime.h
""")

HEADER_FOLDERS = (
    "cooperative_groups/", "cub/block/", "cub/thread/", "cub/util", "cub/warp/", "cuda/atomic",
    "cuda/barrier", "cuda/cmath", "cuda/functional", "cuda/pipeline", "cuda/ptx",
    "cuda/std/", "cuda/work_stealing", "dlpack/", "tvm/ffi/",
)  # fmt: skip

LIBRARIES = ("cub/", "cublas", "cudnn", "cutlass/", "cute/", "thrust/", "torch/", "ATen/", "mkl")
INCLUDES = (
    "containers, algorithms and maths of the standard library, CUDA's own headers with cub/block, "
    "cub/warp and cuda/{atomic,barrier,pipeline,ptx,std}, tvm/ffi and the solution's files are"
)
"""What may be included, for people."""

CUDA_NAMES = re.compile(r"""(?x)
    cuda(?:
        Success | Error\w* | Get(?:ErrorString|ErrorName|LastError) | PeekAtLastError
      | Stream_t | (?:Stream|Device)Synchronize
      | Malloc | MallocAsync | Free | FreeAsync | Memset | MemsetAsync | Memset2DAsync
      | Memcpy(?:Async|ToSymbol|ToSymbolAsync)? | MemcpyDeviceToDevice | MemcpyHostToDevice
      | MemcpyDefault | MemcpyKind
      | GetDevice | SetDevice | GetDeviceCount | GetDeviceProperties | DeviceProp | DeviceAttr
      | DeviceGetAttribute | DevAttr\w+
      | Func(?:SetAttribute|GetAttributes|Attributes|SetCacheConfig|SetSharedMemConfig)
      | FuncAttribute\w* | FuncCache\w* | Shared(?:mem|Mem)\w* | SharedCarveout\w*
      | Occupancy\w+ | OccupancyDefault
      | Launch(?:Kernel|KernelEx|KernelExC|CooperativeKernel|Config_t|Config_st)
      | LaunchAttribute | LaunchAttributeID | LaunchAttributeValue
      | LaunchAttribute(?:ClusterDimension|ClusterSchedulingPolicyPreference|Cooperative
          |PreferredClusterDimension|PreferredSharedMemoryCarveout|Priority
          |ProgrammaticStreamSerialization|Ignore)
      | ClusterScheduling\w+
      | GetSymbolAddress
      | GetDriverEntryPoint(?:ByVersion)? | DriverEntryPoint\w* | EnableDefault
      | GridDependencySynchronize | TriggerProgrammaticLaunchCompletion | CGScope\w*
      | DataType | Round(?:Mode|Nearest|Zero|PosInf|MinInf) | Extent | Pos | Typedefs | TypedefsH
    )
  | cu(?:
        TensorMap\w* | GetError(?:String|Name) | FloatComplex | DoubleComplex | Complex | C[a-z]+f?
      | MemcpyDeviceToDevice
    )
""")
"""CUDA's runtime and driver names that a kernel's host code may use: the rest is streams, events,
graphs, other processes' memory and device-wide settings."""

CUDA_NAME = re.compile(r"cuda[A-Z]\w*|cu[A-Z]\w*")
ENTRY_POINTS = re.compile(r"cuTensorMap\w+|cuGetError\w+")
"""Driver functions that `cudaGetDriverEntryPoint` may look up."""

ASSEMBLY = re.compile(
    r"\b(?:syscall|sysenter|svc|rdtsc|rdtscp|rdpmc|vmcall|cpuid)\b|\bint\s+\$?[\w(]"
    r"|%(?:clock|clock64|clock_hi|globaltimer\w*)\b"
    r"|\b(?:call|jmp)[lqw]?\s+\*?[%$@(\w]|@(?:PLT|GOT)\w*|\w\(%+[er]ip\)"
    r"|\bmov(?:abs)?[lq]?\s+\$[A-Za-z_]"
    r"|\.(?:incbin|include|globl|global|section|pushsection|previous|text|data|byte|2byte|4byte"
    r"|8byte|hword|short|word|value|int|long|quad|octa|ascii|asciz|string|fill|skip|zero|inst|macro"
    r"|irpc?|rept|altmacro|set|equ|symver|weak|init_array)\b"
)
"""What no kernel's inline assembly holds: system calls, clocks, calls, raw bytes, sections, macros.

`.global` after a word is PTX and not meant.
"""

ATTRIBUTES = frozenset({
    "alias", "cleanup", "constructor", "destructor", "ifunc", "init_priority", "section", "symver",
    "weak", "weakref",
})  # fmt: skip
HIDDEN_ATTRIBUTES = ATTRIBUTES - {"alias", "cleanup", "section", "weak"}
"""Those of them that no macro may hold: they mean nothing else."""

PRAGMAS = frozenset({"redefine_extname", "weak"})

REFUSED = (
    frozenset(FUNCTIONS) | STD_NAMES | ATTRIBUTES | PRAGMAS | {prefix for prefix, _ in PREFIXES}
    | {"asm", "__asm", "__asm__", "_Pragma", "__attribute__", "cuda", "operator"}
)  # fmt: skip
"""All names that no pasting may make."""
REFUSED_STEMS = ("__builtin", "cu", "pthread_", *(prefix for prefix, _ in PREFIXES))
"""Beginnings of others."""

LOADTIME_SAFE = frozenset({
    "alignof", "const_cast", "decltype", "epsilon", "infinity", "lowest", "make_pair", "make_tuple",
    "max", "min", "quiet_NaN", "reinterpret_cast", "sizeof", "static_cast", "bool", "char",
    "double", "float", "int", "int64_t", "long", "short", "size_t", "uint32_t", "uint64_t",
    "unsigned", "dim3", "int32_t",
})  # fmt: skip
"""What may be called in a global's initialiser: compilers evaluate it."""
