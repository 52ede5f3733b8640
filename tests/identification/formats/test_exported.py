"""torch.export in memory and as .pt2: the live model's census, site by site; a hostile archive is one clear line."""

import io
import json
import os
import pickle
import zipfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ported import SPELLINGS, Between, blocks, modules, said
from ported import exported as program_of
from torch import nn

from softknee.errors import InputError
from softknee.identification import identify
from softknee.identification.formats import exported


def saved(program, path):
    torch.export.save(program, path)
    return path


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    model, x = blocks()["gated"]
    return saved(program_of(model, x), tmp_path_factory.mktemp("pt2") / "gated.pt2")


def rezipped(path, target, change):
    """The archive with its members changed by `change(name, content)`, None leaving one out."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


@pytest.mark.parametrize("name", modules())
def test_every_activation_module_of_torch_is_what_it_is_live(name):
    model = nn.Sequential(nn.Linear(6, 6), modules()[name], nn.Linear(6, 3)).eval()
    x = torch.randn(4, 6)
    live, program = said(identify(model, x)), program_of(model, x)
    assert said(identify(program)) == live
    assert live[0][1] == name


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_spelling_is_matched_by_what_it_computes(name):
    function, activation = SPELLINGS[name]
    model, x = Between(function).eval(), torch.randn(4, 6)
    program = program_of(model, x)
    census = identify(program)
    assert [s.activation for s in census] == [activation]
    if activation is not None:
        assert said(identify(program_of(model, x, decomposed=True))) == said(census)
        assert said(identify(model, x)) == said(census)
    assert census[0].source is not None and census[0].source.startswith(("ported.py", "tests/"))


@pytest.mark.parametrize("name", blocks())
def test_a_block_has_its_live_census_in_memory_and_as_a_file(name, tmp_path):
    model, x = blocks()[name]
    program = program_of(model, x)
    live = identify(model, x)
    census = identify(program)
    assert said(census) == said(live)
    assert not census.conflicts
    assert {s.dtype for s in census} == {"float32"}
    assert said(identify(program.module())) == said(live)
    read = identify(saved(program, tmp_path / "model.pt2"))
    assert said(read) == said(live)
    assert [s.source for s in read] == [s.source for s in census]


def test_half_precision_dynamic_shapes_and_graphs_in_graphs():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(6, 6)

        def forward(self, x):
            with torch.no_grad():
                x = self.a(x) / x.shape[0]
                x = torch.nn.functional.gelu(x)
            return torch.cond(x.sum() > 0, lambda x: torch.relu(x), lambda x: torch.tanh(x), (x,))

    dynamic = {"x": {0: torch.export.Dim("batch", min=2)}}
    program = program_of(Model().half(), torch.randn(4, 6).half(), dynamic_shapes=dynamic)
    census = identify(program)
    assert [(s.activation, s.dtype) for s in census] == [(a, "float16") for a in ("gelu", "relu", "tanh")]


def test_constants_are_read_from_plain_bytes(tmp_path):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
            self.register_buffer("slope", torch.tensor(1.5, dtype=torch.bfloat16))

        def forward(self, x):
            x = self.a(x)
            return self.b(x * torch.sigmoid(self.slope * x))

    program = program_of(Model(), torch.randn(2, 6))
    for census in (identify(program), identify(saved(program, tmp_path / "model.pt2"))):
        assert [(s.activation, s.parameters) for s in census] == [("swish", {"beta": 1.5})]


# -- hostile archives


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_no_pickle_in_an_archive_is_loaded(archive, tmp_path):
    bomb = pickle.dumps(Canary(str(tmp_path / "ran")))

    def change(name, content):
        if name.endswith("model_weights_config.json"):
            config = json.loads(content)
            for entry in config["config"].values():
                entry["use_pickle"] = True
            return json.dumps(config)
        return bomb if "/weight_" in name or "sample_inputs" in name else content

    hostile = rezipped(archive, tmp_path / "model.pt2", change)
    assert [s.activation for s in identify(hostile)] == [s.activation for s in identify(archive)]
    assert not (tmp_path / "ran").exists()
    with pytest.raises(Exception):  # noqa: B017, PT011 - the canary sings where the archive is loaded
        torch.export.load(str(hostile))
    assert (tmp_path / "ran").exists()


def test_a_path_in_an_archive_leads_nowhere(archive, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(1024))

    def change(name, content):
        return content.replace(b'"weight_', b'"../../secret') if name.endswith("weights_config.json") else content

    assert len(identify(rezipped(archive, tmp_path / "model.pt2", change))) == len(identify(archive))


@pytest.mark.parametrize(
    ("member", "content", "message"),
    [
        ("models/model.json", b"{", "not JSON"),
        ("models/model.json", b"[" * 200_000, "nested too deeply"),
        ("models/model.json", b"[]", "must be an object"),
        ("models/model.json", b"{}", "not laid out"),
        ("models/model.json", None, "no torch.export archive"),
        ("data/weights/model_weights_config.json", b'{"config": []}', "not laid out"),
    ],
)
def test_what_is_wrong_with_an_archive_is_said(archive, tmp_path, member, content, message):
    hostile = rezipped(archive, tmp_path / "m.pt2", lambda n, c: content if n.endswith(member) else c)
    with pytest.raises(InputError, match=message):
        exported.read(hostile)


def test_a_graph_that_reads_what_is_not_there_is_refused(archive, tmp_path):
    def backwards(name, content):
        if not name.endswith("model.json"):
            return content
        program = json.loads(content)
        program["graph_module"]["graph"]["nodes"].reverse()
        return json.dumps(program)

    with pytest.raises(InputError, match="which nothing before it makes"):
        exported.read(rezipped(archive, tmp_path / "m.pt2", backwards))


def test_a_length_is_checked_before_it_is_believed(archive, tmp_path):
    content = bytearray(archive.read_bytes())
    at = content.find(b"PK\x01\x02")
    while at >= 0:  # each member is said to be of 4 GB
        content[at + 24 : at + 28] = b"\xf0\xff\xff\xff"
        at = content.find(b"PK\x01\x02", at + 4)
    (tmp_path / "m.pt2").write_bytes(content)
    with pytest.raises(InputError, match="more than the"):
        exported.read(tmp_path / "m.pt2")


def damaged(data, content):
    """Content with a few bytes changed, repeated, left out or cut off."""
    content = bytearray(content)
    at = data.draw(st.integers(0, max(0, len(content) - 1)))
    how = data.draw(st.sampled_from(["cut", "flip", "repeat", "drop"]))
    if how == "cut":
        del content[at:]
    elif how == "flip" and content:
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        part = content[at : at + data.draw(st.integers(1, 80))]
        content[at : at + len(part)] = part * (3 if how == "repeat" else 0)
    return bytes(content)


@settings(max_examples=60)
@given(st.data())
def test_a_damaged_archive_is_read_or_refused(archive, data):
    content = archive.read_bytes()
    if data.draw(st.booleans()):
        content = damaged(data, content)
    else:
        buffer = io.BytesIO()
        rezipped(archive, buffer, lambda n, c: damaged(data, c) if n.endswith("model.json") else c)
        content = buffer.getvalue()
    target = archive.with_name("damaged.pt2")
    target.write_bytes(content)
    try:
        exported.read(target)
    except InputError as error:
        assert str(error)  # noqa: PT017
