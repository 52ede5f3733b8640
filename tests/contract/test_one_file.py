"""One definition in one file gives everything; and every way in which a definition can be wrong is caught."""

from __future__ import annotations

import inspect
import math
import statistics
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from oracle import allowed, exact

import softknee
from softknee.errors import InputError

FILE = '''
"""A temporary definition file."""

import math

from softknee.catalog.spec import elementwise


@elementwise(aliases=("wiggle",), source="nowhere", limits=(-math.inf, math.inf))
def ripple(x, ops, *, a=1.0):
    """x plus a ripple."""
    return x + ops.sin(a * x) / a
'''

USE = """
import sys
import softknee.catalog
softknee.catalog.__path__.append(sys.argv[1])
softknee.catalog.discover(softknee.catalog)

import torch, softknee, softknee.functional as SF
x = torch.linspace(-3, 3, 7, dtype=torch.float64, requires_grad=True)
act = softknee.get("wiggle")
assert act in softknee.activations() and act.parameters["a"].default == 1.0
assert torch.autograd.gradcheck(act, (x,)) and torch.autograd.gradgradcheck(act, (x,))
assert torch.equal(SF.ripple(x, 2.0), act(x, a=2.0))
assert torch.equal(softknee.nn.Ripple(a=2.0)(x), act(x, a=2.0))
assert "def ripple(input: Tensor, a: float | Tensor" in SF.stub()
assert abs(act.facts.largest_derivative.value - 2) < 1e-4 and act.facts.gain > 0
assert r"\\sin" in act.latex()
class Model(torch.nn.Module):
    def forward(self, x):
        return act(x)
(site,) = softknee.identify(Model(), x.detach())
assert site.activation == "ripple", site
print("everything")
"""


def test_one_file_gives_everything(tmp_path):
    definitions = tmp_path / "definitions"
    definitions.mkdir()
    (definitions / "ripples.py").write_text(FILE)
    script = tmp_path / "use.py"
    script.write_text(textwrap.dedent(USE))
    run = subprocess.run([sys.executable, script, definitions], capture_output=True, text=True, timeout=120)
    assert run.stdout.strip() == "everything", run.stderr


def lines(activation):
    """How many lines define it: the decorator, the docstring, the stable form and what runs it in PyTorch included."""
    written = (activation.formula, activation.stable, activation.surrogate, activation.apply)
    return sum(len(inspect.getsourcelines(function)[0]) for function in written if function is not None)


def test_a_definition_is_short():
    counts = {a.name: lines(a) for a in softknee.activations()}
    assert statistics.median(counts.values()) <= 12, counts
    assert max(counts.values()) <= 30, counts
    assert counts["silu"] == inspect.getsource(softknee.get("silu").formula).count("\n")


def test_five_lines_in_a_notebook():
    @softknee.elementwise
    def bump(x, ops):
        """A bump."""
        return x * ops.exp(-x * x)

    x = torch.linspace(-2, 2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(bump, (x,))
    assert bump.facts.maximum.x == pytest.approx(math.sqrt(0.5))
    assert bump.module()(x).shape == x.shape
    with pytest.raises(InputError, match="unknown"):
        softknee.get("bump")


def planted(**wrong):
    """SiLU with one thing wrong, as a fresh unregistered activation."""

    def silu(x, ops):
        """x·σ(x)."""
        return x * ops.sigmoid(x)

    return softknee.elementwise(wrong.pop("formula", silu), limits=(0.0, math.inf), **wrong)


def agrees(activation, points=(-20.0, -3.0, -0.5, 0.0, 0.5, 3.0, 20.0)):
    values = activation.value(np.array(points))
    return all(
        abs(value - float(exact(activation, (x,)))) <= allowed(activation, (x,), 0)
        for x, value in zip(points, values, strict=True)
    )


def test_a_wrong_formula_fails():
    def silu(x, ops):
        return x * ops.sigmoid(1.01 * x)

    assert agrees(planted())
    wrong = planted(formula=silu)
    x = torch.linspace(-6, 6, 64, dtype=torch.float64)
    torch.testing.assert_close(planted()(x), torch.nn.functional.silu(x), rtol=1e-9, atol=1e-9)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(wrong(x), torch.nn.functional.silu(x), rtol=1e-9, atol=1e-9)


def test_a_wrong_stable_form_fails():
    def stable(x, ops):
        return x / (1.0 + ops.exp(-x)) + 1e-9

    def careless(x, ops):
        return 0.5 * x * (1.0 + ops.tanh(0.5 * x))

    assert not agrees(planted(stable=stable)), "another function"
    assert not agrees(planted(stable=careless)), "the same function, in a form that cancels on the left"


def test_a_wrong_limit_fails():
    from test_numerics import test_limits

    test_limits(planted())
    wrong = softknee.elementwise(planted().formula, limits=(-1.0, math.inf))
    with pytest.raises(AssertionError):
        test_limits(wrong)


def test_a_duplicate_alias_fails():
    with pytest.raises(InputError, match="'gelu' of 'mine' is taken by 'gelu'"):

        @softknee.register
        @softknee.elementwise(aliases=("gelu",))
        def mine(x, ops):
            return x


def test_registering_again_is_harmless():
    def cell():
        @softknee.elementwise(aliases=("again_too",))
        def again(x, ops):
            """x."""
            return 1.0 * x

        return again

    from softknee.catalog import registry

    before = dict(registry._BY_NAME)
    try:
        first, second = softknee.register(cell()), softknee.register(cell())
        assert softknee.get("again_too") is second is not first
        other = softknee.elementwise(lambda_named("again"))
        with pytest.raises(InputError, match="taken"):
            softknee.register(other)
        softknee.register(other, overwrite=True)
        assert softknee.get("again") is other
    finally:
        registry._BY_NAME.clear()
        registry._BY_NAME.update(before)


def test_what_is_registered_later_is_everywhere_too():
    from softknee.catalog import registry

    @softknee.elementwise(aliases=("later_still",))
    def later(x, ops, *, a=1.0):
        """a·x²."""
        return a * x * x

    before = dict(registry._BY_NAME)
    try:
        assert not hasattr(softknee.functional, "later") and not hasattr(softknee.nn, "Later")
        softknee.register(later)
        assert softknee.functional.later(torch.tensor(3.0), 2.0).item() == 18
        assert softknee.functional.later is softknee.functional.later
        module = softknee.nn.Later(a=2.0)
        assert module(torch.tensor(3.0)).item() == 18 and isinstance(module, softknee.nn.Later)
        another = softknee.elementwise(lambda_named("later"))
        softknee.register(another, overwrite=True)
        assert [a for a in softknee.activations() if a.name == "later"] == [another]
        with pytest.raises(InputError, match="later_still"):
            softknee.get("later_still")
    finally:
        registry._BY_NAME.clear()
        registry._BY_NAME.update(before)


def lambda_named(name):
    def function(x, ops):
        return 2.0 * x

    function.__name__ = name
    return function


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def f(x, ops):\n    return x if x > 0 else 0", "ops.where"),
        ("def f(x, ops):\n    return x ** 0.5", "integer powers"),
        ("def f(x, ops):\n    return ops.gamma(x)", "gamma"),
        ("def f(x, ops):\n    return [x]", "list"),
        ("def f(x):\n    return x", "named 'ops'"),
        ("def f(x, ops, a):\n    return x", "default"),
        ("def f(x, y, ops):\n    return x", "1 input"),
    ],
)
def test_definitions_that_are_refused(body, message):
    namespace: dict = {}
    exec(body, namespace)
    with pytest.raises((TypeError, InputError), match=message):
        softknee.elementwise(namespace["f"])
