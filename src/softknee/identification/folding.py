"""Consecutive affine maps with nothing nonlinear between: W₂(W₁x + b₁) + b₂ is one affine map, at any depth.

Decided by dataflow: the output of one is the input of the next, dropout and reshapes that change nothing aside, and
nothing else uses it. Linear maps (nn.Linear, F.linear, x @ W with a constant W); convolutions are not folded.
"""

from __future__ import annotations

import torch
from torch import nn

from .census import Collapse
from .tracing import Reference, Step, Trace


def collapses(trace: Trace) -> tuple[Collapse, ...]:
    """Every maximal chain of linear maps that is one, with the folded weight and bias and the measured difference."""
    follower: dict[int, Step] = {}
    for step in trace.steps:
        if weights(trace, step) is None:
            continue
        given = trace.varying(step)
        before = trace.producer(trace.back(given[0])) if len(given) == 1 else None
        if before is None or weights(trace, before) is None:
            continue
        users = list(trace.consumers(before.outputs[0]))
        if len(users) == 1 and not trace.is_output(before.outputs[0]):
            follower[before.index] = step
    found = []
    inner = {step.index for step in follower.values()}
    for start in follower:
        if start in inner:
            continue
        chain = [trace.steps[start]]
        while chain[-1].index in follower:
            chain.append(follower[chain[-1].index])
        found.append(_fold(trace, chain))
    return tuple(found)


def weights(trace: Trace, step: Step) -> tuple[torch.Tensor, torch.Tensor | None] | None:
    """(out, in) weight and bias of a linear map with constant weights, None for any other step."""
    if isinstance(step.symbol, nn.Linear):
        return step.symbol.weight.detach(), None if step.symbol.bias is None else step.symbol.bias.detach()
    if step.is_module or len(trace.varying(step)) != 1:
        return None
    constants = [
        trace.values[a.value].constant if isinstance(a, Reference) else None
        for a in (*step.arguments, *step.keywords.values())
    ]
    tensors = [c.detach() for c in constants if c is not None]
    if step.name == "linear" and tensors and tensors[0].ndim == 2:
        return tensors[0], tensors[1] if len(tensors) > 1 else None
    moving_first = isinstance(step.arguments[0] if step.arguments else None, Reference) and constants[0] is None
    if step.name in ("matmul", "mm") and moving_first and len(tensors) == 1 and tensors[0].ndim == 2:
        return tensors[0].T, None
    plain = not step.keywords and len(step.arguments) == 3
    if step.name == "addmm" and plain and len(tensors) == 2 and constants[1] is None and tensors[1].ndim == 2:
        return tensors[1].T, tensors[0].expand(tensors[1].shape[1]) if tensors[0].ndim <= 1 else None
    return None


def _fold(trace: Trace, chain: list[Step]) -> Collapse:
    weight: torch.Tensor | None = None
    bias: torch.Tensor | None = None
    ranks = []
    for step in chain:
        pair = weights(trace, step)
        assert pair is not None
        w = pair[0].double().cpu()
        b = torch.zeros(w.shape[0], dtype=torch.float64) if pair[1] is None else pair[1].double().cpu()
        weight, bias = (w, b) if weight is None or bias is None else (w @ weight, w @ bias + b)
        ranks.append(w.shape[0])
    assert weight is not None and bias is not None
    first, last = chain[0].rows, chain[-1].rows
    difference = float("nan")
    if first is not None and last is not None and len(first[0]) == len(last[1]):
        folded = first[0].cpu() @ weight.T + bias
        difference = (folded - last[1].cpu()).abs().max().item()
    narrow = min(ranks[:-1])
    note = ""
    if narrow < min(weight.shape):
        note = f"through {narrow} features: a low-rank factorisation may be meant"
    return Collapse(tuple(step.path for step in chain), weight, bias, difference, note)
