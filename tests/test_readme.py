"""The README's Python runs as it stands, and its figures are those of the results files."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from softknee.kernels import cpu

ROOT = Path(__file__).parent.parent
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("index", range(len(SNIPPETS)))
def test_snippet_runs(index, tmp_path):
    path = tmp_path / "snippet.py"
    path.write_text(SNIPPETS[index])
    run = subprocess.run([sys.executable, "-W", "error", path], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout


def test_figures_are_the_results():
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import readme
    finally:
        sys.path.pop(0)
    assert readme.figures() in (ROOT / "README.md").read_text(), "run python tools/readme.py"
    if cpu.isa() == "avx512":  # the paths that the README shows are those of such a machine
        assert readme.show_output() in (ROOT / "README.md").read_text(), "run python tools/readme.py"


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target
