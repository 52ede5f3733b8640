"""One result object → terminal, HTML, JSON.

`render(result)` prints, `write(result, path)` makes one offline page, `dumps(result)` is strict JSON. A `Story` holds
the results of one whole run, from the census to the calibration; every part of it is optional. `plot("relu", "gelu")`
makes a `Plot` of curves, `code("mish", "triton")` what a backend runs.
"""

from __future__ import annotations

from .choice import Choice
from .curves import Plot, plot
from .emitted import code
from .html import write
from .json import dumps
from .story import Story
from .terminal import render

__all__ = ["Choice", "Plot", "Story", "code", "dumps", "plot", "render", "write"]
