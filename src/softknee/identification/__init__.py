"""Which activations a model really uses: `identify` gives a Census, `Census.against` compares two, `swap` mends;
`Observer` sees activations being applied."""

from .census import Affine, Census, Collapse, Head, Site
from .differences import Difference, Differences
from .inputs import parse_inputs
from .models import identify
from .observation import Call, Observer
from .swapping import swap
from .targets import is_file, load_target

__all__ = [
    "Affine",
    "Call",
    "Census",
    "Collapse",
    "Difference",
    "Differences",
    "Head",
    "Observer",
    "Site",
    "identify",
    "is_file",
    "load_target",
    "parse_inputs",
    "swap",
]
