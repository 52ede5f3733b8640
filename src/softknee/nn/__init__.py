"""Modules: `Activation` and a named class per catalog entry, feed-forward blocks, and `init`."""

from typing import Any

from . import activations, init
from .activations import CLASSES, Activation
from .feedforward import FeedForward, GatedFeedForward

__all__ = ["Activation", "FeedForward", "GatedFeedForward", "init", *CLASSES]


def __getattr__(name: str) -> Any:
    return activations.__getattr__(name) if name not in CLASSES else CLASSES[name]


def __dir__() -> list[str]:
    return sorted(__all__)
