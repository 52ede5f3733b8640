"""Modules: `Activation` and a named class per catalog entry, feed-forward blocks, and `init`."""

from typing import Any

from . import init
from .activations import CLASSES, Activation
from .feedforward import FeedForward, GatedFeedForward

__all__ = ["Activation", "FeedForward", "GatedFeedForward", "init", *CLASSES]


def __getattr__(name: str) -> Any:
    try:
        return CLASSES[name]
    except KeyError:
        raise AttributeError(f"module 'softknee.nn' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted(__all__)
