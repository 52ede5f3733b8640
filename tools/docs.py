"""The site's pages: one per activation from its definition, the index, and the written ones of docs/.

python tools/docs.py           write them to build/docs-src, from which mkdocs builds build/site
python tools/docs.py --check   fail unless every link in build/site leads somewhere, inside the site, and nothing is
                               fetched from elsewhere
"""

from __future__ import annotations

import argparse
import inspect
import re
import shutil
import sys
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from mathml import mathml, word
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from softknee.catalog import Activation, activations
from softknee.catalog.names import ecosystems, name_in
from softknee.expression import differentiate
from softknee.files import write_whole
from softknee.kernels import accuracy, paths
from softknee.report.choice import Choice
from softknee.report.curves import plot
from softknee.report.formula import formula, read
from softknee.report.pictures import svg
from softknee.report.terminal import FACTS, USES

ROOT = Path(__file__).parent.parent
WRITTEN, TARGET, SITE = ROOT / "docs", ROOT / "build/docs-src", ROOT / "build/site"
TEMPLATES = Environment(loader=FileSystemLoader(WRITTEN / "theme"), autoescape=True, trim_blocks=False)
STYLES = ("default", "monokai")
"""Pygments' styles for light and dark."""

# What the page says in another place.
ELSEWHERE = ("kind", "parameters", "conditions", "float32 path", "bfloat16 path", "in torch")


def write(target: Path, facts: bool = True) -> None:
    """Every page as Markdown, below `target`, which is emptied. facts: without them, which take half a minute where
    they are not in the cache, the pages have no facts and no curves."""
    shutil.rmtree(target, ignore_errors=True)
    for activation in activations():
        write_whole(target / f"activations/{activation.name}.md", page(activation, facts))
    for path in sorted(WRITTEN.glob("*")):
        if path.suffix == ".md":
            write_whole(target / path.name, written(path.read_text(), target))
        elif path.is_file():
            write_whole(target / path.name, path.read_bytes())
    write_whole(target / "code.css", code_style())


def written(text: str, target: Path) -> str:
    """A page of docs/ on the site: files beside docs/ that it links to are carried along, and it may hold the list."""
    for outside in set(re.findall(r"\]\(\.\./([^)#]+)\)", text)):
        write_whole(target / "files" / Path(outside).name, (ROOT / outside).read_bytes())
        text = text.replace(f"](../{outside})", f"](files/{Path(outside).name})")
    return text.replace("<!-- catalog -->", catalog()) if "<!-- catalog -->" in text else text


def page(activation: Activation, facts: bool = True) -> str:
    """The page of one activation."""
    elementary = activation.kind != "normalizer"
    drawn = svg(plot(activation, derivative=True)) if facts and elementary else ""
    told = [(head, tell(Choice.of(activation))) for head, tell in FACTS.items()] if facts and elementary else []
    formulas, notes = formulas_of(activation)
    content = TEMPLATES.get_template("activation.html").render(
        name=activation.name,
        summary=activation.summary,
        unverified=activation.unverified,
        formulas=map(Markup, formulas),
        notes=notes,
        plot=Markup(drawn),
        about=about(activation),
        facts=[(head, cell) for head, cell in told if head not in ELSEWHERE and cell != "–"],
        names=[(where, name, says) for where, says in ecosystems().items() if (name := name_in(activation, where))],
        use=Markup(python(use(activation))),
        source=Markup("".join(python(source) for source in sources(activation))),
        exactness=exactness(activation),
        latex=activation.latex(),
    )
    return f"---\ntitle: {activation.name}\n---\n<div>\n{one_block(content)}\n</div>\n"


def one_block(html: str) -> str:
    """Without blank lines, at which Markdown would end the block; inside <pre> they are written as entities."""
    html = re.sub(r"<pre.*?</pre>", lambda m: m[0].replace("\n", "&#10;"), html, flags=re.DOTALL)
    return re.sub(r"\n\s*\n+", "\n", html)


def formulas_of(activation: Activation) -> tuple[list[str], list[str]]:
    """f and its derivatives with respect to the inputs as MathML, and what is to be said of them."""
    expression = read(activation)
    arguments = "<mo>,</mo>".join(map(word, activation.inputs))
    left = f"<mi>f</mi><mrow><mo>(</mo>{arguments}<mo>)</mo></mrow>"
    written = mathml(expression, left) if expression is not None else None
    if expression is None or written is None:
        return [], ["The definition is an algorithm; its code stands below."]
    if activation.kind == "normalizer":
        return [written], ["max and Σ are taken over the dimension."]
    formulas, notes = [written], []
    if activation.surrogate is not None:
        expression = read(activation.passing)
        assert expression is not None
        notes.append("Backward takes the derivative of another function, its surrogate, which is the one shown.")
    for name in activation.inputs:
        of = "<mo>∂</mo>" if len(activation.inputs) > 1 else "<mi>d</mi>"
        slope = f"<mfrac><mrow>{of}<mi>f</mi></mrow><mrow>{of}{word(name)}</mrow></mfrac>"
        derived = mathml(differentiate(expression, name), slope)
        if derived is None:
            notes.append(f"The derivative with respect to {name} is too long to be read; the code made of it is not.")
        else:
            formulas.append(derived)
    if activation.stochastic:
        drawn = {"noise": "uniformly from 0 to 1", "deviate": "normally, with mean 0 and variance 1"}[activation.noise]
        notes.append(f"{activation.noise} is drawn in training, {drawn}; in evaluation it is its mean.")
    return formulas, notes


def about(activation: Activation) -> Iterator[tuple[str, Any]]:
    """What is declared."""
    yield "kind", activation.kind
    yield "family", family(activation)
    yield "uses", ", ".join(filter(None, (USES.get(tag, tag) for tag in activation.tags)))
    yield "also called", ", ".join(activation.aliases)
    parameters = []
    for parameter in activation.parameters.values():
        conditions = ", ".join(str(c) for c in activation.conditions if parameter.name in c.names)
        value = parameter.default if isinstance(parameter.default, bool) else f"{parameter.default:.6g}"
        learned = "; modules learn it" if parameter.learnable else ""
        parameters.append(f"{parameter.name} = {value}" + (f" ({conditions})" if conditions else "") + learned)
    yield "parameters", Markup("<br>").join(parameters)
    yield "the same as", Markup(", ").join(same(name, given) for name, given in activation.equivalent_to.items())
    yield "in PyTorch", in_torch(activation)
    yield "source", activation.source
    yield "checked", "" if activation.unverified else "against its paper or two implementations"


def same(name: str, given: Any) -> Markup:
    inside = ", ".join(f"{key}={value:.6g}" for key, value in given.items())
    return Markup('<a href="{0}.html">{0}</a>{1}').format(name, f"({inside})" if inside else "")


def in_torch(activation: Activation) -> str:
    arguments = ", ".join(f"{name}={value!r}" for name, value in activation.torch_arguments.items())
    inside = f"({arguments})" if arguments else ""
    module = f"torch.nn.{activation.torch_module}{inside}" if activation.torch_module else ""
    function = f"torch.nn.functional.{activation.torch}" if activation.torch else ""
    return ", ".join(filter(None, (module, function))) or "no op of its own"


def family(activation: Activation) -> str:
    """The file that defines it."""
    return activation.formula.__module__.rpartition(".")[2]


def use(activation: Activation) -> str:
    """How it is called: of tensors x, or gate and up."""
    arguments = ", ".join((*activation.inputs, *["dim=-1"] * (activation.kind == "normalizer")))
    return (
        f'import softknee\n\nf = softknee.get("{activation.name}")\nf({arguments})\n'
        f"f.path({arguments})\nsoftknee.nn.{activation.class_name}"
    )


def sources(activation: Activation) -> Iterator[str]:
    """The definition's own code, and that of its stable form and its surrogate."""
    own = inspect.getsource(activation.formula)
    yield own
    for other in filter(None, (activation.stable, activation.surrogate)):
        code = inspect.getsource(other)
        if code not in own:
            yield code


def exactness(activation: Activation) -> list[list[str]]:
    rows = []
    for dtype in accuracy.DTYPES:
        chosen = paths.choose(activation, dtype)
        figures = [
            f"{figure.ulp:.4g}" + ("" if figure.lost is None else f" (0 from {figure.lost:.4g})")
            for figure in paths.promised(activation, dtype)[: 1 if activation.kind == "normalizer" else 2]
        ]
        figures += ["not measured" if not figures else "–"] * (2 - len(figures))
        rows.append([str(dtype).removeprefix("torch."), chosen.way, *figures, chosen.reason])
    return rows


def catalog() -> str:
    """The list of all, and its filter."""
    entries = []
    for activation in sorted(activations(), key=lambda a: (not a.core, a.name)):
        names = {name for where in ecosystems() if (name := name_in(activation, where))}
        words = (activation.name, *activation.aliases, *names, *activation.equivalent_to, *activation.tags)
        text = " ".join((*words, activation.summary, activation.source, in_torch(activation), family(activation)))
        own = {"family": family(activation), "tags": " ".join(activation.tags), "formula": formula(activation)}
        known = {name: getattr(activation, name) for name in ("name", "kind", "summary", "core", "unverified")}
        entries.append(known | own | {"text": text.lower()})
    selects = [
        ("kind", dict.fromkeys(a.kind for a in activations())),
        ("family", sorted({family(a) for a in activations()})),
        ("tag", sorted({tag for a in activations() for tag in a.tags})),
    ]
    return one_block(TEMPLATES.get_template("catalog.html").render(entries=entries, selects=selects))


def python(source: str) -> str:
    return highlight(source, PythonLexer(), HtmlFormatter(cssclass="code")).strip()


def code_style() -> str:
    light, dark = (HtmlFormatter(style=style).get_style_defs(".code") for style in STYLES)
    ground = ".code, .code pre { background: var(--tint); }"
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n{ground}\n"


class _Links(HTMLParser):
    """What a page refers to, and the places in it that can be referred to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.targets: list[tuple[str, str]] = []
        self.places: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        for name, value in attributes:
            if name in ("href", "src", "srcset", "data", "action", "poster") and value:
                self.targets.append((tag, unescape(value)))
            elif name in ("id", "name") and value:
                self.places.add(value)


def broken(site: Path) -> list[str]:
    """What is wrong with a built site: links that lead nowhere, and what would be fetched from elsewhere."""
    pages = {path: _Links(path.read_text()) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, links in pages.items():
        where = path.relative_to(site)
        for tag, target in links.targets:
            url = urlsplit(target)
            if url.scheme == "data" or (tag == "a" and url.scheme in ("http", "https")):
                continue
            if url.scheme or url.netloc or target.startswith("/"):
                found.append(f"{where}: <{tag}> needs {target}")
                continue
            to = (path.parent / unquote(url.path)).resolve() if url.path else path.resolve()
            if not to.is_file():
                found.append(f"{where}: there is no {target}")
            elif url.fragment and to.suffix == ".html" and unquote(url.fragment) not in pages[to].places:
                found.append(f"{where}: {url.path or where} has no place {url.fragment!r}")
    for path in sorted([*site.rglob("*.css"), *site.rglob("*.js")]):
        fetched = re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s'\")]*", strip(path))
        found += [f"{path.relative_to(site)}: needs {address}" for address in fetched]
    return found if pages else [f"{site} has no pages: run mkdocs build first"]


def strip(path: Path) -> str:
    """A style sheet or a script without its comments."""
    return re.sub(r"/\*.*?\*/|^//.*$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="check the links of build/site")
    if not parser.parse_args().check:
        write(TARGET)
        return 0
    wrong = broken(SITE)
    print("\n".join(wrong) or f"{len(list(SITE.rglob('*.html')))} pages, every link leads somewhere", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
