"""Writing a file so that it appears whole or not at all, whatever interrupts it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from softknee.errors import InputError


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Writes bytes, or text as UTF-8, to `path`, whose folder is made, and returns the path.

    What stood there stays until the new file is complete. Raises InputError where it cannot be written.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content if isinstance(content, bytes) else content.encode())
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(temporary, 0o666 & ~mask)  # mkstemp's 0600 would hide it from whoever else may read the folder
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror or error}") from error
    return target
