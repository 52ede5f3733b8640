"""`keep_pages`, each case in a process of its own: glibc's state has no reset."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

import softknee
from softknee.errors import InputError
from softknee.kernels import allocation

here = pytest.mark.skipif(not allocation.supported(), reason=str(allocation.described()))

BEGIN = """
import resource, threading, torch, softknee
from softknee.kernels import allocation
torch.set_num_threads(1)
x = torch.randn(1 << 24)  # 64 MiB

def faults(x=x, calls=4, first=8):
    for _ in range(first):  # a cached scrap may keep a place from being used again, some times
        torch.relu(x)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(calls):
        torch.relu(x)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / calls

def mapped():
    # a block larger than any gap left in the heap is fresh at every call
    return faults(x.repeat(4), 2, 1) > 2 * pages

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20

pages = (1 << 26) // resource.getpagesize()
"""


def run(program: str, **environment: str) -> str:
    """What the program prints; it fails as the assertions in it do."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + program],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"THP_MEM_ALLOC_ENABLE": "0"} | environment,
    )
    assert not done.returncode, done.stderr
    return done.stdout


@here
def test_pages_are_kept_and_given_back():
    run("""
before = resident()
assert faults() > 0.5 * pages
with softknee.keep_pages() as kept:
    assert faults() < 0.01 * pages
    many = [torch.relu(x) for _ in range(3)]
    del many
    assert resident() > before + 150
    assert "1,024 MiB" in allocation.described() and "in force" in repr(kept)
assert resident() < before + 32
assert mapped()
assert "when freed (softknee.keep_pages() keeps them)" in allocation.described() and "reverted" in repr(kept)
""")


@here
def test_the_last_to_be_reverted_ends_it():
    run("""
outer, inner = softknee.keep_pages(limit=2**20), softknee.keep_pages(limit=None)
assert allocation.described() == "kept when freed"
assert faults() < 0.01 * pages
outer.revert()
outer.revert()
assert faults() < 0.01 * pages
inner.revert()
assert mapped()
""")


@here
def test_more_than_the_limit_is_given_back():
    run("""
def left():
    before = resident()
    block = bytearray(1 << 26)  # not aligned: it cuts off no scrap that would keep it from the heap's end
    del block
    return resident() - before
few = softknee.keep_pages(limit=2**24)
assert left() < 8
softknee.keep_pages(limit=2**27)
assert left() > 56
""")


@here
def test_threads_allocate_and_switch():
    run("""
wrong = []
def work():
    for _ in range(5):
        with softknee.keep_pages():
            if not torch.equal(torch.relu(x), expected):
                wrong.append(1)
expected = torch.relu(x)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not wrong and "keeps them" in allocation.described()
assert mapped()
""")


@here
@pytest.mark.parametrize("name", ["GLIBC_TUNABLES", "MALLOC_MMAP_MAX_"])
def test_what_the_environment_set_holds_again(name):
    """Without it the blocks would be mapped, and faults come back."""
    value = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1000000000" if name == "GLIBC_TUNABLES" else "0"
    run(
        """
softknee.keep_pages().revert()
assert faults() < 0.01 * pages
""",
        **{name: value},
        **({} if name == "GLIBC_TUNABLES" else {"MALLOC_TRIM_THRESHOLD_": "1000000000"}),
    )


@pytest.mark.parametrize("limit", [-1, 2**31, 1.5, True, "1G"])
def test_a_limit_that_does_not_fit_is_named(limit):
    with pytest.raises(InputError, match="limit must be a whole number of bytes"):
        softknee.keep_pages(limit=limit)


@pytest.mark.parametrize("symptom", [ValueError("unrecognized configuration name"), OSError("libc.so.6")])
def test_another_library_is_named(monkeypatch, symptom):
    def missing(name):
        raise symptom

    monkeypatch.setattr(os, "confstr", missing)
    allocation._glibc.cache_clear()
    try:
        with pytest.raises(InputError, match="needs glibc's malloc, and here the C library is not glibc"):
            softknee.keep_pages()
        assert "not glibc" in allocation.described() and not allocation.supported()
    finally:
        monkeypatch.undo()
        allocation._glibc.cache_clear()


@here
@pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")
def test_another_allocator_is_named(tmp_path):
    source, library = tmp_path / "own.c", tmp_path / "libown.so"
    source.write_text(
        "#include <stddef.h>\n#include <errno.h>\nextern void *memalign(size_t, size_t);\n"
        "int posix_memalign(void **to, size_t a, size_t n) { *to = memalign(a, n); return *to ? 0 : ENOMEM; }\n"
    )
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True, timeout=60)
    said = run(
        """
try:
    softknee.keep_pages()
except softknee.errors.InputError as error:
    print(error)
""",
        LD_PRELOAD=str(library),
    )
    assert said.strip() == "keep_pages needs glibc's malloc, and here memory is allocated by libown.so, not by glibc"
