"""What is kept on disk: found again, never trusted blindly."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import softknee
from softknee.facts import Facts, store


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SOFTKNEE_CACHE", str(tmp_path))
    return tmp_path / "facts"


def fresh(name="silu", **parameters):
    activation = softknee.get(name)
    return Facts(activation, activation.defaults | parameters)


def refuse(self):
    raise AssertionError("computed again")


def test_facts_are_found_again_as_they_were(folder, monkeypatch):
    first = fresh("softshrink").to_dict(), fresh("softshrink").minimum, fresh().smoothness, fresh().minimum
    monkeypatch.setattr(Facts, "_split", property(refuse))
    monkeypatch.setattr(Facts, "value", refuse)
    assert (fresh("softshrink").to_dict(), fresh("softshrink").minimum, fresh().smoothness, fresh().minimum) == first
    assert isinstance(fresh().minimum, softknee.facts.Point) and isinstance(fresh().range, softknee.facts.Interval)
    assert not [path for path in folder.iterdir() if path.suffix != ".json"], "no temporary file is left"


def test_what_is_another_function_has_another_file(folder):
    names = {fresh()._store.name, fresh("swish")._store.name, fresh("swish", beta=2.0)._store.name}

    @softknee.elementwise(limits=(0.0, 1.0))
    def silu(x, ops):
        return x * ops.sigmoid(x)

    names.add(Facts(silu, {})._store.name)
    assert len(names) == 4


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff\xfe", b'{"sum": 1, "facts": 2}', b"null", b"[" * 100_000])
def test_a_damaged_file_counts_for_nothing(folder, damage):
    told = fresh().range
    (file,) = folder.iterdir()
    file.write_bytes(damage)
    assert fresh().range == told
    assert json.loads(file.read_text())["sum"], "and is mended"


def test_a_changed_number_is_noticed(folder):
    told = fresh().range
    (file,) = folder.iterdir()
    text = file.read_text()
    assert "-0.278" in text
    file.write_text(text.replace("-0.278", "-0.279"))
    assert fresh().range == told


def test_it_can_be_switched_off(folder, monkeypatch, tmp_path):
    softknee.facts.facts(softknee.get("mish"), False).range  # noqa: B018
    assert not folder.exists()
    monkeypatch.setenv("SOFTKNEE_CACHE", "off")
    fresh().range  # noqa: B018
    assert not folder.exists() and store.directory() is None


def test_a_folder_that_cannot_be_written_is_no_error(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SOFTKNEE_CACHE", str(tmp_path / "file"))
    assert fresh().range.high == float("inf")


def test_old_files_make_room(folder, monkeypatch):
    monkeypatch.setattr(store, "FILES", 4)
    for beta in range(1, 12):
        fresh("swish", beta=float(beta)).breakpoints  # noqa: B018
    assert len(list(folder.iterdir())) <= 4


def test_nothing_heavy_is_imported():
    code = "import sys, softknee; softknee.get('gelu').facts.gain; print({'mpmath', 'sympy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
