"""Facts against brute force and published figures."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import softknee
from softknee.errors import InputError
from softknee.facts import facts

GAINS = {  # 1/√E[f²], 1/√Var f and 1/√E[f′²], mpmath, z ~ N(0, 1)
    "identity": (1.0, 1.0, 1.0),
    "relu": (1.414213562373095, 1.7128585504496625, 1.414213562373095),
    "leaky_relu": (1.4141428569978354, 1.7048316271773367, 1.4141428569978354),
    "prelu": (1.3719886811400706, 1.504609643215645, 1.3719886811400706),
    "rrelu": (1.378479664546057, 1.5219953443844163, 1.378479664546057),
    "relu6": (1.4142135650950736, 1.712858554972395, 1.4142135637683406),
    "relu2": (0.8164965809277261, 0.8944271909999159, 0.7071067811865475),
    "sigmoid": (1.8462285453386054, 4.8013133720399574, 4.722646085937974),
    "tanh": (1.5925374197228312, 1.5925374197228312, 1.4674135916307953),
    "softsign": (2.3375333631085398, 2.3375333631085398, 2.095780608943311),
    "hardtanh": (1.3920361404483095, 1.3920361404483095, 1.2102870624325222),
    "hardsigmoid": (1.8978404247295588, 6.015034486637093, 6.008115825196682),
    "silu": (1.6765324703310913, 1.7871872221004417, 1.623320257952497),
    "quick_gelu": (1.5394587622988314, 1.7093585898912746, 1.491459226750051),
    "gelu": (1.5335304411955353, 1.700926243363333, 1.481114412708348),
    "gelu_tanh": (1.533580521666147, 1.7009165616954502, 1.4811680580933506),
    "mish": (1.486847581273208, 1.5920253810994462, 1.4447552325473194),
    "hardswish": (1.7366572127665416, 1.8138714738131827, 1.670076367441382),
    "elu": (1.2451983007007066, 1.2708434178501964, 1.223428557552621),
    "selu": (1.0000000000000002, 1.0000000000000002, 0.9660257769739012),
    "celu": (1.2451983007007066, 1.2708434178501964, 1.223428557552621),
    "softplus": (1.0418668355353018, 1.9191259801076566, 1.8462285453386054),
    "logsigmoid": (1.0418668355353016, 1.9191259801076563, 1.8462285453386054),
    "squareplus": (0.8164965809277261, 1.9264952203913384, 1.8591491624912375),
    "tanhshrink": (2.338367530102121, 2.338367530102121, 1.9881388232490018),
    "softshrink": (1.5443605282801334, 1.5443605282801334, 1.2730076010313074),
    "hardshrink": (1.015796354719734, 1.015796354719734, 1.2730076010313074),
    "xielu": (0.7590769382772921, 0.8286590732788229, 0.6949917532385398),
    "laplace": (2.2391950387766113, 2.6928993061306894, 1.8029799687904466),
    "sqrt_softplus": (1.1138239059428763, 3.526304259600227, 3.5054095896288877),
    "sparse_plus": (1.3803368628588104, 1.79289113481379, 1.6243215587888253),
    "lecun_tanh": (1.1543694539761429, 1.1543694539761429, 1.1152568925388147),
    "erf": (1.4671669504891385, 1.4671669504891385, 1.3252183528612111),
    "atan": (1.4912076181342089, 1.4912076181342089, 1.414213562373095),
    "golu": (1.7687777858692453, 1.989570705556305, 1.6963774966518994),
    "serf": (1.4122052511470504, 1.5088111017707553, 1.37363061696677),
    "logish": (2.267672190402301, 2.3910788112883674, 2.2028449016580383),
    "smish": (2.5129542309344988, 2.635771687385252, 2.4430212408482053),
    "sine": (1.520866623178815, 1.520866623178815, 1.3272506002845752),
}
# At their defaults the function of another entry, or nearly the identity, or with a threshold that has a closed form
WITHOUT = {"swish", "softcap", "thresholded_relu"}


def test_every_elementwise_entry_of_the_core_has_published_gains():
    core = {a.name for a in softknee.activations() if a.kind == "elementwise" and a.core}
    assert GAINS.keys() | WITHOUT >= core


@pytest.mark.parametrize("name", GAINS)
def test_gains(name):
    exact = {"eps": 0.0} if name == "xielu" else {}  # without its guard, which moves the backward gain by 1.5e-8
    found = facts(softknee.get(name), **exact)
    assert (found.gain, found.centred_gain, found.backward_gain) == pytest.approx(GAINS[name], rel=1e-11)


def test_gains_across_jumps():
    for threshold in (0.3, 1.0, 2.5):
        found = facts(softknee.get("thresholded_relu"), threshold=threshold)
        tail = math.erfc(threshold / math.sqrt(2)) / 2
        second = threshold * math.exp(-(threshold**2) / 2) / math.sqrt(2 * math.pi) + tail
        assert found.second_moment == pytest.approx(second, rel=1e-12)
        assert found.backward_gain == pytest.approx(1 / math.sqrt(tail), rel=1e-12)
    assert facts(softknee.get("hardshrink"), lambd=0.7).backward_gain == pytest.approx(
        1 / math.sqrt(math.erfc(0.7 / math.sqrt(2))), rel=1e-12
    )


def test_gain_with_parameters():
    leaky = softknee.get("leaky_relu").facts
    assert leaky.gain_with(negative_slope=0.2) == pytest.approx(math.sqrt(2 / (1 + 0.2**2)), rel=1e-13)


ENTRIES = [a for a in softknee.activations() if a.kind != "normalizer"]


@pytest.mark.parametrize("activation", ENTRIES, ids=lambda a: a.name)
def test_against_brute_force(activation):
    """Every fact of every entry against what a dense grid shows, and none of the entries' core facts unknown."""
    found = activation.facts
    grid = np.concatenate([np.linspace(-12, 12, 24_001), np.linspace(-90, 90, 20_001)])
    edges = np.array(found.breakpoints or ())
    x = np.unique(np.concatenate([np.round(grid, 3), edges - 1e-6, edges, edges + 1e-6]))
    values, slopes, curves = (found.value(x, order) for order in range(3))
    apart = ~np.isin(x, edges)
    step = np.diff(x)

    low, high = found.range or (-math.inf, math.inf)
    assert low - 1e-12 <= values.min() and values.max() <= high + 1e-12
    for point, extreme in ((found.minimum, values.min()), (found.maximum, values.max())):
        assert point is None or point.value == pytest.approx(extreme, abs=1e-7)
    far = found.value([-1e30, 1e30])
    for end, limit in zip(far, found.limits, strict=True):
        if limit is not None:
            assert end == pytest.approx(limit, abs=1e-6) if math.isfinite(limit) else np.sign(end) == np.sign(limit)
    for side, line in zip((-1, 1), found.asymptotes, strict=True):
        if line is not None:
            end = side * (1e9 if line.slope else 1e24)  # pau comes near its own as 16/x, powlu as log(x)/√x
            assert found.value(end) - line.slope * end == pytest.approx(line.intercept, abs=1e-5)

    mirrored = found.value(-x[apart])
    if found.parity in ("even", "odd"):
        sign = 1 if found.parity == "even" else -1
        assert np.allclose(values[apart], sign * mirrored, rtol=1e-13, atol=1e-13)
    gains = np.diff(values)
    rounding = 1e-14 * (1 + np.abs(values[1:]))
    falls, rises = (gains < -rounding).any(), (gains > rounding).any()
    if found.monotonicity is not None:
        told = {"increasing": (False, True), "decreasing": (True, False), "constant": (False, False)}
        assert told.get(found.monotonicity, (True, True)) == (falls, rises)
    bends = np.diff(gains / step)
    room = 2e-9
    if found.convexity is not None:
        up, down = (bends > room).any(), (bends < -room).any()
        told = {"convex": (True, False), "concave": (False, True), "linear": (False, False), "none": (True, True)}
        assert told[found.convexity] == (up, down)

    for some, stretches, of in ((found.roots, found.zero, values), (found.stationary, found.dead, slopes)):
        if some is None:
            continue
        level = np.zeros(x.shape, bool)
        for left, right in stretches:
            level |= (x >= left) & (x <= right)
            assert not of[(x > left) & (x < right)].any()
        crossing = np.flatnonzero((of[:-1] * of[1:] < 0) & ~level[:-1] & ~level[1:])
        for i in crossing:
            near = min(abs(r - x[i]) for r in some) if some else math.inf
            jumps = edges.size and np.abs(edges - x[i]).min() <= step[i]
            assert near <= step[i] or jumps, (x[i], some)
        for root in some:
            assert abs(found.value(root, 0 if of is values else 1)) < 1e-12

    chords = np.abs(gains / step)
    for constant, size, most in (
        (found.lipschitz, np.abs(slopes[apart]), chords),
        (found.lipschitz_derivative, np.abs(curves[apart]), None),
    ):
        if constant is not None:
            assert size.max() <= constant * (1 + 1e-9) + 1e-12
            assert most is None or most.max() <= constant * (1 + 1e-6) + 1e-9
            largest = size.max() if math.isfinite(constant) else constant
            assert constant <= largest * (1 + 1e-4) + 1e-9 or constant in np.abs(found.slopes)

    for point in found.smoothness or ():
        sides = [[found.value(point.x + d, n) for n in range(3)] for d in (-1e-9, 1e-9)]
        scale = 1 + np.abs(sides).max()
        same = [abs(a - b) < 1e-7 * scale for a, b in zip(*sides, strict=True)]
        order = next((n for n, equal in enumerate(same) if not equal), 3) - 1
        assert min(point.order, 2) == order or (activation.name == "xielu" and point.x == 0.0)  # a jump of 8e-7

    saturated = found.saturated(1e-3)
    if saturated is not None:
        inside = np.zeros(x.shape, bool)
        for left, right in saturated:
            inside |= (x > left) & (x < right)
        passed = activation.passing.facts.value(x, 1)  # what backward takes
        assert (inside == (np.abs(passed) < 1e-3))[apart].mean() > 0.9999


def test_core_facts_are_known():
    """Little is unknown of an entry that does not oscillate for ever."""
    found = [a.facts for a in ENTRIES if "periodic" not in a.tags]
    for name in ("range", "breakpoints", "stationary"):
        assert not [f.activation for f in found if getattr(f, name) is None], name
    for name in (
        "roots",
        "dead",
        "smoothness",
        "lipschitz",
        "lipschitz_derivative",
        "monotonicity",
        "convexity",
        "parity",
    ):
        assert sum(getattr(f, name) is None for f in found) <= 0.03 * len(found), name
    assert sum(f.saturated() is None for f in found) <= 0.03 * len(found)
    assert all(math.isfinite(f.mean) for f in found)


def test_parity_of_entries():
    parity = {a.name: a.facts.parity for a in ENTRIES}
    assert {n for n, p in parity.items() if p == "odd"} >= {
        "identity", "tanh", "softsign", "softcap", "hardtanh", "hardshrink", "softshrink", "tanhshrink",
    }  # fmt: skip
    assert parity["gelu"] == parity["sigmoid"] == parity["relu6"] == "none"
    assert facts(softknee.get("hardtanh"), min_val=-1.0, max_val=2.0).parity == "none"


def test_shapes_and_orders_that_are_known():
    shape = {a.name: (a.facts.monotonicity, a.facts.convexity) for a in ENTRIES}
    assert shape["softplus"] == shape["relu"] == shape["squareplus"] == ("increasing", "convex")
    assert shape["logsigmoid"] == ("increasing", "concave") and shape["identity"] == ("increasing", "linear")
    assert shape["gelu"] == ("none", "none") and shape["tanh"] == ("increasing", "none")
    assert softknee.get("hardswish").facts.smoothness == ((-3.0, 0), (3.0, 0))
    assert softknee.get("sparse_plus").facts.smoothness == ((-1.0, 1), (1.0, 1))
    assert facts(softknee.get("elu"), alpha=2.0).smoothness == ((0.0, 0),)
    guarded = facts(softknee.get("softplus"), threshold=20.0)
    assert guarded.smoothness == ((20.0, -1),) and guarded.monotonicity == "none", "it falls by 2e-9"
    assert math.isinf(guarded.lipschitz)


def test_known_constants():
    sigmoid, tanh = softknee.get("sigmoid").facts, softknee.get("tanh").facts
    assert sigmoid.lipschitz == 0.25 and sigmoid.lipschitz_derivative == pytest.approx(
        1 / (6 * math.sqrt(3)), rel=1e-12
    )
    assert tanh.lipschitz_derivative == pytest.approx(4 / (3 * math.sqrt(3)), rel=1e-12)
    assert softknee.get("gelu").facts.largest_derivative.x == pytest.approx(math.sqrt(2), rel=1e-9)
    squareplus = facts(softknee.get("squareplus"), b=9.0)
    assert squareplus.asymptotes[1] == (1.0, pytest.approx(0.0, abs=1e-9)) and squareplus.lipschitz == 1.0
    assert softknee.get("softshrink").facts.asymptotes == ((1.0, 0.5), (1.0, -0.5))


def test_known_regions():
    assert softknee.get("relu").facts.dead == ((-math.inf, 0.0),)
    assert softknee.get("relu").facts.breakpoints == (0.0,)
    assert softknee.get("hardswish").facts.dead == ((-math.inf, -3.0),)
    assert softknee.get("gelu").facts.dead == ()
    assert softknee.get("leaky_relu").facts.minimum is None
    assert softknee.get("tanh").facts.range == (-1.0, 1.0)
    assert softknee.get("softsign").facts.range == (-1.0, 1.0)
    assert softknee.get("squareplus").facts.range == (0.0, math.inf)
    for name in ("hardshrink", "softshrink"):
        assert softknee.get(name).facts.dead == ((-0.5, 0.5),)
    assert softknee.get("relu6").facts.dead == ((-math.inf, 0.0), (6.0, math.inf))
    assert softknee.get("thresholded_relu").facts.dead == ((-math.inf, 1.0),)
    far = 30 * math.acosh(math.sqrt(1000))  # sech²(x/30) = 1e-3
    assert softknee.get("softcap").facts.saturated() == (
        (-math.inf, pytest.approx(-far)), (pytest.approx(far), math.inf),
    )  # fmt: skip


def test_branches_of_a_stable_form_are_no_breakpoints():
    for name in ("tanhshrink", "sqrt_softplus", "squareplus", "gelu", "mish", "laplace"):
        assert softknee.get(name).facts.breakpoints == ()
    assert softknee.get("softsign").facts.breakpoints == (0.0,)


def test_limits_are_those_declared():
    for activation in softknee.activations():
        if activation.limits is not None:
            limits = tuple(None if math.isnan(end) else end for end in activation.limits)  # NaN: there is none
            assert activation.facts.limits == limits, activation


def test_a_slope_without_end_is_said_to_be_infinite():
    assert softknee.get("relu2").facts.largest_derivative == (math.inf, math.inf)
    assert softknee.get("xielu").facts.largest_derivative == (math.inf, math.inf)
    assert softknee.get("squareplus").facts.largest_derivative.value == pytest.approx(1.0, abs=1e-15)

    @softknee.elementwise
    def falling(x, ops):
        return ops.minimum(x, 0.0) ** 3

    assert falling.facts.largest_derivative == (-math.inf, math.inf)
    assert json.loads(json.dumps(falling.to_dict()))["facts"]["largest_derivative"] == {"x": "-inf", "value": "inf"}


def test_a_normalizer_has_none():
    with pytest.raises(InputError, match="softmax is a normalizer"):
        _ = softknee.get("softmax").facts


def test_a_constant_has_facts():
    @softknee.elementwise
    def three(x, ops):
        return 3.0

    @softknee.elementwise
    def nothing(x, ops):
        return 0.0 * x

    assert (three.facts.gain, three.facts.centred_gain, three.facts.backward_gain) == (1 / 3, math.inf, math.inf)
    assert three.facts.dead == ((-math.inf, math.inf),)
    assert nothing.facts.gain == math.inf
    for activation in (three, nothing, softknee.get("relu")):
        json.dumps(activation.to_dict(), allow_nan=False)
    with pytest.raises(InputError, match="nothing has no gain"):
        softknee.nn.init.gain(nothing)


def test_breakpoints_move_with_the_parameters_and_lie_anywhere():
    @softknee.elementwise
    def between(x, ops, *, low=-60.0, high=1e5):
        return ops.minimum(ops.maximum(x, low), high)

    assert between.facts.breakpoints == (-60.0, 1e5)
    assert between.facts.dead == ((-math.inf, -60.0), (1e5, math.inf))
    found = facts(between, low=-0.1, high=0.7)
    assert (found.breakpoints, found.range) == ((-0.1, 0.7), (-0.1, 0.7))
    assert (found.minimum, found.maximum) == ((-0.1, -0.1), (0.7, 0.7))


def test_many_extrema():
    @softknee.elementwise
    def wave(x, ops, *, frequency=30.0):
        return ops.sin(frequency * x)

    assert wave.facts.minimum == pytest.approx((-math.pi / 60, -1.0))
    assert wave.facts.maximum == pytest.approx((math.pi / 60, 1.0))
    assert wave.facts.backward_gain == pytest.approx(math.sqrt(2) / 30)


def test_a_moment_that_exists_although_f_overflows():
    @softknee.elementwise
    def steep(x, ops):
        return ops.exp(x * x / 5.0)

    assert steep.facts.second_moment == pytest.approx(math.sqrt(5))  # ∫ exp(2x²/5)·φ(x) dx
