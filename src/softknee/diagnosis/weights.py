"""What is measured of a model's weights: their gain at the start, gradient norms, and how far a step moves them.

Only matrices (and convolutions, embeddings) are looked at: biases start at zero, so ratios to them mean nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

SAMPLE = 512
"""Elements per weight from which ‖Δw‖/‖w‖ is estimated."""
FLOOR = 0.1
"""Weights smaller than this gain count as this large, so that a zero-initialised one does not look unstable."""


class Weights:
    """The trainable matrices of a model on one device, in the order of `named_parameters`."""

    def __init__(self, model: nn.Module) -> None:
        found = [
            (name, parameter)
            for name, parameter in model.named_parameters()
            if not isinstance(parameter, nn.parameter.UninitializedParameter)
            and parameter.dim() > 1
            and parameter.requires_grad
            and parameter.is_floating_point()
            and parameter.numel() > 0
        ]
        if found:
            device = found[0][1].device
            found = [(name, parameter) for name, parameter in found if parameter.device == device]
        self.names = tuple(name for name, _ in found)
        self.parameters = [parameter for _, parameter in found]
        self.spreads = _spreads(model)
        """Path of a module → standard deviation of its weight, at the start."""
        self._views: list[Tensor] = []
        self._pointers: list[int] = []
        self._segments: Tensor | None = None
        self._floor: Tensor | None = None

    def _refresh(self) -> None:
        """Views of the sampled elements; made anew when a parameter's storage was replaced."""
        pointers = [parameter.data_ptr() for parameter in self.parameters]
        if pointers == self._pointers and self._views:
            return
        self._pointers = pointers
        self._views = []
        floors, lengths = [], []
        for parameter in self.parameters:
            data = parameter.detach()
            count = data.numel()
            stride = max(1, count // SAMPLE)
            take = min(count, SAMPLE)
            if data.is_contiguous():
                view = data.view(-1)[: stride * (take - 1) + 1 : stride]
            else:
                rows = max(1, take // max(1, count // data.shape[0]))
                view = data[:: max(1, data.shape[0] // rows)]
            self._views.append(view)
            lengths.append(view.numel())
            floors.append(FLOOR * math.sqrt(view.numel() * data.shape[0] / count))
        device = self.parameters[0].device
        self._segments = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).to(device)
        self._floor = torch.tensor(floors, device=device)

    @torch.no_grad()
    def snapshot(self) -> Tensor | None:
        """A copy of the sampled elements of all weights, packed; None where there are none."""
        if not self.parameters:
            return None
        self._refresh()
        return torch.cat([view if view.dim() == 1 else view.reshape(-1) for view in self._views]).float()

    @torch.no_grad()
    def ratios(self, before: Tensor, after: Tensor) -> Tensor:
        """‖Δw‖/‖w‖ per weight between two snapshots."""
        assert self._segments is not None
        assert self._floor is not None
        both = torch.stack((after - before, before)).square_()
        norms = both.new_zeros(2, len(self.parameters)).index_add_(1, self._segments, both).sqrt_()
        return norms[0] / torch.maximum(norms[1], self._floor)

    @torch.no_grad()
    def gradient_norms(self, gradients: Sequence[Tensor | None] | None = None) -> Tensor | None:
        """Norm of each weight's gradient (`.grad` unless given), NaN where a weight has none; None if none has."""
        grads: Any = [parameter.grad for parameter in self.parameters] if gradients is None else gradients
        have = [i for i, grad in enumerate(grads) if grad is not None]
        if not have:
            return None
        dense = [grads[i].coalesce().values() if grads[i].is_sparse else grads[i] for i in have]
        norms = torch.stack(torch._foreach_norm(dense)).float()
        if len(have) == len(grads):
            return norms
        full = norms.new_full((len(grads),), math.nan)
        full[have] = norms
        return full

    def norms(self) -> list[float]:
        """Norm of each weight, now."""
        if not self.parameters:
            return []
        with torch.no_grad():
            return torch.stack(torch._foreach_norm([p.detach() for p in self.parameters])).tolist()


@torch.no_grad()
def _spreads(model: nn.Module) -> dict[str, float]:
    found: dict[str, Tensor] = {}
    for path, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if (
            isinstance(weight, Tensor)
            and not isinstance(weight, nn.parameter.UninitializedParameter)
            and weight.dim() > 1
            and weight.is_floating_point()
            and weight.numel() > 1
            and weight.device.type != "meta"
        ):
            found[path] = weight.detach().float().std()
    return {path: float(spread) for path, spread in found.items()}
