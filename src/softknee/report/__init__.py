"""One result object → terminal, HTML, JSON.

`render(result)` prints, `write(result, path)` makes one offline page, `dumps(result)` is strict JSON. A `Story` holds
the results of one whole run, from the census to the calibration; every part of it is optional.
"""

from __future__ import annotations

from .html import write
from .json import dumps
from .story import Story
from .terminal import render

__all__ = ["Story", "dumps", "render", "write"]
