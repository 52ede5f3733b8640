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
MISSING = -1.0
"""Stands for the norm of a gradient that is not there."""
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
        self._floor: Tensor | None = None

    def _refresh(self) -> None:
        """Views of the sampled elements; made anew when a parameter's storage was replaced."""
        pointers = [parameter.data_ptr() for parameter in self.parameters]
        if pointers == self._pointers and self._views:
            return
        self._pointers = pointers
        self._views = []
        floors = []
        for parameter in self.parameters:
            data = parameter.detach()
            count = data.numel()
            take = min(count, SAMPLE)
            if data.is_contiguous():
                stride = count // take
                self._views.append(data.view(-1)[: stride * (take - 1) + 1 : stride])
            else:
                rows = min(len(data), SAMPLE)
                thin = data[: rows * (len(data) // rows) : len(data) // rows].flatten(1)
                take = rows * min(thin.shape[1], max(1, SAMPLE // rows))
                self._views.append(thin[:, : take // rows])
            if take < SAMPLE:
                self._views.append(data.new_zeros(SAMPLE - take))
            floors.append(FLOOR * math.sqrt(take * data.shape[0] / count))
        self._floor = torch.tensor(floors, device=self.parameters[0].device)

    @torch.no_grad()
    def snapshot(self) -> Tensor | None:
        """A copy of the sampled elements, (weights, SAMPLE), filled up with zeros; None where there are no weights."""
        if not self.parameters:
            return None
        self._refresh()
        flat = torch.cat([view if view.dim() == 1 else view.reshape(-1) for view in self._views])
        return flat.view(len(self.parameters), SAMPLE).float()

    @torch.no_grad()
    def ratios(self, before: Tensor, after: Tensor) -> Tensor:
        """‖Δw‖/‖w‖ per weight between two snapshots."""
        assert self._floor is not None
        moved = torch.linalg.vector_norm(after - before, dim=1)
        return moved / torch.maximum(torch.linalg.vector_norm(before, dim=1), self._floor)

    @torch.no_grad()
    def gradient_norms(self, gradients: Sequence[Tensor | None] | None = None) -> Tensor | None:
        """Norm of each weight's gradient (`.grad` unless given), `MISSING` where it has none; None if none has."""
        grads: list[Any] = [parameter.grad for parameter in self.parameters] if gradients is None else list(gradients)
        if any(grad is None or grad.is_sparse for grad in grads):
            return _norms(grads)
        return torch.stack(torch._foreach_norm(grads)).float()

    def norms(self) -> list[float]:
        """Norm of each weight, now."""
        if not self.parameters:
            return []
        with torch.no_grad():
            return torch.stack(torch._foreach_norm([p.detach() for p in self.parameters])).tolist()


def _norms(gradients: Sequence[Tensor | None]) -> Tensor | None:
    """Norms where some gradients are missing or sparse."""
    dense = {i: g.coalesce().values() if g.is_sparse else g for i, g in enumerate(gradients) if g is not None}
    if not dense:
        return None
    norms = torch.stack(torch._foreach_norm(list(dense.values()))).float()
    full = norms.new_full((len(gradients),), MISSING)
    full[list(dense)] = norms
    return full


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
