"""A bounded series of measurements over steps that never waits for the device while it grows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Series:
    """(step, value) pairs, values being scalars or vectors of one length; at most `limit` of them.

    When full, every second one is dropped and from then on only every second one is taken, so that the series always
    spans the whole time, evenly. Tensors are kept detached on their device until `values` is read.
    """

    def __init__(self, limit: int = 512) -> None:
        self.limit = limit
        self.steps: list[int] = []
        self._values: list[Any] = []
        self._stride = 1
        self._seen = 0

    def add(self, step: int, value: Any) -> None:
        if self._stride == 1 or self._seen % self._stride == 0:
            if len(self.steps) >= self.limit:
                self.steps = self.steps[::2]
                self._values = self._values[::2]
                self._stride *= 2
                if self._seen % self._stride:
                    self._seen += 1
                    return
            self.steps.append(step)
            self._values.append(value.detach() if isinstance(value, Tensor) else value)
        self._seen += 1

    def __len__(self) -> int:
        return len(self.steps)

    def values(self) -> list[Any]:
        """The values as Python floats, or as lists of floats. Waits for the device."""
        out: list[Any] = list(self._values)
        where = [i for i, value in enumerate(out) if isinstance(value, Tensor)]
        shapes = {out[i].shape for i in where}
        if len(shapes) == 1 and len({(out[i].device, out[i].dtype) for i in where}) == 1:
            for i, value in zip(where, torch.stack([out[i] for i in where]).tolist(), strict=True):
                out[i] = value
        else:
            for i in where:
                out[i] = out[i].tolist()
        self._values = list(out)
        return out
