"""Paired statistics: what two columns of scores on the same rows allow one to say.

Every function takes numbers, is vectorised, uses no global random state and gives the same answer for the same seed.
The rows are a sample; the statements are about the rows that were not seen. Rows that belong together (one patient, one
document) are named by `clusters` and are then drawn together.

Sources: McNemar 1947 with the exact binomial tail; Tango 1998 (score interval for a paired difference of proportions);
Schuirmann 1987 (two one-sided tests); Connor 1987 (rows for McNemar); Efron 1979 (bootstrap); Fisher 1935 (sign flips);
Holm 1979; Benjamini and Hochberg 1995.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from softknee.errors import InputError
from softknee.plain import plain

Floats = NDArray[np.float64]

DRAWS_AT_ONCE = 4_000_000  # numbers drawn per chunk: 32 MB, so that memory stays bounded at any number of rows
MOST_DRAWS = 20_000_000  # beyond this many numbers the resamples are thinned, to no fewer than 1,000


class Interval(NamedTuple):
    """Both ends of an interval, in the unit of the score."""

    low: float
    high: float

    def inside(self, margin: float) -> bool:
        """Whether the whole interval lies strictly between −margin and +margin."""
        return -margin < self.low and self.high < margin


def mcnemar_exact(fixed: Any, broken: Any) -> Any:
    """Two-sided exact McNemar p for `fixed` rows that became right and `broken` rows that became wrong.

    Under the null each changed row is a fair coin; p is twice the smaller binomial tail, at most 1. Counts may be
    integers (a float comes back) or integer arrays (an array comes back). Without a changed row p is 1.
    """
    from scipy.special import bdtr

    first, second = np.asarray(fixed), np.asarray(broken)
    if any(array.dtype.kind not in "iu" or (array < 0).any() for array in (first, second)):
        raise InputError(f"fixed and broken are counts of rows, whole and not negative; got {fixed!r} and {broken!r}")
    p = np.minimum(1.0, 2.0 * bdtr(np.minimum(first, second).astype(float), first + second, 0.5))
    return float(p) if p.ndim == 0 else p


def mcnemar_power(rows: int, fixed: float, broken: float, *, confidence: float = 0.95) -> float:
    """Chance that the exact test on `rows` rows finds rates of fixed and broken rows at `confidence`.

    The number of changed rows is binomial, and given it the number of fixed ones is; both sums are taken in full, save
    for counts of changed rows more than 9 standard deviations off their mean.
    """
    from scipy.stats import binom

    changed = _rates(fixed, broken)
    if changed == 0:
        return 0.0
    spread = 9 * math.sqrt(rows * changed * (1 - changed)) + 9
    mean = rows * changed
    count = np.arange(max(0, math.floor(mean - spread)), min(rows, math.ceil(mean + spread)) + 1)
    # the largest tail that is still significant; binom.ppf gives the first count whose tail is not below its argument
    tail = binom.ppf((1 - confidence) / 2, count, 0.5)
    tail = np.where(mcnemar_exact(tail.astype(int), (count - tail).astype(int)) < 1 - confidence, tail, tail - 1)
    share = fixed / changed
    found = np.where(tail >= 0, binom.cdf(tail, count, share) + binom.cdf(tail, count, 1 - share), 0.0)
    return float(np.sum(binom.pmf(count, rows, changed) * np.minimum(found, 1.0)))


def required_rows(fixed: float, broken: float, *, power: float = 0.9, confidence: float = 0.95) -> int | None:
    """Rows that the exact McNemar test needs to find these rates of fixed and broken rows with chance `power`.

    2 % against 1 % at 90 % needs about 3.2 thousand. None where the rates are equal: no number of rows shows that.
    Exact by bisection over `mcnemar_power` up to 1,000 changed rows, Connor's (1987) formula with a
    continuity correction beyond.
    """
    changed = _rates(fixed, broken)
    _share("power", power)
    difference = abs(fixed - broken)
    if difference == 0:
        return None
    both, one = _normal((1 + confidence) / 2), _normal(power)
    root = both * math.sqrt(changed) + one * math.sqrt(max(changed - difference**2, 0.0))
    rows = math.ceil((root / difference) ** 2 + 1 / difference)  # the second term: the exact test moves in whole rows
    if rows * changed > 1_000:
        return rows
    low, high = 1, max(rows, 2)
    while mcnemar_power(high, fixed, broken, confidence=confidence) < power:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if mcnemar_power(middle, fixed, broken, confidence=confidence) < power:
            low = middle
        else:
            high = middle
    return high


def required_rows_for_mean(
    deviation: float,
    difference: float,
    *,
    margin: float | None = None,
    power: float = 0.9,
    confidence: float = 0.95,
) -> int | None:
    """Rows needed where row differences have this standard `deviation` and mean `difference`, by the normal law.

    Without `margin`: to show that the difference is not 0. With it: to show by two one-sided tests that it is within
    ±margin. None where that cannot be shown: no difference, or one that reaches the margin.
    """
    _share("power", power)
    if margin is None:
        distance, quantile = abs(difference), _normal((1 + confidence) / 2) + _normal(power)
    else:
        # at difference 0 either side may fail, so each gets half of what the power leaves to miss
        distance = margin - abs(difference)
        quantile = _normal(confidence) + _normal((1 + power) / 2 if difference == 0 else power)
    if distance <= 0 or not math.isfinite(deviation):
        return None
    return max(2, math.ceil((deviation * quantile / distance) ** 2))


def score_interval(fixed: int, broken: int, rows: int, *, confidence: float = 0.95) -> Interval:
    """Tango's (1998) score interval for (fixed − broken) / rows.

    It holds for few rows and few changed ones: where nothing changed it is ±z²/(rows + z²), not a point.
    """
    from scipy.optimize import brentq

    if rows < 1 or fixed < 0 or broken < 0 or fixed + broken > rows:
        raise InputError(f"need 0 <= fixed + broken <= rows and rows >= 1; got {fixed}, {broken} and {rows}")
    z = _normal((1 + confidence) / 2)
    observed = (fixed - broken) / rows

    def statistic(delta: float) -> float:
        linear = -fixed - broken + (2 * rows - fixed + broken) * delta
        constant = -broken * delta * (1 - delta)
        chance = (math.sqrt(max(linear**2 - 8 * rows * constant, 0.0)) - linear) / (4 * rows)
        variance = rows * (2 * chance + delta * (1 - delta))
        return (fixed - broken - rows * delta) / math.sqrt(variance) if variance > 0 else 0.0

    edge = 1 - 1e-12
    low = -1.0 if statistic(-edge) < z else brentq(lambda d: statistic(d) - z, -edge, observed, xtol=1e-12)
    high = 1.0 if statistic(edge) > -z else brentq(lambda d: statistic(d) + z, observed, edge, xtol=1e-12)
    return Interval(float(low), float(high))


def mean_interval(
    differences: ArrayLike, clusters: Sequence[Any] | None = None, *, confidence: float = 0.95
) -> Interval:
    """Student's interval for the mean difference; with clusters, of the ratio of cluster sums to cluster sizes.

    Infinite for fewer than two rows or clusters.
    """
    from scipy.stats import t

    sums, sizes = _clustered(_column("differences", differences), clusters)
    mean, groups = sums.sum() / sizes.sum(), len(sums)
    if groups < 2:
        return Interval(-math.inf, math.inf)
    error = math.sqrt(groups / (groups - 1) * float(np.sum((sums - mean * sizes) ** 2))) / sizes.sum()
    reach = float(t.ppf((1 + confidence) / 2, groups - 1)) * error
    return Interval(float(mean - reach), float(mean + reach))


def student(
    differences: ArrayLike, clusters: Sequence[Any] | None = None, *, confidence: float = 0.95
) -> tuple[float, Interval]:
    """Student's two-sided p of the mean difference, and its interval, which excludes 0 where p < 1 − confidence.

    For few rows, each a mean over many others, as a training's score is: sign flips of 5 rows have no p below 1/16.
    Differences that are all equal have no spread to judge by: p is that of the sign flips, and the interval is infinite
    unless that is significant.
    """
    from scipy.stats import t

    _share("confidence", confidence)
    values = _column("differences", differences)
    interval = mean_interval(values, clusters, confidence=confidence)
    sums, sizes = _clustered(values, clusters)
    reach, mean = (interval.high - interval.low) / 2, float(sums.sum() / sizes.sum())
    if reach > 1e-12 * abs(mean) and math.isfinite(reach):
        error = reach / float(t.ppf((1 + confidence) / 2, len(sums) - 1))
        return float(2 * t.sf(abs(mean) / error, len(sums) - 1)), interval
    p = sign_flip(values, clusters)
    return p, interval if p < 1 - confidence else Interval(-math.inf, math.inf)


def bootstrap_means(
    differences: ArrayLike,
    clusters: Sequence[Any] | None = None,
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> Floats:
    """Means of `resamples` resamples of the rows (of the clusters, if named), as a float64 array."""
    values = _column("differences", differences)
    generator = np.random.default_rng(seed)
    if clusters is None:
        levels, counts = np.unique(values, return_counts=True)
        if len(levels) <= 64:  # resampling rows is then one multinomial draw over the levels: exact, and free of rows
            drawn = generator.multinomial(len(values), counts / len(values), size=resamples)
            return np.asarray(drawn @ levels / len(values), dtype=np.float64)
    sums, sizes = _clustered(values, clusters)
    groups = len(sums)
    resamples = min(resamples, max(1_000, MOST_DRAWS // groups))
    means = np.empty(resamples)
    step = max(1, DRAWS_AT_ONCE // groups)
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        drawn = generator.integers(0, groups, size=(stop - start, groups), dtype=np.int32)
        total = sums[drawn].sum(axis=1)
        means[start:stop] = total / (sizes[drawn].sum(axis=1) if clusters is not None else groups)
    return means


def paired_bootstrap(
    before: ArrayLike,
    after: ArrayLike,
    *,
    clusters: Sequence[Any] | None = None,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Percentile interval for mean(after) − mean(before), rows (or whole clusters) resampled in pairs.

    `before` and `after` hold one finite score per row, in the same order. With few changed rows the percentile
    interval is too short (nothing changed: a point), so `paired` never takes equivalence from it.
    """
    _share("confidence", confidence)
    first, second = _pair(before, after)
    means = bootstrap_means(second - first, clusters, resamples=resamples, seed=seed)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def sign_flip(
    differences: ArrayLike,
    clusters: Sequence[Any] | None = None,
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> float:
    """Two-sided p of the mean difference when each row's (each cluster's) sign is a fair coin.

    All flips are counted up to 13 rows that differ; beyond that `resamples` random ones are drawn, the observed among
    them, so that p is never 0. Above 2,000 of which none carries 1 % of the sum of squares, the flips follow the normal
    law closely, and it is used.
    """
    sums, _ = _clustered(_column("differences", differences), clusters)
    sums = sums[sums != 0]
    if len(sums) == 0:
        return 1.0
    reached = abs(float(sums.sum())) * (1 - 1e-12)  # a flip that ties with what was observed counts as reaching it
    if len(sums) <= 13:
        flips = 1 - 2 * (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1)
        return float(np.mean(np.abs(flips @ sums) >= reached))
    squares = sums**2
    if len(sums) > 2_000 and squares.max() < 0.01 * squares.sum():
        return max(2 * _normal_tail(reached / math.sqrt(squares.sum())), float(np.finfo(np.float64).tiny))
    generator = np.random.default_rng(seed)
    resamples = min(resamples, max(1_000, MOST_DRAWS // len(sums)))
    step, hits = max(1, DRAWS_AT_ONCE // len(sums)), 0
    for start in range(0, resamples, step):
        size = (min(start + step, resamples) - start, len(sums))
        flips = generator.integers(0, 2, size=size, dtype=np.int8).astype(np.float64)
        hits += int(np.sum(np.abs(2 * (flips @ sums) - sums.sum()) >= reached))
    return (hits + 1) / (resamples + 1)


def holm(p: ArrayLike) -> Floats:
    """Holm's (1979) adjusted p-values: the chance of any false claim among them stays below the level.

    NaN (no test) stays NaN and is not counted. Same order as given.
    """
    return _adjusted(p, lambda values, count: np.maximum.accumulate(values * (count - np.arange(count))))


def benjamini_hochberg(p: ArrayLike) -> Floats:
    """Benjamini and Hochberg's (1995) adjusted p-values: the expected share of false claims stays below the level."""

    def adjust(values: Floats, count: int) -> Floats:
        stepped = values * count / np.arange(1, count + 1)
        return np.minimum.accumulate(stepped[::-1])[::-1]

    return _adjusted(p, adjust)


@dataclass(frozen=True)
class Paired:
    """What two columns of scores on the same rows say. Differences are after − before, in the unit of the score."""

    rows: int  # rows with a score on both sides: all that is judged
    missing_before: int
    missing_after: int
    before: float  # mean score
    after: float
    difference: float
    interval: Interval  # paired bootstrap; Student's where that is the test
    confidence: float
    fixed: int  # rows whose score got better
    broken: int  # rows whose score got worse
    p: float
    test: str  # "exact McNemar", "sign flips" or "Student"
    margin: float
    equivalence_interval: Interval  # at 1 − 2·(1 − confidence): two one-sided tests
    higher_is_better: bool
    verdict: str  # "different", "equivalent" or "underpowered"
    rows_needed: int | None  # rows in all that would settle it; None: it is settled, or cannot be told

    @property
    def gain(self) -> float:
        """The difference, positive where after is better."""
        return self.difference if self.higher_is_better else -self.difference

    @property
    def direction(self) -> str:
        """By the mean: "better", "worse" or "same", no matter whether it is significant."""
        return "better" if self.gain > 0 else "worse" if self.gain < 0 else "same"

    @property
    def significant(self) -> bool:
        """Whether p is below 1 − confidence: a difference of some size is shown."""
        return self.p < 1 - self.confidence

    @property
    def conclusion(self) -> str:
        """The verdict in words, with its direction or the rows it needs."""
        if self.verdict == "different":
            return f"different: {self.direction}"
        if self.verdict == "equivalent":
            return f"equivalent within ±{self.margin:g}"
        if self.rows_needed is None:
            return "underpowered: needs more rows, and these cannot tell how many"
        return f"underpowered: needs {self.rows_needed:,} rows"

    def to_dict(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return plain({**fields, "direction": self.direction, "conclusion": self.conclusion})

    def __str__(self) -> str:
        return (
            f"{self.conclusion}; {self.before:.4g} → {self.after:.4g} ({self.difference:+.4g}, "
            f"{self.confidence:.0%} interval {self.interval.low:+.4g} to {self.interval.high:+.4g}); "
            f"{self.fixed} fixed, {self.broken} broken of {self.rows}; {self.test} p = {self.p:.2g}"
        )


def paired(
    before: ArrayLike,
    after: ArrayLike,
    *,
    margin: float = 0.005,
    confidence: float = 0.95,
    clusters: Sequence[Any] | None = None,
    higher_is_better: bool = True,
    few: bool = False,
    resamples: int = 10_000,
    seed: int = 0,
) -> Paired:
    """Judge two columns of scores, row i of one against row i of the other.

    `before`, `after`: 1-D, one score per row, float, bool or integer; what is not finite is missing, counted and left
    out, never taken as 0. Verdicts:

    - "equivalent": the two one-sided tests place the difference within ±margin, be it significant or not. Scores that
      are all 0 or 1 use Tango's score interval, others Student's (with clusters: of cluster sums).
    - "different": otherwise, p < 1 − confidence; by exact McNemar for 0/1 scores without clusters, else by sign flips;
      with `few`, rows that are each a mean over many others, by `student`, which tells five of them apart.
    - "underpowered": otherwise, with the rows that would settle it at 90 % power if these rates stayed. One row
      is never enough.

    Raises InputError for columns of different length, no row at all, or no row scored on both sides.
    """
    if not (isinstance(margin, (int, float)) and 0 <= margin < math.inf):
        raise InputError(f"margin must be a number of at least 0; got {margin!r}")
    _share("confidence", confidence)
    if confidence <= 0.5:
        raise InputError(f"confidence must be above 0.5, 0.95 say; got {confidence!r}")
    first, second = _pair(before, after, finite=False)
    if clusters is not None and len(clusters) != len(first):
        raise InputError(f"clusters must name one cluster per row: {len(clusters)} names for {len(first)} rows")
    left, right = np.isfinite(first), np.isfinite(second)
    both = left & right
    rows = int(both.sum())
    if rows == 0:
        raise InputError(f"none of the {len(first)} rows has a score on both sides, so there is nothing to compare")
    groups = None if clusters is None else [name for name, kept in zip(clusters, both, strict=True) if kept]
    first, second = first[both], second[both]
    change = second - first
    better, worse = int((change > 0).sum()), int((change < 0).sum())
    fixed, broken = (better, worse) if higher_is_better else (worse, better)
    difference = float(change.mean())
    binary = not few and bool(np.isin(first, (0.0, 1.0)).all() and np.isin(second, (0.0, 1.0)).all())
    if few:
        test, (p, interval) = "Student", student(change, groups, confidence=confidence)
    else:
        interval = paired_bootstrap(
            first, second, clusters=groups, confidence=confidence, resamples=resamples, seed=seed
        )
        if binary and groups is None:
            test, p = "exact McNemar", mcnemar_exact(fixed, broken)
        else:
            test, p = "sign flips", sign_flip(change, groups, resamples=resamples, seed=seed)
    inner = 2 * confidence - 1
    if (binary and groups is None) or not change.any():
        # Nothing changed is no proof that nothing will: Tango's interval still has the width that so few rows leave.
        units = rows if groups is None else len(set(groups))
        narrow = score_interval(better, worse, units, confidence=inner)
    else:
        narrow = mean_interval(change, groups, confidence=inner)
    needed = None
    if rows > 1 and narrow.inside(margin):
        verdict = "equivalent"
    elif rows > 1 and p < 1 - confidence:
        verdict = "different"
    else:
        verdict = "underpowered"
        needed = _needed(change, binary, margin, confidence, groups)
    return Paired(
        rows=rows,
        missing_before=int((~left).sum()),
        missing_after=int((~right).sum()),
        before=float(first.mean()),
        after=float(second.mean()),
        difference=difference,
        interval=interval,
        confidence=confidence,
        fixed=fixed,
        broken=broken,
        p=p,
        test=test,
        margin=float(margin),
        equivalence_interval=narrow,
        higher_is_better=higher_is_better,
        verdict=verdict,
        rows_needed=needed,
    )


def _needed(change: Floats, binary: bool, margin: float, confidence: float, groups: Sequence[Any] | None) -> int | None:
    """Rows that would settle it, by the nearer way: showing the difference that was seen, or that it is small."""
    rows, difference = len(change), float(change.mean())
    if binary or not change.any():
        # half a changed row more than was seen, so that "none changed" is no certainty
        share = (float(np.abs(change).sum()) + 0.5) / (rows + 1)
        deviation = math.sqrt(max(share - difference**2, share / (rows + 1)))
    elif rows > 1:
        deviation = float(change.std(ddof=1))
    else:
        return None
    if groups is not None:
        sums, sizes = _clustered(change, groups)
        spread = math.sqrt(float(np.sum((sums - difference * sizes) ** 2)) / rows)
        deviation = max(deviation, spread)  # correlated rows count for less
    if binary and groups is None and difference != 0:
        apart = required_rows(float((change > 0).mean()), float((change < 0).mean()), confidence=confidence)
    else:
        apart = required_rows_for_mean(deviation, difference, confidence=confidence)
    within = required_rows_for_mean(deviation, difference, margin=margin, confidence=confidence)
    ways = [way for way in (apart, within) if way is not None]
    return max(min(ways), rows + 1) if ways else None


def _adjusted(p: ArrayLike, adjust: Any) -> Floats:
    values = np.asarray(p, dtype=np.float64)
    if values.ndim != 1 or ((values < 0) | (values > 1)).any():
        raise InputError("p-values must be a 1-D sequence of numbers from 0 to 1 (NaN: no test)")
    result = np.full_like(values, np.nan)
    tested = np.flatnonzero(~np.isnan(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    if len(order):
        result[order] = np.minimum(1.0, adjust(values[order], len(order)))
    return result


def _column(name: str, values: ArrayLike, finite: bool = True) -> Floats:
    if hasattr(values, "detach"):  # a tensor; on any device and with a graph
        values = values.detach().cpu().double().numpy()
    try:
        column = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must hold one number per row; {error}") from None
    if column.ndim != 1:
        raise InputError(f"{name} must be 1-D, one score per row; got shape {column.shape}")
    if len(column) == 0:
        raise InputError(f"{name} has no rows, so there is nothing to compare")
    if finite and not np.isfinite(column).all():
        raise InputError(
            f"{name} holds {int((~np.isfinite(column)).sum())} scores that are not finite; drop those rows"
        )
    return column


def _pair(before: ArrayLike, after: ArrayLike, finite: bool = True) -> tuple[Floats, Floats]:
    first, second = _column("before", before, finite), _column("after", after, finite)
    if len(first) != len(second):
        raise InputError(
            f"before has {len(first)} rows and after {len(second)}: pairs need the same rows on both sides"
        )
    return first, second


def _clustered(values: Floats, clusters: Sequence[Any] | None) -> tuple[Floats, Floats]:
    """Sum and number of rows of each cluster; without clusters every row is one."""
    if clusters is None:
        return values, np.ones(len(values))
    if len(clusters) != len(values):
        raise InputError(f"clusters must name one cluster per row: {len(clusters)} names for {len(values)} rows")
    _, member = np.unique(np.asarray([str(name) for name in clusters]), return_inverse=True)
    return np.bincount(member, weights=values).astype(np.float64), np.bincount(member).astype(np.float64)


def _normal(probability: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(probability))


def _normal_tail(z: float) -> float:
    from scipy.special import ndtr

    return float(ndtr(-z))


def _share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise InputError(f"{name} must lie between 0 and 1; got {value!r}")


def _rates(fixed: float, broken: float) -> float:
    if not (fixed >= 0 and broken >= 0 and fixed + broken <= 1):
        raise InputError(f"fixed and broken are shares of all rows, together at most 1; got {fixed!r} and {broken!r}")
    return fixed + broken
