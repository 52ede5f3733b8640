"""Whether the C library keeps the pages of large tensors that are freed: an opt-in setting of the whole process.

A tensor of more than 32 MiB, and at first of more than 128 KiB, comes from glibc by `mmap` and goes back by `munmap`,
so that every new output pays a page fault per 4 KiB: more than computing it. With `keep_pages()` glibc takes large
blocks from its heap and keeps what is freed there for the next.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import threading
from typing import Any

from ..errors import InputError

# <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
MOST = 2**31 - 1
"""The largest limit that glibc takes: a C int."""
# What holds again when nothing keeps pages, unless the environment says otherwise. `mallopt` has no way to read, and
# any call of it ends glibc's own adaptation of the thresholds for good. The two thresholds are therefore where that
# adaptation ends, in a process that has freed a block of 32 MiB; its start, 128 KiB, would map every small tensor.
_USUAL = {
    "mmap_max": (_M_MMAP_MAX, 65536),
    "mmap_threshold": (_M_MMAP_THRESHOLD, 32 * 2**20),
    "trim_threshold": (_M_TRIM_THRESHOLD, 64 * 2**20),
}
_lock = threading.Lock()
_active: list[KeptPages] = []


@functools.cache
def _glibc() -> ctypes.CDLL | str:
    """The C library whose allocator this process uses, or why it cannot be told to keep pages."""
    try:
        version = os.confstr("CS_GNU_LIBC_VERSION")
        library = ctypes.CDLL("libc.so.6")
        used, own = (ctypes.cast(c.posix_memalign, ctypes.c_void_p).value for c in (ctypes.CDLL(None), library))
    except (ValueError, AttributeError, OSError, TypeError):  # another libc, another system
        version = None
    if not version:
        return "the C library is not glibc"
    if used != own:
        return f"memory is allocated by {_file_at(used)}, not by glibc"
    return library


def _file_at(address: int | None) -> str:
    """The file of the library that holds `address`."""
    with open("/proc/self/maps", encoding="utf-8") as maps:
        for line in maps:
            low, high = (int(end, 16) for end in line.split()[0].split("-"))
            if address is not None and low <= address < high:
                return os.path.basename(line.split()[-1])
    return "another library"


def supported() -> bool:
    """Whether `keep_pages` works here: Linux with glibc, whose malloc no other one replaces."""
    return not isinstance(_glibc(), str)


def described() -> str:
    """In plain words, for `softknee env`."""
    library = _glibc()
    if isinstance(library, str):
        return f"given back at once or as the allocator likes: {library}"
    limit = _limit()
    if limit is None:
        return "given back when freed (softknee.keep_pages() keeps them)"
    return "kept when freed" + ("" if limit < 0 else f", up to {limit / 2**20:,.0f} MiB")


def keep_pages(limit: int | None = 2**30) -> KeptPages:
    """Keeps the memory of freed tensors for the next ones, in the whole process, until `.revert()` or the `with` ends.

        with softknee.keep_pages():
            train()

    limit: bytes that may lie free at the end of the heap; when there are more, all of them go back to the system. At
    most 2³¹ − 1, glibc's largest; None for no limit. Of several calls in force the largest limit holds, and the last to
    be reverted ends it.

    What it costs: freed memory stays with the process, also in gaps below a tensor that lives on, which the limit does
    not count; trainings whose batches differ in size were seen to hold twice as much. What it reaches: blocks of the
    main thread, where backward on the CPU runs too, NumPy's arrays among them; another thread's heaps hold blocks of
    less than 64 MiB.

    Raises InputError for a limit that is no such number, and where the process does not allocate by glibc: macOS,
    Windows, musl, jemalloc or tcmalloc preloaded (which keep pages on their own terms).
    Source: mallopt(3).
    """
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or not 0 <= limit <= MOST):
        raise InputError(f"keep_pages: limit must be a whole number of bytes from 0 to {MOST}, or None, got {limit!r}")
    library = _glibc()
    if isinstance(library, str):
        raise InputError(f"keep_pages needs glibc's malloc, and here {library}")
    kept = KeptPages(-1 if limit is None else limit)
    with _lock:
        _active.append(kept)
        _settle(library)
    return kept


class KeptPages:
    """Pages are kept from here to `revert()`; as a context manager, to the end of the block."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def revert(self) -> None:
        """Ends it, and gives all free memory back unless another call is still in force. Once is enough.

        glibc's thresholds then stand where its own adaptation ends (32 MiB to map a block, 64 MiB to trim the heap), or
        as the environment sets them: that adaptation cannot be switched on again. Gaps that the heap has by now hold no
        memory, but are used before a block is mapped, and what is used of them stays.
        """
        library = _glibc()
        assert not isinstance(library, str)
        with _lock:
            if self in _active:
                _active.remove(self)
                _settle(library)

    def __enter__(self) -> KeptPages:
        return self

    def __exit__(self, *_: Any) -> None:
        self.revert()

    def __repr__(self) -> str:
        return f"<softknee.keep_pages: {'in force' if self in _active else 'reverted'}>"


def _limit() -> int | None:
    """The limit in force, −1 for none; None where pages are not kept."""
    limits = [kept._limit for kept in _active]
    return None if not limits else -1 if -1 in limits else max(limits)


def _settle(library: ctypes.CDLL) -> None:
    """Tells glibc what is in force."""
    limit = _limit()
    if limit is not None:
        library.mallopt(_M_MMAP_MAX, 0)  # M_MMAP_THRESHOLD goes up to 32 MiB only
        library.mallopt(_M_TRIM_THRESHOLD, limit)
        _fill_the_cache(library)
        return
    for name, (parameter, usual) in _USUAL.items():
        library.mallopt(parameter, _of_environment(name, usual))
    library.malloc_trim(0)


def _fill_the_cache(library: ctypes.CDLL) -> None:
    """Leaves no room in glibc's cache of small blocks for the scraps that aligning a large one cuts off.

    A cached scrap is not merged with its freed neighbour, which then is that much too small for the next tensor of the
    same size: outputs of 64 MiB took seven places in turn before the first was used again, now mostly one.
    """
    library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    blocks = [library.malloc(size) for size in range(24, 256, 16) for _ in range(8)]
    for block in blocks:
        library.free(block)


def _of_environment(name: str, usual: int) -> int:
    """What GLIBC_TUNABLES or MALLOC_…_ set when the process began."""
    tunable = re.search(rf"(?:^|:)glibc\.malloc\.{name}=(\w+)", os.environ.get("GLIBC_TUNABLES", ""))
    found = tunable[1] if tunable else os.environ.get(f"MALLOC_{name.upper()}_", "")
    try:
        return int(found, 0) if found else usual
    except ValueError:
        return usual
