"""The zip archives that torch writes, as far as they are read here: named members, each up to a size, nothing unpacked.

Members are read by name into memory, so that a path in an archive leads nowhere. Sizes are checked against what the
file can hold before anything is allocated.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from types import TracebackType
from typing import IO

from ...errors import InputError

_MOST_MEMBERS = 100_000
_MOST_BYTES = 1 << 26


class Archive:
    """An archive open for reading; `what` names it in errors. Its members stand under one folder, which is left out.

    Raises InputError where it is none, is damaged or too large.
    """

    def __init__(self, file: str | os.PathLike[str] | IO[bytes], what: str) -> None:
        self.what = what
        try:
            self._size = os.path.getsize(file) if isinstance(file, (str, os.PathLike)) else None
            self._directory(file)
            self._zip = zipfile.ZipFile(file)
        except OSError as error:
            raise InputError(f"{what} cannot be read: {error.strerror or error}") from error
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError, MemoryError) as error:
            raise InputError(f"{what} is no whole zip archive: {error}") from error
        folders = {name.partition("/")[0] for name in self._zip.namelist()}
        self._folder = f"{folders.pop()}/" if len(folders) == 1 and len(self._zip.namelist()) > 1 else ""
        self.names = frozenset(name[len(self._folder) :] for name in self._zip.namelist())

    def _directory(self, file: str | os.PathLike[str] | IO[bytes]) -> None:
        """Refuses a directory of more members than any model has, before it is read: by its last record."""
        with open(file, "rb") if isinstance(file, (str, os.PathLike)) else _Kept(file) as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - 66_000))
            tail = stream.read()
        at = tail.rfind(b"PK\x06\x06")  # of a large archive; else the short record
        if at >= 0:
            members = int.from_bytes(tail[at + 32 : at + 40], "little")
        else:
            at = tail.rfind(b"PK\x05\x06")
            members = int.from_bytes(tail[at + 10 : at + 12], "little") if at >= 0 else 0
        if members > _MOST_MEMBERS:
            raise InputError(f"{self.what} lists {members:,} members; more than {_MOST_MEMBERS:,} are no model")

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def size(self, name: str) -> int:
        return self._zip.getinfo(self._folder + name).file_size

    def read(self, name: str, most: int = _MOST_BYTES) -> bytes:
        """The bytes of a member, of `most` at most. Raises InputError where it is missing, larger or damaged."""
        if name not in self.names:
            raise InputError(f"{self.what} has no member {name!r}")
        size = self.size(name)
        if size > most:
            raise InputError(f"{self.what}: {name!r} is said to be {size:,} bytes; {most:,} are the most that is read")
        try:
            with self._zip.open(self._folder + name) as member:
                content = member.read(size + 1)
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError, ValueError) as e:
            raise InputError(f"{self.what}: {name!r} is damaged: {e}") from e
        if len(content) != size:
            raise InputError(f"{self.what}: {name!r} has {len(content):,} of {size:,} bytes")
        return content


class _Kept:
    """A stream that is somebody else's to close."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream

    def __enter__(self) -> IO[bytes]:
        return self.stream

    def __exit__(self, *_: object) -> None:
        self.stream.seek(0)
