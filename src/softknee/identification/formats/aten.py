"""ATen's operators as nodes of the neutral graph: what torch.export, TorchScript and FX graphs are made of.

An operator is known by its name alone ("gelu" of "aten.gelu.default"); what works on each element by itself is what
torch tags so, and is evaluated by calling it in float64 on the CPU. Operators of other namespaces are never called.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ...errors import InputError
from ..graphs import SMALL, Graph, Node
from ..reading import GATES
from ..recognition import Tables, call_parameters

_AFFINE = {"linear", "addmm", "mm", "bmm", "matmul", "baddbmm", "addbmm", "einsum", "dot", "mv", "addmv", "bilinear",
           "convolution", "_convolution", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
           "conv_transpose3d", "mkldnn_linear", "linear_prepacked"}  # fmt: skip
_RESHAPE = {"view", "reshape", "_unsafe_view", "_reshape_alias", "view_as", "reshape_as", "transpose", "permute", "t",
            "numpy_T", "mT", "movedim", "moveaxis", "swapaxes", "swapdims", "split", "split_with_sizes", "chunk",
            "tensor_split", "hsplit", "vsplit", "dsplit", "unsafe_chunk", "unsafe_split", "slice", "narrow", "select",
            "index_select", "unbind", "cat", "concat", "concatenate", "stack", "hstack", "vstack", "expand",
            "expand_as", "broadcast_to", "repeat", "tile", "unsqueeze", "squeeze", "flatten", "unflatten", "ravel",
            "clone", "contiguous", "alias", "detach", "lift_fresh", "lift_fresh_copy", "dropout", "feature_dropout",
            "alpha_dropout", "feature_alpha_dropout", "native_dropout", "flip", "roll", "pixel_shuffle",
            "pixel_unshuffle", "channel_shuffle", "as_strided", "copy", "view_copy", "transpose_copy", "permute_copy",
            "expand_copy", "unsqueeze_copy", "squeeze_copy", "slice_copy", "select_copy", "split_copy",
            "unbind_copy", "detach_copy", "alias_copy", "cpu", "cuda"}  # fmt: skip
_CASTS = {"to", "_to_copy", "type_as", "float", "double", "half", "bfloat16", "convert_element_type"}
_SOFTMAX = {"softmax", "_softmax", "log_softmax", "_log_softmax", "_safe_softmax"}
_ATTENTION = {"scaled_dot_product_attention", "_scaled_dot_product_flash_attention",
              "_scaled_dot_product_efficient_attention", "_scaled_dot_product_flash_attention_for_cpu",
              "_scaled_dot_product_cudnn_attention", "_scaled_dot_product_attention_math",
              "_native_multi_head_attention"}  # fmt: skip
_NORMALIZERS = {"layer_norm", "native_layer_norm", "batch_norm", "_native_batch_norm_legit", "native_batch_norm",
                "_native_batch_norm_legit_no_training", "_batch_norm_impl_index", "cudnn_batch_norm", "group_norm",
                "native_group_norm", "instance_norm", "rms_norm", "_fused_rms_norm",
                "_batch_norm_with_update", "local_response_norm"}  # fmt: skip
# Elementwise, but not tagged so: composites, aliases, and what reads a parameter per channel
_UNTAGGED = {"hardswish", "log_sigmoid", "prelu", "_prelu_kernel", "tanhshrink", "softsign", "divide", "multiply",
             "subtract", "absolute", "negative", "greater", "greater_equal", "less", "less_equal", "not_equal",
             "special_expit", "special_erf", "special_erfc", "special_expm1", "special_log1p", "special_exp2",
             "special_sinc", "special_round", "arctan", "arcsin", "arcsinh", "arctanh", "arccos", "arccosh", "arctan2",
             "fix", "full_like", "zeros_like", "ones_like", "logsigmoid", "selu", "celu", "rrelu"}  # fmt: skip
_QUANTIZERS = {"quantize_per_tensor", "dequantize_per_tensor", "quantize_per_channel", "dequantize_per_channel",
               "quantize_per_token", "dequantize_per_token", "dequantize", "fake_quantize_per_tensor_affine",
               "fake_quantize_per_channel_affine"}  # fmt: skip
_CREATORS = {"full", "zeros", "ones", "scalar_tensor", "tensor", "arange"}
# Arguments that are conditions: float64 values are taken as true or false
_CONDITIONS = {"where": (0,), "masked_fill": (1,), "logical_and": (0, 1), "logical_or": (0, 1), "logical_xor": (0, 1),
               "logical_not": (0,), "bitwise_and": (0, 1), "bitwise_or": (0, 1), "bitwise_not": (0,),
               "bitwise_xor": (0, 1), "__and__": (0, 1), "__or__": (0, 1)}  # fmt: skip
_GATES = {
    "lstm": GATES["LSTM"], "gru": GATES["GRU"], "rnn_tanh": (("tanh", "hidden state"),),
    "rnn_relu": (("relu", "hidden state"),), "lstm_cell": GATES["LSTM"], "gru_cell": GATES["GRU"],
    "rnn_tanh_cell": (("tanh", "hidden state"),), "rnn_relu_cell": (("relu", "hidden state"),),
}  # fmt: skip


class Name(str):
    """The name of a value, where a plain str is a literal."""


@dataclass(frozen=True)
class Operation:
    """One call of an operator.

    target: "aten.gelu.default", "aten::gelu", "torch.gelu": the operator is the last name but an overload's.
    arguments, keywords: literals and `Name`s, nested. path: of the module in whose forward it is; source: "file.py:12".
    """

    target: str
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]
    outputs: tuple[Name, ...]
    path: str | None = None
    source: str | None = None


@dataclass
class Listing:
    """The operations of a graph and what is known of its values. dtypes: "float32". symbols: sizes, which are numbers.

    A listing among an operation's arguments is a graph that it runs.
    """

    name: str
    operations: list[Operation] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    weights: dict[str, tuple[int, ...]] = field(default_factory=dict)
    shapes: dict[str, tuple[int | None, ...]] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    symbols: set[str] = field(default_factory=set)

    def constant(self, name: str, tensor: torch.Tensor) -> None:
        """Takes a tensor in as a constant, if it is small, else by its shape."""
        self.shapes[name] = tuple(tensor.shape)
        self.dtypes[name] = spelled(tensor.dtype)
        held = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.device.type != "meta"
        plain = tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_complex()
        if held and plain and tensor.numel() <= SMALL:
            self.constants[name] = tensor.detach().cpu().double().numpy()
        else:
            self.weights[name] = tuple(tensor.shape)


def spelled(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def place(file: str, line: int | str) -> str | None:
    """ "file.py:12", relative where the file lies below the working directory; None for torch's and generated code."""
    path = file.replace("\\", "/")
    if path.startswith("<") or "/torch/nn/" in path or "/torch/_" in path or path.endswith("/torch/functional.py"):
        return None
    here = os.getcwd().rstrip("/") + "/"
    return f"{path[len(here) :] if path.startswith(here) else path.rpartition('/')[2]}:{line}"


def names(item: Any) -> Iterator[Name]:
    """Every value that is named in nested arguments."""
    if isinstance(item, Name):
        yield item
    elif isinstance(item, (list, tuple)):
        for each in item:
            yield from names(each)
    elif isinstance(item, Mapping):
        yield from names(list(item.values()))


def replaced(item: Any, change: Callable[[Name], Any]) -> Any:
    if isinstance(item, Name):
        return change(item)
    if isinstance(item, (list, tuple)):
        return type(item)(replaced(each, change) for each in item)
    if isinstance(item, Mapping):
        return {key: replaced(each, change) for key, each in item.items()}
    return item


def graph(listing: Listing) -> Graph:
    """The neutral graph of a listing. Raises InputError where a value is read before it is there, or made twice."""
    return _Reading(listing).graph()


class _Reading:
    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self.tables = Tables()
        self.current: dict[str, Name] = {}  # what an in-place operator has made of a value
        self.constants = dict(listing.constants)
        self.known = {*listing.inputs, *listing.constants, *listing.weights}
        self.nodes: list[Node] = []

    def graph(self) -> Graph:
        listing = self.listing
        for operation in listing.operations:
            self._operation(operation)
        outputs = tuple(self.current.get(name, name) for name in listing.outputs)
        self._there(outputs, "the outputs")
        return Graph(
            listing.name, tuple(self.nodes), tuple(listing.inputs), outputs, self.constants, listing.weights,
            listing.shapes,
        )  # fmt: skip

    def _there(self, values: Sequence[str], reader: str) -> None:
        for name in values:
            if name not in self.known:
                raise InputError(f"{self.listing.name}: {reader} reads {name!r}, which nothing before it makes")

    def _operation(self, operation: Operation) -> None:
        operation = _plain(operation)
        name, arguments = operator(operation.target), operation.arguments
        if any(isinstance(a, Listing) for a in arguments):
            self._inlined(operation)
            return
        changed = next((a for a in arguments if isinstance(a, Name)), None)
        arguments, keywords = replaced((arguments, dict(operation.keywords)), lambda n: self.current.get(n, n))
        self._there(list(names((arguments, keywords))), operation.target)
        for output in operation.outputs:
            if output in self.known:
                raise InputError(f"{self.listing.name}: the value {output!r} is made twice")
            self.known.add(output)
        inplace = name.endswith("_") and not name.endswith("__")
        name = name.rstrip("_") if inplace else name
        outputs: tuple[str, ...] = operation.outputs
        if name in _CREATORS and not list(names((arguments, keywords))) and self._creates(name, operation):
            return
        self._node(name, operation, arguments, keywords)
        if inplace and changed is not None and outputs:
            before = self.current.get(changed, changed)
            for earlier in (changed, before, *(e for e, now in self.current.items() if now == before)):
                self.current[earlier] = Name(outputs[0])

    def _inlined(self, operation: Operation) -> None:
        """A graph that an operation runs, in its place: with a mode set, or (each of them) where a condition holds."""
        last = max(i for i, a in enumerate(operation.arguments) if isinstance(a, Listing))
        operands = list(names(operation.arguments[last + 1 :]))
        results: list[tuple[Name, ...]] = []
        for number, part in enumerate(a for a in operation.arguments if isinstance(a, Listing)):
            prefix = f"{operation.outputs[0] if operation.outputs else len(self.nodes)}.{number}/"
            inside = dict(zip(part.inputs, operands, strict=False))

            def renamed(name: str, prefix: str = prefix, inside: Mapping[str, Name] = inside) -> Name:
                return inside.get(name, Name(prefix + name))

            for name, value in part.constants.items():
                self.constants[renamed(name)] = value
            self.known.update(renamed(name) for name in (*part.constants, *part.weights, *part.inputs))
            self.listing.weights |= {renamed(name): shape for name, shape in part.weights.items()}
            self.listing.shapes |= {renamed(name): shape for name, shape in part.shapes.items()}
            self.listing.dtypes |= {renamed(name): dtype for name, dtype in part.dtypes.items()}
            self.listing.symbols |= {renamed(name) for name in part.symbols}
            for each in part.operations:
                given, kept = replaced((each.arguments, dict(each.keywords)), renamed)
                outputs = tuple(renamed(name) for name in each.outputs)
                self._operation(Operation(each.target, given, kept, outputs, each.path, each.source))
            results.append(tuple(renamed(name) for name in part.outputs))
        word = "aten.alias" if len(results) == 1 else "prim.If"
        for output, result in zip(operation.outputs, zip(*results, strict=True), strict=False):
            self._operation(Operation(word, result, {}, (output,), operation.path, operation.source))

    def _node(self, name: str, operation: Operation, arguments: tuple, keywords: dict) -> None:
        given = list(names((arguments, keywords)))
        if not given or not operation.outputs:
            kind, evaluate = "other", None
        else:
            kind, evaluate = self._kind(name, operation, arguments, keywords)
        if kind != "elementwise":
            given = [value for value in given if value not in self.listing.symbols]
        self.nodes.append(Node(
            self._title(operation, name), operation.target, tuple(given), operation.outputs, kind, evaluate,
            self._dtype(operation, given), operation.source, self._declared(name, kind, arguments, keywords),
            operation.path, _halves(name, arguments, self.listing.shapes.get(given[0]) if given else None),
            _applies(name, arguments),
        ))  # fmt: skip

    def _title(self, operation: Operation, name: str) -> str:
        last = operation.outputs[0] if operation.outputs else f"{name}_{len(self.nodes)}"
        return f"{operation.path}/{last}" if operation.path else last

    def _dtype(self, operation: Operation, given: Sequence[str]) -> str | None:
        """What it computes in: of comparisons the inputs' dtype, else the result's."""
        for value in (*operation.outputs, *given):
            found = self.listing.dtypes.get(value)
            if found is not None and found.startswith(("float", "bfloat")):
                return found
        return None

    def _kind(
        self, name: str, operation: Operation, arguments: tuple, keywords: dict
    ) -> tuple[str, Callable[..., np.ndarray] | None]:
        if name in _AFFINE:
            return "affine", None
        if name in _RESHAPE or name in _QUANTIZERS:
            return "reshape", None
        if name in _CASTS:
            target = self.listing.dtypes.get(operation.outputs[0], "float32")
            if target.startswith(("float", "bfloat")):
                return "reshape", None
            return "elementwise", (lambda x: x != 0) if target == "bool" else np.trunc
        if name in _SOFTMAX:
            return "softmax", None
        if name in _NORMALIZERS:
            return "normalizer", None
        if name == "index_put" and _masks(arguments, self.listing.dtypes):
            return "elementwise", lambda x, mask, value: np.asarray(np.where(mask != 0, value, x))
        if len(operation.outputs) == 1 and pointwise(name, operation.target, arguments):
            return "elementwise", _evaluation(name, arguments, keywords)
        return "other", None

    def _declared(
        self, name: str, kind: str, arguments: tuple, keywords: Mapping[str, Any]
    ) -> tuple[str, dict[str, float]] | None:
        """The activation that the operator is called by in torch."""
        if name in ("_softmax", "_safe_softmax", "_log_softmax"):
            name = "log_softmax" if "log" in name else "softmax"
        if name == "elu" and len(arguments) > 2:  # ATen's has two more scales
            return None
        if name == "hardtanh" and arguments[1:] == (0, 6):  # what torch runs for relu6
            return "relu6", {}
        function = self._function(name)
        if function is None or kind not in ("elementwise", "softmax", "other"):
            return None
        literal = replaced((arguments, dict(keywords)), self._held)
        entry = self.tables.of_call(function, *literal)
        if entry is None or entry.activation is None:
            return None
        unknown = any(self._held(value) is None for value in names((arguments[1:], keywords)))
        return entry.activation.name, {} if unknown else call_parameters(entry, function, *literal)

    def _held(self, name: Name) -> torch.Tensor | None:
        value = self.constants.get(name)
        return None if value is None else torch.from_numpy(np.asarray(value))

    @staticmethod
    def _function(name: str) -> Any:
        name = {"log_sigmoid": "logsigmoid", "special_expit": "sigmoid", "_prelu_kernel": "prelu"}.get(name, name)
        for home in (torch.nn.functional, torch):
            function = getattr(home, name, None)
            if callable(function):
                return function
        return None

    def _creates(self, name: str, operation: Operation) -> bool:
        """Whether the operator made a small constant, which is taken in."""
        keywords = {k: v for k, v in operation.keywords.items() if k in ("fill_value", "size")}
        literals = [a for a in operation.arguments if not isinstance(a, (torch.device, torch.layout))]
        shape = literals[0] if name in ("full", "zeros", "ones") and literals else ()
        if not isinstance(shape, (list, tuple)) or not all(isinstance(n, int) for n in shape):
            return False
        if int(np.prod(shape, dtype=np.float64)) > SMALL or len(operation.outputs) != 1:
            return False
        if name in ("zeros", "ones"):
            value: Any = float(name == "ones")
        elif name == "full":
            value = keywords.get("fill_value", literals[1] if len(literals) > 1 else None)
        else:
            value = literals[0] if literals and name in ("scalar_tensor", "tensor") else None
        if not isinstance(value, (bool, int, float)):
            return False
        self.constants[operation.outputs[0]] = np.full(shape, float(value))
        return True


def _plain(operation: Operation) -> Operation:
    """An operation as the function that it is in evaluation."""
    name, given = operator(operation.target), operation.arguments
    if name.startswith("rrelu_with_noise") and len(given) >= 4:  # with its noise, which evaluation does not use
        return replace(operation, target="aten.rrelu.default", arguments=(given[0], *given[2:4]), keywords={},
                       outputs=operation.outputs[:1])  # fmt: skip
    return operation


def _applies(name: str, arguments: tuple) -> tuple[tuple[str, dict[str, float], str, str], ...]:
    """What a fused kernel applies inside: activation, parameters, role, what for."""
    attention = ("softmax", {"temperature": 1.0}, "attention", "attention weights")
    if name in _GATES:
        return tuple((gate, {}, "gate" if "gate" in what else "hidden", what) for gate, what in _GATES[name])
    if name in _ATTENTION:
        return (attention,)
    if name == "_transformer_encoder_layer_fwd":  # its eighth argument says GELU, else ReLU
        gelu = len(arguments) > 7 and arguments[7] is True
        return (attention, ("gelu" if gelu else "relu", {}, "hidden", "feed-forward"))
    return ()


def _halves(name: str, arguments: tuple, shape: tuple[int | None, ...] | None) -> tuple[str, ...]:
    """Which half of its input each result of a reshape is: the first, the second, the even or the odd elements."""
    given: list[Any] = [None if isinstance(a, Name) else a for a in arguments[1:]]
    if name in ("chunk", "tensor_split", "unsafe_chunk"):
        return ("first", "second") if given[:1] == [2] else ()
    at = {"slice": 0, "split": 1, "split_with_sizes": 1, "unsafe_split": 1, "narrow": 0}.get(name)
    if at is None or not given:
        return ()
    dim = given[at] if len(given) > at else 0
    size = shape[dim] if shape is not None and isinstance(dim, int) and -len(shape) <= dim < len(shape) else None
    if name in ("split", "split_with_sizes", "unsafe_split"):
        halves = size is not None and size % 2 == 0 and given[0] in (size // 2, [size // 2] * 2, (size // 2,) * 2)
        return ("first", "second") if halves else ()
    if name == "narrow":
        return _slice(given[1], given[1] + given[2], 1, size)
    start, end, step = (*given[1:4], None, None, None)[:3]
    return _slice(start, end, step, size)


def _slice(start: int | None, end: int | None, step: int | None, size: int | None) -> tuple[str, ...]:
    """The half that a slice is, of a dimension of that size."""
    start = start or 0
    if step == 2 and (end is None or end == size or end > 1 << 60):
        return ("even",) if start == 0 else ("odd",) if start == 1 else ()
    if step not in (None, 1) or size is None or size % 2:
        return ()
    end = size if end is None else min(end, size)
    start, end = start + size * (start < 0), end + size * (end < 0)
    return ("first",) if (start, end) == (0, size // 2) else ("second",) if (start, end) == (size // 2, size) else ()


def operator(target: str) -> str:
    """ "gelu" of "torch.ops.aten.gelu.default", "aten::gelu", "torch.gelu"."""
    parts = target.replace("::", ".").removeprefix("torch.ops.").split(".")
    if len(parts) >= 3 and parts[0] in ("aten", "prims", "quantized_decomposed"):
        return parts[1]
    return parts[-1] if parts[0] in ("aten", "torch", "prims") else target


@functools.cache
def _packet(name: str) -> Any:
    return getattr(torch.ops.aten, name, None) if name.isidentifier() else None


@functools.cache
def _tagged(name: str) -> bool:
    packet = _packet(name)
    if packet is None:
        return False
    overloads = [getattr(packet, each) for each in packet.overloads()]
    random = any(torch.Tag.nondeterministic_seeded in overload.tags for overload in overloads)
    return not random and any(torch.Tag.pointwise in overload.tags for overload in overloads)


def pointwise(name: str, target: str, arguments: tuple) -> bool:
    """Whether the operator works on each element by itself, as torch's own tags say."""
    if name in ("max", "min", "where"):  # with one tensor they reduce, or list places
        return len(list(names(arguments))) >= 2 and len(arguments) >= (3 if name == "where" else 2)
    if name == "equal" or target.split(".")[0] == "quantized_decomposed":
        return False
    return name in _UNTAGGED or _tagged(name)


def _evaluation(name: str, arguments: tuple, keywords: Mapping[str, Any]) -> Callable[..., np.ndarray]:
    """The operator with its literals bound, as a function of its tensors."""
    symbol = {"logsigmoid": "log_sigmoid", "_prelu_kernel": "prelu"}.get(name, name)
    kept = {k: v for k, v in keywords.items() if k not in ("dtype", "layout", "device", "pin_memory", "memory_format")}
    conditions = _CONDITIONS.get(name, ())

    def evaluate(*arrays: np.ndarray) -> np.ndarray:
        waiting = iter(arrays)
        count = iter(range(len(arrays)))

        def tensor(_: Name) -> torch.Tensor:
            given = np.array(next(waiting))  # a copy: the operator may work in place
            return torch.from_numpy(given != 0 if next(count) in conditions else given)

        held, named = replaced((arguments, kept), tensor)
        if name == "rrelu":  # in evaluation the mean of its slopes
            x, lower, upper = (*held, 1 / 8, 1 / 3)[:3] if len(held) < 3 else held[:3]
            return np.asarray(torch.where(x >= 0, x, x * (lower + upper) / 2))
        if symbol == "prelu":  # a slope per channel: the tensors broadcast here
            return np.asarray(torch.where(held[0] > 0, held[0], held[0] * held[1]))
        with torch.no_grad():
            result = _packet(symbol)(*held, **named)
        return np.asarray(result if result.dtype == torch.bool else result.double())

    return evaluate


def _masks(arguments: tuple, dtypes: Mapping[str, str]) -> bool:
    """Whether index_put is `x[condition] = value`, one condition over all elements."""
    if len(arguments) < 3 or not isinstance(arguments[1], (list, tuple)) or (len(arguments) > 3 and arguments[3]):
        return False
    masks = [m for m in arguments[1] if isinstance(m, Name)]
    return len(masks) == len(arguments[1]) == 1 and dtypes.get(masks[0], "bool") == "bool"
