"""Any result in a terminal: short, aligned, readable at 80 columns, without colour where there is none to show.

`render(result)` prints on standard output. A pipe gets plain text. Text that comes from a model or a dataset is never
read as Rich markup, and control characters in it are not sent to the terminal.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from softknee.catalog import Activation
from softknee.errors import InputError, SoftkneeError
from softknee.facts import Facts
from softknee.guide import models
from softknee.kernels.costs import cost, recorded

from .braille import SHORTEST, draw
from .choice import (
    UNKNOWN,
    Choice,
    choices,
    written_asymptotes,
    written_cost,
    written_parameters,
    written_range,
    written_shape,
    written_steepest,
)
from .curves import MOST, jumps, plot
from .emitted import available
from .figures import MISSING, clip, interval, known, number, p_value, percent, plural, score, shape, signed
from .formula import formula
from .sections import grouped, headline, most_severe, unchecked
from .story import kind_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

WORDS = 20
"""Characters that a column of words gets before figures are left out for it."""

STYLES = {"critical": "bold red", "warning": "yellow", "info": "dim", "better": "green", "worse": "red"}


def render(result: Any, console: Console | None = None) -> None:
    """Print `result`: a Census, Report, Plan, Trial, Comparison, Calibration, Kernelization, Story, Finding, Plot,
    Recommendation, Explanation, Activation or Facts, several of one kind in a list (activations stand side by side), or
    anything else that `str` describes.

    console: Rich's; by default one for standard output, 80 columns wide where that is no terminal.
    """
    console = _console() if console is None else console
    several = result if isinstance(result, (list, tuple)) else [result]
    if several and all(isinstance(one, (Activation, Choice, Facts)) for one in several):
        _activations(choices(several), console)
        return
    for one in several:
        if isinstance(one, (list, tuple)):
            render(one, console)
        else:
            _RENDERERS.get(kind_of(one), _anything)(one, console)


def _console() -> Console:
    try:
        from rich.console import Console
    except ImportError as error:
        raise InputError("printing needs Rich: pip install 'softknee[report]'") from error
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=80)


# --- pieces --------------------------------------------------------------------------------------------------------


def _text(content: Any, style: str = "") -> Text:
    """Literal text: no markup, no control characters."""
    from rich.text import Text

    return Text("".join(c if c.isprintable() or c == "\n" else "�" for c in str(content)), style)


def _line(console: Console, *pieces: Any, indent: int = 0) -> None:
    """Pieces (strings, or (string, style)) as one paragraph at `indent`, wrapped between words."""
    text = _text("")
    for piece in pieces:
        content, style = piece if isinstance(piece, tuple) else (piece, "")
        text.append_text(_text(content, style))
    for line in text.wrap(console, max(20, console.width - indent)):
        line.rstrip()
        console.print(_text(" " * indent).append_text(line), soft_wrap=True)


def _heading(console: Console, title: Any, verdict: Any = "") -> None:
    _line(console, (title, "bold"))
    if verdict:
        _line(console, verdict, indent=2)


def _table(
    console: Console,
    head: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    left: Sequence[str] = (),
    drop: Sequence[str] = (),
) -> None:
    """A table without rules. Columns in `left` hold words, others figures; columns in `drop` are left out, the first
    first, until the rest fits; then words wrap."""
    from rich.table import Table
    from rich.text import Text

    lines = [[cell if hasattr(cell, "cell_len") else _text(cell) for cell in row] for row in rows]
    kept = [i for i, _ in enumerate(head) if any(line[i].plain.strip(" –") for line in lines) or i == 0]
    width = {i: max([len(head[i]), *(line[i].cell_len for line in lines)]) for i in kept}
    wanted = {i: min(width[i], WORDS) if head[i] in left and i else width[i] for i in kept}
    for name in drop:
        if sum(wanted[i] + 1 for i in kept) < console.width:
            break
        kept = [i for i in kept if head[i] != name]
    roomy = sum(wanted[i] + 1 for i in kept) < console.width
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim", collapse_padding=True)
    table.add_column("", width=1)
    for i in kept:
        words = head[i] in left
        # figures and the names of lines stay whole: the room is taken from the words, which wrap
        whole = not (words and head[i]) or (i == 0 and roomy)
        table.add_column(
            _text(head[i]),
            justify="left" if words else "right",
            no_wrap=whole,
            overflow="fold",
            min_width=width[i] if whole else min(width[i], 9),
        )
    for line in lines:
        table.add_row("", *(line[i] for i in kept))
    for segments in console.render_lines(table, pad=False):
        line_ = Text.assemble(*((segment.text, segment.style or "") for segment in segments))
        line_.rstrip()
        console.print(line_, soft_wrap=True)


# --- results -------------------------------------------------------------------------------------------------------


def _census(result: Any, console: Console) -> None:
    for conflict in result.conflicts:
        _line(console, (conflict, "bold red"))
    counted = ", ".join(f"{n} × {name}" for name, n in result.counts().items()) or "no activation"
    _heading(console, result.model, counted)
    groups = result.groups()
    if groups:
        _table(
            console,
            ("site", "activation", "role", "found as", "shape", "where"),
            [
                (
                    clip(key, 40),
                    (clip(s.name, 40)),
                    s.role,
                    f"{s.form}, {s.evidence}",
                    shape(s.shape),
                    clip(s.source or s.implementation, 60) if s.form != "module" else "",
                )
                for key, (s, *_) in groups
            ],
            left=("site", "activation", "role", "found as", "where"),
            drop=("role", "where", "shape"),
        )
    for key, (site, *_) in groups:
        if site.note:
            _line(console, (f"{clip(key, 40)}: {site.note}", "dim"), indent=2)
        if site.candidates:
            alike = ", ".join(f"{c.name} {percent(c.confidence, 0)}" for c in site.candidates)
            _line(console, (f"{clip(key, 40)}: may be {alike}", "yellow"), indent=2)
    if result.head is not None:
        features = "" if result.head.features is None else f", {plural(result.head.features, 'output')}"
        _line(
            console, ("head  ", "dim"), f"{result.head.kind} from {result.head.path or 'the model'}{features}", indent=2
        )
    for collapse in result.collapses:
        _line(console, ("collapse  ", "yellow"), collapse, indent=2)
    for note in result.notes:
        _line(console, (note, "dim"), indent=2)


def _differences(result: Any, console: Console) -> None:
    fine = "green" if result.same and not result.differences else "bold"
    _heading(console, f"{result.before} → {result.after}", (result.verdict, fine))
    for each in result.differences:
        console.print()
        _line(console, (each, "bold red" if each.kind == "numeric" else "yellow"), indent=2)
        said = [("at", each.sites)]
        if each.trap is not None:
            said += [("why", each.trap.why), ("usually", each.trap.usually), ("seen", ", ".join(each.trap.seen))]
        for word, text in said:
            if text:
                _line(console, (f"{word}  ", "dim"), text, indent=4)
    for note in result.notes:
        _line(console, (note, "dim"), indent=2)


def _report(result: Any, console: Console) -> None:
    _heading(console, result.model, (headline(result), "green" if result.healthy else "bold"))
    for finding, same, depth in _tree(result.findings):
        # what the verdict has just said is not said again
        _finding(finding, console, depth, same, finding.message not in result.verdict)
    if result.statistics:
        console.print()
        _table(
            console,
            ("site", "activation", "mean", "std", "across rows", "zeros", "saturated", "dead", "gradient"),
            [
                (
                    clip(s.key, 32),
                    s.activation or "unknown",
                    number(s.mean, 2),
                    number(s.std, 2),
                    number(s.across_row_std, 2),
                    percent(s.zeros, 0),
                    percent(s.saturated, 0),
                    _dead(s),
                    number(s.gradient_norm, 2),
                )
                for s in result.statistics
            ],
            left=("site", "activation"),
            drop=("mean", "std", "gradient", "saturated"),
        )
    if result.healthy and result.checked:
        _line(console, ("checked: " + ", ".join(result.checked), "dim"), indent=2)
    if result.unchecked:
        _line(console, ("not checked: " + "; ".join(unchecked(result)), "dim"), indent=2)


def _dead(entry: Any) -> Text:
    return (
        _text(MISSING) if entry.dead is None else _text(f"{entry.dead}/{entry.units}", "yellow" if entry.dead else "")
    )


def _tree(findings: Sequence[Any]) -> Iterator[tuple[Any, int, int]]:
    """Causes, each followed by its consequences: (finding, how many more sites have the same, depth)."""
    ids = {finding.id for finding in findings}
    done: set[str] = set()

    def below(parents: set[str | None], depth: int) -> Iterator[tuple[Any, int, int]]:
        level = [f for f in findings if (f.caused_by if f.caused_by in ids else None) in parents and f.id not in done]
        for found in grouped(level):
            done.update(f.id for f in found)
            yield most_severe(found), len(found) - 1, depth
            yield from below({f.id for f in found}, depth + 1)

    return below({None}, 0)


def _finding(finding: Any, console: Console, depth: int = 0, same: int = 0, message: bool = True) -> None:
    mark = "↳ " if depth else ""
    where = finding.site + (f" and {plural(same, 'more site')}" if same else "")
    _line(
        console,
        mark,
        (finding.title, STYLES.get(finding.severity, "")),
        (f"  {clip(where, 60)}", "dim"),
        f"  {finding.message}" if message else "",
        indent=2 + 2 * depth,
    )
    if depth == 0:
        _line(console, (f"threshold: {finding.threshold} ({finding.source})", "dim"), indent=4)


def _plan(result: Any, console: Console) -> None:
    _heading(console, "Repairs", headline(result.report))
    if not len(result):
        _line(console, "none to propose", indent=2)
    for repair in result.repairs:
        kind = "  folk advice" if repair.folk else ""
        hand = f"  by hand: {repair.by_hand}" if repair.by_hand else ""
        _line(console, repair.title, (kind + hand, "dim"), indent=2)
        _line(console, (repair.edit, "cyan"), indent=4)


def _trial(result: Any, console: Console) -> None:
    seeds = "seed " + ", ".join(map(str, result.seeds))
    _heading(console, f"{len(result)} arms, {plural(result.rows, 'validation row')}, {seeds}", result.reason)
    best = None if result.best is None else result.best.name
    arms = sorted(result.arms, key=lambda arm: -arm.accuracy if known(arm.accuracy) else 2.0)
    rows = []
    for arm in arms:
        style = (
            "bold green"
            if arm.name == best
            else STYLES.get(arm.verdict, "dim" if arm.name in ("baseline", "control") else "")
        )
        gap = "" if arm.difference is None else f"{signed(arm.difference)} {interval(arm.interval)}"
        changed = "" if arm.fixed is None else f"+{arm.fixed} −{arm.broken}"
        rows.append(
            (
                _text(arm.name, style),
                score(arm.accuracy),
                changed,
                "" if arm.p is None else p_value(arm.p),
                gap,
                _text("winner" if arm.name == best else arm.verdict, style),
            )
        )
    _table(
        console,
        ("arm", "score", "rows", "p", "difference, 95%", "verdict"),
        rows,
        left=("arm", "verdict"),
        drop=("p", "rows"),
    )
    for arm in arms:
        if arm.note:
            _line(console, (f"{arm.name}: {arm.note}", "dim"), indent=2)
    useless = [arm.name for arm in arms if arm.folk and arm.accuracy is not None and arm.verdict != "better"]
    if useless:
        _line(console, ("folk advice that did not help  ", "dim"), ", ".join(useless), indent=2)
    if result.best is not None:
        _line(console, ("edit  ", "dim"), (result.best.edit, "cyan"), indent=2)


def _comparison(result: Any, console: Console) -> None:
    judged = result.result
    _heading(
        console,
        f"{result.before.version} → {result.after.version} on {plural(judged.rows, 'row')} of {result.before.dataset}",
        (result.conclusion, STYLES.get(result.direction, "") if result.verdict == "different" else "bold"),
    )
    _table(
        console,
        ("", result.metric, "difference, " + percent(judged.confidence, 0), "fixed", "broken", "p"),
        [
            (
                "",
                f"{score(judged.before)} → {score(judged.after)}",
                f"{signed(judged.difference)} {interval(judged.interval)}",
                number(judged.fixed),
                number(judged.broken),
                p_value(judged.p),
            )
        ],
        left=("", result.metric),
    )
    worst = result.worst_cohort
    if worst is not None and worst.result is not None:
        _line(
            console,
            ("worst cohort  ", "dim"),
            f"{clip(worst.name, 40)}: {score(worst.result.before)} → {score(worst.result.after)}"
            f" on {plural(worst.rows, 'row')} ({worst.verdict})",
            indent=2,
        )
    _line(
        console,
        ("latency  ", "dim"),
        f"{number(1e6 * result.latency.before)} → {number(1e6 * result.latency.after)} µs per row",
        indent=2,
    )
    if result.cost is not None:
        _line(
            console, ("cost  ", "dim"), f"{number(result.cost.before)} → {number(result.cost.after)} per row", indent=2
        )
    for note in result.notes:
        _line(console, ("note  ", "dim"), note, indent=2)


def _calibration(result: Any, console: Console) -> None:
    _heading(console, "Calibration", result.verdict)
    rows = plural(result.validation_rows, "validation row")
    _line(
        console,
        ("temperature  ", "dim"),
        f"{number(result.temperature)}, from {rows}; judged on {number(result.rows)} others",
        indent=2,
    )
    _table(
        console,
        ("", "raw", "scaled", f"difference, {percent(result.confidence, 0)}"),
        [
            (
                "NLL",
                number(result.nll_raw),
                number(result.nll_scaled),
                f"{number(result.nll_scaled - result.nll_raw)} {interval(result.interval, number)}",
            ),
            (
                "ECE",
                number(result.ece_raw),
                number(result.ece_scaled),
                f"{number(result.ece_scaled - result.ece_raw)} {interval(result.ece_interval, number)}",
            ),
        ],
        left=("",),
    )


def _kernelization(result: Any, console: Console) -> None:
    _heading(console, result.model, (result.verdict, "green" if result.replaced else "yellow"))
    if result.replaced:
        rows = [(name, _text(word, "green"), note) for (word, note), name in _alike(result.replaced).items()]
        _table(console, ("site", "runs", "note"), rows, left=("site", "runs", "note"))
    for (word, reason), name in _alike(result.skipped).items():
        _line(console, (f"{word} stays", "yellow"), (f"  {name}  ", "dim"), reason, indent=2)
    for phrase in (*result.measured, *result.notes):
        _line(console, (phrase, "dim"), indent=2)


def _alike(sites: Sequence[Any]) -> dict[tuple[str, str], str]:
    """(activation, what is said of it) → the first site, and how many more there are."""
    found: dict[tuple[str, str], list[str]] = {}
    for site in sites:
        word = site.shown if hasattr(site, "shown") else site.activation or "unknown"
        found.setdefault((word, site.note if hasattr(site, "shown") else site.reason), []).append(clip(site.site, 48))
    return {key: names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "") for key, names in found.items()}


def _story(result: Any, console: Console) -> None:
    _heading(console, result.title, result.verdict)
    for part in (result.census, result.before, result.trial, result.comparison, result.calibration):
        if part is not None:
            console.print()
            render(part, console)
    if result.patch:
        console.print()
        _line(console, ("the edit  ", "bold"), (result.patch, "cyan"))


# --- activations ---------------------------------------------------------------------------------------------------


def catalog(activations: Sequence[Activation], console: Console | None = None) -> None:
    """Print an index: one line per activation, by kind, with its tags where there is room, and how many there are."""
    console = _console() if console is None else console
    width = max((len(one.name) for one in activations), default=0)
    tags = max((len(", ".join(one.tags)) for one in activations), default=0)
    room = console.width - width - 4
    roomy = room >= 60 + tags
    room = max(20, room - (tags + 2) * roomy)
    for kind in dict.fromkeys(one.kind for one in activations):
        shown = [one for one in activations if one.kind == kind]
        _line(console, (kind, "bold"), (f"  {len(shown)}", "dim"))
        for one in shown:
            sentence = _text(one.summary.split(". ")[0].rstrip("."))
            sentence.truncate(room, overflow="ellipsis", pad=roomy)
            line = _text("").append(f"  {one.name.ljust(width)}  ", "cyan").append_text(sentence)
            if roomy:
                line.append("  ").append_text(_text(", ".join(one.tags), "dim"))
            line.rstrip()
            console.print(line, soft_wrap=True)
    counted = Counter(tag for one in activations for tag in one.tags)
    console.print()
    _line(console, f"{plural(len(activations), 'activation')}", ("; softknee show NAME… for their facts", "dim"))
    if counted:
        _line(console, ("tags  ", "dim"), ", ".join(f"{tag} {n}" for tag, n in counted.most_common()))


def _activations(several: Sequence[Choice], console: Console) -> None:
    """What each is, their curves, their facts side by side, who runs them, and where their code is."""
    for one in several:
        activation = one.activation
        written = formula(activation)
        _line(console, (one.label, "bold"), *(("  ", (written, "cyan")) if written else ()))
        _line(console, activation.summary, indent=2)
        told = {
            "used for": ", ".join(filter(None, (USES.get(tag, tag.replace("-", " ")) for tag in activation.tags))),
            "also called": ", ".join(activation.aliases),
            "the same as": ", ".join(map(_call, activation.equivalent_to.items())),
            "not verified": activation.unverified,
            "source": activation.source.strip("-"),
        }
        for name, words in told.items():
            if words:
                _line(console, (f"{name}  ", "dim"), words, indent=2)
    curves = [one for one in several if one.activation.kind != "normalizer"]
    if 0 < len(curves) <= MOST:
        if len(curves) > 1:
            console.print()
        draw(plot(*curves), console, legend=len(curves) > 1, rows=SHORTEST)
    console.print()
    widest = max(len(one.activation.name) for one in several)
    beside = max(1, (console.width - 20) // max(15, widest + 1))
    for start in range(0, len(several), beside):
        shown = several[start : start + beside]
        rows = []
        for name, read in FACTS.items():
            values = [_fact(read, one) for one in shown]
            if any(value != MISSING for value in values):
                rows.append((_text(name, "dim"), *values))
        names = [one.activation.name for one in shown]
        _table(console, ("", *names), rows, left=("", *names))
        if start + beside < len(several):
            console.print()
    if any(cost(one.activation) for one in several):
        _line(
            console,
            (f"ns an element: {recorded()['conditions']}; {recorded()['machine']['processor']}", "dim"),
            indent=2,
        )
    _models([model for one in several for model in models(one.activation)], "models that run it", console)
    common = [name for name in available(several[0]) if all(name in available(one) for one in several[1:])]
    _line(console, ("code with --code  ", "dim"), ", ".join(common), indent=2)


def _models(found: Sequence[Any], title: str, console: Console) -> None:
    if found:
        _line(console, (title, "dim"), indent=2)
    several = len({model.activation for model in found}) > 1
    for model in found:
        given = f" ({model.parameters})" if model.parameters else ""
        name = ((model.activation, "bold"), ": ") if several else ()
        _line(console, *name, f"{model.models}{given}", (f"  {model.evidence}", "dim"), indent=4)


def _fact(read: Callable[[Choice], str], choice: Choice) -> str:
    try:
        return read(choice)
    except SoftkneeError:  # a normalizer is no function of one number
        return MISSING


def _intervals(found: Iterable[Any] | None, width: float = 0.0) -> str:
    """Those that are wider than `width`."""
    if found is None:
        return UNKNOWN
    return ",\n".join(f"({number(low)}, {number(high)})" for low, high in found if high - low > width) or "none"


def _numbers(found: Iterable[float]) -> str:
    return ", ".join(map(number, found))


def _largest(size: float | None) -> str:
    return UNKNOWN if size is None else "unbounded" if math.isinf(size) else number(size)


def _zeros(facts: Facts) -> str:
    if facts.roots is None or facts.zero is None:
        return UNKNOWN
    stretches = _intervals(facts.zero) if facts.zero else ""
    return ",\n".join(filter(None, (_numbers(facts.roots), stretches))) or "none"


def _point(found: Any, none: str) -> str:
    return none if found is None else f"{number(found.value)} at {number(found.x)}"


def _call(entry: tuple[str, Mapping[str, float]]) -> str:
    """softcap(cap=1)."""
    name, given = entry
    return f"{name}({', '.join(f'{key}={value:.6g}' for key, value in given.items())})" if given else name


def _in_torch(choice: Choice) -> str:
    activation = choice.activation
    if activation.torch_module is None:
        return activation.torch or MISSING
    arguments = (f", {name} {value}" for name, value in activation.torch_arguments.items())
    return f"nn.{activation.torch_module}{''.join(arguments)}"


def _path(choice: Choice, dtype: str) -> str:
    """How a call on a CPU is computed: kernels/paths.py."""
    import torch

    from softknee.kernels.paths import choose

    return choose(choice.activation, getattr(torch, dtype)).way.replace(", ", ",\n")


USES = {
    "binary-output": "binary outputs",
    "cnn": "CNNs",
    "ffn": "feed-forward blocks",
    "gate": "gates",
    "hidden": "hidden layers",
    "learnable": "",  # no use: its parameters say so
    "llm": "LLMs",
    "mobile": "mobile networks",
    "multi-class-output": "multi-class outputs",
    "positive": "positive outputs",
    "rnn": "RNNs",
    "self-normalizing": "self-normalizing networks",
    "transformer": "transformers",
}
"""What a tag says, where it is not the word itself."""

PACKED = {
    "split": "gate, then up",
    "gate_up": "gate, then up",
    "up_gate": "up, then gate",
    "interleaved": "gate and up in turn",
}

FACTS: dict[str, Callable[[Choice], str]] = {
    "kind": lambda c: c.activation.kind,
    "parameters": lambda c: written_parameters(c) or MISSING,
    "conditions": lambda c: ", ".join(map(str, c.activation.conditions)) or MISSING,
    "as a function of": lambda c: "gate, up = 1" if c.activation.kind == "gated" else MISSING,
    "packed as": lambda c: PACKED.get(c.activation.layout or "", MISSING),
    "range": lambda c: written_range(c.facts),
    "at −∞, ∞": lambda c: ", ".join(UNKNOWN if end is None else number(round(end, 12)) for end in c.facts.limits),
    "asymptotes": lambda c: written_asymptotes(c.facts) or MISSING,
    "shape": lambda c: written_shape(c.facts),
    "zeros": lambda c: _zeros(c.facts),
    "minimum": lambda c: UNKNOWN if c.facts.range is None else _point(c.facts.minimum, "none"),
    "maximum": lambda c: _point(c.facts.maximum, MISSING),
    "f′ = 0 at": lambda c: UNKNOWN if c.facts.stationary is None else _numbers(c.facts.stationary) or MISSING,
    "largest |f′|": lambda c: written_steepest(c.facts),
    "largest |f″|": lambda c: _largest(c.facts.lipschitz_derivative),
    "jumps": lambda c: _numbers(jumps(c.facts)) or MISSING,
    "kinks": lambda c: UNKNOWN if c.facts.smoothness is None else _numbers(jumps(c.facts, 1)) or "none",
    "dead where": lambda c: _intervals(c.facts.dead),
    "saturated where": lambda c: _intervals(c.facts.saturated(), 0.1),
    "gain": lambda c: number(c.facts.gain, 4),
    "backward gain": lambda c: number(c.facts.backward_gain, 4),
    "gradients a layer": lambda c: f"×{number((c.facts.gain / c.facts.backward_gain) ** 2)}",
    "mean, z ~ N(0, 1)": lambda c: number(round(c.facts.mean, 12)),
    "in torch": _in_torch,
    "float32 path": lambda c: _path(c, "float32"),
    "bfloat16 path": lambda c: _path(c, "bfloat16"),
    "float32 ns": lambda c: written_cost(c, "float32"),
    "bfloat16 ns": lambda c: written_cost(c, "bfloat16"),
}


def _anything(result: Any, console: Console) -> None:
    if not isinstance(result, dict):
        _line(console, result)
        return
    for name, value in result.items():
        told = "; ".join(f"{k}: {v}" for k, v in value.items()) if isinstance(value, dict) else value
        _line(console, (f"{name}  ", "dim"), MISSING if told is None else told)


def _recommendation(result: Any, console: Console) -> None:
    _line(console, (f"{result.use}: {result.choice}", "bold"))
    _line(console, result.write, indent=2)
    _line(console, ("what others would gain", "dim"), indent=2)
    for other in result.others:
        _line(console, (other.name, "bold"), f": {other.gain}", indent=4)
    _line(console, ("why", "dim"), indent=2)
    for reason in result.reasons:
        _line(console, reason, indent=4)
    costs, rows = result.costs(), []
    for choice in choices(result.names):
        name, facts = choice.activation.name, None if choice.activation.kind == "normalizer" else choice.facts
        told = (
            [MISSING] * 4
            if facts is None
            else [written_range(facts), _intervals(facts.dead), _largest(facts.lipschitz), number(facts.gain, 4)]
        )
        rows.append((name, *told, MISSING if costs[name] is None else number(costs[name])))
    _table(console, ("facts", "range", "dead", "largest |f′|", "gain", "ns"), rows, left=("facts", "range", "dead"))
    if any(cost is not None for cost in costs.values()):
        _line(console, (f"ns an element: float32, {recorded()['conditions']}", "dim"), indent=2)
    _models(result.models, "models that run them", console)
    _line(console, ("sources", "dim"), indent=2)
    for source in result.sources:
        _line(console, source, indent=4)
    if result.tag is not None:
        _line(console, (f"more: softknee list --tag {result.tag}", "dim"), indent=2)


def uses(recommendations: Sequence[Any], console: Console) -> None:
    """A line per use."""
    rows = [(one.use, one.choice, one.about) for one in recommendations]
    _table(console, ("use", "choice", "what it is"), rows, left=("use", "choice", "what it is"))


def _explanation(result: Any, console: Console) -> None:
    _line(console, (result.title, "bold"))
    for line in result.lines:
        words = line.lstrip()
        _line(console, words, indent=2 + len(line) - len(words))
    _line(console, ("; ".join(map(str, result.sources)), "dim"), indent=2)


_RENDERERS: dict[str, Callable[[Any, Console], None]] = {
    "Calibration": _calibration,
    "Census": _census,
    "Differences": _differences,
    "Comparison": _comparison,
    "Explanation": _explanation,
    "Finding": _finding,
    "Kernelization": _kernelization,
    "Plan": _plan,
    "Plot": draw,
    "Recommendation": _recommendation,
    "Report": _report,
    "Story": _story,
    "Trial": _trial,
}
