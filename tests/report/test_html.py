"""The page: every part of it and any subset of it, small, self-contained, and safe with hostile names."""

from __future__ import annotations

import builtins
import re
from dataclasses import fields, replace
from html.parser import HTMLParser

import numpy as np
import pytest
from stories import a_census, a_comparison, a_report, make_story

from softknee.errors import InputError
from softknee.report import Story, html, write

SECTIONS = (
    "cause",
    "layers",
    "activations",
    "arms",
    "compared",
    "rows",
    "cohorts",
    "calibration",
    "census",
    "provenance",
)
VOID = {"meta", "link", "br", "img", "path", "circle", "rect"}


class Page(HTMLParser):
    """Elements and attributes of a page; complains where tags do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    @property
    def ids(self):
        return [attrs["id"] for _, attrs in self.elements if "id" in attrs]


def test_every_section_is_there_and_in_the_contents(story):
    page = Page(html.page(story))
    assert tuple(page.ids) == SECTIONS
    assert [attrs["href"] for attrs in page.all("a")] == [f"#{name}" for name in SECTIONS]
    text = " ".join(page.text)
    for figure in (
        story.verdict,
        story.patch,
        "Did not help:",
        "After the repair:",
        "worst",
        "He et al. 2015, arXiv:1502.01852",
    ):
        assert figure in text


def test_charts(story):
    page = Page(html.page(story))
    labels = [attrs.get("aria-label", "") for attrs in page.all("svg")]
    assert sum(label in ("signal across rows", "gradient norm", "dead units") for label in labels) == 3
    assert sum(label.startswith("Histogram of the input of") for label in labels) == 8
    assert sum(label.startswith("Reliability diagram") for label in labels) == 2
    assert len(page.all("img")) == story.comparison.broken + 48
    assert all(attrs["alt"] and attrs["src"].startswith("data:image/png;base64,") for attrs in page.all("img"))


def test_nothing_comes_from_elsewhere_and_nothing_runs(story):
    text = html.page(story)
    page = Page(text)
    assert not page.all("script")
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    addresses = [
        attrs[name] for _, attrs in page.elements for name in ("src", "href", "srcset", "action") if name in attrs
    ]
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert not re.search(r"url\(|@import|https?://", text)
    policy = next(
        attrs["content"] for attrs in page.all("meta") if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'")
    assert "script" not in policy


HOSTILE = [
    "<script>alert(1)</script>",
    "</script>",
    "</style><img src=x onerror=alert(1)>",
    '" onload="alert(1)',
    "' onload='alert(1)",
    "</title></svg><b>",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "&lt;b&gt;",
    "]]>",
    "\x00\x1b[31m\u202e",
    "<!--",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_names_everywhere_stay_text(story, hostile):
    plain = Page(html.page(story))
    page = Page(html.page(make_story(lambda text: text + hostile)))
    assert [name for name, _ in page.elements] == [name for name, _ in plain.elements], "names made or hid an element"
    assert [sorted(attrs) for _, attrs in page.elements] == [sorted(attrs) for _, attrs in plain.elements]
    assert tuple(page.ids) == SECTIONS


def test_the_escaping_test_can_fail(story, monkeypatch):
    monkeypatch.setattr("softknee.report.charts.escape", lambda text: text)
    hostile = html.page(make_story(lambda text: text + "<script>alert(1)</script>"))
    assert Page(hostile).all("script")


@pytest.mark.parametrize("missing", [f.name for f in fields(Story) if f.name not in ("title", "verdict", "patch")])
def test_a_story_may_lack_any_part(story, missing):
    empty = Story.__dataclass_fields__[missing]
    nothing = empty.default_factory() if missing in ("images", "provenance") else None
    Page(html.page(replace(story, **{missing: nothing})))


@pytest.mark.parametrize("kept", ["census", "before", "after", "trial", "comparison", "calibration"])
def test_a_story_may_have_one_part(story, kept):
    Page(html.page(Story(**{kept: getattr(story, kept)})))
    Page(html.page(Story.of(getattr(story, kept))))


def test_an_empty_story():
    assert Page(html.page(Story())).ids == ["provenance"]


def test_a_healthy_report_says_so(story):
    assert "Nothing was found in the activations: look elsewhere" in html.page(Story(before=story.after))


def test_reports_with_odd_figures(story):
    odd = replace(
        story.before.statistics[0],
        mean=float("nan"),
        std=float("inf"),
        across_row_std=0.0,
        dead=None,
        saturated=None,
        gradient_norm=float("nan"),
        histogram_counts=(),
        histogram_edges=(),
        activation=None,
    )
    gone = replace(
        odd, key="softmax#0", activation="softmax", histogram_edges=(-1.0, 0.0, 1.0), histogram_counts=(1, 2)
    )
    Page(html.page(Story(before=replace(story.before, statistics=(odd, gone)))))
    Page(html.page(Story(before=replace(story.before, statistics=()))))


def test_a_finding_that_causes_itself_is_shown_once(story):
    first = story.before.findings[0]
    loop = (replace(first, caused_by=first.id), replace(first, symptom="other", caused_by="nobody@nowhere"))
    page = html.page(Story(before=replace(story.before, findings=loop)))
    Page(page)
    assert "other" in page or first.title in page


def test_the_page_is_small(story, tmp_path):
    assert write(story, tmp_path / "page.html").stat().st_size < 300_000


def test_a_large_story_still_fits():
    census = a_census(str, sites=3000)
    compared = a_comparison(str, rows=4000)
    generator = np.random.default_rng(0)
    images = {row: generator.random((200, 300)) for row in [r.id for r in compared.rows("fixed")][:2000]}
    story = Story(
        census=census, before=a_report(str, sick=True, census=census, sites=3000), comparison=compared, images=images
    )
    assert len(html.page(story).encode()) <= html.LARGEST


def test_long_names_are_cut(story):
    text = html.page(make_story(lambda text: text + "x" * 100_000))
    assert len(text.encode()) <= html.LARGEST


def test_write_makes_the_folder_and_replaces_the_file(story, tmp_path):
    target = tmp_path / "new" / "page.html"
    assert write(story.census, target) == target
    first = target.read_text(encoding="utf-8")
    write(story, str(target))
    assert target.read_text(encoding="utf-8") != first
    assert [p.name for p in target.parent.iterdir()] == ["page.html"], "nothing is left beside it"
    assert target.stat().st_mode & 0o444


def test_a_failed_write_leaves_the_old_page(story, tmp_path, monkeypatch):
    target = tmp_path / "page.html"
    target.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("softknee.report.html.os.replace", full)
    with pytest.raises(InputError, match="cannot write .*page.html: No space left on device"):
        write(story, target)
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_a_path_that_cannot_be(story, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        write(story, tmp_path / "file" / "page.html")
    with pytest.raises(InputError, match="has no page"):
        write(object(), tmp_path / "page.html")


@pytest.mark.parametrize("package", ["jinja2", "rich"])
def test_a_missing_package_is_named(story, tmp_path, monkeypatch, package):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == package:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install 'softknee\[report\]'"):
        write(story, tmp_path / "page.html") if package == "jinja2" else __import__("softknee.report").report.render(
            story
        )


def test_a_swapped_activation_gets_its_own_curve(story):
    swapped = tuple(replace(entry, activation="leaky_relu") for entry in story.after.statistics)
    census = replace(story.census, sites=tuple(replace(s, parameters={}) for s in story.census.sites))
    after = replace(
        story.after,
        statistics=swapped,
        census=replace(
            census,
            sites=tuple(replace(s, activation="leaky_relu", parameters={"negative_slope": 0.2}) for s in census.sites),
        ),
    )
    text = html.page(Story(census=census, before=story.before, after=after))
    assert text.count('class="curve value"') == 2 * 8 + 1, "two panels a site, and the key"
    assert "leaky_relu, after" in text


def test_one_report_alone_is_neither_before_nor_after(story):
    text = " ".join(Page(html.page(Story.of(story.before))).text)
    assert "measured, site 1 (net.1#0)" in text
    assert "before, site" not in text
