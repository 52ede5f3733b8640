"""Programs that torch.export made: `ExportedProgram` and FX graphs of ATen operators in memory, `.pt2` archives.

`torch.export.load` unpickles what an archive names as pickled (constants, weights, sample inputs: its code calls
`torch.load(…, weights_only=False)` and `pickle.loads`), so an archive is not loaded here: its graph is JSON, which is
read as it is; small constants are read from their raw bytes, pickled ones not at all. The schema is torch's own,
`torch/_export/serde/schema.py`, versions 5 to 8.
"""

from __future__ import annotations

import operator as builtin_operators
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ...errors import InputError
from ..census import Census
from ..graphs import SMALL, census
from .aten import Listing, Name, Operation, graph, names, place, spelled
from .parsing import Archive, table

# The schema's numbers for dtypes: name, and how NumPy reads the bytes (bfloat16 as the upper half of a float32)
_DTYPES: dict[int, tuple[str, str | None]] = {
    1: ("uint8", "u1"), 2: ("int8", "i1"), 3: ("int16", "i2"), 4: ("int32", "i4"), 5: ("int64", "i8"),
    6: ("float16", "f2"), 7: ("float32", "f4"), 8: ("float64", "f8"), 9: ("complex32", None), 10: ("complex64", None),
    11: ("complex128", None), 12: ("bool", "u1"), 13: ("bfloat16", "u2"),
}  # fmt: skip
# Of archives that do not say which arguments are keywords
_KEYWORDS = {"approximate", "rounding_mode", "dtype", "layout", "device", "pin_memory", "memory_format", "alpha"}
_DEPTH = 16
_MOST_JSON = 1 << 26


# -- in memory


def identify(program: torch.export.ExportedProgram | torch.fx.GraphModule) -> Census:
    """The Census of a program, or of its graph alone, such as `ExportedProgram.module()`.

    Nothing is executed but single elementwise operators on probes.
    """
    if isinstance(program, torch.fx.GraphModule):
        return census(graph(_listing(program, _root(program) or type(program).__name__, {})))
    signature = program.graph_signature
    held: dict[str, Any] = {}
    for kind in ("inputs_to_parameters", "inputs_to_buffers", "inputs_to_lifted_tensor_constants"):
        for placeholder, name in getattr(signature, kind, {}).items():
            held[placeholder] = program.state_dict.get(name, program.constants.get(name))
    return census(graph(_listing(program.graph_module, _root(program.graph_module) or "ExportedProgram", held)))


def exports(model: object) -> bool:
    """Whether it is a program of torch.export, or an FX graph of ATen operators, which hooks and modes do not see."""
    if not isinstance(model, torch.fx.GraphModule):
        return isinstance(model, torch.export.ExportedProgram)
    return any(isinstance(node.target, torch._ops.OpOverload) for node in model.graph.nodes)


def _root(module: torch.fx.GraphModule) -> str | None:
    """The class that was exported, by the outermost module that a node names."""
    for node in module.graph.nodes:
        for path, kind in (node.meta.get("nn_module_stack") or {}).values():
            if not path:
                return (kind if isinstance(kind, str) else kind.__qualname__).rpartition(".")[2]
    return None


def _listing(module: torch.fx.GraphModule, name: str, held: Mapping[str, Any], depth: int = 0) -> Listing:
    if depth > _DEPTH:
        raise InputError(f"{name}: graphs are nested more than {_DEPTH} deep")
    listing = Listing(name)
    parts: dict[torch.fx.Node, list[Name] | Name] = {}  # what several results are called
    inner: dict[torch.fx.Node, Listing] = {}
    items = {
        (node.args[0], node.args[1]): node
        for node in module.graph.nodes
        if node.op == "call_function" and node.target is builtin_operators.getitem
    }

    def given(item: Any) -> Any:
        if isinstance(item, torch.fx.Node):
            return inner.get(item, parts.get(item, Name(item.name)))
        if isinstance(item, (list, tuple)):
            return tuple(given(each) for each in item)
        if isinstance(item, dict):
            return {key: given(each) for key, each in item.items()}
        return item

    for node in module.graph.nodes:
        _describe(listing, node.name, node.meta.get("val"))
        if node.op == "placeholder":
            tensor = held.get(node.name)
            listing.constant(node.name, tensor) if isinstance(tensor, torch.Tensor) else listing.inputs.append(
                node.name
            )
        elif node.op == "get_attr":
            attribute: Any = module
            for word in str(node.target).split("."):
                attribute = getattr(attribute, word, None)
            if isinstance(attribute, torch.fx.GraphModule):
                inner[node] = _listing(attribute, name, {}, depth + 1)
            elif isinstance(attribute, torch.Tensor):
                listing.constant(node.name, attribute)
            else:
                listing.inputs.append(node.name)
        elif node.op == "output":
            listing.outputs += names(given(node.args))
        elif node.target is builtin_operators.getitem and isinstance(parts.get(node.args[0]), list):
            continue
        elif node.op == "call_function":
            values = node.meta.get("val")
            outputs = [Name(node.name)]
            if isinstance(values, (list, tuple)):
                outputs = [
                    Name(items[node, i].name if (node, i) in items else f"{node.name}.{i}") for i in range(len(values))
                ]
                parts[node] = outputs
                for output, value in zip(outputs, values, strict=True):
                    _describe(listing, output, value)
            target = node.target
            symbol = (
                str(target) if isinstance(target, torch._ops.OpOverload) else getattr(target, "__name__", str(target))
            )
            path, source = _whence(node.meta)
            listing.operations.append(
                Operation(symbol, given(node.args), given(node.kwargs), tuple(outputs), path, source)
            )
        else:  # a module or a method: what it computes is not known
            path, source = _whence(node.meta)
            listing.operations.append(
                Operation(
                    f"{node.op} {node.target}", given(node.args), given(node.kwargs), (Name(node.name),), path, source
                )
            )
    return listing


def _describe(listing: Listing, name: str, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        listing.shapes[name] = tuple(n if isinstance(n, int) else None for n in value.shape)
        listing.dtypes[name] = spelled(value.dtype)
    elif isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        listing.symbols.add(name)


def _whence(meta: Mapping[str, Any]) -> tuple[str | None, str | None]:
    stack = list((meta.get("nn_module_stack") or {}).values())
    path = stack[-1][0] if stack else None
    return None if path is None else _path(path), _source(meta.get("stack_trace"))


def _path(path: str) -> str:
    return path.replace("L['self']", "").replace("_export_root", "").removeprefix(".")


def _source(trace: Any) -> str | None:
    """Where the operator was called: the innermost frame, unless that is torch's own module."""
    if not isinstance(trace, str):
        return None
    frames = [line.strip() for line in trace.splitlines() if line.lstrip().startswith('File "')]
    for frame in reversed(frames):
        file, _, rest = frame[6:].partition('", line ')
        if file.replace("\\", "/").endswith("torch/nn/functional.py"):
            continue
        line = rest.partition(",")[0]
        return place(file, line) if line.isdigit() else None
    return None


# -- archives


def read(path: str | os.PathLike[str]) -> Census:
    """The Census of a `.pt2` archive. Raises InputError where it is no such archive, or a damaged one."""
    what = os.fspath(path)
    with Archive(path, bare=True) as archive:
        member = next((m for m in sorted(archive.members) if m.startswith("models/") and m.endswith(".json")), None)
        member = member or "serialized_exported_program.json"
        if member not in archive.members:
            raise InputError(f"{what} is no torch.export archive: it has neither models/*.json nor {member}")
        try:
            program = table(archive.read(member, _MOST_JSON), f"{member} in {what}")
            return census(graph(_Program(program, archive, what).listing))
        except InputError:
            raise
        except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError) as error:
            raise InputError(f"{what}: {member} is not laid out as torch.export writes it ({error!r:.200})") from error


class _Program:
    """The listing of a serialized program."""

    def __init__(self, program: Mapping[str, Any], archive: Archive, what: str) -> None:
        self.archive = archive
        module = program["graph_module"]
        self.listing = Listing(os.path.basename(what))
        self._values(self.listing, module["graph"])
        for spec in module["signature"]["input_specs"]:
            ((kind, given),) = spec.items()
            self._input(kind, given)
        self._operations(self.listing, module["graph"], 0)

    def _values(self, listing: Listing, part: Mapping[str, Any]) -> None:
        for name, value in part["tensor_values"].items():
            listing.shapes[name] = _sizes(value)
            listing.dtypes[name] = _DTYPES.get(value["dtype"], ("unknown", None))[0]
        for kind in ("sym_int_values", "sym_float_values", "sym_bool_values"):
            listing.symbols.update(part.get(kind, ()))

    def _input(self, kind: str, given: Mapping[str, Any]) -> None:
        argument = given.get("arg", {})
        if "name" in argument:  # a parameter, a buffer, a constant
            name = argument["name"]
            fqn = given.get(f"{kind}_name") or given.get("buffer_name") or given.get("tensor_constant_name") or ""
            self._held(name, fqn)
        else:
            self.listing.inputs += names(_argument(argument, {}))

    def _held(self, name: str, fqn: str) -> None:
        shape = self.listing.shapes.get(name, ())
        values = None
        for folder, config in (("weights", "model_weights_config.json"), ("constants", "model_constants_config.json")):
            values = values if values is not None else self._stored(f"data/{folder}", config, fqn)
        if values is not None and values.shape == shape:
            self.listing.constants[name] = values
        else:
            self.listing.weights[name] = tuple(n or 0 for n in shape)

    def _stored(self, folder: str, config: str, fqn: str) -> np.ndarray | None:
        """A small tensor that is stored as plain bytes."""
        entry = self._config(f"{folder}/{config}").get(fqn)
        if not isinstance(entry, dict) or entry.get("use_pickle") or not entry.get("tensor_meta"):
            return None
        shape = _sizes(entry["tensor_meta"])
        dtype, code = _DTYPES.get(entry["tensor_meta"]["dtype"], ("unknown", None))
        sizes = [n for n in shape if n is not None]
        count = int(np.prod(sizes, dtype=np.float64)) if len(sizes) == len(shape) else SMALL + 1
        member = f"{folder}/{entry['path_name']}"
        if (
            code is None
            or count > SMALL
            or member not in self.archive.members
            or not _contiguous(entry["tensor_meta"], sizes)
        ):
            return None
        content = self.archive.read(member)
        if len(content) != count * np.dtype(code).itemsize:
            return None
        values = np.frombuffer(content, dtype=f"<{code}")
        if dtype == "bfloat16":
            values = (values.astype("<u4") << 16).view("<f4")
        return values.astype(np.float64).reshape(sizes)

    def _config(self, member: str) -> dict[str, Any]:
        if not hasattr(self, "_configs"):
            self._configs: dict[str, dict[str, Any]] = {}
        if member not in self._configs:
            held = member in self.archive.members
            self._configs[member] = table(self.archive.read(member), member)["config"] if held else {}
        return self._configs[member]

    def _operations(self, listing: Listing, part: Mapping[str, Any], depth: int) -> None:
        if depth > _DEPTH:
            raise InputError(f"{listing.name}: graphs are nested more than {_DEPTH} deep")
        inner: dict[int, Listing] = {}
        for node in part["nodes"]:
            arguments, keywords = [], {}
            for given in node["inputs"]:
                value = given["arg"]
                if "as_graph" in value:
                    below = Listing(listing.name)
                    self._values(below, value["as_graph"]["graph"])
                    below.inputs += names([_argument(a, {}) for a in value["as_graph"]["graph"]["inputs"]])
                    self._operations(below, value["as_graph"]["graph"], depth + 1)
                    inner[id(value)] = below
                found = _argument(value, inner)
                if given.get("kind") == 2 or ("kind" not in given and given["name"] in _KEYWORDS):
                    keywords[given["name"]] = found
                else:
                    arguments.append(found)
            meta = node.get("metadata") or {}
            path = meta.get("nn_module_stack")
            last = path.rpartition(";")[2].split(",") if isinstance(path, str) and path else None
            outputs = tuple(names([_argument(o, {}) for o in node["outputs"]]))
            listing.operations.append(Operation(
                str(node["target"]).removeprefix("torch.ops."), tuple(arguments), keywords, outputs,
                _path(last[1]) if last is not None and len(last) > 1 else None, _source(meta.get("stack_trace")),
            ))  # fmt: skip
        listing.outputs += names([_argument(o, {}) for o in part["outputs"]])


def _sizes(meta: Mapping[str, Any]) -> tuple[int | None, ...]:
    sizes = tuple(size.get("as_int") for size in meta["sizes"])
    if any(n is not None and (not isinstance(n, int) or n < 0) for n in sizes):
        raise TypeError(f"sizes {sizes}")
    return sizes


def _contiguous(meta: Mapping[str, Any], sizes: list[int]) -> bool:
    expected, step = [], 1
    for n in reversed(sizes):
        expected.append(step)
        step *= max(n, 1)
    strides = [s.get("as_int") for s in meta["strides"]]
    wanted = expected[::-1]
    same = len(strides) == len(wanted) and all(s == w or n < 2 for s, w, n in zip(strides, wanted, sizes, strict=True))
    return same and not (meta.get("storage_offset") or {}).get("as_int")


def _argument(given: Mapping[str, Any], inner: Mapping[int, Listing]) -> Any:
    """A serialized argument: one tag and its value."""
    tagged = {key: value for key, value in given.items() if value is not None}
    kind = next(iter(tagged), "as_none")
    value: Any = tagged.get(kind)
    if kind in ("as_tensor", "as_custom_obj"):
        return Name(value["name"])
    if kind in ("as_tensors", "as_nested_tensors"):
        return tuple(_argument({"as_tensors" if isinstance(v, list) else "as_tensor": v}, inner) for v in value)
    if kind == "as_optional_tensor":
        return _argument(value, inner)
    if kind == "as_optional_tensors":
        return tuple(_argument(v, inner) for v in value)
    if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
        name = value.get("as_name")
        return Name(name) if name is not None else next(iter(value.values()))
    if kind in ("as_sym_ints", "as_sym_floats", "as_sym_bools"):
        return tuple(_argument({kind[:-1]: v}, inner) for v in value)
    if kind == "as_float":
        return float(value)
    if kind == "as_floats":
        return tuple(float(v) for v in value)
    if kind in ("as_ints", "as_bools", "as_strings"):
        return tuple(value)
    if kind in ("as_int", "as_bool", "as_string"):
        return value
    if kind == "as_graph":
        return inner.get(id(given))
    return None  # devices, layouts, dtypes: nothing that values depend on in float64
