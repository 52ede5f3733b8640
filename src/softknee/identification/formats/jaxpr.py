"""JAX functions: their jaxpr as a neutral graph. Calls (jit, custom derivatives, remat) are inlined.

A function is traced, never run; its elementwise primitives are evaluated by NumPy and SciPy in float64. Module paths
are JAX's named scopes, which Flax and Haiku set.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import special

from ...errors import InputError
from ..census import Census
from ..graphs import SMALL, Graph, Node, census

_DEPTH = 64
_AFFINE = {"dot_general", "conv_general_dilated", "ragged_dot", "ragged_dot_general"}
_RESHAPE = {"reshape", "transpose", "broadcast_in_dim", "squeeze", "expand_dims", "slice", "dynamic_slice", "rev",
            "concatenate", "split", "copy", "copy_p", "reduce_precision", "stop_gradient", "optimization_barrier",
            "sharding_constraint", "device_put", "name", "gather", "mesh_cast", "pvary", "tile", "pbroadcast",
            "pcast"}  # fmt: skip
_PLAIN: dict[str, Callable[..., Any]] = {
    "add": np.add, "add_any": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "rem": np.fmod,
    "neg": np.negative, "abs": np.abs, "sign": np.sign, "max": np.maximum, "min": np.minimum, "pow": np.power,
    "square": np.square, "sqrt": np.sqrt, "cbrt": np.cbrt, "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1,
    "log": np.log, "log1p": np.log1p, "logistic": special.expit, "tanh": np.tanh, "sinh": np.sinh, "cosh": np.cosh,
    "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh, "sin": np.sin, "cos": np.cos, "tan": np.tan,
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "atan2": np.arctan2, "erf": special.erf,
    "erfc": special.erfc, "erf_inv": special.erfinv, "lgamma": special.gammaln, "digamma": special.digamma,
    "floor": np.floor, "ceil": np.ceil, "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal,
    "gt": np.greater, "ge": np.greater_equal, "is_finite": np.isfinite, "eq_to": np.equal, "lt_to": np.less,
    "le_to": np.less_equal, "not": np.logical_not, "and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor,
    "bessel_i0e": special.i0e, "bessel_i1e": special.i1e,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high),
    "select_n": lambda which, *cases: np.choose(np.asarray(which).astype(np.int64), cases),
}  # fmt: skip


def identify(function: Callable[..., Any], example_inputs: Any) -> Census:
    """The Census of a JAX function on example inputs: an array, a tuple of arguments, or a dict of keyword arguments.

    What is given in a dict, a list or another container holds parameters, as JAX models have it; single arrays are
    the model's inputs. Raises InputError where the function cannot be traced on them.
    """
    import jax

    name = getattr(function, "__name__", type(function).__name__)
    keywords = dict(example_inputs) if isinstance(example_inputs, Mapping) else {}
    arguments = () if keywords else example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    try:
        closed = jax.make_jaxpr(function)(*arguments, **keywords)
    except Exception as error:  # whatever the user's function raises
        raise InputError(
            f"{name} raised {type(error).__name__} when traced on example_inputs: {str(error)[:500]}"
        ) from error
    leaves = [
        (leaf if leaf is not given else None)
        for given in (*arguments, *(keywords[k] for k in sorted(keywords)))
        for leaf in jax.tree.leaves(given)
    ]
    return census(_Reading(name).graph(closed, leaves))


def made_for_jax(function: object, example_inputs: Any) -> bool:
    """Whether these inputs, or the function itself, are JAX's or NumPy's."""
    import sys

    jax = sys.modules.get("jax")
    if jax is None:
        return False
    kind = type(function).__module__ or ""
    if kind.startswith(("jaxlib", "jax.")) and not isinstance(function, type):
        return True
    items = example_inputs.values() if isinstance(example_inputs, Mapping) else example_inputs
    given = items if isinstance(example_inputs, (tuple, list, Mapping)) else (example_inputs,)
    leaves = jax.tree.leaves(list(given))
    return (
        bool(leaves)
        and all(isinstance(leaf, (jax.Array, np.ndarray, float, int)) for leaf in leaves)
        and any(isinstance(leaf, (jax.Array, np.ndarray)) for leaf in leaves)
    )


class _Reading:
    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}
        self.weights: dict[str, tuple[int, ...]] = {}
        self.shapes: dict[str, tuple[int | None, ...]] = {}
        self.count = 0

    def graph(self, closed: Any, leaves: list[Any]) -> Graph:
        given, inputs = [], []
        for variable, leaf in zip(closed.jaxpr.invars, leaves, strict=True):
            value = self._fresh(variable)
            given.append(value)
            if leaf is None:
                inputs.append(value)
            else:
                self._constant(value, leaf)
        outputs = self._inline(closed, given, "", 0)
        nodes, outputs = _with_softmax(self.nodes, outputs)
        return Graph(self.name, tuple(nodes), tuple(inputs), tuple(outputs), self.constants, self.weights, self.shapes)

    def _fresh(self, variable: Any) -> str:
        value = f"v{self.count}"
        self.count += 1
        self.shapes[value] = tuple(n if isinstance(n, int) else None for n in getattr(variable.aval, "shape", ()))
        return value

    def _constant(self, value: str, array: Any) -> None:
        shape = tuple(np.shape(array))
        self.shapes[value] = shape
        if math.prod(shape) <= SMALL and _real(array):
            self.constants[value] = np.asarray(array).astype(np.float64)
        else:
            self.weights[value] = shape

    def _inline(self, closed: Any, given: list[str], scope: str, depth: int, caller: str | None = None) -> list[str]:
        """The nodes of a jaxpr on these values; its results. caller: the line that called it, where JAX itself did."""
        if depth > _DEPTH:
            raise InputError(f"{self.name}: calls are nested more than {_DEPTH} deep")
        jaxpr = getattr(closed, "jaxpr", closed)
        held: dict[Any, str] = {}
        for variable, constant in zip(jaxpr.constvars, getattr(closed, "consts", ()), strict=False):
            held[variable] = self._fresh(variable)
            self._constant(held[variable], constant)
        held.update(zip(jaxpr.invars, given, strict=True))

        def value(item: Any) -> str:
            if not hasattr(item, "val"):
                return held[item]
            name = self._fresh(item)  # a literal
            self._constant(name, item.val)
            return name

        for equation in jaxpr.eqns:
            operands = [value(item) for item in equation.invars]
            path = _scoped(scope, str(equation.source_info.name_stack))
            source = _source(equation) or caller
            inner, passed = _called(equation, operands)
            if inner:
                results = [self._inline(each, passed, path, depth + 1, source) for each in inner]
                held.update(zip(equation.outvars, self._joined(equation, results, path), strict=True))
                continue
            outputs = tuple(self._fresh(variable) for variable in equation.outvars)
            held.update(zip(equation.outvars, outputs, strict=True))
            self._node(equation, operands, outputs, path, source)
        return [value(item) for item in jaxpr.outvars]

    def _joined(self, equation: Any, results: list[list[str]], path: str) -> list[str]:
        """The results of a call, or (of several branches) values that are made of each branch's."""
        count = len(equation.outvars)
        if len(results) == 1:
            return results[0][len(results[0]) - count :]
        outputs = [self._fresh(variable) for variable in equation.outvars]
        for output, given in zip(outputs, zip(*results, strict=True), strict=True):
            self.nodes.append(Node(f"cond_{len(self.nodes)}", "cond", given, (output,), "other", path=path))
        return outputs

    def _node(
        self, equation: Any, operands: list[str], outputs: tuple[str, ...], path: str, source: str | None
    ) -> None:
        name = equation.primitive.name
        kind, evaluate = _kind(name, equation)
        title = f"{name}_{len(self.nodes)}"
        aval = equation.outvars[0].aval if equation.outvars else None
        dtype = str(getattr(aval, "dtype", "")) or None
        if dtype is not None and not dtype.startswith(("float", "bfloat")):
            dtype = next((str(v.aval.dtype) for v in equation.invars if "float" in str(v.aval.dtype)), None)
        self.nodes.append(Node(
            f"{path}/{title}" if path else title, name, tuple(operands), outputs, kind, evaluate, dtype,
            source, None, path,
        ))  # fmt: skip


def _kind(name: str, equation: Any) -> tuple[str, Callable[..., np.ndarray] | None]:
    if name in _AFFINE:
        return "affine", None
    if name in _RESHAPE:
        return "reshape", None
    if name == "convert_element_type":
        to = np.dtype(equation.params["new_dtype"]).name
        if "float" in to:
            return "reshape", None
        return "elementwise", (lambda x: x != 0) if to == "bool" else np.trunc
    if name == "integer_pow":
        power = equation.params["y"]
        return "elementwise", lambda x: np.asarray(x**power, np.float64)
    if name == "round":
        even = int(equation.params["rounding_method"]) == 1
        return "elementwise", np.round if even else lambda x: np.copysign(np.floor(np.abs(x) + 0.5), x)
    if name in _PLAIN:
        return "elementwise", _float64(_PLAIN[name])
    return "other", None


def _float64(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    def evaluate(*arrays: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            result = np.asarray(function(*arrays))
        return result if result.dtype == bool else result.astype(np.float64)

    return evaluate


def _called(equation: Any, operands: list[str]) -> tuple[list[Any], list[str]]:
    """The jaxprs that an equation calls, and what it hands them; a loop's body is called once, each branch once."""
    name, params = equation.primitive.name, equation.params
    if name == "while":
        consts = params["cond_nconsts"]
        return [params["body_jaxpr"]], operands[consts:]
    if name == "cond":
        return list(params["branches"]), operands[1:]
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = params.get(key)
        if hasattr(inner, "eqns") and len(getattr(inner, "jaxpr", inner).invars) == len(operands):
            return [inner], operands
    return [], []


def _real(array: Any) -> bool:
    kind = str(getattr(array, "dtype", type(array).__name__))
    return kind.startswith(("float", "bfloat", "int", "uint", "bool"))


def _scoped(scope: str, stack: str) -> str:
    words = [w for w in stack.split("/") if w and "(" not in w]
    return ".".join([*filter(None, [scope]), *words])


def _source(equation: Any) -> str | None:
    """ "file.py:12" of the innermost frame outside JAX and what is built on it."""
    traceback = equation.source_info.traceback
    here = os.getcwd().rstrip("/") + "/"
    for frame in traceback.frames if traceback is not None else ():
        file = frame.file_name.replace("\\", "/")
        if not file.startswith("<") and not any(
            f"/{p}/" in file for p in ("jax", "jaxlib", "flax", "haiku", "equinox")
        ):
            name = file[len(here) :] if file.startswith(here) else file.rpartition("/")[2]
            return f"{name}:{frame.line_num}"
    return None


# -- softmax, which JAX spells out


def _with_softmax(nodes: list[Node], outputs: list[str]) -> tuple[list[Node], list[str]]:
    """exp(x − max x) / Σ exp(x − max x) as one node, log_softmax likewise; what only served it is left out."""
    made = {output: node for node in nodes for output in node.outputs}

    def back(value: str, *through: str) -> Node | None:
        node = made.get(value)
        while node is not None and (node.kind == "reshape" or node.op in through):
            node = made.get(_varying(node))
        return node

    def _varying(node: Node) -> str:
        return next((v for v in node.inputs if v in made), "") if node.inputs else ""

    def root(value: str | None) -> str | None:
        """The value itself, back through casts."""
        while value in made and made[value].op in ("convert_element_type", "stop_gradient", "copy", "reduce_precision"):
            value = made[value].inputs[0]
        return value

    def shifted(value: str | None) -> str | None:
        """x of x − max x; `value` itself where nothing is subtracted."""
        node = made.get(root(value) or "")
        if node is not None and node.op == "sub" and node.inputs[1] is not None:
            top = back(node.inputs[1], "max")
            if top is not None and top.op == "reduce_max" and root(top.inputs[0]) == root(node.inputs[0]):
                return node.inputs[0]
        return value

    replaced: dict[str, Node] = {}
    for node in nodes:
        if node.op not in ("div", "sub") or None in node.inputs:
            continue
        first, second = (str(v) for v in node.inputs)
        if node.op == "div":
            top, total = made.get(root(first) or ""), back(second)
            if top is None or top.op != "exp" or total is None or total.op != "reduce_sum":
                continue
            if root(total.inputs[0]) == root(first):
                replaced[node.name] = _normalizer(node, "softmax", shifted(top.inputs[0]))
        else:
            log = back(second)
            total = back(str(log.inputs[0])) if log is not None and log.op == "log" else None
            top = made.get(root(total.inputs[0]) or "") if total is not None and total.op == "reduce_sum" else None
            if top is not None and top.op == "exp" and root(top.inputs[0]) == root(first):
                replaced[node.name] = _normalizer(node, "log_softmax", shifted(first))
    kept = [replaced.get(node.name, node) for node in nodes]
    return (_used(kept, outputs) if replaced else kept), outputs


def _normalizer(node: Node, activation: str, x: str | None) -> Node:
    return replace(
        node, op=activation, inputs=(x,), kind="softmax", evaluate=None, declared=(activation, {"temperature": 1.0})
    )


def _used(nodes: list[Node], outputs: list[str]) -> list[Node]:
    wanted = set(outputs)
    kept = []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            kept.append(node)
            wanted.update(v for v in node.inputs if v is not None)
    return kept[::-1]
