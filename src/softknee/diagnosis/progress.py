"""A bar on the terminal for trainings that take minutes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def training_bar(progress: bool | None, doing: str, total: int) -> Iterator[Callable[[str], None]]:
    """Yields what is called, with a word on it, after each of `total` trainings. progress: None shows the bar where
    standard output is a terminal."""
    if progress is False or (progress is None and not sys.stdout.isatty()):
        yield lambda text: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task(doing, total=total)
        yield lambda text: bar.update(task, advance=1, description=text)
