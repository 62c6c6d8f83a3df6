# trick: torch's attention
# definition: gqa_paged_decode_h32_kv8_d128_ps16
# language: triton
# device: cuda
# expected: INVALID_SOURCE
# caught by: guard
# ruff: noqa
import torch


def run(q, k_cache, v_cache, kv_indptr, kv_indices, kv_last_page_len, sm_scale, output, lse):
    keys = k_cache[kv_indices].flatten(0, 1)
    values = v_cache[kv_indices].flatten(0, 1)
    output.copy_(torch.nn.functional.scaled_dot_product_attention(q, keys, values))
