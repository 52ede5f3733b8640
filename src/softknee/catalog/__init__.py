"""WHAT each activation is. A definition in any file of this package is found and registered; nothing else lists it."""

import sys

from .activation import Activation, Parameter
from .registry import activations, discover, get, register
from .spec import elementwise, gated, normalizer
from .text import define

__all__ = ["Activation", "Parameter", "activations", "define", "elementwise", "gated", "get", "normalizer", "register"]

discover(sys.modules[__name__])
