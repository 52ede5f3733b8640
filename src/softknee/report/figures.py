"""How figures are written, the same in the terminal and on the page: three digits that say something, signs that show.

Every function takes None, NaN and "nan" for a missing figure and writes it as a dash: missing is missing, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

MISSING = "–"
MINUS = "−"


def known(value: Any) -> bool:
    """Whether `value` is a figure: a number that is not NaN."""
    return isinstance(value, (int, float)) and not (isinstance(value, float) and math.isnan(value))


def number(value: Any, digits: int = 3) -> str:
    """`value` to so many significant digits: 0.578, 1,078, 3.1e−05."""
    if isinstance(value, (bool, str)):
        return str(value)
    if not known(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e6):
        return f"{int(value):,}".replace("-", MINUS)
    if 1e-4 <= abs(value) < 1e6:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        return f"{value:,.{decimals}f}".replace("-", MINUS)
    return f"{value:.{digits - 1}e}".replace("-", MINUS)


def percent(value: Any, digits: int = 1) -> str:
    """A share in [0, 1] as a percentage; "< 0.1%" instead of a 0 that is none."""
    if not known(value):
        return MISSING
    if 0 < value < 0.5 * 10**-digits / 100:
        return f"< {10**-digits:g}%"
    if 1 - 0.5 * 10**-digits / 100 < value < 1:
        return f"> {100 - 10**-digits:.{digits}f}%"
    text = f"{100 * value:.{digits}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text and float(text) in (0, 100) else text}%".replace("-", MINUS)


def score(value: Any) -> str:
    """An accuracy or another score, three decimals: 0.956."""
    return f"{value:.3f}".replace("-", MINUS) if known(value) else MISSING


def signed(value: Any) -> str:
    """A difference of scores with its sign: +0.856, −0.003, 0.000."""
    if not known(value):
        return MISSING
    text = f"{value:+.3f}"
    return text[1:] if float(text) == 0 else text.replace("-", MINUS)


def interval(ends: Sequence[Any] | None, write: Any = signed) -> str:
    """[low, high]."""
    return MISSING if ends is None else f"[{write(ends[0])}, {write(ends[1])}]"


def p_value(value: Any) -> str:
    """0.0312, or "< 0.0001": smaller ones differ in nothing that matters."""
    if not known(value):
        return MISSING
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}" if value < 0.995 else "1"


def shape(sizes: Sequence[int] | None) -> str:
    """8×64."""
    return MISSING if sizes is None else "×".join(map(str, sizes)) or "scalar"


def plural(count: int, noun: str, many: str | None = None) -> str:
    """1 row, 2 rows."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def clip(text: Any, length: int = 160) -> str:
    """`text` on one line, cut in the middle so that both ends can still be told."""
    flat = " ".join(str(text).split())
    if len(flat) <= length:
        return flat
    tail = length // 3
    return f"{flat[: length - tail - 1]}…{flat[len(flat) - tail :]}"
