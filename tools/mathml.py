"""An expression as MathML, which browsers show without fonts or scripts of ours: fractions, powers, roots and cases."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from softknee.expression.graph import Expr, walk
from softknee.report.figures import MINUS
from softknee.report.formula import ATOM, CHOICE, COMPARISON, POWER, PRODUCT, SIGN, SIGNS, SUM, factors, runs

LARGEST = 12000
"""Letters of markup; a larger formula is not read."""

GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "lambda": "λ", "mu": "μ", "tau": "τ", "theta": "θ"}
NAMES = {"sigmoid": "σ", "maximum": "max", "minimum": "min", "amax": "max", "total": "Σ", "log1p": "log"}
Held = Callable[[Expr, int], str]


def mathml(expression: Expr, left: str) -> str | None:
    """`left` = the expression, as one <math> element; None where it is too large to be read."""
    written: dict[Expr, tuple[str, int]] = {}
    for node in walk(expression):
        if len(_products(node)) > 40:
            return None
        written[node] = _written(node, written)
        if len(written[node][0]) > LARGEST:
            return None
    body = f"<mrow>{left}<mo>=</mo>{written[expression][0]}</mrow>"
    return f'<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">{body}</math>'


def word(name: str) -> str:
    """A name: one letter or a Greek one in italics, others upright."""
    text = GREEK.get(name, name)
    return f"<mi>{text}</mi>" if len(text) == 1 else f'<mi mathvariant="normal">{escape(text)}</mi>'


def _products(node: Expr) -> list[Expr]:
    return factors(node) if node.op == "mul" else []


def _written(node: Expr, of: dict[Expr, tuple[str, int]]) -> tuple[str, int]:
    """The node's markup and how tightly it holds together, from those of its arguments."""

    def held(argument: Expr, tightly: int) -> str:
        text, holds = of[argument]
        if holds == CHOICE < tightly:
            return text.replace('"cases"', '"cases within"', 1)  # lines on both sides, which grow with it
        return text if holds >= tightly else _bracketed(text)

    op, args = node.op, node.args
    if op == "symbol":
        return word(str(args[0])), ATOM
    if op == "constant":
        return _constant(args[0])
    if op == "pi":
        return "<mi>π</mi>", ATOM
    if op in SIGNS:
        return f"{held(args[0], SUM)}<mo>{escape(SIGNS[op])}</mo>{held(args[1], SUM)}", COMPARISON
    if op == "where":
        return _cases(node, of), CHOICE
    if op in ("add", "sub"):
        right, holds = of[args[1]]
        minus = f"<mo>{MINUS}</mo>"
        if op == "add" and holds == SIGN:
            return f"{held(args[0], SUM)}{minus}{right.removeprefix(minus)}", SUM
        sign, tightly = ("<mo>+</mo>", SUM) if op == "add" else (minus, PRODUCT)
        return f"{held(args[0], SUM)}{sign}{held(args[1], tightly)}", SUM
    if op == "neg":
        return f"<mo>{MINUS}</mo>{held(args[0], PRODUCT)}", SIGN
    if op == "mul":
        return _product(node, held)
    if op == "div":
        return f"<mfrac><mrow>{of[args[0]][0]}</mrow><mrow>{of[args[1]][0]}</mrow></mfrac>", PRODUCT
    if op in ("exp", "expm1"):
        power = f"<msup><mi>e</mi><mrow>{of[args[0]][0]}</mrow></msup>"
        return (power, POWER) if op == "exp" else (f"{power}<mo>{MINUS}</mo><mn>1</mn>", SUM)
    if op == "abs":
        return f"<mrow><mo>|</mo>{of[args[0]][0]}<mo>|</mo></mrow>", ATOM
    if op == "sqrt":
        return f"<msqrt>{of[args[0]][0]}</msqrt>", ATOM
    inside = "<mo>,</mo>".join(of[a][0] for a in args)
    if op == "log1p":
        inside = f"<mn>1</mn><mo>+</mo>{held(args[0], SUM)}"
    if op == "sech2":
        name = "<msup><mi>sech</mi><mn>2</mn></msup>"
    else:
        name = word(NAMES.get(op, op))
    return f"<mrow>{name}<mo>&#x2061;</mo>{_bracketed(inside)}</mrow>", ATOM


def _bracketed(text: str) -> str:
    return f"<mrow><mo>(</mo>{text}<mo>)</mo></mrow>"


def _constant(value: float) -> tuple[str, int]:
    if value in (float("inf"), -float("inf")):
        text = "<mi>∞</mi>"
    else:
        digits, _, exponent = f"{abs(value):.6g}".partition("e")
        power = f"<msup><mn>10</mn><mn>{int(exponent)}</mn></msup>".replace("<mn>-", f"<mn>{MINUS}") if exponent else ""
        text = f"<mn>{digits}</mn>" + (f"<mo>·</mo>{power}" if power else "")
    return (text, ATOM) if not value < 0 else (f"<mo>{MINUS}</mo>{text}", SIGN)


def _product(node: Expr, held: Held) -> tuple[str, int]:
    found = factors(node)
    sign = f"<mo>{MINUS}</mo>" if found[0].op == "neg" else ""
    if sign:
        found = [*factors(found[0].args[0]), *found[1:]]
    parts = []
    for i, (factor, times) in enumerate(runs(found)):
        if times > 1:
            parts.append(f"<msup>{_row(held(factor, ATOM))}<mn>{times}</mn></msup>")
        else:
            parts.append(held(factor, (PRODUCT if sign else SIGN) if i == 0 else PRODUCT))
    return sign + "<mo>·</mo>".join(parts), SIGN if sign else PRODUCT


def _row(text: str) -> str:
    return f"<mrow>{text}</mrow>"


def _cases(node: Expr, of: dict[Expr, tuple[str, int]]) -> str:
    """The branches below each other; one inside the last branch goes on the same list."""
    rows = []
    while node.op == "where":
        condition, then, other = node.args
        rows.append((of[then][0], f"<mtext>if&#xa0;</mtext>{of[condition][0]}"))
        node = other
    rows.append((of[node][0], "<mtext>otherwise</mtext>"))
    table = "".join(f"<mtr><mtd><mrow>{a}</mrow></mtd><mtd><mrow>{b}</mrow></mtd></mtr>" for a, b in rows)
    return f'<mtable class="cases" columnalign="left left">{table}</mtable>'
