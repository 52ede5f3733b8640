"""Every activation in ONNX: a function with a body that any runtime executes, or ONNX's own operator.

    softknee.onnx.function("mish")              an onnx.FunctionProto of the domain "softknee"
    softknee.onnx.model("gelu_tanh", opset=20)  a model of one node: the native operator where the opset has it
    softknee.onnx.table("silu", …)              int8: a graph that looks the result up

Needs onnx: pip install 'softknee[identify]'.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .catalog import Activation, get
from .catalog.names import parsed
from .errors import InputError

if TYPE_CHECKING:
    import onnx

DOMAIN = "softknee"
LEAST_OPSET = 18


def function(activation: Activation | str, opset: int = 21, **parameters: float) -> onnx.FunctionProto:
    """The activation as a function of its inputs (a normalizer: over the last dimension), at these parameters.

    opset: that of the model which it goes into.

    It takes float16, bfloat16, float32 and float64, and computes in float64. Its name has the parameters that differ
    from the defaults: `leaky_relu_negative_slope_0.2`.
    Raises InputError for a wrong parameter, one that is a tensor, a stochastic activation that is a normalizer, an
    opset below 18 or above the installed onnx's, or where onnx is not installed.
    """
    backend = _backend()
    _check(opset)
    activation = get(activation).at(**parameters)
    if activation.kind == "normalizer" and activation.stochastic:
        raise InputError(f"{activation.name} draws noise at every call, for which ONNX has no function body")

    def body(ops: Any, *values: Any) -> Any:
        if activation.kind == "normalizer":
            return activation.on(ops, *values)
        from .expression import compile_source, emit

        code = compile_source(emit([activation.expression], "forward", activation.names), "forward")
        return code(ops, *values, *activation.defaults.values())

    doc = f"{activation.summary} Source: {activation.source}"
    return backend.function_proto(DOMAIN, _name(activation), activation.inputs, opset, doc, body)


def model(
    activation: Activation | str,
    opset: int = 21,
    shape: Sequence[int | str] = ("batch", "features"),
    native: bool = True,
    **parameters: float,
) -> onnx.ModelProto:
    """A model that applies the activation to float32 tensors.

    shape: the inputs' and the output's; a word is a size that is known only when it runs. native: take ONNX's own
    operator where the opset has one of this function; its accuracy is then the runtime's.
    Raises InputError as `function` does.
    """
    _backend()
    from onnx import TensorProto, helper

    _check(opset)
    activation = get(activation).at(**parameters)
    inputs = list(activation.inputs)
    written = activation.name_in("onnx", opset) if native else None
    functions = []
    if written is not None and len(inputs) == 1 and not written.startswith("PRelu"):
        _, operator, arguments = parsed(written, "name")
        if activation.kind == "normalizer":
            arguments["axis"] = -1
        nodes = [helper.make_node(operator, inputs, ["y"], **arguments)]
    else:
        functions = [function(activation, opset)]
        nodes = [helper.make_node(functions[0].name, inputs, ["y"], domain=DOMAIN)]
    shapes: list[list[Any]] = [list(shape) for _ in (*inputs, "y")]
    if activation.resizes:
        shapes[-1][-1] = None  # known when it runs
    words = (*inputs, "y")
    values = [helper.make_tensor_value_info(w, TensorProto.FLOAT, s) for w, s in zip(words, shapes, strict=True)]
    graph = helper.make_graph(nodes, activation.name, values[:-1], values[-1:])
    opsets = [helper.make_opsetid("", opset), *[helper.make_opsetid(DOMAIN, 1)] * len(functions)]
    version = helper.find_min_ir_version_for(opsets[:1])
    return helper.make_model(
        graph, opset_imports=opsets, functions=functions, producer_name="softknee", ir_version=version
    )


def _check(opset: int) -> None:
    from onnx import defs

    most = defs.onnx_opset_version()
    if isinstance(opset, bool) or not isinstance(opset, int) or not LEAST_OPSET <= opset <= most:
        raise InputError(f"opset must be a whole number from {LEAST_OPSET} to {most}, got {opset!r}")


def _name(activation: Activation) -> str:
    given = [f"_{name}_{value:g}" for name, value in activation.given.items()]
    return re.sub(r"[^\w.-]", "_", activation.name + "".join(given))


def _backend() -> Any:
    try:
        from .backends import onnx
    except ModuleNotFoundError as error:
        raise InputError(f"softknee.onnx needs {error.name}: pip install 'softknee[identify]'") from error
    return onnx
