"""Why networks fail as they do, in a few lines around a computation that runs at the call.

No figure is written down: each topic is a function that computes its own, from small networks and the catalog's facts,
in float64 with a generator of its own, and puts them into its text. Each takes a second or less once
its imports are there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import softknee.functional as SF
from softknee.catalog import get
from softknee.errors import InputError, closest
from softknee.plain import plain_fields
from softknee.verification.calibration import calibrate

from .recommending import Source

Told = tuple[str, list[str], dict[str, Any], list[Source]]
TEMPERATURES = (0.5, 1.0, 2.0)
SCALES = (1.0, 5.0, 25.0)


@dataclass(frozen=True)
class Explanation:
    """A topic told: lines of text with the figures in them, and the figures by name."""

    topic: str
    title: str
    lines: tuple[str, ...]
    figures: Mapping[str, Any]
    sources: tuple[Source, ...]
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain JSON types."""
        return plain_fields(self)

    def __str__(self) -> str:
        return "\n".join((self.title, *self.lines))


def explain(topic: str, seed: int = 0) -> Explanation:
    """`topic`, one of `topics()`, with figures computed now.

    seed: of the weights and data of the small networks.
    Raises InputError for an unknown topic, with those that look like it, and a seed that is no whole number from 0 on.
    """
    if not isinstance(topic, str):
        raise InputError(f"topic must be a string, one of {', '.join(TOPICS)}; got {type(topic).__name__}")
    word = topic.strip().lower().replace("_", "-").replace(" ", "-")
    if word not in TOPICS:
        near = closest(word, TOPICS) or f"; it must be one of {', '.join(TOPICS)}"
        raise InputError(f"topic {topic!r} is unknown{near}")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise InputError(f"seed must be a whole number from 0 to 2⁶³ − 1; got {seed!r}")
    with torch.enable_grad():
        title, lines, figures, sources = TOPICS[word](seed)
    return Explanation(word, title, tuple(lines), figures, tuple(sources), seed)


def topics() -> tuple[str, ...]:
    """What `explain` knows."""
    return tuple(TOPICS)


def _dying_relu(seed: int, activation: str = "relu") -> Told:
    draw = _normal(seed)
    x = draw(256, 16).abs()  # as the activations of a layer before it are
    weight, bias = (draw(16) / 4).requires_grad_(), torch.zeros((), dtype=torch.float64, requires_grad=True)
    f, leaky, smooth = get(activation), get("leaky_relu"), get("silu")

    def alive() -> int:
        """Rows that send a gradient to the bias."""
        z = (x @ weight + bias).detach().requires_grad_()
        return int((torch.autograd.grad(f(z).sum(), z)[0] != 0).sum())

    def size(act: Any) -> float:
        w, b = torch.autograd.grad(act(x @ weight + bias).sum(), (weight, bias))
        return math.sqrt(float(w.square().sum() + b.square()))

    if not alive():  # drawn dead
        weight.data.neg_()
    before = alive()
    step = 20.0
    moves = torch.autograd.grad(f(x @ weight + bias).mean(), (weight, bias))
    for parameter, gradient in zip((weight, bias), moves, strict=True):
        parameter.data -= step * gradient
    figures = {
        "rows": len(x), "alive_before": before, "alive_after": alive(), "bias_after": bias.item(), "step": step,
        "gradient_after": size(f), "leaky_gradient_after": size(leaky), "silu_gradient_after": size(smooth),
    }  # fmt: skip
    return (
        "Dying ReLU: a unit that no row switches on learns nothing any more.",
        [
            f"Before: {before} of {len(x)} rows send a gradient through one unit of {activation}.",
            f"One step of size {step:g} lowers its output; the bias is then {bias.item():.3g}.",
            f"After: {figures['alive_after']} rows send a gradient; its size, summed over rows, is "
            f"{figures['gradient_after']:.3g}.",
            "No later step can bring back a unit whose gradient is exactly 0 on every row.",
            f"The same weights under leaky_relu: {figures['leaky_gradient_after']:.3g}; under silu: "
            f"{figures['silu_gradient_after']:.3g}.",
            "The cause is the step, or the initialisation, more often than the activation: lower the learning "
            "rate, warm up, normalize. softknee.diagnose tells which; softknee.watch sees it happen.",
        ],
        figures,
        [Source("Lu et al. 2019, dying ReLU and initialization", "1903.06733")],
    )


def _vanishing(seed: int, bad: str = "sigmoid", good: str = "relu", depth: int = 20) -> Told:
    def stack(name: str) -> float:
        """Gradient of the first pre-activations over that of the last, in a real network at the exact gain."""
        activation, draw, width = get(name), _normal(seed), 64
        gain = activation.facts.gain
        h = draw(32, width)
        layers: list[Tensor] = []
        for _ in range(depth):
            z = h @ draw(width, width) * (gain / math.sqrt(width))
            z.requires_grad_() if not layers else z.retain_grad()
            layers.append(z)
            h = activation(z)
        (h * draw(32, width)).sum().backward()
        assert layers[0].grad is not None and layers[-1].grad is not None
        return float(layers[0].grad.norm() / layers[-1].grad.norm())

    figures: dict[str, Any] = {"depth": depth}
    lines = []
    for role, name in (("bad", bad), ("good", good)):
        facts = get(name).facts
        signal, measured = facts.signal(depth=depth), stack(name)
        # of the variances, through the depth − 1 layers between the first pre-activations and the last
        predicted = math.sqrt(math.prod(signal.chi[:-1]))
        figures |= {role: name, f"{role}_measured": measured, f"{role}_predicted": predicted}
        figures |= {f"{role}_slope": facts.lipschitz, f"{role}_gain": facts.gain}
        lines.append(
            f"{name}: |f′| is at most {facts.lipschitz:.3g}. Through {depth} layers its gradient shrinks or grows by "
            f"×{measured:.2g} in a network of width 64 run now (theory: ×{predicted:.2g})."
        )
    return (
        "Vanishing gradients: each layer multiplies by its weights and by f′.",
        [
            *lines,
            "Both have weights at the exact gain, which keeps the size of the signal going forward.",
            "Going back is another matter: what a layer multiplies gradients by is (gain ÷ backward gain)², in "
            "softknee show as “gradients a layer”. Far below 1, the first layers do not learn.",
            "Mend it with another activation, residual connections or normalization, in this order.",
        ],
        figures,
        [
            Source("Schoenholz et al. 2016, deep information propagation", "1611.01232"),
            Source("He et al. 2015, delving deep into rectifiers", "1502.01852"),
        ],
    )


def _collapse(seed: int, between: str = "relu") -> Told:
    draw = _normal(seed)
    x, (w1, b1), (w2, b2) = draw(512, 8), (draw(8, 32), draw(32)), (draw(32, 4), draw(4))
    stacked = (x @ w1 + b1) @ w2 + b2
    one = x @ (w1 @ w2) + (b1 @ w2 + b2)
    bent = get(between)(x @ w1 + b1) @ w2 + b2
    affine = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    rest = bent - affine @ torch.linalg.lstsq(affine, bent).solution
    figures = {
        "difference": float((stacked - one).abs().max()), "largest": float(stacked.abs().max()), "between": between,
        "unexplained": float(rest.square().sum() / (bent - bent.mean(0)).square().sum()),
        "stacked_parameters": sum(t.numel() for t in (w1, b1, w2, b2)), "one_parameters": 8 * 4 + 4,
    }  # fmt: skip
    return (
        "Collapse: linear layers with nothing between them are one linear layer.",
        [
            f"Two layers, 8 → 32 → 4, {figures['stacked_parameters']} parameters, against their product, one "
            f"matrix with {figures['one_parameters']}:",
            f"on 512 rows they differ by at most {figures['difference']:.2g}, in outputs up to "
            f"{figures['largest']:.3g}: rounding.",
            f"With {between} between them, the best single layer leaves {figures['unexplained']:.1%} of the variance "
            "unexplained.",
            "That remainder is all that an activation is for; depth without it buys nothing but rounding.",
            "softknee.identify lists such pairs in a model as collapses.",
        ],
        figures,
        [Source("Saxe et al. 2013, exact solutions of deep linear networks", "1312.6120")],
    )


def _temperature(seed: int, logits: tuple[float, ...] = (2.0, 1.0, 0.1)) -> Told:
    scores = torch.tensor(logits, dtype=torch.float64)
    rows: dict[str, dict[str, Any]] = {}
    for temperature in TEMPERATURES:
        p = SF.softmax(scores, dim=-1, temperature=temperature)
        rows[f"{temperature:g}"] = {"probabilities": p.tolist(), "entropy": float(-(p * p.log()).sum())}
    table = [
        f"  T = {t:<4}" + "".join(f"{p:8.3f}" for p in row["probabilities"]) + f"    entropy {row['entropy']:.3f}"
        for t, row in rows.items()
    ]
    return (
        "Temperature: softmax(x / T) trades certainty against spread.",
        [
            f"Logits {', '.join(f'{x:g}' for x in logits)} become",
            *table,
            f"T → 0 is the largest alone, T → ∞ all {len(logits)} alike, entropy {math.log(len(logits)):.3f}.",
            "The order never changes, so accuracy does not either: T moves confidence only.",
            "Above 1 to distil and to calm an overconfident classifier, below 1 to sample text closer to the best.",
            "In Python: SF.softmax(x, temperature=2), with a gradient to the temperature.",
        ],
        {"logits": list(logits), "temperatures": rows},
        [
            Source("Hinton et al. 2015, distilling knowledge", "1503.02531"),
            Source("Guo et al. 2017, calibration of modern networks", "1706.04599"),
        ],
    )


def _gating(seed: int, gated: str = "swiglu", plain: str = "silu") -> Told:
    dim, wide, narrow, steps = 8, 24, 16, 200
    draw = _normal(seed)
    a, b = draw(dim, dim) / math.sqrt(dim), draw(dim, dim) / math.sqrt(dim)
    x, unseen = draw(512, dim), draw(512, dim)

    def error(sizes: list[tuple[int, int]], run: Callable[[Tensor, list[Tensor]], Tensor]) -> tuple[float, int]:
        weights = [(draw(*size) / math.sqrt(size[0])).requires_grad_() for size in sizes]
        optimizer = torch.optim.Adam(weights, lr=0.02)
        for _ in range(steps):
            optimizer.zero_grad()
            (run(x, weights) - (x @ a) * (x @ b)).square().mean().backward()
            optimizer.step()
        target = (unseen @ a) * (unseen @ b)
        left = (run(unseen, weights).detach() - target).square().mean() / target.square().mean()
        return float(left), sum(weight.numel() for weight in weights)

    two, three = get(plain), get(gated)
    left_plain, count_plain = error([(dim, wide), (wide, dim)], lambda h, w: two(h @ w[0]) @ w[1])
    left_gated, count_gated = error(
        [(dim, narrow), (dim, narrow), (narrow, dim)], lambda h, w: three(h @ w[0], h @ w[1]) @ w[2]
    )
    return (
        "Gating: one projection decides how much of another passes.",
        [
            f"{plain}, two matrices: {dim} → {wide} → {dim}, {count_plain} weights",
            f"{gated}, three matrices: {dim} → {narrow}, {dim} → {narrow}, {narrow} → {dim}, {count_gated} weights",
            "A hidden width of ⅔ pays for the third matrix: the same parameters, the same products.",
            f"Trained now for {steps} steps on products of two features, they leave on unseen rows",
            f"  {plain}: {left_plain:.1%} of the target    {gated}: {left_gated:.1%}",
            "The task is made for gating: a product of two projections is its own form, while a plain layer "
            "adds up many bends to imitate one. Language models gain less, and still gain.",
            "In Python: softknee.nn.GatedFeedForward(512), which picks the width.",
        ],
        {
            "plain": plain,
            "gated": gated,
            "steps": steps,
            "plain_weights": count_plain,
            "gated_weights": count_gated,
            "plain_error": left_plain,
            "gated_error": left_gated,
        },
        [
            Source("Dauphin et al. 2016, gated convolutional networks", "1612.08083"),
            Source("Shazeer 2020, GLU variants improve transformer", "2002.05202"),
        ],
    )


def _saturation(seed: int, activation: str = "tanh", epsilon: float = 1e-3) -> Told:
    f, rows = get(activation), {}
    drawn = _normal(seed)(4096)
    regions = f.facts.saturated(epsilon)
    for scale in SCALES:
        z = (scale * drawn).requires_grad_()
        slope = torch.autograd.grad(f(z).sum(), z)[0].abs()
        rows[f"{scale:g}"] = {"saturated": float((slope < epsilon).double().mean()), "slope": float(slope.mean())}
    table = [
        f"  scale {scale:<3} mean |f′| {row['slope']:.3f}    |f′| < {epsilon:g} in {row['saturated']:.1%} of rows"
        for scale, row in rows.items()
    ]
    where = " and ".join(f"({low:.3g}, {high:.3g})" for low, high in regions or ()) or "nowhere that is proved"
    return (
        "Saturation: where a curve is flat, gradients do not pass.",
        [
            f"{activation} is saturated, |f′| < {epsilon:g}, in {where}.",
            f"{len(drawn):,} pre-activations drawn from a normal distribution, multiplied by its scale:",
            *table,
            "The unit still has outputs, near its bounds; they hardly move when its weights do.",
            "Pre-activations grow by large weights, unscaled inputs or too large steps: keep their scale near 1 "
            "by the exact gain or a normalization layer. In gates and outputs it is wanted: a decision.",
        ],
        {
            "activation": activation,
            "epsilon": epsilon,
            "regions": [list(region) for region in regions or ()],
            "scales": rows,
        },
        [Source("Schoenholz et al. 2016, deep information propagation", "1611.01232")],
    )


def _overconfidence(seed: int, steps: int = 200) -> Told:
    draw, features, flipped = _normal(seed), 40, 0.1
    direction = draw(features)

    def rows(count: int) -> tuple[Tensor, Tensor]:
        x = draw(count, features)
        wrong = draw(count) < math.sqrt(2) * float(torch.erfinv(torch.tensor(2 * flipped - 1)))
        return x, ((x @ direction > 0) ^ wrong).long()

    x, y = rows(120)
    weight = torch.zeros(features, 2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([weight], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(x @ weight, y).backward()
        optimizer.step()
    (valid, valid_y), (test, test_y) = rows(1000), rows(1000)
    fitted = weight.detach()
    found = calibrate(valid @ fitted, valid_y, test @ fitted, test_y, resamples=200, seed=seed % 2**32)
    p = torch.softmax(test @ fitted, -1)
    figures = {
        "confidence": float(p.amax(-1).mean()), "accuracy": float((p.argmax(-1) == test_y).double().mean()),
        "training_accuracy": float(((x @ fitted).argmax(-1) == y).double().mean()),
        "temperature": found.temperature, "ece_before": found.ece_raw, "ece_after": found.ece_scaled,
        "nll_before": found.nll_raw, "nll_after": found.nll_scaled, "verdict": found.verdict,
    }  # fmt: skip
    return (
        "Overconfidence: softmax says how sure a model is, not how often it is right.",
        [
            f"{len(x)} rows, {features} features, {flipped:.0%} of labels flipped: a linear classifier trained now, "
            f"right on {figures['training_accuracy']:.1%} of them.",
            f"On 1,000 unseen rows its mean confidence is {figures['confidence']:.1%}, its accuracy "
            f"{figures['accuracy']:.1%}.",
            f"One temperature, fitted on 1,000 other rows: T = {found.temperature:.3g}.",
            f"  calibration error          {found.ece_raw:.3f} → {found.ece_scaled:.3f}",
            f"  negative log-likelihood    {found.nll_raw:.3f} → {found.nll_scaled:.3f}",
            f"Verdict: {found.verdict}.",
            "The loss of rows that are right already goes on falling as the logits grow; that is what unseen rows "
            "do not agree to. The order of the classes stays: accuracy is the same at any T.",
            "For your model: softknee.verification.calibrate.",
        ],
        figures,
        [Source("Guo et al. 2017, calibration of modern networks", "1706.04599")],
    )


def _normal(seed: int) -> Callable[..., Tensor]:
    """Draws of a standard normal distribution of any shape, from a generator that nothing else touches."""
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)


TOPICS: dict[str, Callable[[int], Told]] = {
    "dying-relu": _dying_relu,
    "vanishing": _vanishing,
    "collapse": _collapse,
    "temperature": _temperature,
    "gating": _gating,
    "saturation": _saturation,
    "overconfidence": _overconfidence,
}
