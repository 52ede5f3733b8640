"""JAX: every entry, its derivatives of the first two orders, in JAX's transforms."""

import numpy as np
import pytest
import torch

import softknee
from softknee.errors import InputError

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402

import softknee.jax as SJ  # noqa: E402

FAR = [-np.inf, np.inf, 1e300, -1e300, -800.0, -700.0]
POINTS = np.concatenate([np.linspace(-40.0, 40.0, 81), [-1e-9, 1e-9, 0.3, -0.3], FAR])
POINTWISE = [a for a in softknee.activations() if a.kind != "normalizer"]
NORMALIZERS = [a for a in softknee.activations() if a.kind == "normalizer" and not a.stochastic]


def distance(found, wanted):
    """The largest error relative to `wanted`, of which 1/16 is the least; the same infinity, or NaN, is no error."""
    found, wanted = np.asarray(found, dtype=np.float64), np.asarray(wanted, dtype=np.float64)
    same = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
    with np.errstate(all="ignore"):
        error = np.abs(found - wanted) / np.maximum(np.abs(wanted), 2.0**-4)
    return float(np.where(same, 0.0, error).max())


@pytest.mark.parametrize("activation", POINTWISE, ids=lambda a: a.name)
def test_value_and_derivatives(activation):
    inputs = [POINTS] if len(activation.inputs) == 1 else [POINTS[:85], POINTS[:85][::-1].copy()]
    with jax.enable_x64(True):
        function = SJ.function(activation)
        for order in range(3):
            found = jax.vmap(function)(*map(jnp.asarray, inputs))
            assert distance(found, activation.derivative(*inputs, order=order)) < 1e-13, order
            function = jax.grad(function)


@pytest.mark.parametrize("name", ["silu", "gelu", "gelu_tanh", "mish", "sigmoid", "tanh", "softplus", "elu"])
def test_float32_keeps_its_tails(name):
    activation = softknee.get(name)
    x = np.linspace(-85.0, 20.0, 2001, dtype=np.float32)
    found = np.asarray(SJ.function(name)(jnp.asarray(x)), dtype=np.float64)
    f, slope = activation.value(x), activation.derivative(x)
    normal = np.abs(f) > 2.0**-120
    allowed = 2.0**-23 * (np.abs(f) + np.abs(x * slope))
    assert normal.sum() > 300
    assert (np.abs(found - f) <= 8 * allowed)[normal].all()


def test_transforms_compose():
    x = jnp.linspace(-3.0, 3.0, 7)
    curve = jax.jit(jax.vmap(jax.grad(jax.grad(SJ.gelu))))(x)
    np.testing.assert_allclose(curve, softknee.get("gelu").derivative(x, order=2), rtol=1e-5, atol=1e-6)
    value, moved = jax.jvp(SJ.silu, (x,), (jnp.ones_like(x),))
    np.testing.assert_allclose(value, softknee.get("silu").value(x), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(moved, softknee.get("silu").derivative(x), rtol=1e-5, atol=1e-6)


def test_a_parameter_is_differentiated():
    x = jnp.linspace(-3.0, 3.0, 7)
    found = jax.grad(lambda beta: SJ.swish(x, beta=beta).sum())(jnp.asarray(1.5))
    wanted = softknee.get("swish").derivative(x, wrt="beta", beta=1.5).sum()
    assert float(found) == pytest.approx(wanted, rel=1e-5)
    assert float(SJ.leaky_relu(jnp.asarray(-1.0), negative_slope=0.2)) == pytest.approx(-0.2)


def test_both_inputs_of_a_gate():
    gate, up = jnp.asarray([0.5, -1.0]), jnp.asarray([2.0, 3.0])
    swiglu = softknee.get("swiglu")
    for i, word in enumerate(swiglu.inputs):
        found = jax.grad(lambda *a: SJ.swiglu(*a).sum(), argnums=i)(gate, up)
        np.testing.assert_allclose(found, swiglu.derivative(gate, up, wrt=word), rtol=2e-6)


@pytest.mark.parametrize("activation", NORMALIZERS, ids=lambda a: a.name)
def test_normalizers(activation):
    generator = np.random.default_rng(0)
    x = [generator.normal(size=(3, 6)) * 2 for _ in activation.inputs]
    leaves = [torch.from_numpy(v).requires_grad_() for v in x]
    y = activation(*leaves, dim=-1)
    weights = np.random.default_rng(1).normal(size=y.shape)
    wanted = torch.autograd.grad((y * torch.from_numpy(weights)).sum(), leaves)
    with jax.enable_x64(True):
        function = SJ.function(activation)
        np.testing.assert_allclose(function(*x), activation.value(*x), rtol=1e-13, atol=1e-15)
        across = [v.T for v in x]
        np.testing.assert_allclose(function(*across, axis=0), activation.value(*x).T, rtol=1e-13, atol=1e-15)
        np.testing.assert_array_equal(function(*across, 0), function(*across, axis=0))
        of = tuple(range(len(x)))
        found = jax.grad(lambda *v: (function(*v) * weights).sum(), argnums=of)(*map(jnp.asarray, x))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-13)


def test_half_precision_is_rounded_once():
    x = jnp.linspace(-5.0, 5.0, 300, dtype=jnp.bfloat16)
    found = SJ.gelu(x)
    wanted = softknee.get("gelu").value(np.asarray(x, dtype=np.float64))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, jnp.asarray(wanted.astype(np.float32)).astype(jnp.bfloat16))


def test_a_users_own():
    @softknee.elementwise
    def squared_sigmoid(x, ops):
        """σ(x)²"""
        s = ops.sigmoid(x)
        return s * s

    found = jax.grad(SJ.function(squared_sigmoid))(0.3)
    assert float(found) == pytest.approx(float(squared_sigmoid.derivative(0.3)), rel=1e-6)


def test_bad_input_is_named():
    with pytest.raises(InputError, match="takes gate and up, got 1"):
        SJ.swiglu(jnp.ones(2))
    with pytest.raises(InputError, match="x must be a real floating-point array, got int32"):
        SJ.silu(jnp.ones(2, jnp.int32))
    for value in (0.1, jnp.asarray(0.1)):
        with pytest.raises(InputError, match="has no parameter 'slop'"):
            SJ.leaky_relu(jnp.ones(2), slop=value)
    with pytest.raises(InputError, match="axis=2"):
        SJ.softmax(jnp.ones((2, 2)), axis=2)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        SJ.nothing  # noqa: B018


def test_a_wrong_function_is_seen():
    assert distance(softknee.get("gelu_tanh").value(POINTS), softknee.get("gelu").value(POINTS)) > 1e-5
