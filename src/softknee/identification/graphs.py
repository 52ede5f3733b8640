"""The one neutral graph that every graph format is read into, and the Census of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from .census import Census, Site

SMALL = 2**16
"""How many elements a constant may have to be held; of larger ones only the shape is known (`Graph.weights`)."""


@dataclass(frozen=True)
class Node:
    """One operation.

    name: unique in the graph; the path of the module it belongs to, where the format has it, as `path/op`.
    op: in its format's own words: "Gelu", "aten.gelu.default", "logistic".
    inputs: names of values, None where one is left out. outputs: likewise.
    kind: "elementwise", "affine" (a matrix product, a convolution), "reshape" (moves elements, or casts them),
        "softmax", "normalizer" or "other".
    evaluate: of an elementwise one: float64 arrays, one per input that is there, that broadcast → what the op computes,
        its attributes bound. dtype: what it computes in, "float32". source: "file.py:12".
    path: of the module whose forward applies it, as torch names modules ("layers.0.mlp.act"), None where unknown.
    declared: what the format itself says the op is, ("gelu_tanh", {}).
    """

    name: str
    op: str
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    kind: str
    evaluate: Callable[..., np.ndarray] | None = None
    dtype: str | None = None
    source: str | None = None
    declared: tuple[str, dict[str, float]] | None = None
    path: str | None = None


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which each reads only what is there: inputs, constants, weights, earlier outputs.

    constants: of at most SMALL elements. weights: the shapes of larger ones. shapes: of values, where they are known,
    None for a size that is not.
    """

    name: str
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    weights: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)


def census(graph: Graph) -> Census:
    """The activation sites of a graph."""
    sites = [
        Site(f"{node.name}#0", node.name, 0, node.declared[0], node.declared[1], "declared", "functional", node.op,
             node.source, measured=False, dtype=node.dtype)
        for node in graph.nodes if node.declared is not None
    ]  # fmt: skip
    return Census(graph.name, tuple(sites))
