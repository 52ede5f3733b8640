"""A file appears whole or not at all."""

from __future__ import annotations

import os

import pytest

from softknee.errors import InputError
from softknee.files import write_whole


def test_writes_and_replaces(tmp_path):
    path = write_whole(tmp_path / "new" / "file.txt", "σ\n")
    assert path.read_text(encoding="utf-8") == "σ\n"
    write_whole(path, "again")
    assert path.read_text() == "again" and os.listdir(path.parent) == ["file.txt"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError("disk full")])
def test_an_interruption_leaves_what_was_there(tmp_path, monkeypatch, interruption):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def replace(*_):
        raise interruption

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises((KeyboardInterrupt, InputError)):
        write_whole(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file.txt"]


def test_where_it_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write .*file/below"):
        write_whole(tmp_path / "file" / "below", "")


def test_bytes_are_written_as_they_are(tmp_path):
    assert write_whole(tmp_path / "a.png", b"\x89PNG\r\n\x00").read_bytes() == b"\x89PNG\r\n\x00"
    assert write_whole(tmp_path / "a.txt", "σ\r\n").read_bytes() == b"\xcf\x83\r\n"
