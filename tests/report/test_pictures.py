"""Pictures: one path per curve, broken where the curve is, in files that stand alone and appear whole or not at all."""

from __future__ import annotations

import io
import re
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from test_browser import CHROMIUM, console, opened
from unusual import shrink, square, tower

import softknee
from softknee.errors import InputError
from softknee.report import plot
from softknee.report.pictures import COLOURS, WRITERS, html, png, svg

SVG = "{http://www.w3.org/2000/svg}"


def curves(picture: ElementTree.Element) -> list[ElementTree.Element]:
    """The paths of curves, without those of the legend."""
    found = [path for path in picture.iter(f"{SVG}path") if path.get("class", "").startswith("curve")]
    return [path for path in found if path.find(f"{SVG}title") is not None]


def test_svg_has_one_path_per_curve_broken_at_jumps():
    picture = ElementTree.fromstring(svg(plot("relu", shrink, square, derivative=True)))
    found = curves(picture)
    assert [path.find(f"{SVG}title").text.split(":")[0] for path in found] == ["relu", "shrink", "square"] * 2
    assert [path.get("d").count("M") for path in found] == [1, 3, 1, 2, 3, 1]
    assert [path.get("class") for path in found] == ["curve c0", "curve c1", "curve c2"] * 2
    pieces = [re.findall(r"(-?[\d.]+) (-?[\d.]+)", piece) for piece in found[1].get("d").split("M")[1:]]
    ends = [(float(piece[0][1]), float(piece[-1][1])) for piece in pieces]
    assert ends[1][0] == ends[1][1], "flat in the middle"
    assert ends[0][1] > ends[1][0] > ends[2][0], "y grows downwards: below, level, above, and nothing between them"


def test_svg_stands_alone():
    text = svg(plot("relu", tower, derivative=True))
    assert "tower leaves the plot" in text
    picture = ElementTree.fromstring(text)
    assert picture.tag == f"{SVG}svg" and picture.get("width") and picture.get("height")
    assert "prefers-color-scheme: dark" in text and all(colour in text for colour in COLOURS[0])
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "") and "var(" not in text
    assert "body" not in text, "in a notebook its sheet would be the page's too"


def test_text_is_text():
    @softknee.elementwise
    def made(x, ops):
        """<script>alert(1)</script> & more."""
        return ops.where(x < 0.0, 0.0, x)

    page = html(plot(made))
    assert "<script" not in page and "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more." in page
    assert "0 if x &lt; 0 else x" in page and ElementTree.fromstring(svg(plot(made))) is not None


def test_page_says_what_the_curves_are():
    page = html(plot("gelu", "leaky_relu:negative_slope=0.2", "swiglu", square, derivative=True))
    for text in ("0.5·x·erfc(−x/√2)", "negative_slope = 0.2", "gate·σ(gate)·up, up = 1", "unbounded", "[−0.278, ∞)"):
        assert text in page
    assert page.count("<figure>") == 2 and page.count('<svg class="chart"') == 2
    assert "://" not in page and "default-src 'none'" in page and "prefers-color-scheme: dark" in page


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: the page was not opened in a browser")
def test_page_in_a_browser(tmp_path):
    path = plot("relu", "swiglu_oai", "leaky_relu:negative_slope=0.2", derivative=True).save(tmp_path / "plot.html")
    probe = path.read_text().replace(
        "</body>", "<p id='w'></p><script>w.textContent=document.documentElement.scrollWidth</script></body>"
    )
    frame = tmp_path / "frame.html"
    (tmp_path / "probe.html").write_text(probe.replace("default-src 'none'; ", "script-src 'unsafe-inline'; "))
    frame.write_text("<iframe src='probe.html' style='width:390px;height:2000px;border:0'></iframe>")
    _, log = opened(path.as_uri(), tmp_path)
    assert console(log) == []
    document, _ = opened((tmp_path / "probe.html").as_uri(), tmp_path, "--window-size=500,900")
    assert int(re.search(r"id=\"w\">(\d+)<", document)[1]) <= 500


def pixels(content: bytes) -> np.ndarray:
    from matplotlib import image

    return np.round(255 * image.imread(io.BytesIO(content), format="png")[..., :3]).astype(int)


def of_colour(picture: np.ndarray, colour: str) -> np.ndarray:
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return (np.abs(picture - wanted) <= 12).all(axis=-1)


def test_png_shows_each_curve_and_its_gap():
    content = png(plot(shrink, "sigmoid", range=(-1, 1)))
    assert content.startswith(b"\x89PNG")
    picture = pixels(content)
    height, width, _ = picture.shape
    line = of_colour(picture, COLOURS[0][0])
    line[: height // 5] = False  # the legend
    assert of_colour(picture, COLOURS[1][0]).sum() > width, "the second curve"
    columns = np.flatnonzero(line.any(axis=0))
    tallest = max(np.ptp(np.flatnonzero(line[:, c])) for c in columns if line[:, c].sum() < 30)
    assert tallest < height // 4, "a jump is no vertical line"
    rows = np.flatnonzero(line.any(axis=1))
    assert np.ptp(rows) > height // 2, "from bottom to top"
    empty = np.diff(rows).max()
    assert empty > height // 12, "nothing between the level and the branches"


def test_png_of_names_that_matplotlib_reads_otherwise():
    @softknee.elementwise
    def _hidden(x, ops, *, 参数=1.0):
        """Its font has no such letters, and legends leave out what begins with an underscore."""
        return 参数 * x

    one, none = (pixels(png(plot(what))) for what in ("identity", _hidden))
    top = one.shape[0] // 8
    assert of_colour(none[:top], COLOURS[0][0]).sum() == of_colour(one[:top], COLOURS[0][0]).sum() > 0


def test_save_goes_by_the_ending(tmp_path):
    drawn = plot("relu", "gelu")
    assert drawn.save(tmp_path / "a/curves.SVG").read_text().startswith("<svg")
    assert drawn.save(tmp_path / "b.html").read_text().startswith("<!DOCTYPE html>")
    assert drawn.save(str(tmp_path / "c.png")).read_bytes().startswith(b"\x89PNG")
    for name in ("d.jpg", "d", "png", "d.svg.gz"):
        with pytest.raises(InputError, match=r"its name must end in \.png, \.svg, \.html"):
            drawn.save(tmp_path / name)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["b.html", "c.png", "curves.SVG"]


def test_a_failed_write_leaves_what_stood_there(tmp_path, monkeypatch):
    path = tmp_path / "a.svg"
    path.write_text("before")
    monkeypatch.setitem(WRITERS, ".svg", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        plot("relu").save(path)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_without_matplotlib_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"pip install 'softknee\[plot\]'"):
        plot("relu").save(tmp_path / "a.png")
    plot("relu").save(tmp_path / "a.svg")
    assert list(tmp_path.iterdir()) == [tmp_path / "a.svg"]


def test_in_a_notebook():
    assert plot("relu")._repr_html_() == svg(plot("relu"))
