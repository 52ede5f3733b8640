"""JAX functions: traced on example inputs, inlined, matched; without them matched as plain functions."""

import pytest
import torch

from softknee.errors import InputError
from softknee.identification import identify

jax = pytest.importorskip("jax")
jnp = pytest.importorskip("jax.numpy")

KNOWN = {
    "relu": "relu", "relu6": "relu6", "sigmoid": "sigmoid", "silu": "silu", "gelu": "gelu_tanh", "softplus": "softplus",
    "tanh": "tanh", "elu": "elu", "selu": "selu", "mish": "mish", "hard_tanh": "hardtanh", "soft_sign": "softsign",
    "hard_silu": "hardswish", "hard_sigmoid": "hardsigmoid", "log_sigmoid": "logsigmoid", "leaky_relu": "leaky_relu",
    "squareplus": "squareplus",
}  # fmt: skip


def between(function):
    """Example inputs of, and, linear → function → linear."""
    given = {"a": jnp.ones((4, 6)) / 7, "bias": jnp.ones(6), "b": jnp.ones((6, 3))}
    return lambda p, x: function(x @ p["a"] + p["bias"]) @ p["b"], (given, jnp.ones((2, 4)))


@pytest.mark.parametrize("name", KNOWN)
def test_every_activation_of_jax_alone_and_in_a_model(name):
    function = getattr(jax.nn, name)
    (alone,) = identify(function)
    (inside,) = identify(*between(function))
    assert alone.activation == inside.activation == KNOWN[name]
    assert (inside.evidence, inside.dtype, inside.key) == ("observed", "float32", "#0")
    assert inside.source is not None
    assert inside.source.partition(":")[0].endswith("test_jaxpr.py")


@pytest.mark.parametrize(
    ("function", "activation"),
    [
        (lambda x: 0.5 * x * (1 + jax.lax.erf(x / 2**0.5)), "gelu"),
        (lambda x: x * jax.nn.sigmoid(1.702 * x), "quick_gelu"),
        (lambda x: jnp.where(x > 0, x, 0.2 * x), "leaky_relu"),
        (lambda x: jax.nn.relu(x) ** 2, "relu2"),
        (jax.checkpoint(jax.nn.silu), "silu"),
        (jax.jit(lambda x: x * jnp.tanh(jnp.log1p(jnp.exp(x)))), "mish"),
        (lambda x: 0.5 * x * (1 + jnp.tanh(0.044715 * (x + 0.7978845608 * x**3))), None),
        (lambda x: jax.nn.relu(x) ** 3, None),
    ],
)
def test_spellings(function, activation):
    assert [s.activation for s in identify(*between(function))] == [activation]


def test_a_transformer_block_with_named_scopes():
    def block(p, x):
        with jax.named_scope("attention"):
            q, k, v = jnp.split(x @ p["qkv"], 3, -1)
            x = x + jax.nn.softmax(q @ jnp.swapaxes(k, -1, -2) / 2.8) @ v
        mean, spread = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        h = (x - mean) / jnp.sqrt(spread + 1e-5)
        with jax.named_scope("mlp"):
            gate, up = jnp.split(h @ p["gate_up"], 2, -1)
            return x + (jax.nn.silu(gate) * up) @ p["down"]

    given = {"qkv": jnp.ones((8, 24)), "gate_up": jnp.ones((8, 32)), "down": jnp.ones((16, 8))}
    for function in (block, jax.jit(block)):
        census = identify(function, (given, jnp.ones((2, 3, 8), jnp.bfloat16)))
        assert [(s.key, s.activation, s.role) for s in census] == [
            ("attention#0", "softmax", "attention"), ("mlp#0", "swiglu", "gate"),
        ]  # fmt: skip
        assert not census.conflicts


def test_loops_and_branches_are_laid_out():
    def model(x):
        x, _ = jax.lax.scan(lambda h, _: (jnp.tanh(h @ jnp.ones((4, 4))), None), x, None, length=3)
        return jax.lax.cond(x.sum() > 0, jax.nn.relu, jax.nn.sigmoid, x @ jnp.ones((4, 4)))

    assert {s.activation for s in identify(model, jnp.ones((2, 4)))} == {"tanh", "relu", "sigmoid"}


def test_what_cannot_be_traced_is_said():
    with pytest.raises(InputError, match="when traced on example_inputs"):
        identify(lambda x: x @ jnp.ones((5, 5)), jnp.ones((2, 4)))


def test_a_torch_model_stays_one_where_jax_is_loaded():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU())
    assert identify(model, torch.randn(2, 4))[0].activation == "relu"
