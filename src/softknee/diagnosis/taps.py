"""The inputs of known activation modules, read as cheaply as a hook allows.

An `Observer` finds out which activations a forward applies, functions included. Once a census says that all sites of
a model are modules, and a probe wants nothing but their inputs, one hook per module does at a fifth of the cost. The
callback gets the same calls under the same keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from softknee.identification import Census, Site
from softknee.identification.observation import original


class Tap:
    """One site, as a callback gets it; `inputs` only lasts as long as the callback runs."""

    __slots__ = ("activation", "inplace", "inputs", "key", "parameters", "path")

    def __init__(self, site: Site, module: nn.Module) -> None:
        self.key, self.path, self.parameters = site.key, site.path, site.parameters
        self.activation = site.definition
        self.inplace = bool(getattr(module, "inplace", False))
        self.inputs: tuple[Tensor, ...] = ()


class Taps:
    """Context manager: `before(tap)` just before each activation module of `census` is applied, within a forward."""

    def __init__(self, model: nn.Module, census: Census, before: Callable[[Any], None]) -> None:
        self.model, self.before = original(model), before
        self.sites: dict[str, list[Site]] = {}
        for site in census.sites:
            if site.measured:
                self.sites.setdefault(site.path, []).append(site)
        self._handles: list[Any] = []

    def __enter__(self) -> Taps:
        counters: list[list[int]] = []
        for path, sites in self.sites.items():
            module = self.model.get_submodule(path)
            taps = [Tap(site, module) for site in sorted(sites, key=lambda site: site.call)]
            if len(taps) == 1:
                hook = self._one(taps[0])
            else:
                counters.append([0])
                hook = self._several(taps, counters[-1])
            self._handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
        if counters:

            def begin(module: nn.Module, args: tuple[Any, ...]) -> None:
                for counter in counters:
                    counter[0] = 0

            self._handles.append(self.model.register_forward_pre_hook(begin, prepend=True))
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take every hook off; safe to call twice."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _one(self, tap: Tap) -> Callable[..., None]:
        before = self.before

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            tap.inputs = args or tuple(kwargs.values())
            before(tap)
            tap.inputs = ()

        return hook

    def _several(self, taps: list[Tap], counter: list[int]) -> Callable[..., None]:
        before = self.before

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            number, counter[0] = counter[0], counter[0] + 1
            if number < len(taps):
                tap = taps[number]
                tap.inputs = args or tuple(kwargs.values())
                before(tap)
                tap.inputs = ()

        return hook
