"""One page for one result: a single HTML file that needs no network, no script and no other file.

The page is safe to open whatever the model or the dataset is called: the template escapes every value, charts escape
their own text, and a content security policy forbids scripts and every address but inline pictures.
"""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Any

from softknee import __version__
from softknee.errors import InputError
from softknee.files import write_whole

from . import sections
from .story import Story

LARGEST = 3_000_000
"""Bytes a page may have; fewer changed rows and sites are listed, and texts are cut, until it fits."""

LIMITS = ((48, 400, 4000), (24, 100, 1000), (8, 25, 300), (0, 10, 80))
"""Changed rows of each kind, sites in tables, letters of one text: first what is wanted, then what is bearable."""


def write(result: Any, path: str | os.PathLike[str]) -> Path:
    """Write the page of a Story, or of any one result that has a page; returns the path.

    The file appears whole or not at all, its folder is made. Raises InputError for a result that has no page, for a
    path that cannot be written, and where Jinja2 is missing.
    """
    return write_whole(path, page(Story.of(result)))


def page(story: Story) -> str:
    """The page as a string, at most LARGEST bytes long."""
    for rows, sites, letters in LIMITS:
        text = _template(letters).render(view(story, rows, sites))
        if len(text.encode("utf-8")) <= LARGEST:
            break
    return text


def view(story: Story, rows: int, sites: int) -> dict[str, Any]:
    """What the template shows: each section's data, None for those that are missing."""
    census = story.census
    if census is None and story.before is not None:
        census = story.before.census
    reports = [report for report in (story.before, story.after) if report is not None]
    parts = {
        "causes": sections.causes(story.before),
        "layers": sections.layers(story.before, story.after, sites),
        "distributions": sections.distributions(story.before, story.after, census),
        "arms": sections.arms(story.trial),
        "comparison": sections.comparison(story.comparison),
        "changed": sections.changed(story.comparison, story.images, rows),
        "calibration": sections.calibration(story.calibration),
        "census": sections.census(census, sites),
    }
    return {
        **parts,
        "title": story.title,
        "verdict": story.verdict,
        "patch": story.patch,
        "remaining": sections.causes(story.after),
        "thresholds": sections.thresholds(*reports),
        "runs": sections.runs(story.comparison),
        "provenance": sections.provenance({"softknee": __version__, **story.provenance}),
        "style": files(__package__).joinpath("templates/page.css").read_text(encoding="utf-8"),
    }


def _template(letters: int) -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise InputError("an HTML report needs Jinja2: pip install 'softknee[report]'") from error

    def cut(value: Any) -> Any:
        """Any text that is not a finished chart or picture, at most `letters` long."""
        long = isinstance(value, str) and not hasattr(value, "__html__") and len(value) > letters
        return f"{value[:letters]}…" if long else value

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: files(__package__).joinpath(f"templates/{name}").read_text("utf-8")),
        autoescape=True,
        finalize=cut,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")
