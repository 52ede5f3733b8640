"""Which activations a model really uses: `identify` gives a Census; `Observer` sees activations being applied."""

from .census import Affine, Candidate, Census, Collapse, Conflict, Head, Site
from .inputs import parse_inputs
from .models import identify
from .observation import Call, Observer
from .targets import is_file, load_target

__all__ = [
    "Affine",
    "Call",
    "Candidate",
    "Census",
    "Collapse",
    "Conflict",
    "Head",
    "Observer",
    "Site",
    "identify",
    "is_file",
    "load_target",
    "parse_inputs",
]
