"""Methods that apply activations themselves, read and written anew with single expressions replaced.

`places` lists the calls of a method and the products `f(x) * y`; `rewrite` makes the method with some of them handed
to other functions. Everything else stays the very code it was: control flow, arguments, attributes, line numbers,
globals, closures. The source is taken only where it compiles to exactly the code that is loaded; nothing in it is
executed (decorators, defaults and annotations are not evaluated again).
"""

from __future__ import annotations
import __future__

import ast
import functools
import inspect
import linecache
import types
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_FUTURES = functools.reduce(int.__or__, (getattr(__future__, n).compiler_flag for n in __future__.all_feature_names))
_COMPOUND = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match, ast.FunctionDef,
             ast.AsyncFunctionDef, ast.ClassDef)  # fmt: skip
_SCOPES = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


class Unreadable(Exception):
    """Why a method's source cannot be had, in a few words."""


@dataclass(frozen=True)
class Place:
    """One expression of a method.

    kind: "call" of what the dotted name `callee` stands for; "method" call of whatever object; or "product", a call of
    `callee` times something. callee: "self.act_fn", "F.silu", and "sigmoid" for `(x + 1).sigmoid()`. lines: first and
    last of the call. at, call: the position of the whole expression, and of the call. first: of a product, whether the
    call stands before the other factor. stored: of a product, where the call is that an earlier statement put into a
    variable used only here, else None.
    """

    method: str
    kind: str
    callee: str
    lines: tuple[int, int]
    at: tuple[int, ...]
    call: tuple[int, ...]
    first: bool = True
    stored: tuple[int, ...] | None = None


@functools.lru_cache(maxsize=1024)
def places(function: types.FunctionType) -> tuple[Place, ...]:
    """Every place of the function. Raises Unreadable."""
    tree = _read(function)[1]
    name = function.__name__
    found = list(_stored_products(tree, name))
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            for side, other, first in ((node.left, node.right, True), (node.right, node.left, False)):
                if _single(side) and not isinstance(other, ast.Constant) and not _overwrites(other):
                    assert isinstance(side, ast.Call)
                    found.append(
                        Place(name, "product", _dotted(side.func) or "", _lines(side), _at(node), _at(side), first)
                    )
        if isinstance(node, ast.Call):
            callee = _dotted(node.func)
            if callee is not None:
                found.append(Place(name, "call", callee, _lines(node), _at(node), _at(node)))
            if isinstance(node.func, ast.Attribute):
                found.append(Place(name, "method", node.func.attr, _lines(node), _at(node), _at(node)))
    return tuple(found)


def locals_of(function: types.FunctionType) -> set[str]:
    """Names that are local to the function or to a function in it, but the first argument."""
    codes, names = [function.__code__], set()
    while codes:
        code = codes.pop()
        names |= {*code.co_varnames, *code.co_cellvars}
        codes += [each for each in code.co_consts if isinstance(each, types.CodeType)]
    return names - {*function.__code__.co_varnames[:1]}


def rewrite(
    function: types.FunctionType, chosen: frozenset[Place], helpers: Mapping[str, Callable[..., Any]]
) -> types.FunctionType:
    """The function with the expressions at the chosen places handed to `helpers`:

    f(x, …)   → call(f, x, …)
    y.f(x, …) → method(y, "f", x, …)
    f(x) * y  → before(f, x, y)
    y * f(x)  → after(y, f, x)

    Raises Unreadable.
    """
    module, tree, path = _read(function)
    outer = module.body[-1]
    assert isinstance(outer, ast.FunctionDef)
    names = {f"_softknee_{word}": helper for word, helper in helpers.items()}
    outer.args.args += [ast.arg(name) for name in names]
    _Rewriter({place.at: place for place in chosen}, {p.stored for p in chosen if p.stored is not None}).visit(tree)
    ast.fix_missing_locations(module)
    code = _compiled(module, path, function)
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    closure = tuple(cells[n] if n in cells else types.CellType(names[n]) for n in code.co_freevars)
    made = types.FunctionType(code, function.__globals__, function.__name__, function.__defaults__, closure)
    made.__kwdefaults__ = function.__kwdefaults__
    made.__annotations__ = function.__annotations__
    made.__doc__, made.__qualname__, made.__module__ = function.__doc__, function.__qualname__, function.__module__
    made.__dict__.update(function.__dict__)
    return made


# -- reading


def _read(function: types.FunctionType) -> tuple[ast.Module, ast.FunctionDef, str]:
    """The function's syntax inside a module, itself, and its file; fresh, to be changed."""
    code = function.__code__
    if hasattr(function, "__wrapped__"):
        raise Unreadable("is decorated")
    try:
        lines, start = inspect.getsourcelines(code)
    except (OSError, TypeError, SyntaxError, IndexError):
        raise Unreadable("has no source at hand") from None
    text = "".join(lines)
    indented = text[:1].isspace()
    try:
        parsed = _parsed(f"class _:\n{text}" if indented else text)
    except SyntaxError:
        raise Unreadable("has a source that cannot be read by itself") from None
    tree: Any = parsed.body[0].body[0] if indented else parsed.body[0]  # type: ignore[attr-defined]
    if not isinstance(tree, ast.FunctionDef):
        raise Unreadable("is no plain function")
    ast.increment_lineno(tree, start - 1 - indented)
    tree.decorator_list = []
    # the class gives its name to private attributes, and its cell to super(); as a global it hides nothing
    owner = [part for part in function.__qualname__.split(".") if part != "<locals>"][-2:-1]
    body: list[ast.stmt] = [tree]
    if owner or "__class__" in code.co_freevars:
        name = owner[0] if owner else "_"
        body = [ast.ClassDef(name, [], [], body, [])]
        body[0].__dict__.setdefault("type_params", [])
        if name not in code.co_freevars:
            body.insert(0, ast.Global([name]))
    free = [ast.arg(name) for name in code.co_freevars if name != "__class__"]
    outer = ast.FunctionDef("_outer", ast.arguments([], free, None, [], [], None, []), body, [])
    outer.__dict__.setdefault("type_params", [])
    # methods of imported names are compiled otherwise than methods of values
    imported = sorted(_imported(code.co_filename) & {*global_names(code)})
    imports: list[ast.stmt] = [ast.Import([ast.alias(name) for name in imported])] if imported else []
    module = ast.fix_missing_locations(ast.Module([*imports, outer], []))
    if not _same(_compiled(module, code.co_filename, function), code):
        raise Unreadable("is not what its source says: the file has changed, or the code was made otherwise")
    return module, tree, code.co_filename


def _parsed(text: str) -> ast.Module:
    # somebody's escapes in docstrings are not ours to warn of, again
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text)


@functools.lru_cache(maxsize=64)
def _imported(path: str) -> set[str]:
    """The names that the file imports outside of functions and classes."""
    try:
        waiting: list[ast.AST] = [_parsed("".join(linecache.getlines(path)))]
    except SyntaxError:
        return set()
    found = set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.expr)):
            waiting += ast.iter_child_nodes(node)
    return found - {"*"}


def global_names(code: types.CodeType) -> Iterator[str]:
    """Names of globals and attributes that the code, or a function in it, uses."""
    yield from code.co_names
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from global_names(each)


def _compiled(module: ast.Module, path: str, function: types.FunctionType) -> types.CodeType:
    flags = function.__code__.co_flags & _FUTURES
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code = compile(module, path, "exec", flags=flags, dont_inherit=True)
    while True:
        inner = [each for each in code.co_consts if isinstance(each, types.CodeType)]
        named = [each for each in inner if each.co_name == function.__code__.co_name]
        if named and code.co_name != "<module>":
            return named[0]
        if not inner:
            raise Unreadable("has a source that cannot be read by itself")
        code = inner[0]


def _same(a: types.CodeType, b: types.CodeType) -> bool:
    alike = all(
        getattr(a, name) == getattr(b, name)
        for name in ("co_code", "co_names", "co_varnames", "co_freevars", "co_cellvars", "co_argcount",
                     "co_posonlyargcount", "co_kwonlyargcount")
    )  # fmt: skip
    alike = alike and not (a.co_flags ^ b.co_flags) & ~inspect.CO_NESTED  # inside a function, as ours is
    return alike and len(a.co_consts) == len(b.co_consts) and all(map(_same_constant, a.co_consts, b.co_consts))


def _same_constant(a: Any, b: Any) -> bool:
    if isinstance(a, types.CodeType) and isinstance(b, types.CodeType):
        return _same(a, b)
    if type(a) is not type(b):
        return False
    if isinstance(a, (tuple, frozenset)):  # a frozenset is written in any order
        a, b = (sorted(map(repr, each)) if isinstance(each, frozenset) else map(repr, each) for each in (a, b))
        return list(a) == list(b)
    return repr(a) == repr(b)  # which tells 0.0 from -0.0, and equal NaNs


# -- finding


def _dotted(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := _dotted(node.value)) is not None:
        return f"{before}.{node.attr}"
    return None


def _single(node: ast.expr) -> bool:
    """Whether it is `f(x)`, f a dotted name."""
    return (
        isinstance(node, ast.Call)
        and len(node.args) == 1
        and not node.keywords
        and not isinstance(node.args[0], ast.Starred)
        and _dotted(node.func) is not None
    )


def _at(node: ast.expr) -> tuple[int, ...]:
    return (node.lineno, node.col_offset, node.end_lineno or 0, node.end_col_offset or 0)


def _lines(node: ast.expr) -> tuple[int, int]:
    return (node.lineno, node.end_lineno or node.lineno)


def _stored_products(tree: ast.FunctionDef, name: str) -> Iterator[Place]:
    """`h = f(x)`, and in a later statement of the same block `h * y`, the one use of h.

    Between them nothing may change x: x is a call's result, or made of names that do not occur again.
    """
    uses = Counter(_names(tree, stored=False))
    stores = Counter(_names(tree, stored=True))
    for block in _blocks(tree):
        for i, statement in enumerate(block):
            if not (isinstance(statement, ast.Assign) and len(statement.targets) == 1 and _single(statement.value)):
                continue
            target, call = statement.targets[0], statement.value
            assert isinstance(call, ast.Call)
            if not isinstance(target, ast.Name) or uses[target.id] != 1 or stores[target.id] != 1:
                continue
            argument = call.args[0]
            given = set() if isinstance(argument, ast.Call) else set(_names(argument, stored=False))
            for later in block[i + 1 :]:
                if isinstance(later, _COMPOUND):
                    break
                node = next((n for n in _outside_scopes(later) if _multiplies(n, target.id)), None)
                seen = {*_names(later, stored=False), *(_names(later, stored=True) if node is None else ())}
                if given & seen or _overwrites(later):
                    break
                if node is not None:
                    first = isinstance(node.left, ast.Name) and node.left.id == target.id
                    callee = _dotted(call.func) or ""
                    yield Place(name, "product", callee, _lines(call), _at(node), _at(call), first, _at(call))
                    break


def _overwrites(tree: ast.AST) -> bool:
    """Whether it says that it works in place: `x.mul_(2)`, `x += 1`, `x[0] = 1`, `inplace=`, `out=`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            named = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            if named.endswith("_") and not named.startswith("_"):
                return True
            if any(keyword.arg in ("inplace", "out", None) for keyword in node.keywords):
                return True
        elif isinstance(node, ast.AugAssign) or (isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store)):
            return True
    return False


def _multiplies(node: ast.AST, name: str) -> bool:
    return (
        isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Mult)
        and any(isinstance(side, ast.Name) and side.id == name for side in (node.left, node.right))
    )


def _names(tree: ast.AST, stored: bool) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) is not stored:
            yield node.id
        elif stored and isinstance(node, ast.arg):
            yield node.arg
        elif stored and isinstance(node, (ast.Global, ast.Nonlocal)):
            yield from node.names * 2


def _blocks(tree: ast.AST) -> Iterator[list[ast.stmt]]:
    for node in ast.walk(tree):
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list):
                yield block


def _outside_scopes(tree: ast.AST) -> Iterator[Any]:
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [each for each in ast.iter_child_nodes(node) if not isinstance(each, _SCOPES)]


# -- writing


class _Rewriter(ast.NodeTransformer):
    def __init__(self, chosen: Mapping[tuple[int, ...], Place], stored: set[tuple[int, ...]]) -> None:
        self.chosen = chosen
        self.stored = stored

    def visit_Call(self, node: ast.Call) -> ast.expr:
        at = _at(node)
        place = self.chosen.get(at)
        self.generic_visit(node)
        if at in self.stored:  # f and x, to be applied where the product is
            return ast.copy_location(ast.Tuple([node.func, node.args[0]], ast.Load()), node)
        if place is None or place.kind == "product":
            return node
        if place.kind == "call":
            return _call("call", [node.func, *node.args], node, node.keywords)
        assert isinstance(node.func, ast.Attribute)
        return _call("method", [node.func.value, ast.Constant(node.func.attr), *node.args], node, node.keywords)

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        place = self.chosen.get(_at(node))
        self.generic_visit(node)
        if place is None or place.kind != "product":
            return node
        call, other = (node.left, node.right) if place.first else (node.right, node.left)
        if place.stored is not None:
            assert isinstance(call, ast.Name)
            pair = ast.Name(call.id, ast.Load())
            parts: list[ast.expr] = [ast.Subscript(pair, ast.Constant(i), ast.Load()) for i in (0, 1)]
        else:
            assert isinstance(call, ast.Call)
            parts = [call.func, call.args[0]]
        return _call("before", [*parts, other], node) if place.first else _call("after", [other, *parts], node)


def _call(word: str, arguments: list[ast.expr], place: ast.expr, keywords: list[ast.keyword] | None = None) -> ast.expr:
    made = ast.Call(ast.Name(f"_softknee_{word}", ast.Load()), arguments, keywords or [])
    return ast.copy_location(made, place)
