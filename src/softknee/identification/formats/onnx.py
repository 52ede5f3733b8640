"""ONNX: a file or a ModelProto as the neutral graph. Weights are not read, wherever they are.

Functions are inlined, the branches of If and the bodies of Loop and Scan laid out beside the rest; what the file calls
a function is kept, to be compared with what it computes. Nothing but protobuf's own parser reads the file: external
data is left where it is, and no path in the model is ever opened.

The operators and their attributes are those of onnx.ai/onnx/operators and of ONNX Runtime's ContribOperators.md.
"""

from __future__ import annotations

import ast
import heapq
import mmap
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ... import catalog
from ...backends import table
from ...errors import InputError
from ..census import Census
from ..graphs import SMALL, Graph, Node, census
from ..matching import match
from ..reading import GATES

if TYPE_CHECKING:
    import onnx

_MOST_NODES = 200_000
_MOST_INLINED = 30_000
_DEEPEST = 32
_DOMAINS = ("", "ai.onnx")
_MICROSOFT = "com.microsoft"

_ops = table("numpy")


def read(path: str | os.PathLike[str]) -> Census:
    """The Census of an ONNX file.

    Raises InputError for a file that is none, is damaged or contradicts itself, and where onnx is not installed.
    """
    return identify(_parsed(_without_weights(path), os.fspath(path)), os.path.basename(os.fspath(path)))


def identify(model: onnx.ModelProto, name: str | None = None) -> Census:
    """The Census of a ModelProto. Raises InputError for a graph that contradicts itself."""
    try:
        return census(graph(model, name))
    except RecursionError as error:
        raise InputError(f"{name or 'the model'}: its graphs or chains of copies are too deep to follow") from error


# -- the file, but for its weights

# Field numbers of onnx.proto: what holds a graph, an initializer in it, and the elements in that
_GRAPH, _INITIALIZER = 7, 5
_ELEMENTS = {4, 5, 6, 7, 9, 10, 11}


def _without_weights(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a model, without the elements of its large initializers: what is left is small at any size."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise InputError(f"{os.fspath(path)} is empty, not an ONNX model")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _thinned(data, 0, len(data), (_GRAPH, _INITIALIZER), os.fspath(path))
    except OSError as error:
        raise InputError(f"{os.fspath(path)} cannot be read: {error.strerror or error}") from error


def _thinned(data: mmap.mmap, start: int, end: int, into: tuple[int, ...], path: str) -> bytes:
    """The message from `start` to `end`, thinned along the fields `into`, and at their end of a tensor's elements."""
    kept: list[bytes] = []
    at = start
    while at < end:
        begin = at
        key, at = _varint(data, at, end, path)
        field, wire = key >> 3, key & 7
        if wire == 2:
            length, at = _varint(data, at, end, path)
            inside, at = at, at + length
            if at > end:
                raise InputError(f"{path} ends within a field of {length} bytes: truncated, or not an ONNX model")
            if into and field == into[0]:
                body = _thinned(data, inside, at, into[1:], path)
                kept += [_varint_bytes(key), _varint_bytes(len(body)), body]
                continue
            if not into and field in _ELEMENTS and length > 16 * SMALL:
                continue
        elif wire == 0:
            _, at = _varint(data, at, end, path)
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise InputError(f"{path} is not an ONNX model: byte {begin} begins no field")
        if at > end:
            raise InputError(f"{path} ends within a field: truncated, or not an ONNX model")
        kept.append(data[begin:at])
    return b"".join(kept)


def _varint(data: mmap.mmap, at: int, end: int, path: str) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise InputError(f"{path} is not an ONNX model, or is truncated: byte {at} is within a number")


def _varint_bytes(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _parsed(data: bytes, path: str) -> onnx.ModelProto:
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise InputError("reading an ONNX model needs onnx: pip install 'softknee[identify]'") from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # protobuf's own DecodeError, which is found in another place in each of its versions
        raise InputError(f"{path} is not an ONNX model: {error}") from error
    if not model.graph.node and not model.graph.output:
        raise InputError(f"{path} is not an ONNX model: it has no graph")
    return model


# -- the graph


def graph(model: onnx.ModelProto, name: str | None = None) -> Graph:
    """The model as one flat graph. Raises InputError for one that is cyclic, or reads what is computed nowhere."""
    name = name or model.graph.name or "ONNX model"
    try:
        return _Flat(model, name).graph()
    except (TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name}: an attribute is not of the kind that its operator has: {error}") from error


class _Flat:
    """One graph of the main graph, its functions and its subgraphs, values renamed apart."""

    def __init__(self, model: onnx.ModelProto, name: str) -> None:
        import onnx

        self.onnx = onnx
        self.model = model
        self.name = name
        self.functions = {(f.domain, f.name): f for f in model.functions}
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}
        self.weights: dict[str, tuple[int, ...]] = {}
        self.shapes: dict[str, tuple[int | None, ...]] = {}
        self.types: dict[str, str] = {}
        self.declared: dict[str, tuple[str, dict[str, float], str]] = {}
        self.taken: dict[str, int] = {}
        self.laid = 0

    def graph(self) -> Graph:
        main = self.model.graph
        held = {t.name for t in main.initializer} | {t.values.name for t in main.sparse_initializer}
        inputs = [value.name for value in main.input if value.name not in held]
        scope = self._scope(main, {name: name for name in inputs})
        self._lay(main.node, scope, "", 0, {}, None)
        for name in (value.name for value in main.output):
            if name not in scope:
                raise InputError(f"{self.name}: the output {name!r} is computed nowhere")
        outputs = tuple(scope[value.name] for value in main.output)
        return Graph(
            self.name, tuple(self.nodes), tuple(dict.fromkeys(inputs)), outputs, self.constants, self.weights,
            self.shapes, self.declared,
        )  # fmt: skip

    def _scope(self, graph: onnx.GraphProto, scope: dict[str, str], prefix: str = "") -> dict[str, str]:
        """The names of a graph's initializers and typed values, added to those that are seen from outside."""
        for tensor in graph.initializer:
            scope[tensor.name] = self._constant(f"{prefix}{tensor.name}", tensor)
        for sparse in graph.sparse_initializer:
            scope[sparse.values.name] = f"{prefix}{sparse.values.name}"
            self.weights[scope[sparse.values.name]] = tuple(sparse.dims)
        for value in (*graph.input, *graph.value_info, *graph.output):
            self._text(value.name)
            name = f"{prefix}{value.name}"
            kind = value.type.tensor_type
            if kind.elem_type:
                self.types.setdefault(name, self._type(kind.elem_type))
            if kind.HasField("shape"):
                self.shapes[name] = tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
        return scope

    def _type(self, number: int) -> str:
        names = {"FLOAT": "float32", "DOUBLE": "float64"}
        try:
            word = self.onnx.TensorProto.DataType.Name(number)
        except ValueError:
            return ""
        return names.get(word, word.lower())

    def _constant(self, name: str, tensor: onnx.TensorProto) -> str:
        """Holds a tensor under `name`: its elements if they are few and here, else its shape."""
        self._text(tensor.name)
        shape = tuple(tensor.dims)
        if any(n < 0 for n in shape):
            raise InputError(f"{self.name}: the initializer {tensor.name!r} has the shape {shape}")
        if name in self.constants or name in self.weights:
            raise InputError(f"{self.name}: the value {name!r} is defined twice")
        self.types[name] = self._type(tensor.data_type)
        size = 1
        for n in shape:
            size *= n
        external = tensor.data_location == self.onnx.TensorProto.EXTERNAL
        if external or size > SMALL or not size or tensor.data_type == self.onnx.TensorProto.STRING:
            self.weights[name] = shape
            return name
        try:
            array = self.onnx.numpy_helper.to_array(tensor)
        except Exception as error:  # whatever numpy says of lengths and types that do not go together
            raise InputError(f"{self.name}: the initializer {tensor.name!r} of shape {shape}: {error}") from error
        self.constants[name] = array if array.dtype.kind in "biuf" else np.asarray(array, np.float32)
        return name

    # -- nodes

    def _lay(
        self, nodes: Iterable[onnx.NodeProto], scope: dict[str, str], prefix: str, depth: int,
        attributes: Mapping[str, Any], path: str | None,
    ) -> None:  # fmt: skip
        """Lays out nodes in an order in which each reads what is there; `scope` learns what they compute."""
        if depth > _DEEPEST:
            raise InputError(f"{self.name}: functions and subgraphs are nested more than {_DEEPEST} deep")
        for node in self._ordered(list(nodes), scope):
            self.laid += 1 if depth else 0
            if self.laid > _MOST_INLINED or len(self.nodes) > _MOST_NODES:
                most = f"{_MOST_INLINED} in functions and subgraphs" if self.laid > _MOST_INLINED else f"{_MOST_NODES}"
                raise InputError(f"{self.name}: more than {most} nodes")
            self._add(node, scope, prefix, depth, attributes, path)

    def _ordered(self, nodes: list[onnx.NodeProto], scope: Mapping[str, str]) -> Iterator[onnx.NodeProto]:
        """In an order in which each reads what was computed before it: theirs, where that is one."""
        for node in nodes:
            self._text(node.op_type, node.domain, node.name, *node.input, *node.output)
        producer = {name: at for at, node in enumerate(nodes) for name in node.output if name}
        needs = [{producer[name] for name in _reads(node) if name in producer} for node in nodes]
        readers: list[list[int]] = [[] for _ in nodes]
        for at, needed in enumerate(needs):
            for before in needed:
                readers[before].append(at)
        missing = [len(needed) for needed in needs]
        ready = [at for at, count in enumerate(missing) if not count]
        done = 0
        while ready:
            at = heapq.heappop(ready)
            done += 1
            yield nodes[at]
            for reader in readers[at]:
                missing[reader] -= 1
                if not missing[reader]:
                    heapq.heappush(ready, reader)
        if done < len(nodes):
            left = next(node for node, count in zip(nodes, missing, strict=True) if count)
            raise InputError(f"{self.name}: the graph is cyclic at node {left.name or left.op_type!r}")

    def _text(self, *words: Any) -> None:
        """Protobuf hands on what is no UTF-8 as bytes."""
        wrong = next((word for word in words if not isinstance(word, str)), None)
        if wrong is not None:
            raise InputError(f"{self.name}: the name {wrong[:40]!r} is not UTF-8: the file is damaged")

    def _add(
        self, node: onnx.NodeProto, scope: dict[str, str], prefix: str, depth: int, attributes: Mapping[str, Any],
        path: str | None,
    ) -> None:  # fmt: skip
        given: list[str | None] = []
        for name in node.input:
            if name and name not in scope:
                raise InputError(f"{self.name}: node {node.name or node.op_type!r} reads {name!r}, computed nowhere")
            given.append(scope[name] if name else None)
        for name in node.output:
            if name and f"{prefix}{name}" in self.types and scope.get(name) == f"{prefix}{name}" and not prefix:
                raise InputError(f"{self.name}: the value {name!r} is defined twice")
        settings = self._attributes(node, attributes)
        where = _path(node)
        where = path if where is None else where
        function = self.functions.get((node.domain, node.op_type))
        if function is not None:
            self._inline(node, function, scope, given, prefix, depth, settings, where)
            return
        outputs = []
        for name in node.output:
            fresh = f"{prefix}{name}" if name else ""
            outputs.append(fresh)
            if name:
                scope[name] = fresh
        if node.domain in _DOMAINS and node.op_type in ("Constant", "ConstantOfShape") and outputs:
            self._constants(node, settings, outputs[0])
            return
        graphs = {k: v for k, v in settings.items() if isinstance(v, self.onnx.GraphProto)}
        if graphs:
            given += self._subgraphs(node, graphs, scope, given, prefix, depth, attributes, where)
        self._emit(node, settings, given, outputs, where)

    def _emit(
        self, node: onnx.NodeProto, settings: Mapping[str, Any], given: list[str | None], outputs: list[str],
        path: str | None,
    ) -> None:  # fmt: skip
        kinds = [self.types.get(name, "") for name in given if name]
        computed = kinds[1] if node.op_type == "Where" and len(kinds) > 1 else kinds[0] if kinds else ""
        slope = self.constants.get(given[1] or "") if node.op_type == "PRelu" and len(given) > 1 else None
        said = _operator(node.op_type, node.domain, settings, None if slope is None else float(np.mean(slope)))
        result = self._result(node.op_type, settings, kinds, computed)
        for name in outputs:
            if name:
                self.types.setdefault(name, result)
        halves = self._halves(node, settings, given)
        name = self._unique(node.name or node.op_type)
        path = name if path is None else path
        common = {"path": path, "source": _source(node), "dtype": computed or None}
        if node.op_type == "Dropout":
            outputs = outputs[:1]  # its mask is for training
        named = tuple(out for out in outputs if out)
        held = given[0] in self.constants or given[0] in self.weights if given else False
        if node.op_type in _INDEXED or (node.op_type == "Gather" and not held):
            if held and node.op_type in _VIEWS and given[0] in self.constants:
                self.constants.update(dict.fromkeys(named, self.constants[given[0] or ""]))
                return
            if held and node.op_type == "DequantizeLinear" and all(name in self.constants for name in given if name):
                code, scale, *zero = (np.ravel(self.constants[name])[:1].astype(float) for name in given if name)
                value = (code - (zero[0] if zero else 0.0)) * scale
                self.constants.update(dict.fromkeys(named, np.asarray(value, np.float32)))
                return
            given = given[:1]  # sizes, indices, scales: not what moves
        self.nodes.append(Node(
            name, node.op_type, tuple(given), named, said["kind"], said.get("evaluate"), declared=said.get("declared"),
            applies=said.get("applies", ()), note=said.get("note", ""), halves=halves, **common,
        ))  # fmt: skip

    def _unique(self, name: str) -> str:
        number = self.taken.get(name, 0)
        self.taken[name] = number + 1
        return f"{name}:{number}" if number else name

    def _result(self, op: str, settings: Mapping[str, Any], kinds: list[str], computed: str) -> str:
        if op == "Cast" and isinstance(settings.get("to"), int):
            return self._type(settings["to"])
        if op in ("CastLike", "DequantizeLinear") and len(kinds) > 1:
            return kinds[1]
        if op in ("Shape", "Size", "NonZero", "ArgMax", "ArgMin"):
            return "int64"
        if op in _COMPARISONS:
            return "bool"
        if op in ("QuantizeLinear", "DynamicQuantizeLinear"):
            return kinds[2] if len(kinds) > 2 else "uint8"
        return computed

    def _attributes(self, node: onnx.NodeProto, outer: Mapping[str, Any]) -> dict[str, Any]:
        found = {}
        for attribute in node.attribute:
            self._text(attribute.name, attribute.ref_attr_name)
            if attribute.ref_attr_name:
                if attribute.ref_attr_name in outer:
                    found[attribute.name] = outer[attribute.ref_attr_name]
                continue
            try:
                value = self.onnx.helper.get_attribute_value(attribute)
            except ValueError:  # of a type that onnx does not know
                continue
            if isinstance(value, bytes):
                value = value.decode("utf-8", "replace")
            elif isinstance(value, float):
                value = float(str(np.float32(value)))  # as it was written: 0.01, not 0.00999999977
            elif isinstance(value, (list, tuple)) and value and isinstance(value[0], bytes):
                value = [v.decode("utf-8", "replace") for v in value]
            found[attribute.name] = value
        return found

    def _constants(self, node: onnx.NodeProto, settings: Mapping[str, Any], name: str) -> None:
        if "value" in settings:
            self._constant(name, settings["value"])
            return
        for key in ("value_float", "value_int", "value_floats", "value_ints"):
            if key in settings:
                self.constants[name] = np.asarray(settings[key], np.float32 if "float" in key else np.int64)
                self.types[name] = "float32" if "float" in key else "int64"
                return
        if node.op_type == "ConstantOfShape":
            self.constants[name] = np.zeros(1, np.float32)
        else:
            self.weights[name] = ()

    def _inline(
        self, node: onnx.NodeProto, function: onnx.FunctionProto, scope: dict[str, str], given: list[str | None],
        prefix: str, depth: int, settings: dict[str, Any], path: str | None,
    ) -> None:  # fmt: skip
        self._text(*function.input, *function.output)
        label = self._unique(f"{prefix}{node.name or node.op_type}")
        inner = {}
        for name, value in zip(function.input, given, strict=False):
            if value is not None:
                inner[name] = value
        defaults = {a.name: self.onnx.helper.get_attribute_value(a) for a in function.attribute_proto}
        self._lay(function.node, inner, f"{label}/", depth + 1, defaults | settings, path or label)
        for name, out in zip(function.output, node.output, strict=False):
            if name not in inner:
                raise InputError(f"{self.name}: the function {function.name!r} does not compute its output {name!r}")
            if out:
                scope[out] = inner[name]
        meant = None if settings else _named(function.name, function.domain)
        known = meant is not None and (meant.core or "hidden" in meant.tags)  # abs or exp may be anybody's word
        if (
            meant is not None
            and known
            and len(function.output) == 1
            and len(function.input) == 1
            and inner[function.output[0]]
        ):
            said = f"the function {function.domain + '.' if function.domain else ''}{function.name}"
            self.declared[inner[function.output[0]]] = (meant.name, dict(meant.given), said)

    def _subgraphs(
        self, node: onnx.NodeProto, graphs: Mapping[str, onnx.GraphProto], scope: dict[str, str],
        given: list[str | None], prefix: str, depth: int, attributes: Mapping[str, Any], path: str | None,
    ) -> list[str | None]:  # fmt: skip
        """Lays out the branches or the body; their results, which the node hands on."""
        results: list[str | None] = []
        for key, body in graphs.items():
            label = f"{self._unique(f'{prefix}{node.name or node.op_type}.{key}')}/"
            inner = dict(scope)
            for value in body.input:
                inner[value.name] = f"{label}{value.name}"
            state = tuple(f"{label}{value.name}" for value in body.input)
            self._scope(body, inner, label)
            if state:  # what a body is given changes from step to step
                name = self._unique(f"{label}state")
                self.nodes.append(Node(name, f"{node.op_type}State", tuple(given), state, "other", path=path))
            self._lay(body.node, inner, label, depth + 1, attributes, path)
            results += [inner.get(value.name) for value in body.output]
        return results

    def _halves(self, node: onnx.NodeProto, settings: Mapping[str, Any], given: list[str | None]) -> tuple[str, ...]:
        """Which half each output is, where the operator says so."""
        if node.op_type == "Split" and len(node.output) == 2:
            return ("first", "second")
        if node.op_type == "Slice":
            cut = [self._numbers(settings, given, k, i) for k, i in (("starts", 1), ("ends", 2), ("steps", 4))]
            start, _, step = ([1] if c is None and i == 2 else c for i, c in enumerate(cut))
            if step == [1] and start is None:
                return ("second",)  # from where the other half ends, which is computed
            if start is None or step is None or not len(start) == len(step) == 1:
                return ()
            if step[0] == 2 and start[0] in (0, 1):
                return ("odd" if start[0] else "even",)
            if step[0] == 1:
                return ("second",) if start[0] else ("first",)
        if node.op_type == "Gather" and len(given) > 1:
            index = self._numbers(settings, given, "", 1)
            if index is not None and len(index) >= 1:
                jumps = set(np.diff(index).tolist())
                if jumps == {2} and index[0] in (0, 1):
                    return ("odd" if index[0] else "even",)
                if (jumps == {1} or len(index) == 1) and index[0] in (0, len(index)):
                    return ("second",) if index[0] else ("first",)
        return ()

    def _numbers(self, settings: Mapping[str, Any], given: list[str | None], key: str, at: int) -> list[int] | None:
        """Whole numbers from an attribute (older opsets) or an input."""
        if key and key in settings:
            return list(settings[key])
        constant = self.constants.get(given[at] or "") if len(given) > at else None
        return None if constant is None or constant.dtype.kind not in "iu" else np.ravel(constant).tolist()


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """What a node reads, in its subgraphs too."""
    waiting = [node]
    while waiting:
        one = waiting.pop()
        yield from (name for name in one.input if name)
        for attribute in one.attribute:
            if attribute.HasField("g"):
                own = {n for inner in attribute.g.node for n in inner.output} | {v.name for v in attribute.g.input}
                for inner in attribute.g.node:
                    yield from (n for n in _reads(inner) if n not in own)


def _path(node: onnx.NodeProto) -> str | None:
    """The path of the module whose forward a node came from, where the exporter recorded it.

    torch's exporters keep it: as metadata, or in the node's name, `/layer1/layer1.0/conv1/Conv`, where a child of a
    container repeats the container's name.
    """
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes" and len(entry.value) < 10_000:
            try:
                scopes = ast.literal_eval(entry.value)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                break
            if isinstance(scopes, list) and len(scopes) > 1 and isinstance(scopes[-2], str):
                return scopes[-2]
    if not node.name.startswith("/"):
        return None
    path: list[str] = []
    container = ""
    for piece in node.name.split("/")[1:-1]:
        if container and piece.startswith(f"{container}."):
            path.pop()
        path.append(piece)
        container = piece
    return ".".join(path)


def _source(node: onnx.NodeProto) -> str | None:
    """The last line of a recorded stack that is not torch's own: "file.py:12"."""
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.stack_trace":
            lines = re.findall(r'File "([^"\n]{1,500})", line (\d{1,9})', entry.value[:20_000])
            own = [(file, line) for file, line in lines if "/torch/" not in file.replace("\\", "/")]
            if own:
                file, line = own[-1]
                return f"{os.path.basename(file)}:{line}"
    return None


# -- operators

_COMPARISONS = {
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Not",
    "And",
    "Or",
    "Xor",
    "IsInf",
    "IsNaN",
}
_AFFINE = {"MatMul", "Gemm", "Conv", "ConvTranspose", "MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv",
           "DeformConv", "Einsum", "FusedConv", "FusedGemm", "FusedMatMul", "MatMulNBits", "QGemm", "NhwcConv",
           "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "GemmFastGelu", "TransposeMatMul"}  # fmt: skip
_RESHAPES = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Transpose", "Slice", "Split", "Gather", "Concat",
             "Identity", "Cast", "CastLike", "Dropout", "QuantizeLinear", "DequantizeLinear", "Tile", "DepthToSpace",
             "SpaceToDepth", "GatherElements", "GatherND", "BitCast"}  # fmt: skip
_ATTENTION = {"Attention", "MultiHeadAttention", "GroupQueryAttention", "PackedAttention", "PackedMultiHeadAttention",
              "QAttention", "DecoderMaskedMultiHeadAttention", "DecoderMaskedSelfAttention", "SparseAttention",
              "LongformerAttention", "PagedAttention", "DecoderAttention"}  # fmt: skip
_VIEWS = {"Identity", "Cast", "CastLike", "Reshape", "Squeeze", "Unsqueeze", "Flatten"}
_INDEXED = {*_VIEWS, "Slice", "Split", "Expand", "Tile", "Dropout", "QuantizeLinear", "DequantizeLinear", "Transpose"}
# Of the names that ONNX has for catalog entries, those that are parts of much else
_PARTS = {"Identity", "Sin", "Exp", "Abs", "Atan", "Erf", "Softmax", "LogSoftmax"}


def _folded(function: Callable[[Any, Any], Any], *given: Any) -> Any:
    result = given[0]
    for each in given[1:]:
        result = function(result, each)
    return result


def _clip(x: Any, low: Any = None, high: Any = None, *, least: float | None = None, most: float | None = None) -> Any:
    low, high = least if low is None else low, most if high is None else high
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def _selu(x: Any, alpha: float, gamma: float) -> Any:
    return gamma * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _shrink(x: Any, lambd: float, bias: float) -> Any:
    return np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, 0.0))


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Abs": np.abs, "Acos": np.arccos, "Acosh": np.arccosh, "Asin": np.arcsin, "Asinh": np.arcsinh, "Atan": np.arctan,
    "Atanh": np.arctanh, "Ceil": np.ceil, "Cos": np.cos, "Cosh": np.cosh, "Erf": _ops.erf, "Exp": np.exp,
    "Floor": np.floor, "Log": np.log, "Neg": np.negative, "Not": np.logical_not, "Reciprocal": np.reciprocal,
    "Round": np.round, "Sign": np.sign, "Sin": np.sin, "Sinh": np.sinh, "Sqrt": np.sqrt, "Tan": np.tan,
    "IsInf": np.isinf, "IsNaN": np.isnan, "Rsqrt": lambda x: 1 / np.sqrt(x),
    "Sub": np.subtract, "Div": np.divide, "Pow": np.power, "Mod": np.fmod, "And": np.logical_and,
    "Or": np.logical_or, "Xor": np.logical_xor, "Equal": np.equal, "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal, "Less": np.less, "LessOrEqual": np.less_equal, "Where": np.where,
    "Add": np.add, "Mul": np.multiply, "Sum": partial(_folded, np.add), "Max": partial(_folded, np.maximum),
    "Min": partial(_folded, np.minimum), "Mean": lambda *given: _folded(np.add, *given) / len(given),
}  # fmt: skip


@lru_cache(maxsize=4096)
def _activation(op: str, domain: str, settings: tuple[tuple[str, float | str], ...]) -> Any:
    """What the catalog calls a native activation with these attributes, its parameters given; None if it has none."""
    words = ", ".join(f"{key}={value!r}" for key, value in settings)
    try:
        meant = catalog.get(f"{op}({words})" if words else op, ecosystem=domain or "onnx")
    except InputError:
        return None
    if meant.kind != "elementwise":
        return None
    if not settings:
        return meant
    # HardSigmoid(1/6, 1/2) is the catalog's hardsigmoid, Swish(1.702) its quick_gelu
    found = match(lambda x: torch.as_tensor(meant.value(x.double().numpy())))
    return catalog.get(found.activation).at(**found.parameters) if found.activation else meant


def _operator(op: str, domain: str, settings: Mapping[str, Any], slope: float | None) -> dict[str, Any]:
    """How an operator is read: the fields of a Node that follow from it and its attributes."""
    standard = domain in _DOMAINS
    if not standard and domain != _MICROSOFT and domain != "ai.onnx.ml":
        return {"kind": "other"}
    if op in _AFFINE:
        applied = settings.get("activation", "FastGelu" if op == "GemmFastGelu" else "")
        return {"kind": "affine", "applies": _applied([applied], ["after it"]) if applied else ()}
    if op in _RESHAPES:
        return {"kind": "reshape"}
    if "Normalization" in op:
        return {"kind": "normalizer"}
    if op in ("Softmax", "LogSoftmax", "Hardmax"):
        axis = settings.get("axis", -1)
        name = {"Softmax": "softmax", "LogSoftmax": "log_softmax"}.get(op)
        declared = (name, {"temperature": 1.0}) if name else None
        return {"kind": "softmax", "declared": declared, "note": "" if axis == -1 else f"over axis {axis}"}
    if op in _ATTENTION:
        return {"kind": "other", "applies": (("softmax", {"temperature": 1.0}, "attention", "attention weights"),)}
    if op in ("LSTM", "GRU", "RNN"):
        return {"kind": "other", "applies": _gates(op, settings)}
    if op in ("MoE", "QMoE"):
        return {"kind": "other", "applies": _applied([str(settings.get("activation_type", "relu"))], ["each expert"])}
    if op == "BiasSplitGelu":
        return {"kind": "other", "applies": (("geglu", {}, "gate", "gelu(gate) * up"),)}
    if op == "Selu":
        alpha, gamma = float(settings.get("alpha", 1.67326324)), float(settings.get("gamma", 1.05070102))
        own: dict[str, float] | None = {} if abs(alpha - 1.67326324) < 1e-4 and abs(gamma - 1.05070102) < 1e-4 else None
        evaluate = partial(_selu, alpha=alpha, gamma=gamma)
        return {"kind": "elementwise", "evaluate": evaluate, "declared": ("selu", own) if own is not None else None}
    if op == "Shrink":
        lambd, bias = float(settings.get("lambd", 0.5)), float(settings.get("bias", 0.0))
        name = {0.0: "hardshrink", lambd: "softshrink"}.get(bias)
        declared = (name, {"lambd": lambd}) if name and lambd > 0 else None
        return {"kind": "elementwise", "evaluate": partial(_shrink, lambd=lambd, bias=bias), "declared": declared}
    if op == "PRelu":
        declared = ("prelu", {} if slope is None else {"weight": float(f"{slope:.7g}")})
        return {"kind": "elementwise", "evaluate": lambda x, w: np.where(x < 0, w * x, x), "declared": declared}
    if op == "Clip":
        least, most = settings.get("min"), settings.get("max")
        return {"kind": "elementwise", "evaluate": partial(_clip, least=least, most=most)}
    if op in _FUNCTIONS:
        return {"kind": "elementwise", "evaluate": _FUNCTIONS[op]}
    if op in _PARTS:
        return {"kind": "other"}
    return _native(op, "" if standard else domain, settings)


def _native(op: str, domain: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """An operator that is an activation, with a bias added first where it takes one."""
    if op == "Gelu" and settings.get("approximate") == "none":
        settings = {}
    numbers = {k: v for k, v in settings.items() if isinstance(v, float) or (isinstance(v, str) and k == "approximate")}
    activation = _activation(op, domain, tuple(sorted(numbers.items())))
    if activation is None:
        return {"kind": "other"}

    def evaluate(x: Any, bias: Any = 0.0) -> Any:
        return activation.value(x + bias)

    return {"kind": "elementwise", "evaluate": evaluate, "declared": (activation.name, dict(activation.defaults))}


@lru_cache(maxsize=4096)
def _named(name: str, domain: str) -> Any:
    """The elementwise activation that a function's name says it is, as ONNX or the catalog spells it; None if none."""
    plain = name.lower().removeprefix("aten_")
    for spelled, ecosystem in ((name, "onnx"), (name, _MICROSOFT), (plain, None)):
        if ecosystem is not None and (spelled in _PARTS or domain == "pkg.onnxscript.torch_lib"):
            continue
        try:
            meant = catalog.get(spelled, ecosystem=ecosystem)
        except InputError:
            continue
        return meant if meant.kind == "elementwise" else None
    return None


def _applied(names: list[str], words: list[str]) -> tuple[tuple[str | None, dict[str, float], str, str], ...]:
    found = []
    for name, what in zip(names, words, strict=False):
        meant = _named(name, "")
        role = "gate" if "gate" in what else "hidden"
        unknown = "" if meant else f", which is {name[:60]!r}"
        found.append((meant.name if meant else None, dict(meant.defaults) if meant else {}, role, f"{what}{unknown}"))
    return tuple(found)


def _gates(op: str, settings: Mapping[str, Any]) -> tuple[tuple[str | None, dict[str, float], str, str], ...]:
    """What a recurrent operator applies: of each direction, f is for the gates, g and h for what they let through."""
    usual = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}[op]
    given = [str(name) for name in settings.get("activations", ())] or usual
    each = len(usual)
    directions = [given[i : i + each] for i in range(0, len(given), each)]
    found: list[tuple[str | None, dict[str, float], str, str]] = []
    for names in directions if len({tuple(d) for d in directions}) > 1 else directions[:1]:
        if len(names) < each:
            continue
        slots = {"LSTM": (0, 0, 1, 0, 2), "GRU": (0, 0, 1), "RNN": (0,)}[op]
        words = [what for _, what in GATES[op]] if op in GATES else ["hidden state"]
        found += _applied([names[i] for i in slots], words)
    return tuple(found)
