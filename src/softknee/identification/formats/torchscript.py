"""TorchScript: modules in memory and the archives of `torch.jit.save`.

`torch.jit.load` runs what an archive says while it loads (a `__setstate__` may loop, or write a file with
`torch.from_file`), and its C++ parsers are not made for hostile bytes. So nothing is loaded here: the code in an
archive is text in Python's grammar, which is parsed and followed by hand, calls inlined, and its pickled state is a
list of plain values and storages, which is read opcode by opcode without ever making an object that the pickle names.

A condition on what is not known before a run (a shape) is followed both ways; the census says so.
"""

from __future__ import annotations

import ast
import io
import math
import operator as builtin_operators
import os
import pickletools
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch

from ...errors import InputError
from ..census import Census
from ..graphs import SMALL, census
from .aten import Listing, Name, Operation, graph, names
from .parsing import Archive

_MOST_CODE = 1 << 22  # characters parsed
_MOST_PICKLE = 1 << 22  # bytes
_MOST_STORAGE = 1 << 22  # bytes of a storage that small constants are taken from
_MOST_STEPS = 200_000
_MOST_ITEMS = 10_000
_DEPTH = 60
_STORAGES = {
    "FloatStorage": ("float32", "<f4"), "DoubleStorage": ("float64", "<f8"), "HalfStorage": ("float16", "<f2"),
    "BFloat16Storage": ("bfloat16", "<u2"), "LongStorage": ("int64", "<i8"), "IntStorage": ("int32", "<i4"),
    "ShortStorage": ("int16", "<i2"), "CharStorage": ("int8", "i1"), "ByteStorage": ("uint8", "u1"),
    "BoolStorage": ("bool", "u1"),
}  # fmt: skip
# The numbers of dtypes in TorchScript's code
_DTYPES = {0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 7: "float64",
           11: "bool", 15: "bfloat16"}  # fmt: skip


def identify(module: torch.jit.ScriptModule | torch.jit.ScriptFunction) -> Census:
    """The Census of a module or function in memory, by what `torch.jit.save` would write of it."""
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # PyTorch's, of TorchScript itself
            torch.jit.save(module, buffer)
    except RuntimeError as error:
        raise InputError(f"the TorchScript module cannot be saved: {str(error)[:300]}") from error
    buffer.seek(0)
    name = getattr(module, "original_name", None) or getattr(module, "name", None) or type(module).__name__
    with Archive(buffer, str(name), bare=True) as archive:
        return _census(archive, str(name))


def read(path: str | os.PathLike[str]) -> Census:
    """The Census of an archive of `torch.jit.save`. Raises InputError where it is none, or a damaged one."""
    what = os.fspath(path)
    with Archive(path, bare=True) as archive:
        if "data.pkl" not in archive.members or not any(name.startswith("code/") for name in archive.members):
            raise InputError(f"{what} is no TorchScript archive: it has no data.pkl, or no code")
        return _census(archive, os.path.basename(what))


def _census(archive: Archive, name: str) -> Census:
    try:
        script = _Script(archive, name)
        found = census(graph(script.listing()))
    except (RecursionError, MemoryError) as error:
        raise InputError(f"{archive.what}: its code is nested too deep to be followed") from error
    except (SyntaxError, KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{archive.what} is not laid out as torch.jit.save writes it ({error!r:.200})") from error
    return replace(found, notes=(*found.notes, *script.notes()))


# -- state


@dataclass(eq=False)
class _Global:
    """A name that a pickle or the code refers to: a class, a function. Nothing is imported for it."""

    name: str


@dataclass(eq=False)
class _Object:
    """An instance of a class in the archive: of a module, if `path` is told."""

    kind: str
    state: dict[str, Any] = field(default_factory=dict)
    path: str | None = None


@dataclass(eq=False)
class _Stored:
    """A tensor in the archive: where its elements lie, and which."""

    member: str
    storage: str
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    path: str = ""


def unpickled(content: bytes, folder: str) -> Any:
    """The values in a pickle of TorchScript. Objects become `_Object`s, tensors `_Stored`; nothing is called.

    Raises ValueError for opcodes that TorchScript does not write.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def popped() -> list[Any]:
        at = marks.pop()
        items = stack[at:]
        del stack[at:]
        return items

    for opcode, operand, _ in pickletools.genops(content):
        name, argument = opcode.name, cast(Any, operand)
        if name in ("PROTO", "FRAME"):
            continue
        if name == "STOP":
            return stack[-1]
        if name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "GLOBAL":
            stack.append(_Global(argument.replace(" ", ".")))
        elif name in ("NONE", "NEWTRUE", "NEWFALSE"):
            stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
        elif name in ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
                      "BINSTRING", "SHORT_BINSTRING"):  # fmt: skip
            stack.append(argument)
        elif name == "EMPTY_TUPLE":
            stack.append(())
        elif name == "TUPLE":
            stack.append(tuple(popped()))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            held = tuple(stack[-count:])
            del stack[-count:]
            stack.append(held)
        elif name in ("EMPTY_LIST", "EMPTY_DICT"):
            stack.append([] if name == "EMPTY_LIST" else {})
        elif name in ("APPENDS", "APPEND"):
            items = popped() if name == "APPENDS" else [stack.pop()]
            stack[-1].extend(items)
        elif name in ("SETITEMS", "SETITEM"):
            items = popped() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
        elif name == "BINPERSID":
            stack.append(_Storage.of(stack.pop(), folder))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments = stack.pop()
            stack.append(_made(stack.pop(), arguments))
        elif name == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], _Object):
                stack[-1].state = state if isinstance(state, dict) else {}
        elif name == "POP":
            stack.pop()
        else:
            raise ValueError(f"the pickle has an opcode {name}, which TorchScript does not write")
    raise ValueError("the pickle does not end")


@dataclass(eq=False)
class _Storage:
    member: str
    kind: str

    @staticmethod
    def of(identity: Any, folder: str) -> _Storage:
        word, kind, key = identity[:3]
        if word != "storage" or not isinstance(kind, _Global) or not isinstance(key, str):
            raise ValueError("a persistent id that is no storage")
        return _Storage(f"{folder}/{key}", kind.name.rpartition(".")[2])


def _made(kind: Any, arguments: Any) -> Any:
    """What a pickle says to make by calling `kind`; anything unknown is an object without state."""
    if not isinstance(kind, _Global) or not isinstance(arguments, tuple):
        raise ValueError("a pickle that calls what is no name")
    last = kind.name.rpartition(".")[2]
    if last.startswith("_rebuild_tensor") or last == "_rebuild_qtensor":
        storage, offset, size, stride = arguments[:4]
        plain = all(type(n) is int and n >= 0 for n in (offset, *size, *stride))
        if not isinstance(storage, _Storage) or not plain:
            raise ValueError("a tensor of no storage, or of negative size")
        return _Stored(storage.member, storage.kind, offset, tuple(size), tuple(stride))
    if last == "_rebuild_parameter":
        return arguments[0]
    if last in ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist", "restore_type_tag"):
        return arguments[0]
    return {} if last == "OrderedDict" and not arguments else _Object(kind.name)


# -- code


class _Return(Exception):
    def __init__(self, value: Any) -> None:
        self.value = value


class _Raised(Exception):
    """The code raises an exception here."""


_NUMBERS = (bool, int, float)


def _arithmetic(function: Callable[..., Any]) -> Callable[..., Any]:
    """Of numbers that stay as small as TorchScript's own; of short strings and lists."""

    def apply(*given: Any) -> Any:
        if all(isinstance(x, _NUMBERS) for x in given):
            result = function(*given)
            return result if isinstance(result, (bool, float)) or abs(result) < 1 << 63 else None
        if function is builtin_operators.add and type(given[0]) is type(given[1]) and isinstance(given[0], (str, list)):
            return given[0] + given[1] if len(given[0]) + len(given[1]) <= _MOST_ITEMS else given[0]
        raise TypeError("no numbers")

    return apply


def _power(x: Any, y: Any) -> Any:
    return float(x) ** float(y) if abs(y) > 63 or abs(x) > 1 << 20 else x**y


_SCALAR: dict[str, Callable[..., Any]] = {
    **{name: _arithmetic(getattr(builtin_operators, name)) for name in ("add", "sub", "mul", "neg", "floordiv")},
    "div": _arithmetic(builtin_operators.truediv), "remainder": _arithmetic(builtin_operators.mod),
    "pow": _arithmetic(_power), "sqrt": _arithmetic(math.sqrt), "exp": _arithmetic(math.exp),
    "log": _arithmetic(math.log), "floor": _arithmetic(math.floor), "ceil": _arithmetic(math.ceil),
    "eq": builtin_operators.eq, "ne": builtin_operators.ne, "lt": builtin_operators.lt, "le": builtin_operators.le,
    "gt": builtin_operators.gt, "ge": builtin_operators.ge, "__not__": builtin_operators.not_,
    "__is__": lambda x, y: x is y, "__isnot__": lambda x, y: x is not y, "__contains__": lambda xs, x: x in xs,
    "len": len, "Int": int, "Float": float, "Bool": bool, "all": all, "any": any,
    "__and__": lambda x, y: x and y, "__or__": lambda x, y: x or y, "__getitem__": lambda xs, i: xs[i],
    "list": list, "format": lambda text, *_: text, "min": min, "max": max,
    "is_autocast_enabled": lambda: False, "is_autocast_cpu_enabled": lambda: False, "is_grad_enabled": lambda: True,
    "is_scripting": lambda: True, "warn": lambda *_: None,
}  # fmt: skip
_COMPARISONS = {ast.Eq: "eq", ast.NotEq: "ne", ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge",
                ast.Is: "__is__", ast.IsNot: "__isnot__"}  # fmt: skip
_BINARY = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.FloorDiv: "floordiv",
           ast.Mod: "remainder", ast.Pow: "pow"}  # fmt: skip
_TRUTHS = {"eq", "ne", "lt", "le", "gt", "ge", "logical_not", "logical_and", "logical_or", "isnan", "isinf", "isfinite"}
# Numbers that only a run tells
_SIZES = {"size", "dim", "numel", "len", "item", "Int", "Float", "Bool", "ScalarImplicit", "FloatImplicit",
          "IntImplicit", "is_floating_point", "stride", "sym_size"}  # fmt: skip


class _Script:
    """The listing of an archive's forward."""

    def __init__(self, archive: Archive, name: str) -> None:
        self.archive = archive
        self.list = Listing(name)
        self.files: dict[str, dict[str, ast.stmt]] = {}
        self.parsed = 0
        self.steps = 0
        self.branches: list[str] = []
        self.taken: dict[str, int] = {}
        self.makers: dict[str, int] = {}
        root = unpickled(archive.read("data.pkl", _MOST_PICKLE), "data")
        if not isinstance(root, _Object):
            raise InputError(f"{archive.what}: its data is no module")
        self.root = root
        constants = (
            archive.read("constants.pkl", _MOST_PICKLE) if "constants.pkl" in archive.members else b"\x80\x02).."
        )
        self.constants = unpickled(constants, "constants")
        self._paths(root, "", 0)

    def _paths(self, item: Any, path: str, depth: int) -> None:
        """Tells each object of a module's state its path; of a shared one the first."""
        if depth > _DEPTH:
            raise InputError(f"{self.archive.what}: modules are nested more than {_DEPTH} deep")
        item.path = path
        for name, value in item.state.items():
            inner = f"{path}.{name}" if path else str(name)
            if isinstance(value, _Object) and value.path is None:
                self._paths(value, inner, depth + 1)
            elif isinstance(value, _Stored) and not value.path:
                value.path = inner

    def listing(self) -> Listing:
        function = self._method(self.root.kind, "forward")
        arguments: list[Any] = [self.root]
        plain = function.args.args[1:]
        required = plain[: len(plain) - len(function.args.defaults)]
        for given in required:
            value = self._fresh(given.arg)
            self.list.inputs.append(value)
            arguments.append(value)
        result = self._inline(function, arguments, {}, self.root, 0, _home(self.root.kind))
        self.list.outputs += dict.fromkeys(names(_contents(result)))
        held = (n for n in (*self.list.constants, *self.list.weights) if self.list.shapes[n])  # a scalar is a literal
        floats = {d for n in held if (d := self.list.dtypes[n]).startswith(("float", "bfloat"))}
        if len(floats) == 1:  # nothing is typed in the code; what the weights are in is computed in
            (dtype,) = floats
            for operation in self.list.operations:
                for output in operation.outputs:
                    self.list.dtypes.setdefault(output, dtype)
        return self.list

    def notes(self) -> Iterator[str]:
        if self.branches:
            where = ", ".join(dict.fromkeys(self.branches))
            yield f"conditions that only a run decides, in {where[:200]}: followed both ways"

    # -- code by name

    def _definitions(self, home: str) -> dict[str, ast.stmt]:
        """The classes and functions of a file of code, by name."""
        if home not in self.files:
            member = f"code/{home.replace('.', '/')}.py"
            text = self.archive.read(member, _MOST_CODE).decode("utf-8")
            self.parsed += len(text)
            if self.parsed > _MOST_CODE:
                raise InputError(f"{self.archive.what}: more than {_MOST_CODE:,} characters of code")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of Python about the text
                tree = ast.parse(text)
            self.files[home] = {s.name: s for s in tree.body if isinstance(s, (ast.ClassDef, ast.FunctionDef))}
        return self.files[home]

    def _class(self, kind: str) -> ast.ClassDef | None:
        home, _, name = kind.rpartition(".")
        if f"code/{home.replace('.', '/')}.py" not in self.archive.members:
            return None
        found = self._definitions(home).get(name)
        return found if isinstance(found, ast.ClassDef) else None

    def _method(self, kind: str, name: str) -> ast.FunctionDef:
        body = self._class(kind)
        for statement in body.body if body is not None else ():
            if isinstance(statement, ast.FunctionDef) and statement.name == name:
                return statement
        raise InputError(f"{self.archive.what}: {kind} has no method {name!r}")

    # -- following

    def _fresh(self, word: str) -> Name:
        number = self.taken.get(word, 0)
        self.taken[word] = number + 1
        return Name(f"{word}.{number}" if number else word)

    def _step(self) -> None:
        self.steps += 1
        if self.steps > _MOST_STEPS:
            raise InputError(f"{self.archive.what}: its code takes more than {_MOST_STEPS:,} steps to follow")

    def _inline(
        self,
        function: ast.FunctionDef,
        given: list[Any],
        keywords: dict[str, Any],
        owner: _Object,
        depth: int,
        home: str,
    ) -> Any:
        """What a function returns, its operations listed as those of `owner`'s forward."""
        if depth > _DEPTH:
            raise InputError(f"{self.archive.what}: calls are nested more than {_DEPTH} deep")
        frame = _Frame(self, owner, depth, home)
        parameters = [a.arg for a in function.args.args]
        for parameter, default in zip(parameters[::-1], function.args.defaults[::-1], strict=False):
            frame.held[parameter] = frame.value(default)
        frame.held.update(zip(parameters, given, strict=False))
        frame.held.update(keywords)
        try:
            frame.run(function.body)
        except _Return as result:
            return result.value
        return None

    def tensor(self, stored: _Stored) -> Name:
        """A stored tensor as a constant, or a weight, of the listing."""
        name = Name(stored.path or stored.member)
        if name in self.list.shapes:
            return name
        self.list.shapes[name] = stored.size
        dtype, code = _STORAGES.get(stored.storage, ("unknown", ""))
        self.list.dtypes[name] = dtype
        values = self._elements(stored, code) if code else None
        if values is None:
            self.list.weights[name] = stored.size
        else:
            self.list.constants[name] = values
        return name

    def _elements(self, stored: _Stored, code: str) -> np.ndarray | None:
        count = math.prod(stored.size)
        width = np.dtype(code).itemsize
        reach = stored.offset + 1 + sum((n - 1) * s for n, s in zip(stored.size, stored.stride, strict=True))
        info = self.archive.members.get(stored.member)
        if not 0 < count <= SMALL or info is None or not reach * width <= info.file_size <= _MOST_STORAGE:
            return None
        content = self.archive.read(stored.member, _MOST_STORAGE)
        flat = np.frombuffer(content[: len(content) // width * width], dtype=code)
        if code == "<u2":
            flat = (flat.astype("<u4") << 16).view("<f4")
        strides = tuple(s * flat.itemsize for s in stored.stride)
        viewed = np.lib.stride_tricks.as_strided(flat[stored.offset :], stored.size, strides, writeable=False)
        return viewed.astype(np.float64)

    def constant(self, number: int) -> Any:
        value = self.constants[number]
        if isinstance(value, _Stored) and not value.path:
            value.path = f"CONSTANTS.c{number}"
        return value

    def call(self, target: str, given: tuple, keywords: Mapping[str, Any], owner: _Object) -> Any:
        """An operator: computed where it is of numbers alone, else listed."""
        self._step()
        word = target.rpartition(".")[2]
        if target == "ops.prim.RaiseException":
            raise _Raised
        known = not list(names((given, dict(keywords)))) and not any(isinstance(g, _Unknown) for g in given)
        if word == "append" and isinstance(given[0], list):
            if len(given[0]) < _MOST_ITEMS:
                given[0].append(given[1])
            return None
        if word in ("__is__", "__isnot__") and any(g is None for g in given):
            same = all(g is None for g in given)  # a tensor is there
            return same if word == "__is__" else not same
        if word == "len" and isinstance(given[0], (list, tuple, dict)):
            return len(given[0])
        if word == "__getitem__" and isinstance(given[0], (list, tuple, dict)) and not isinstance(given[1], Name):
            return given[0][given[1]]
        if known and target.startswith(("torch.", "ops.prim.")) and word in _SCALAR:
            try:
                return _SCALAR[word](*given)
            except (TypeError, ValueError, ArithmeticError):
                return _Unknown()
        if target.startswith("ops.prim."):
            return self._primitive(word, given)
        if word in _SIZES or (word in _SCALAR and not any(isinstance(n, Name) for n in names(given))):
            return _Unknown()
        if word in ("eq", "ne", "lt", "le", "gt", "ge", "__not__", "__contains__") and not list(names(given)):
            return _Unknown()
        return self._listed(target, given, keywords, owner)

    def _primitive(self, word: str, given: tuple) -> Any:
        if word == "NumToTensor" or word == "data":
            return given[0]
        if word in ("is_nested", "is_sparse", "is_quantized", "is_mkldnn"):
            return False
        return True if word == "requires_grad" else _Unknown()

    def _listed(self, target: str, given: tuple, keywords: Mapping[str, Any], owner: _Object) -> Any:
        word = target.rpartition(".")[2]
        given, kept = _literal(given), _literal(dict(keywords))
        output = self._fresh(word.rstrip("_") or word)
        if word in ("to", "_to_copy", "type_as"):
            codes = [g for g in given[1:3] if type(g) is int] if word != "type_as" else []
            if codes and codes[0] in _DTYPES:
                self.list.dtypes[output] = _DTYPES[codes[0]]
        if word in _TRUTHS:
            self.list.dtypes[output] = "bool"
        self.makers[output] = len(self.list.operations)
        spelt = "aten." + target.removeprefix("torch.") if target.startswith("torch.") else target
        spelt = spelt.replace("ops.aten.", "aten.")
        self.list.operations.append(Operation(spelt, given, kept, (output,), owner.path))
        return output

    def parts(self, value: Any, count: int) -> list[Any]:
        """The first items of what an operator returned: several tensors."""
        if isinstance(value, (list, tuple)):
            return list(value)
        at = self.makers.get(value) if isinstance(value, Name) else None
        if at is None:
            return [_Unknown() if not isinstance(value, Name) else self._fresh_part(value) for _ in range(count)]
        operation = self.list.operations[at]
        if operation.outputs[0] != value:
            return [self._fresh_part(value) for _ in range(count)]
        more = tuple(Name(f"{value}:{i}") for i in range(len(operation.outputs), count))
        self.list.operations[at] = replace(operation, outputs=operation.outputs + more)
        return list(self.list.operations[at].outputs[:count])

    def _fresh_part(self, value: Name) -> Any:
        return self._listed("torch.__getitem__", (value, 0), {}, self.root)


class _Unknown:
    """A number, a size, a device: something that only a run tells, and no tensor."""


def _literal(item: Any) -> Any:
    """Arguments as an operation holds them: what is no literal and no value is left out."""
    if isinstance(item, (list, tuple)):
        return tuple(_literal(each) for each in item)
    if isinstance(item, dict):
        return {key: _literal(each) for key, each in item.items() if not isinstance(each, (_Unknown, _Object))}
    return None if isinstance(item, (_Unknown, _Object, _Global)) else item


def _contents(item: Any) -> Any:
    if isinstance(item, _Object):
        return list(item.state.values())
    return item


def _home(kind: str) -> str:
    return kind.rpartition(".")[0]


class _Frame:
    """One call: names, and the statements of its body."""

    def __init__(self, script: _Script, owner: _Object, depth: int, home: str) -> None:
        self.script = script
        self.owner = owner
        self.depth = depth
        self.home = home
        self.held: dict[str, Any] = {}

    # -- statements

    def run(self, body: list[ast.stmt]) -> None:
        for statement in body:
            self.script._step()
            if isinstance(statement, ast.Assign):
                value = self.value(statement.value)
                for target in statement.targets:
                    self._assign(target, value)
            elif isinstance(statement, ast.Expr):
                self.value(statement.value)
            elif isinstance(statement, ast.Return):
                raise _Return(None if statement.value is None else self.value(statement.value))
            elif isinstance(statement, ast.If):
                self._if(statement)
            elif isinstance(statement, (ast.For, ast.While)):
                self._loop(statement)
            elif not isinstance(statement, (ast.Pass, ast.AnnAssign, ast.Assert, ast.Import)):
                raise InputError(f"{self.script.archive.what}: its code has a {type(statement).__name__} statement")

    def _assign(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Name):
            self.held[target.id] = value
        elif isinstance(target, (ast.Tuple, ast.List)):
            parts = self.script.parts(value, len(target.elts))
            for each, part in zip(target.elts, parts, strict=True):
                self._assign(each, part)
        elif isinstance(target, ast.Attribute):
            owner = self.value(target.value)
            if isinstance(owner, _Object):
                owner.state[target.attr] = value

    def _if(self, statement: ast.If) -> None:
        condition = self.value(statement.test)
        if not isinstance(condition, (Name, _Unknown, _Object)):
            self.run(statement.body if condition else statement.orelse)
            return
        before = dict(self.held)
        returned: list[Any] = []
        ends: list[dict[str, Any]] = []
        for body in (statement.body, statement.orelse):
            self.held = dict(before)
            try:
                self.run(body)
                ends.append(self.held)
            except _Return as result:
                returned.append(result.value)
            except _Raised:
                continue
        if len(ends) + len(returned) > 1:
            self.script.branches.append(self.owner.path or "the model")
        if not ends:
            if not returned:
                raise _Raised
            raise _Return(self._merged(returned))
        self.held = ends[0]
        for name in self.held.keys() & ends[-1].keys():
            self.held[name] = self._merged([end[name] for end in ends])

    def _merged(self, values: list[Any]) -> Any:
        """One value for what differs from branch to branch."""
        first, last = values[0], values[-1]
        if first is last or (type(first) is type(last) and isinstance(first, (*_NUMBERS, str)) and first == last):
            return first
        if isinstance(first, (list, tuple)) and isinstance(last, (list, tuple)) and len(first) == len(last):
            return type(first)(self._merged([a, b]) for a, b in zip(first, last, strict=True))
        tensors = [v for v in (self._plain(first), self._plain(last)) if isinstance(v, Name)]
        if len(tensors) == 2:
            return self.script._listed("prim.If", tuple(tensors), {}, self.owner)
        return tensors[0] if tensors else _Unknown()

    def _plain(self, value: Any) -> Any:
        return self.script.tensor(value) if isinstance(value, _Stored) else value

    def _loop(self, statement: ast.For | ast.While) -> None:
        """A loop as often as is known, else its body once."""
        if isinstance(statement, ast.While):
            while True:
                self.script._step()
                condition = self.value(statement.test)
                known = isinstance(condition, (*_NUMBERS, str)) or condition is None
                if known and not condition:
                    return
                self.run(statement.body)
                if not known:
                    self.script.branches.append(self.owner.path or "the model")
                    return
        call = statement.iter
        given = [self.value(a) for a in call.args] if isinstance(call, ast.Call) else []
        known = bool(given) and all(type(g) is int for g in given)
        for number in range(*given) if known else range(1):
            self.script._step()
            self._assign(statement.target, number if known else _Unknown())
            self.run(statement.body)

    # -- expressions

    def value(self, node: ast.expr) -> Any:
        self.script._step()
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return self._named(node.id)
        if isinstance(node, ast.Attribute):
            return self._attribute(self.value(node.value), node.attr)
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, (ast.List, ast.Tuple)):
            items = [self.value(each) for each in node.elts]
            return items if isinstance(node, ast.List) else tuple(items)
        if isinstance(node, ast.Dict):
            keys = [self.value(key) for key in node.keys if key is not None]
            values = [self.value(each) for each in node.values]
            plain = [key if isinstance(key, (*_NUMBERS, str)) else id(key) for key in keys]
            return dict(zip(plain, values, strict=True))
        if isinstance(node, ast.Subscript):
            return self._item(self.value(node.value), node.slice)
        if isinstance(node, ast.IfExp):
            condition = self.value(node.test)
            if isinstance(condition, (Name, _Unknown, _Object)):
                return self._merged([self.value(node.body), self.value(node.orelse)])
            return self.value(node.body if condition else node.orelse)
        if isinstance(node, ast.UnaryOp):
            word = "__not__" if isinstance(node.op, ast.Not) else "neg"
            return self.script.call(f"torch.{word}", (self._plain(self.value(node.operand)),), {}, self.owner)
        if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
            given = tuple(self._plain(self.value(side)) for side in (node.left, node.right))
            return self.script.call(f"torch.{_BINARY[type(node.op)]}", given, {}, self.owner)
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARISONS:
            given = tuple(self._plain(self.value(side)) for side in (node.left, node.comparators[0]))
            return self.script.call(f"torch.{_COMPARISONS[type(node.ops[0])]}", given, {}, self.owner)
        if isinstance(node, ast.BoolOp):
            word = "__and__" if isinstance(node.op, ast.And) else "__or__"
            given = tuple(self.value(each) for each in node.values)
            return self.script.call(f"torch.{word}", given[:2], {}, self.owner)
        raise InputError(f"{self.script.archive.what}: its code has a {type(node).__name__} expression")

    def _named(self, name: str) -> Any:
        if name in self.held:
            return self.held[name]
        if name in ("inf", "nan"):
            return float(name)
        return _Global(name)

    def _attribute(self, owner: Any, name: str) -> Any:
        if isinstance(owner, _Global):
            if owner.name == "CONSTANTS":
                return self.script.constant(int(name.removeprefix("c")))
            return _Global(f"{owner.name}.{name}")
        if isinstance(owner, _Object):
            if name in owner.state:
                return owner.state[name]
            return self._final(owner, name)
        return _Unknown()

    def _final(self, owner: _Object, name: str) -> Any:
        """A constant of a module's class: `negative_slope : Final[float] = 0.2`."""
        body = self.script._class(owner.kind)
        for statement in body.body if body is not None else ():
            if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
                continue
            if statement.target.id == name and statement.value is not None:
                return self.value(statement.value)
        return _Method(owner, name)

    def _item(self, owner: Any, index: ast.expr) -> Any:
        key = self.value(index)
        if isinstance(owner, (list, tuple, dict)) and not isinstance(key, (Name, _Unknown)):
            return owner[key]
        if isinstance(owner, Name) and type(key) is int and 0 <= key < 64:
            return self.script.parts(owner, key + 1)[key]
        return _Unknown()

    def _call(self, node: ast.Call) -> Any:
        script = self.script
        function = self.value(node.func)
        if isinstance(function, _Global) and function.name in ("annotate", "unchecked_cast", "uninitialized"):
            return self.value(node.args[1]) if len(node.args) > 1 else _Unknown()
        given = [self.value(each) for each in node.args]
        keywords = {k.arg: self.value(k.value) for k in node.keywords if k.arg is not None}
        if isinstance(function, _Method):
            home = _home(function.owner.kind)
            method = script._method(function.owner.kind, function.name)
            return script._inline(method, [function.owner, *given], keywords, function.owner, self.depth + 1, home)
        if not isinstance(function, _Global):
            return _Unknown()
        name = function.name
        if name == "getattr" and len(given) == 2 and isinstance(given[1], str):
            return self._attribute(given[0], given[1])
        if name in ("int", "float", "bool") and given:
            if isinstance(given[0], _NUMBERS) or type(given[0]) is str:
                return {"int": int, "float": float, "bool": bool}[name](given[0])
            return _Unknown()
        if name.startswith("__torch__."):
            return self._defined(name, given, keywords)
        if name.startswith(("torch.", "ops.")):
            plain = tuple(self._deep(each) for each in given)
            return script.call(name, plain, {k: self._deep(v) for k, v in keywords.items()}, self.owner)
        return _Unknown()

    def _deep(self, item: Any) -> Any:
        if isinstance(item, tuple):
            return tuple(self._deep(each) for each in item)
        if isinstance(item, list) and any(isinstance(each, _Stored) for each in item):
            return [self._plain(each) for each in item]
        return self._plain(item)

    def _defined(self, name: str, given: list[Any], keywords: dict[str, Any]) -> Any:
        """A function of the archive, inlined; of a class, an object of it."""
        home, _, last = name.rpartition(".")
        found = self.script._definitions(home).get(last)
        if isinstance(found, ast.FunctionDef):
            return self.script._inline(found, given, keywords, self.owner, self.depth + 1, home)
        if isinstance(found, ast.ClassDef):  # a named tuple, or an object of the user's own
            fields = [
                s.target.id for s in found.body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)
            ]
            return _Object(name, dict(zip(fields, given, strict=False)))
        raise InputError(f"{self.script.archive.what}: its code calls {name}, which is not there")


@dataclass(eq=False)
class _Method:
    owner: _Object
    name: str
