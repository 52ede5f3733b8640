"""Models and data named on the command line: a model's file, `pkg.module:build` or `path/to/file.py:build`.

A Python file is imported and the attribute taken; it is a Module, or called without arguments to give one. Nothing
else is executed.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import Any

from torch import nn

from ..errors import InputError, closest


def is_file(target: str) -> bool:
    """Whether `target` names a model's file or directory rather than `module:build`.

    Raises InputError for a path that does not exist, and for a Python file without what builds the model.
    """
    there = os.path.exists(target)
    place, colon, attribute = target.rpartition(":")
    if there and target.endswith(".py"):
        raise InputError(f"{target} is a Python file: name what builds the model, {target}:build")
    if there or (colon and place and attribute):
        return there
    raise InputError(f"there is no file {target!r}; a target is that, or pkg.module:build or path/to/file.py:build")


def load_target(target: str) -> nn.Module:
    """The module that `target` names. Raises InputError where it cannot be had, with what was found instead."""
    found = load_object(target)
    if isinstance(found, nn.Module):
        return found
    if not callable(found):
        kind = type(found).__name__
        raise InputError(f"{target} is of type {kind}; it must be a torch.nn.Module or a function that returns one")
    model = call(found, target)
    if not isinstance(model, nn.Module):
        raise InputError(f"{target} returned a {type(model).__name__}; it must return a torch.nn.Module")
    return model


def load_data(target: str) -> Any:
    """The data that `target` names; a function is called for them. Raises InputError where they cannot be had."""
    found = load_object(target)
    return call(found, target) if callable(found) and not hasattr(found, "__iter__") else found


def call(function: Any, target: str) -> Any:
    """`function()`; what it raises becomes an InputError that names the target."""
    try:
        return function()
    except (Exception, SystemExit) as error:
        raise InputError(f"{target} could not be called without arguments: {_spelled(error)}") from error


def _spelled(error: BaseException) -> str:
    # a script that was not meant to be imported ends in sys.exit(main())
    return (
        f"it called sys.exit({error.code!r})" if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
    )


def load_object(target: str) -> Any:
    """What the name `target` stands for. Raises InputError for another form, a missing file, module or name."""
    place, colon, attribute = target.rpartition(":")
    if not colon or not place or not attribute:
        raise InputError(f"target {target!r} is not of the form pkg.module:build or path/to/file.py:build")
    found: Any = _file(place, target) if place.endswith(".py") or os.sep in place else _module(place, target)
    for name in attribute.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            hint = closest(name, [n for n in dir(found) if not n.startswith("_")])
            raise InputError(f"{place} has no {attribute!r}{hint}") from None
    return found


def _file(path: str, target: str) -> Any:
    if not os.path.isfile(path):
        raise InputError(f"there is no file {path!r} (for {target!r})")
    name = f"softknee_target_{os.path.splitext(os.path.basename(path))[0]}"
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise InputError(f"{path!r} is not a Python file")
    module = importlib.util.module_from_spec(specification)
    folder = os.path.dirname(os.path.abspath(path))
    sys.path.insert(0, folder)  # a script may import its neighbours
    sys.modules[name] = module  # dataclasses look their module up while it is made
    try:
        specification.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        raise InputError(f"{path} could not be imported: {_spelled(error)}") from error
    finally:
        sys.path.remove(folder)
    return module


def _module(name: str, target: str) -> Any:
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise InputError(f"{name} could not be imported (for {target!r}): {_spelled(error)}") from error
    finally:
        if here in sys.path:
            sys.path.remove(here)
