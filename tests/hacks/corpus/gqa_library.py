# trick: another library's attention
# definition: gqa_paged_decode_h32_kv8_d128_ps16
# language: triton
# device: cuda
# expected: INVALID_SOURCE
# caught by: guard
# ruff: noqa
import flashinfer


def run(q, k_cache, v_cache, kv_indptr, kv_indices, kv_last_page_len, sm_scale, output, lse):
    flashinfer.decode.single_decode_with_kv_cache(q, k_cache, v_cache)
