"""The site: every activation has a page, links lead somewhere, what the pages say runs and holds."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from softknee.catalog import activations, get

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))
docs = pytest.importorskip("docs", reason="the site needs the extra docs")
sys.path.pop(0)
pytest.importorskip("mkdocs", reason="the site needs the extra docs")


def snippets(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / f"docs/{page}.md").read_text(), flags=re.DOTALL)


FOLKLORE = snippets("folklore")
CLAIMS = re.findall(r"^## (.*)$", (ROOT / "docs/folklore.md").read_text(), flags=re.MULTILINE)


def build(source: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """mkdocs, as `make docs` runs it, on other folders."""
    text = (ROOT / "mkdocs.yml").read_text()
    for word, path in (
        ("docs_dir: build/docs-src", f"docs_dir: {source}"),
        ("site_dir: build/site", f"site_dir: {site}"),
        ("custom_dir: docs/theme", f"custom_dir: {ROOT}/docs/theme"),
    ):
        assert word in text
        text = text.replace(word, path)
    settings = source.parent / "mkdocs.yml"
    settings.write_text(text)
    # Not --quiet: what is not logged does not count as a warning.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(settings)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    docs.write(folder / "source", facts=False)
    done = build(folder / "source", folder / "site")
    assert done.returncode == 0, done.stderr
    return folder / "site"


def test_every_activation_has_a_page_and_is_in_the_list(site):
    listed = (site / "index.html").read_text()
    for activation in activations():
        page = (site / f"activations/{activation.name}.html").read_text()
        assert f"<h1>{activation.name}</h1>" in page
        assert f'href="activations/{activation.name}.html"' in listed
        assert "<math" in page or "The definition is an algorithm" in page
        assert f'<span class="nf">{activation.formula.__name__}</span>' in page  # its own code


def test_links_lead_somewhere_and_nothing_comes_from_elsewhere(site):
    assert docs.broken(site) == []


@pytest.mark.parametrize(
    ("planted", "told"),
    [
        ('<a href="nowhere.html">', "there is no nowhere.html"),
        ('<a href="index.html#nowhere">', "has no place 'nowhere'"),
        ('<script src="https://example.org/a.js">', "needs https://example.org/a.js"),
        ('<link href="//example.org/a.css">', "needs //example.org/a.css"),
    ],
)
def test_a_planted_link_is_found(tmp_path, planted, told):
    (tmp_path / "index.html").write_text(planted)
    (found,) = docs.broken(tmp_path)
    assert told in found


def test_what_a_style_sheet_fetches_is_found(tmp_path):
    (tmp_path / "index.html").write_text("")
    (tmp_path / "a.css").write_text("@import url(https://example.org/font.css);")
    assert len(docs.broken(tmp_path)) == 1


def test_a_site_without_pages_is_no_site(tmp_path):
    assert docs.broken(tmp_path)


@pytest.mark.parametrize("text", ["[a](nowhere.md)", "[a](index.md#nowhere)"])
def test_the_build_is_strict(tmp_path, text):
    source = tmp_path / "source"
    source.mkdir()
    for page in ("choosing", "debugging", "defining", "folklore", "identifying", "glossary", "accuracy", "speed"):
        (source / f"{page}.md").write_text("# a\n")
    (source / "index.md").write_text("# a\n")
    assert build(source, tmp_path / "site").returncode == 0
    (source / "index.md").write_text(f"# a\n\n{text}\n")
    assert build(source, tmp_path / "site").returncode != 0


@pytest.mark.parametrize("name", ["prelu", "glu", "gumbel_softmax"])
def test_the_use_that_a_page_shows_runs(name):
    x = torch.ones(2, 4)
    activation = get(name)
    exec(compile(docs.use(activation), "use", "exec"), dict.fromkeys(activation.inputs, x))


@pytest.mark.parametrize("name", ["selu", "swiglu", "softmax"])
def test_a_whole_page(name):
    page = docs.page(get(name))
    assert page.count("\n\n") == 0, "Markdown would end the block there"
    for kind, words in {
        "elementwise": ("<svg", "largest |f′|", "(−1.76, ∞)", "torch.nn.SELU", "arXiv:1706.02515", "over a copy"),
        "gated": ("<svg", "packed as", "silu_and_mul", "bfloat16", "PaLM", "<summary>triton</summary>"),
        "normalizer": ("max and Σ", "temperature = 1", "bfloat16"),
    }.items():
        if get(name).kind == kind:
            assert [word for word in words if word not in page] == []
    _Closed(page)


class _Closed(HTMLParser):
    """Fails unless every tag that is opened is closed, in order."""

    VOID = ("input", "br", "link", "meta", "path", "rect", "line", "circle", "tspan")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_snippets_run(tmp_path):
    # One process for all: importing torch costs more than they do. Each snippet has names of its own, but those of
    # `defining` go on from one another.
    lines = ["defining = {}"]
    for page in ("choosing", "debugging", "defining", "identifying"):
        assert snippets(page)
        for i, text in enumerate(snippets(page)):
            names = page if page == "defining" else {}
            lines.append(f"exec(compile({text!r}, '{page}, snippet {i}', 'exec'), {names})")
    path = tmp_path / "snippets.py"
    path.write_text("\n".join(lines))
    run = subprocess.run(
        [sys.executable, "-W", "error", path], capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "softer.svg").exists()
    assert "struct" not in run.stdout and "@triton.jit" in run.stdout and "torch.Size([1, 8, 16])" in run.stdout


def test_ones_own_takes_less_than_ten_lines():
    first, *others = snippets("defining")
    assert len(first.splitlines()) < 10 and "gradcheck" in first
    needed = (
        "module(",
        ".facts",
        "plot(",
        "jax.function",
        "onnx.model",
        '"triton"',
        "identify(",
        "diagnose(",
        "transformers",
    )
    assert [word for word in needed if not any(word in text for text in others)] == []


def test_every_claim_has_its_check():
    assert len(CLAIMS) == len(FOLKLORE) >= 10
    assert all("assert " in check for check in FOLKLORE)


@pytest.mark.parametrize("check", FOLKLORE, ids=[re.sub(r"\W+", "-", claim).strip("-")[:40] for claim in CLAIMS])
def test_folklore(check):
    exec(compile(check, "check", "exec"), {})
    tree = ast.parse(check)
    asserts = [node for node in tree.body if isinstance(node, ast.Assert)]
    for one in asserts:  # turned round, each must fail
        right = one.test
        one.test = ast.copy_location(ast.UnaryOp(ast.Not(), right), right)
        with pytest.raises(AssertionError):
            exec(compile(ast.fix_missing_locations(tree), "check", "exec"), {})
        one.test = right


def test_a_wrong_figure_fails():
    check = FOLKLORE[0].replace("[0.864, 0.117, 0.019]", "[0.88, 0.10, 0.02]")
    assert check != FOLKLORE[0]
    with pytest.raises(AssertionError):
        exec(compile(check, "check", "exec"), {})
