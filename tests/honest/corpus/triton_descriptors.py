# style: tensor descriptors (TMA), an import that may fail
# definition: matmul_bias_gelu_bf16_k7168_n2048
# language: triton
# device: cuda
# expected: PASSED
import triton
import triton.language as tl

try:
    from triton.tools.tensor_descriptor import TensorDescriptor
except ImportError:
    TensorDescriptor = None


@triton.jit
def linear_gelu(
    x,
    weight,
    bias,
    output,
    M,
    N: tl.constexpr,
    K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    first_m, first_n = tl.program_id(0) * BLOCK_M, tl.program_id(1) * BLOCK_N
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k in range(0, K, BLOCK_K):
        acc = tl.dot(x.load([first_m, k]), weight.load([first_n, k]).T, acc)
    y = acc + tl.load(bias + first_n + tl.arange(0, BLOCK_N)).to(tl.float32)[None, :]
    y = y * tl.sigmoid(1.5957691216 * (y + 0.044715 * y * y * y))
    output.store([first_m, first_n], y.to(tl.bfloat16))


def run(x, weight, bias, output):
    m, k = x.shape
    n = weight.shape[0]
    linear_gelu[(triton.cdiv(m, 64), n // 64)](
        TensorDescriptor(x, [m, k], [k, 1], [64, 64]),
        TensorDescriptor(weight, [n, k], [k, 1], [64, 64]),
        bias,
        TensorDescriptor(output, [m, n], [n, 1], [64, 64]),
        m, n, k, 64, 64, 64, num_warps=4, num_stages=3,
    )  # fmt: skip
