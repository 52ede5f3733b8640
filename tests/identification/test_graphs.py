"""The neutral graph: every spelling is recognised, near misses are not, and what stands around a core stays outside."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import softknee
from softknee.errors import InputError
from softknee.identification.graphs import Graph, Node, census

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import identify_spellings as spellings

FUNCTIONS = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "pow": np.power, "max": np.maximum,
    "tanh": np.tanh, "exp": np.exp, "log": np.log, "neg": np.negative, "sqrt": np.sqrt,
    "logistic": lambda x: 1 / (1 + np.exp(-x)), "clamp": lambda x, low, high: np.clip(x, low, high),
    "erf": lambda x: torch.erf(torch.as_tensor(x)).numpy(), "erfc": lambda x: torch.erfc(torch.as_tensor(x)).numpy(),
    "logaddexp": np.logaddexp, "log1p": np.log1p,
}  # fmt: skip


def graph(*lines, outputs=("y",), constants=None, dtype="float32", shapes=None, wrap=True):
    """A graph of lines like "y = mul x s": `x` comes out of a matrix product, `y` goes into one. Words that are numbers
    are constants."""
    nodes, held = [], {k: np.asarray(v) for k, v in (constants or {}).items()}
    if wrap:
        nodes.append(Node("in", "matmul", ("input", "weight"), ("x",), "affine", path="fc1"))
    for number, line in enumerate(lines):
        result, _, op, *words = line.split()
        for word in words:
            if word.lstrip("-")[0].isdigit():
                held[word] = np.asarray(float(word), dtype if dtype == "float16" else np.float32)
        kind = {"matmul": "affine", "softmax": "softmax"}.get(op, "elementwise" if op in FUNCTIONS else "other")
        kind = "reshape" if op in ("view", "split", "transpose") else kind
        results = tuple(result.split(","))
        halves = ("first", "second") if op == "split" else ()
        declared = ("softmax", {"temperature": 1.0}) if op == "softmax" else None
        nodes.append(Node(f"n{number}", op, tuple(words), results, kind, FUNCTIONS.get(op), dtype, None, declared,
                          "mlp", halves))  # fmt: skip
    if wrap:
        nodes.append(Node("out", "matmul", (outputs[0], "weight"), ("output",), "affine", path="fc2"))
    weights = {"weight": (8, 8)}
    ends = ("output", *outputs[1:]) if wrap else outputs
    return Graph("model", tuple(nodes), ("input",), ends, held, weights, shapes or {})


def names(*lines, **options):
    return [site.name for site in census(graph(*lines, **options))]


def test_spellings():
    known = [a for a in spellings.subjects() if a.core]
    every = list(spellings.spellings(known))
    assert len(every) > 250  # the benchmark goes through all of these, and those of the wide catalog
    missed = [(s.name, spellings.distance(s)) for s in every[::9] if not spellings.recognised(s)]
    assert not missed


def test_near_misses():
    known = [softknee.get(name) for name in ("gelu_tanh", "quick_gelu", "geglu_quick")]
    near = list(spellings.near_misses(known))
    assert len(near) >= 4
    assert not [s.name for s in near if spellings.recognised(s)]


def test_swapped_coefficients_are_unknown_with_the_nearest_named():
    lines = ("q = mul x x", "c = mul q x", "d = mul c 0.7978845608", "e = add x d", "f = mul e 0.044715",
             "g = tanh f", "h = add g 1", "i = mul x h", "y = mul i 0.5")  # fmt: skip
    (site,) = census(graph(*lines))
    assert site.activation is None and "nearest is" in site.note and "off by" in site.note
    right = [line.replace("0.7978845608", "*").replace("0.044715", "0.7978845608").replace("*", "0.044715")
             for line in lines]  # fmt: skip
    assert names(*right) == ["gelu_tanh"]


def test_constants_are_tight():
    assert names("a = mul x 1.702", "b = logistic a", "y = mul x b") == ["quick_gelu"]
    assert names("a = mul x 1.773", "b = logistic a", "y = mul x b") == ["swish(beta=1.773)"]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_half_precision_tells_erf_from_tanh(dtype):
    assert names("a = div x 1.4142135", "b = erf a", "c = add b 1", "d = mul x c", "y = mul d 0.5", dtype=dtype) == [
        "gelu"
    ]
    lines = ("q = mul x x", "c = mul q x", "d = mul c 0.044715", "e = add x d", "f = mul e 0.7978846", "g = tanh f",
             "h = add 1 g", "i = mul x h", "y = mul i 0.5")  # fmt: skip
    assert names(*lines, dtype=dtype) == ["gelu_tanh"]
    wrong = [line.replace("0.044715", "0.0465") for line in lines]
    assert names(*wrong, dtype=dtype) == ["unknown"]


def test_what_no_onnx_operator_says():
    assert names("a = mul x -0.70710678", "b = erfc a", "c = mul x b", "y = mul c 0.5") == ["gelu"]
    assert names("y = logaddexp x 0") == ["softplus(beta=1, threshold=inf)"]
    assert names("a = exp x", "b = log1p a", "c = tanh b", "y = mul x c") == ["mish"]


def test_what_stands_around_is_reported_apart():
    (site,) = census(graph("a = max x 0", "b = mul a 3", "y = add b -1"))
    assert site.name == "relu" and site.affine == (3.0, -1.0)
    (site,) = census(graph("y = max x 0"))
    assert site.affine is None


def test_norms_and_residuals_are_no_activations():
    norm = ("m = reduce_mean x", "c = sub x m", "q = mul c c", "v = reduce_mean q", "e = add v 0.00001",
            "s = sqrt e", "n = div c s", "w = mul n gain", "b = max w 0", "y = add b x")  # fmt: skip
    assert names(*norm, constants={"gain": np.linspace(1, 2, 8)}) == ["relu"]


def test_squeeze_excite_is_no_gated_activation():
    lines = ("p = reduce_mean x", "f = matmul p weight", "s = logistic f", "y = mul x s")
    shapes = {"x": (2, 8, 4, 4), "f": (2, 8, 1, 1)}
    for known in (shapes, {}):
        (site,) = census(graph(*lines, shapes=known))
        assert (site.name, site.role) == ("sigmoid", "gate")


def test_layouts():
    halves = ("g,u = split x", "s = logistic {}", "a = mul {} s", "y = mul a {}")
    for gate, up, layout in (("g", "u", "gate_up"), ("u", "g", "up_gate")):
        (site,) = census(graph(*(line.format(v) for line, v in zip(halves, ("", gate, gate, up), strict=True))))
        assert (site.name, site.role, site.layout) == ("swiglu", "gate", layout)
    maps = ("g = matmul x weight", "u = matmul x weight", "s = logistic g", "a = mul g s", "y = mul a u")
    (site,) = census(graph(*maps))
    assert (site.name, site.layout) == ("swiglu", "split")


def test_clamped_gate():
    lines = ("g,u = split x", "h = clamp g -1e9 7", "v = clamp u -7 7", "k = mul h 1.702", "s = logistic k",
             "a = mul h s", "w = add v 1", "y = mul a w")  # fmt: skip
    (site,) = census(graph(*lines))
    assert site.name == "swiglu_oai(alpha=1.702, limit=7)" and site.layout == "gate_up"


def test_roles_and_softmax():
    lines = ("k = transpose x", "s = matmul x k", "z = mul s 0.125", "p = softmax z", "y = matmul p x")
    found = census(graph(*lines, outputs=("y",)))
    assert [(s.name, s.role) for s in found] == [("softmax(temperature=1)", "attention")]
    spelt = ("m = reduce_max x", "c = sub x m", "e = exp c", "t = reduce_sum e", "y = div e t")
    (site,) = census(graph(*spelt, outputs=("y",)))
    assert (site.activation, site.evidence) == ("softmax", "observed")
    logarithm = ("m = reduce_max x", "c = sub x m", "e = exp c", "t = reduce_sum e", "l = log t", "y = sub c l")
    assert names(*logarithm) == ["log_softmax(temperature=1)"]


def test_what_is_computed_for_nothing_is_no_site():
    assert names("z = tanh x", "y = max x 0") == ["relu"]


def test_keys_follow_the_path_in_the_order_of_execution():
    found = census(graph("a = max x 0", "b = matmul a weight", "y = tanh b"))
    assert [s.key for s in found] == ["mlp#0", "mlp#1"]
    assert found[0].preceded_by == "fc1"


def test_a_declared_value_that_computes_something_else_is_a_conflict():
    from dataclasses import replace

    plain = graph("a = mul x x", "c = mul a x", "d = mul c 0.044715", "e = add x d", "f = mul e 0.7978845608",
                  "g = tanh f", "h = add g 1", "i = mul x h", "y = mul i 0.5")  # fmt: skip
    found = census(replace(plain, declared={"y": ("gelu", {}, "the function Gelu")}))
    (conflict,) = found.conflicts
    assert conflict.sites == (found[0].key,) and (conflict.declared, conflict.found) == ("gelu", "gelu_tanh")
    assert "0.00047" in conflict.what and str(found).startswith("CONFLICT: ")
    assert not census(replace(plain, declared={"y": ("gelu_tanh", {}, "the function Gelu")})).conflicts


def test_a_constant_that_is_not_in_the_file_is_no_guess():
    assert names("a = mul x weight", "b = logistic a", "y = mul x b") == ["sigmoid"]


def test_bad_graphs():
    with pytest.raises(InputError, match="reads 'z', which is not computed before it"):
        names("y = mul z z")
    with pytest.raises(InputError, match="defined twice"):
        names("y = mul x x", "y = add x x")
    with pytest.raises(InputError, match="'w' is computed nowhere"):
        census(Graph("model", (), ("x",), ("w",)))


def test_an_operation_that_fails_is_not_executed():
    def fails(x):
        raise ValueError("no")

    node = Node("n", "odd", ("x",), ("y",), "elementwise", fails)
    assert not census(Graph("model", (node,), ("x",), ("y",))).sites


def test_agrees_with_the_live_model():
    def function(x):
        return F.silu(x @ torch.ones(8, 8))

    class Model(torch.nn.Module):
        def forward(self, x):
            return function(x)

    live = softknee.identify(Model(), torch.randn(2, 8))
    assert [s.name for s in live] == names("s = logistic x", "y = mul x s", wrap=True)
