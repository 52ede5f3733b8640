"""Methods written anew: nothing but the chosen expressions changes, and what cannot be read is not guessed."""

from __future__ import annotations

import inspect
import linecache

import pytest

from softknee.kernelization import rewriting
from softknee.kernelization.rewriting import Unreadable, places, rewrite


def f(x):
    return x + 1


FACTOR = 3


class Base:
    def scaled(self, x):
        return FACTOR * x


class Odd(Base):
    """super(), private names, closures of its own, defaults, nested functions, early returns."""

    __secret = 5
    act = staticmethod(f)

    def scaled(self, x, *rest, by=2, **more):
        """Doc."""
        if x < 0:
            return 0
        inner = lambda y: f(y) * by  # noqa: E731
        total = sum(f(i) * i for i in range(3)) + len(rest) + len(more)
        return super().scaled(x) + self.__secret + inner(x) * f(x) + total

    def stored(self, x, y):
        h = self.act(f(x))
        y = f(y)
        return h * y

    def reused(self, x, y):
        h = f(x)
        return h * y + h

    def seen_between(self, x, y):
        h = f(x)
        x += 1
        return h * y + x

    def branches(self, x, y):
        h = f(x)
        if y > 1:
            return h * y
        return y

    def loops(self, x, y):
        for _ in range(2):
            h = f(f(x))
            y = y * h
        return y


def enclosing(offset):
    class Local:
        def method(self, x):
            return f(x) * offset

    return Local


def counted():
    """Helpers that do what they stand for, and note it."""
    seen = []

    def call(function, *args, **kwargs):
        seen.append(("call", function.__name__))
        return function(*args, **kwargs)

    def method(receiver, name, *args, **kwargs):
        seen.append(("method", name))
        return getattr(receiver, name)(*args, **kwargs)

    def before(function, x, y):
        seen.append(("before", function.__name__))
        return function(x) * y

    def after(y, function, x):
        seen.append(("after", function.__name__))
        return y * function(x)

    return seen, {"call": call, "method": method, "before": before, "after": after}


def chosen(function, *kinds):
    return frozenset(p for p in places(function) if p.kind in kinds and p.callee in ("f", "self.act"))


def test_everything_else_is_the_same():
    seen, helpers = counted()
    theirs = Odd.scaled
    ours = rewrite(theirs, chosen(theirs, "product"), helpers)
    assert ours(Odd(), 4, 1, 2, by=5, z=1) == theirs(Odd(), 4, 1, 2, by=5, z=1)
    assert ours(Odd(), -1) == 0
    assert seen == [("before", "f")] * 4 + [("after", "f")]
    assert inspect.signature(ours) == inspect.signature(theirs) and ours.__doc__ == "Doc."
    assert ours.__globals__ is theirs.__globals__ and ours.__qualname__ == theirs.__qualname__


def test_line_numbers_stay():
    _, helpers = counted()
    ours = rewrite(Odd.scaled, chosen(Odd.scaled, "product"), helpers)
    assert ours.__code__.co_firstlineno == Odd.scaled.__code__.co_firstlineno
    assert {line for *_, line in ours.__code__.co_lines()} == {line for *_, line in Odd.scaled.__code__.co_lines()}
    with pytest.raises(TypeError) as error:
        ours(Odd(), None)
    assert error.traceback[-1].path == error.traceback[0].path
    assert "if x < 0" in linecache.getline(str(error.traceback[-1].path), error.traceback[-1].lineno + 1)


def test_globals_and_closures_are_live(monkeypatch):
    _, helpers = counted()
    local = enclosing(7)
    ours = rewrite(local.method, chosen(local.method, "product"), helpers)
    assert ours(local(), 2) == 21
    monkeypatch.setitem(globals(), "f", lambda x: x)
    assert ours(local(), 2) == 14


def test_calls():
    seen, helpers = counted()
    ours = rewrite(Odd.stored, chosen(Odd.stored, "call"), helpers)
    assert ours(Odd(), 1, 2) == Odd().stored(1, 2)
    assert len(seen) == 3


def test_a_stored_call_is_applied_where_the_product_is():
    seen, helpers = counted()
    (place,) = chosen(Odd.stored, "product")
    assert place.stored is not None and place.first and place.callee == "self.act"
    ours = rewrite(Odd.stored, frozenset([place]), helpers)
    assert ours(Odd(), 1, 2) == Odd().stored(1, 2) and seen == [("before", "f")]
    seen.clear()
    (place,) = chosen(Odd.loops, "product")
    assert not place.first
    assert rewrite(Odd.loops, frozenset([place]), helpers)(Odd(), 1, 2) == Odd().loops(1, 2)
    assert seen == [("after", "f")] * 2


@pytest.mark.parametrize("function", [Odd.reused, Odd.seen_between, Odd.branches], ids=lambda f: f.__name__)
def test_a_call_whose_result_or_input_is_used_otherwise_stays(function):
    assert not chosen(function, "product")


def test_what_cannot_be_read():
    space = {"f": f}
    exec("def method(self, x):\n    return f(x) * 2", space)
    with pytest.raises(Unreadable, match="no source at hand"):
        places(space["method"])

    def wrapped(self, x):
        return f(x)

    wrapped.__wrapped__ = f
    with pytest.raises(Unreadable, match="decorated"):
        places(wrapped)


def test_a_file_that_has_changed_is_not_believed(tmp_path):
    path = tmp_path / "changing.py"
    source = "def method(self, x):\n    return f(x) * {}\n"
    path.write_text(source.format("x"))
    space = {"f": f}
    exec(compile(path.read_text(), str(path), "exec"), space)
    assert len(chosen(space["method"], "product")) == 1
    places.cache_clear()
    path.write_text(source.format("self"))
    linecache.checkcache(str(path))
    with pytest.raises(Unreadable, match="the file has changed"):
        places(space["method"])


def test_methods_of_torch_compile_to_what_is_loaded():
    """The check against the loaded code passes where nothing has changed, whatever the code is like."""
    import types

    from torch.nn.modules import activation, batchnorm, container, conv, transformer

    read = 0
    for module in (activation, batchnorm, conv, container, transformer):
        for cls in vars(module).values():
            if isinstance(cls, type) and cls.__module__ == module.__name__:
                for function in vars(cls).values():
                    if isinstance(function, types.FunctionType) and not hasattr(function, "__wrapped__"):
                        rewriting.places(function)
                        read += 1
    assert read > 150
