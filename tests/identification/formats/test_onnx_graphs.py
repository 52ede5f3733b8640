"""ONNX files: what they declare, what they compute, what exporters make of torch models, and what is hostile."""

import contextlib
import io
import time

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional as F

import softknee
from softknee.errors import InputError
from softknee.identification.formats.onnx import graph, identify, read


def model(*nodes, weights=(), opset=20, functions=(), inputs=("x",), output="y", infos=(), domains=()):
    """A model of nodes, `x` in and `y` out; 1-element float constants are written into the names: "c0.5"."""
    named = {name for node in nodes for name in node.input}
    held = [numpy_helper.from_array(np.float32(float(n[1:])), n) for n in sorted(named) if n[:1] == "c" and len(n) > 1]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 4]) for n in (*inputs, output)]
    made = helper.make_graph(nodes, "model", ends[:-1], ends[-1:], [*held, *weights], value_info=list(infos))
    opsets = [helper.make_opsetid(d, v) for d, v in (("", opset), ("com.microsoft", 1), *((d, 1) for d in domains))]
    return helper.make_model(made, opset_imports=opsets, functions=list(functions))


def node(text, name="", domain="", **attributes):
    """ "y = Mul x c2" """
    results, _, rest = text.partition(" = ")
    op, *words = rest.split()
    outputs = [r if r != "_" else "" for r in results.split(",")]
    return helper.make_node(op, [w if w != "_" else "" for w in words], outputs, name=name, domain=domain, **attributes)


def matrix(name="w", shape=(4, 4), dtype=np.float32):
    return numpy_helper.from_array(np.ones(shape, dtype), name)


def only(*nodes, **options):
    (site,) = identify(model(*nodes, **options))
    return site


NATIVE = [
    ("Relu", {}, "relu"),
    ("LeakyRelu", {}, "leaky_relu(negative_slope=0.01)"),
    ("LeakyRelu", {"alpha": 0.1}, "leaky_relu(negative_slope=0.1)"),
    ("Elu", {"alpha": 0.5}, "elu(alpha=0.5)"),
    ("Selu", {}, "selu"),
    ("Celu", {"alpha": 2.0}, "celu(alpha=2)"),
    ("ThresholdedRelu", {"alpha": 0.7}, "thresholded_relu(threshold=0.7)"),
    ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}, "hardsigmoid"),
    ("HardSwish", {}, "hardswish"),
    ("Softplus", {}, "softplus(beta=1, threshold=inf)"),
    ("Gelu", {}, "gelu"),
    ("Gelu", {"approximate": "none"}, "gelu"),
    ("Gelu", {"approximate": "tanh"}, "gelu_tanh"),
    ("Mish", {}, "mish"),
    ("Swish", {"alpha": 1.702}, "quick_gelu"),
    ("Shrink", {"lambd": 0.7}, "hardshrink(lambd=0.7)"),
    ("Shrink", {"lambd": 0.3, "bias": 0.3}, "softshrink(lambd=0.3)"),
]


@pytest.mark.parametrize(("op", "attributes", "name"), NATIVE)
def test_native_operators_are_declared(op, attributes, name):
    site = only(node(f"y = {op} x", **attributes))
    assert (site.name, site.evidence, site.implementation, site.dtype) == (name, "declared", op, "float32")


@pytest.mark.parametrize(
    ("line", "attributes", "name"),
    [
        ("y = Gelu x", {}, "gelu"),
        ("y = FastGelu x b", {}, "gelu_tanh"),
        ("y = BiasGelu x b", {}, "gelu"),
        ("y = QuickGelu x", {}, "quick_gelu"),
        ("y = QuickGelu x", {"alpha": 1.5}, "swish(beta=1.5)"),
    ],
)
def test_operators_of_onnx_runtime(line, attributes, name):
    assert only(node(line, domain="com.microsoft", **attributes), weights=[matrix("b", (4,))]).name == name


def test_operators_that_the_catalog_meets_by_behaviour():
    assert only(node("y = Clip x c0 c6")).name == "relu6"
    assert only(node("y = Clip x", min=-2.0, max=2.0), opset=6).name == "hardtanh(min_val=-2, max_val=2)"
    six = node("six = Constant", value_float=6.0)
    assert only(node("zero = Constant", value_floats=[0.0]), six, node("y = Clip x zero six")).name == "relu6"
    weights = [numpy_helper.from_array(np.full((4, 1, 1), 0.3, np.float32), "slope")]
    assert only(node("y = PRelu x slope"), weights=weights).name == "prelu(weight=0.3)"
    assert only(node("a = Log s"), node("s = Sigmoid x"), node("y = Identity a")).name == "logsigmoid"  # unsorted


def test_quantized_in_between():
    """QDQ nodes stand between the operations, which say what they are all the same."""
    q = [numpy_helper.from_array(np.float32(0.05), "s"), numpy_helper.from_array(np.int8(0), "z")]
    found = only(
        node("xq = QuantizeLinear x s z"), node("xd = DequantizeLinear xq s z"), node("a = Sigmoid xd"),
        node("aq = QuantizeLinear a s z"), node("ad = DequantizeLinear aq s z"), node("y = Mul xd ad"), weights=q,
    )  # fmt: skip
    assert found.name == "silu" and "quantized" in found.note


def test_functions_are_opened_and_compared_with_their_name():
    def function(name, *nodes):
        return helper.make_function("local", name, ["x"], ["y"], nodes, [helper.make_opsetid("", 20)])

    right = function("Gelu", node("y = Gelu x"))
    wrong = function("Gelu", node("y = Gelu x", approximate="tanh"))
    other = function("block", node("a = Sigmoid x"), node("y = Mul x a"))
    call = node("y = Gelu x", domain="local")
    assert not identify(model(call, functions=[right], domains=["local"])).conflicts
    (conflict,) = identify(model(call, functions=[wrong], domains=["local"])).conflicts
    assert (conflict.declared, conflict.found) == ("gelu", "gelu_tanh") and "local.Gelu" in conflict.sources[0]
    found = identify(model(node("y = block x", domain="local"), functions=[other], domains=["local"]))
    assert [s.name for s in found] == ["silu"] and not found.conflicts


def test_our_own_functions():
    for name in ("mish", "gelu_tanh", "hardswish"):
        made = softknee.onnx.model(name, native=False)
        found = identify(made)
        assert [s.activation for s in found] == [name] and not found.conflicts


def test_branches_and_bodies():
    def body(name, *nodes, inputs=()):
        return helper.make_graph(nodes, name, list(inputs), [helper.make_tensor_value_info("r", 1, None)])

    condition = numpy_helper.from_array(np.array(True), "c")
    branch = helper.make_node(
        "If", ["c"], ["y"], then_branch=body("a", node("r = Relu x")), else_branch=body("b", node("r = Tanh x"))
    )
    found = identify(model(branch, weights=[condition]))
    assert sorted(s.name for s in found) == ["relu", "tanh"]
    kinds = [helper.make_tensor_value_info(n, t, []) for n, t in (("i", 7), ("k", 9), ("v", 1))]
    loop_body = helper.make_graph(
        [node("a = Sigmoid v"), node("r = Mul v a"), node("more = Identity k")], "body", kinds,
        [helper.make_tensor_value_info("more", 9, []), helper.make_tensor_value_info("r", 1, None)],
    )  # fmt: skip
    loop = helper.make_node("Loop", ["", "c", "x"], ["y"], body=loop_body)
    assert [s.name for s in identify(model(loop, weights=[condition]))] == ["silu"]


def test_recurrent_layers_say_what_they_apply():
    weights = [matrix("w", (1, 16, 4)), matrix("r", (1, 16, 4))]
    found = identify(model(node("y = LSTM x w r", hidden_size=4), weights=weights))
    assert [s.name for s in found] == ["sigmoid", "sigmoid", "tanh", "sigmoid", "tanh"]
    assert {s.form for s in found} == {"fused"}
    hard = identify(model(node("y = LSTM x w r", hidden_size=4, activations=["HardSigmoid", "Tanh", "Relu"]),
                          weights=weights))  # fmt: skip
    assert [s.activation for s in hard] == ["hard_sigmoid_02", "hard_sigmoid_02", "tanh", "hard_sigmoid_02", "relu"]


def test_softmax_has_a_role():
    parts = [node("k = Transpose x"), node("s = MatMul x k"), node("z = Div s c2"), node("p = Softmax z", axis=-1)]
    assert only(*parts, node("y = MatMul p x")).role == "attention"
    head = only(node("h = MatMul x w"), node("y = LogSoftmax h", axis=1), weights=[matrix()])
    assert (head.activation, head.role, head.note) == ("log_softmax", "head", "over axis 1")


def test_half_precision_with_casts():
    held = [numpy_helper.from_array(np.float16(v), n) for n, v in (("r", 2**0.5), ("one", 1), ("half", 0.5))]
    found = only(
        node("h = Cast x", to=TensorProto.FLOAT16), node("a = Div h r"), node("b = Erf a"), node("c = Add b one"),
        node("d = Mul h c"), node("e = Mul d half"), node("y = Cast e", to=TensorProto.FLOAT), weights=held,
    )  # fmt: skip
    assert (found.name, found.dtype) == ("gelu", "float16")


@pytest.mark.parametrize(
    ("index", "layout"),
    [((0, 4, 1, 4, 8, 1), "gate_up"), ((4, 8, 1, 0, 4, 1), "up_gate"), ((0, 8, 2, 1, 8, 2), "interleaved")],
)
def test_sliced_halves(index, layout):
    numbers = [numpy_helper.from_array(np.array([v]), f"i{n}") for n, v in enumerate(index)]
    axis = numpy_helper.from_array(np.array([-1]), "axis")
    found = only(
        node("h = MatMul x w"), node("g = Slice h i0 i1 axis i2"), node("u = Slice h i3 i4 axis i5"),
        node("s = Sigmoid g"), node("a = Mul g s"), node("y = Mul a u"), weights=[*numbers, axis, matrix("w", (4, 8))],
    )  # fmt: skip
    assert (found.name, found.layout) == ("swiglu", layout)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.gate_up, self.down, self.act = nn.Linear(8, 32), nn.Linear(16, 8), nn.GELU(approximate="tanh")
        self.tail = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.Mish(), nn.Linear(8, 3)))

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + self.out(torch.softmax(q @ k.transpose(1, 2) / 8**0.5, -1) @ v)
        gate, up = self.gate_up(x).chunk(2, -1)
        x = x + F.silu(self.down(self.act(gate) * up))
        return torch.sigmoid(self.tail(x))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("dynamo", "opset"), [(False, 13), (True, 20)])
def test_exporters_agree_with_the_live_model(dynamo, opset):
    net, x = Block().eval(), torch.randn(2, 5, 8)
    live = softknee.identify(net, x)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        if dynamo:
            pytest.importorskip("onnxscript")
            made = torch.onnx.export(net, (x,), dynamo=True, opset_version=opset, verbose=False).model_proto
        else:
            file = io.BytesIO()
            torch.onnx.export(net, (x,), file, dynamo=False, opset_version=opset)
            made = onnx.load_from_string(file.getvalue())
    found = softknee.identify(made)

    def rows(census):
        return [(s.key, s.name, s.role, s.layout, s.preceded_by) for s in census]

    assert rows(found) == rows(live)
    assert [s.layout for s in found if s.role == "gate"] == ["gate_up"]


def bert(layers=12):
    """BERT's graph as exporters write it, with its shapes and no weights."""
    nodes = []
    at = "x"
    for i in range(layers):
        p = f"l{i}."
        nodes += [node(f"{p}{n} = MatMul {at} w") for n in "qkv"]
        nodes += [node(f"{p}t = Transpose {p}k"), node(f"{p}s = MatMul {p}q {p}t"), node(f"{p}d = Div {p}s c8")]
        nodes += [
            node(f"{p}p = Softmax {p}d", axis=-1),
            node(f"{p}c = MatMul {p}p {p}v"),
            node(f"{p}o = MatMul {p}c w"),
        ]
        nodes += [
            node(f"{p}r = Add {p}o {at}"),
            node(f"{p}n = LayerNormalization {p}r b"),
            node(f"{p}h = MatMul {p}n up"),
        ]
        nodes += [node(f"{p}e1 = Div {p}h c1.4142135"), node(f"{p}e2 = Erf {p}e1"), node(f"{p}e3 = Add {p}e2 c1")]
        nodes += [node(f"{p}e4 = Mul {p}h {p}e3"), node(f"{p}e5 = Mul {p}e4 c0.5"), node(f"{p}f = MatMul {p}e5 down")]
        nodes += [node(f"{p}g = Add {p}f {p}n")]
        at = f"{p}g"
    shapes = {"w": (768, 768), "up": (768, 3072), "down": (3072, 768), "b": (768,)}
    external = [TensorProto(name=name, data_type=1, dims=shape) for name, shape in shapes.items()]
    for tensor in external:
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "../../etc/passwd"
    return model(*nodes, node(f"y = Tanh {at}"), weights=external)


def test_a_large_graph_without_its_weights(tmp_path):
    path = tmp_path / "bert.onnx"
    path.write_bytes(bert().SerializeToString())
    began = time.perf_counter()
    found = read(path)
    assert time.perf_counter() - began < 3
    assert found.counts() == {"softmax": 12, "gelu": 12, "tanh": 1}


def test_weights_are_left_out(tmp_path):
    path = tmp_path / "wide.onnx"
    made = model(node("h = MatMul x w"), node("y = Relu h"), weights=[matrix("w", (4, 1_000_000))])
    path.write_bytes(made.SerializeToString())
    from softknee.identification.formats.onnx import _without_weights

    assert len(_without_weights(path)) < 1000
    assert [s.name for s in read(path)] == ["relu"]


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (model(node("a = Add x b"), node("b = Relu a"), node("y = Identity b")), "cyclic"),
        (model(node("y = Relu z")), "'z', computed nowhere"),
        (model(node("a = Relu x")), "'y' is computed nowhere"),
        (model(node("y = Relu x"), node("y = Tanh x")), "defined twice"),
        (model(node("y = LeakyRelu x", alpha="steep"), node("z = Selu x", alpha=[1.0, 2.0])), "not of the kind"),
        (
            model(node("y = Relu x"), weights=[TensorProto(name="w", data_type=1, dims=[3], raw_data=b"12")]),
            "'w' of shape",
        ),
    ],
)
def test_contradictions(made, says):
    with pytest.raises(InputError, match=says):
        identify(made)


def test_bombs_end_early():
    """Functions that call themselves or double at each step"""
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("local", 1)]
    loop = helper.make_function("local", "f", ["x"], ["y"], [node("y = f x", domain="local")], opsets)
    double = [
        helper.make_function(
            "local", f"f{i}", ["x"], ["y"],
            [node(f"a = f{i + 1} x", domain="local"), node(f"y = f{i + 1} a", domain="local")], opsets,
        )
        for i in range(24)
    ]  # fmt: skip
    last = helper.make_function("local", "f24", ["x"], ["y"], [node("y = Relu x")], opsets)
    idle = helper.make_function("local", "f24", ["x"], ["x"], [], opsets)
    for made in (
        model(node("y = f x", domain="local"), functions=[loop], domains=["local"]),
        model(node("y = f0 x", domain="local"), functions=[*double, last], domains=["local"]),
        model(node("y = f0 x", domain="local"), functions=[*double, idle], domains=["local"]),
    ):
        began = time.perf_counter()
        with pytest.raises(InputError, match="deep|more than"):
            identify(made)
        assert time.perf_counter() - began < 5


def test_long_graphs_end_early():
    chain = [node(f"a{i} = {'Tanh' if i % 3 else 'Mul'} {f'a{i - 1}' if i else 'x'}{'' if i % 3 else ' c1.1'}")
             for i in range(1200)]  # fmt: skip
    tree = [node(f"b{i} = Sigmoid x") if not i else node(f"b{i} = Mul b{i - 1} {'xz'[i % 2]}") for i in range(300)]
    for nodes, last in (
        (chain, "a1199"),
        (chain[:290], "a289"),
        (chain[:35], "a34"),
        (tree, "b299"),
        (chain[::-1], "a1199"),
    ):
        began = time.perf_counter()
        identify(model(*nodes, node(f"y = Identity {last}"), inputs=("x", "z")))
        assert time.perf_counter() - began < 5


def test_files_that_are_none(tmp_path):
    for name, content in (("empty", b""), ("text", b"not a model"), ("zip", b"PK\x03\x04" + bytes(40)),
                          ("huge", b"\x3a\xff\xff\xff\xff\x7f"), ("zeros", bytes(1000))):  # fmt: skip
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(InputError, match=name):
            read(path)
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "missing")
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path)


SMALL = bert(1).SerializeToString()


@settings(max_examples=25, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cut=st.integers(0, len(SMALL)),
    flips=st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(1, 255)), max_size=6),
)
def test_damaged_files_give_one_error_or_a_census(tmp_path, cut, flips):
    data = bytearray(SMALL)
    for at, bits in flips:
        data[at] ^= bits
    path = tmp_path / "damaged.onnx"
    path.write_bytes(bytes(data[:cut] if not flips else data))
    with contextlib.suppress(InputError):
        read(path)


def test_graph_is_neutral():
    made = graph(model(node("h = MatMul x w"), node("y = Gelu h", name="/mlp/act/Gelu"), weights=[matrix()]))
    assert [n.kind for n in made.nodes] == ["affine", "elementwise"]
    assert made.nodes[1].path == "mlp.act" and made.nodes[1].declared == ("gelu", {})
