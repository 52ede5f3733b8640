"""The museum walked through: which mismatches were flagged with the right pair, which clean ports were flagged."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from exhibits import Exhibit
from ports import Port, verdict

import softknee


@dataclass(frozen=True)
class Outcome:
    """right: the mismatch was flagged at the right sites with the right pair; the port was not flagged. said: what was
    said instead."""

    name: str
    flagged: bool
    right: bool
    said: str = ""


def _bare(name: str | None) -> str:
    return (name or "nothing").partition("(")[0].partition(" [")[0]


def exhibited(exhibit: Exhibit) -> Outcome:
    """What `identify` says of one exhibit."""
    with tempfile.TemporaryDirectory() as folder:
        before = softknee.identify(*exhibit.before(Path(folder)))
        if exhibit.after is None:
            pairs = [(_bare(c.declared), _bare(c.found), c.sites) for c in before.conflicts]
            said = "; ".join(map(str, before.conflicts))
        else:
            found = before.against(softknee.identify(*exhibit.after(Path(folder))))
            pairs = [(_bare(d.before), _bare(d.after), tuple(k for p in d.pairs for k in p if k)) for d in found]
            said = "; ".join(map(str, found))
    meant, runs = exhibit.pair
    right = any(
        meant in ("*", first) and runs in ("*", second) and all(exhibit.at in key for key in keys)
        for first, second, keys in pairs
    )
    return Outcome(exhibit.name, bool(pairs), right, said)


def ported(port: Port) -> Outcome:
    """What `identify` says of one clean port."""
    with tempfile.TemporaryDirectory() as folder:
        before = softknee.identify(*port.before(Path(folder)))
        said = verdict(before, softknee.identify(*port.after(Path(folder))))
    return Outcome(port.name, bool(said), not said, "; ".join(said))


def walk(items: Iterable[Exhibit | Port]) -> Iterator[Outcome]:
    for item in items:
        try:
            yield exhibited(item) if isinstance(item, Exhibit) else ported(item)
        except softknee.errors.InputError as error:
            yield Outcome(item.name, isinstance(item, Port), False, f"refused: {error}")


def table(exhibits: list[Outcome], ports: list[Outcome]) -> str:
    """The confusion table, and what was wrong."""
    lines = [
        f"{'':24}{'flagged':>10}{'silent':>10}{'right':>10}",
        *(
            f"{name:24}{sum(o.flagged for o in outcomes):>10}{sum(not o.flagged for o in outcomes):>10}"
            f"{sum(o.right for o in outcomes):>6}/{len(outcomes)}"
            for name, outcomes in (("mismatches", exhibits), ("clean ports", ports))
        ),
        *(f"  wrong: {o.name}: {o.said or 'nothing said'}" for o in (*exhibits, *ports) if not o.right),
    ]
    return "\n".join(lines)
