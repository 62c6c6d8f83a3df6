"""What is said of the host's processor agrees with the compiler and the C library."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time

import pytest

from evaluators import devices, processor

MACROS = {
    "avx2": "__AVX2__",
    "fma": "__FMA__",
    "avx512f": "__AVX512F__",
    "amx_tile": "__AMX_TILE__",
}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86")
def test_vector_instructions_are_those_that_the_compiler_finds():
    text = subprocess.run(
        ["g++", "-march=native", "-dM", "-E", "-x", "c++", "/dev/null"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    defined = {line.split()[1] for line in text.splitlines()}
    found = processor.vectors()
    assert {n for n, macro in MACROS.items() if macro in defined} == set(MACROS) & set(found)


def test_caches_are_those_of_the_system():
    """The last level aside: a virtual machine has a part of it."""
    for level, key in (("L1", "LEVEL1_DCACHE_SIZE"), ("L2", "LEVEL2_CACHE_SIZE")):
        said = subprocess.run(["getconf", key], capture_output=True, text=True, check=True).stdout
        assert processor.caches().get(level, 0) in (int(said or 0), 0)


def test_a_busy_processor_is_seen():
    idle = min(processor.busy(0.1) for _ in range(3))
    work = "end = __import__('time').time() + 2\nwhile __import__('time').time() < end: pass"
    spinning = [subprocess.Popen([sys.executable, "-c", work]) for _ in range(processor.cores())]
    time.sleep(0.3)
    busy = processor.busy(0.3)
    for process in spinning:
        process.kill()
        process.wait()
    assert 0 <= idle <= busy <= 1
    assert busy > 0.9


def test_facts_name_processor_instructions_and_caches():
    facts = devices.facts("cpu")
    assert facts["name"]
    assert facts["cores"] == len(os.sched_getaffinity(0))
    assert facts["instructions"].split() == list(processor.vectors())
    assert facts["caches"].count("KiB") == len(processor.caches())
