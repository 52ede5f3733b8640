"""TorchScript in memory and as an archive: the live model's census, nothing loaded; a hostile archive is one line."""

import io
import os
import pickle
import struct
import warnings
import zipfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ported import SPELLINGS, Between, Gated, Reused, blocks, modules, said
from test_exported import Canary, damaged, rezipped
from torch import nn

from softknee.errors import InputError
from softknee.identification import identify
from softknee.identification.formats import torchscript
from softknee.identification.formats.aten import Listing, Name, Operation, graph
from softknee.identification.graphs import census


@pytest.fixture(autouse=True)
def _deprecated():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own: TorchScript is deprecated
        yield


def traced(model, x):
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    with torch.no_grad():
        module = torch.jit.trace(model, x, check_trace=False)
    torch.backends.mha.set_fastpath_enabled(fast)
    return module


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("script") / "model.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Reused().eval()).save(path)
    return path


def test_every_activation_module_of_torch_is_what_it_is_live(tmp_path):
    layers = [layer for module in modules().values() for layer in (nn.Linear(6, 6), module)]
    model, x = nn.Sequential(*layers, nn.Linear(6, 3)).eval(), torch.randn(4, 6)
    live = said(identify(model, x))
    assert [site[1] for site in live] == list(modules())
    for scripted in (traced(model, x), torch.jit.script(model)):
        assert said(identify(scripted)) == live
        scripted.save(tmp_path / "model.pt")
        assert said(identify(tmp_path / "model.pt")) == live


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_spelling_is_matched_by_what_it_computes(name):
    function, activation = SPELLINGS[name]
    model, x = Between(function).eval(), torch.randn(4, 6)
    found = identify(traced(model, x))
    assert [s.activation for s in found] == [activation]
    assert {s.dtype for s in found} == {"float32"}
    if activation is not None:
        assert said(found) == said(identify(model, x))


@pytest.mark.parametrize("name", blocks())
def test_a_block_has_its_live_census(name):
    model, x = blocks()[name]
    live = said(identify(model, x))
    found = identify(traced(model, x))
    assert said(found) == live
    assert not found.conflicts
    assert not found.notes
    if name in ("convolutions", "reused", "encoder layer"):
        assert said(identify(torch.jit.script(model))) == live


def test_control_flow_is_followed_as_far_as_it_is_known():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.layers, self.deep = nn.Linear(6, 6), nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)]), True

        def forward(self, x):
            if self.deep:
                for layer in self.layers:
                    x = torch.relu(layer(x))
            else:
                x = torch.tanh(x)
            x = self.a(x)
            if x.dim() > 2:
                x = torch.sigmoid(x)
            else:
                x = nn.functional.gelu(x)
            return x

    found = identify(torch.jit.script(Model()))
    assert [s.activation for s in found] == ["relu", "relu", "sigmoid", "gelu"]
    assert "conditions that only a run decides, in the model" in found.notes[0]


def test_a_function_is_read_too():
    def function(x):
        return x * torch.sigmoid(1.702 * x)

    assert [s.activation for s in identify(torch.jit.trace(function, torch.randn(3)))] == ["quick_gelu"]


def test_a_fused_encoder_layer_says_what_is_in_it():
    given = [Name(f"w{i}") for i in range(4)]
    arguments = (Name("x"), 8, 2, *given, True, False, 1e-5)
    fused = Operation("aten._transformer_encoder_layer_fwd", arguments, {}, (Name("y"),), "layers.0")
    listing = Listing("encoder", [fused], ["x"], ["y"], weights=dict.fromkeys(given, (8, 8)))
    found = [(s.key, s.activation, s.form, s.role) for s in census(graph(listing))]
    assert found == [("layers.0#0", "softmax", "fused", "attention"), ("layers.0#1", "gelu", "fused", "hidden")]


# -- hostile archives


def with_code(archive, target, text):
    """The archive with `text` for the body of its forward; `__setstate__` and all else stay away from being run."""

    def change(name, content):
        if name.endswith(".py") and b"class Reused" in content:
            head = content[: content.index(b"  def forward")].decode()
            return (head + text).encode()
        return content

    return rezipped(archive, target, change)


def test_no_code_and_no_pickle_is_run(archive, tmp_path):
    written = str(tmp_path / "written")
    code = (
        "  def forward(self, x: Tensor) -> Tensor:\n    return torch.relu(x)\n"
        "  def __setstate__(self, state: Tensor) -> NoneType:\n"
        f'    _0 = torch.from_file("{written}", True, 10)\n    return None\n'
    )
    assert [s.activation for s in identify(with_code(archive, tmp_path / "a.pt", code))] == ["relu"]
    bomb = pickle.dumps(Canary(written), protocol=2)
    hostile = rezipped(archive, tmp_path / "b.pt", lambda n, c: bomb if n.endswith("data.pkl") else c)
    with pytest.raises(InputError):
        identify(hostile)
    assert not os.path.exists(written)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("    while True:\n      x = torch.relu(x)\n    return x\n", "steps to follow"),
        ("    for i in range(1000000000):\n      x = torch.relu(x)\n    return x\n", "steps to follow"),
        ("    return (self).forward(x, )\n", "nested"),
        ("    return " + "(" * 5000 + "x" + ")" * 5000 + "\n", "not laid out|nested"),
        ("    return " + "-" * 50000 + "x\n", "not laid out|nested"),
        ("    import os\n    return x\n    lambda: 1\n  async def f(self): pass\n", None),
        ("    a = 9\n" + "    a = torch.pow(a, a)\n" * 50 + "    return torch.mul(x, a)\n", None),
        ('    a = "xx"\n' + "    a = torch.add(a, a)\n" * 50 + "    return torch.relu(x)\n", None),
        ("    return (lambda: x)()\n", "Lambda"),
        ("    return (self.missing).forward(x, )\n", None),
        ("    return __torch__.nowhere.f(x)\n", "no member"),
        ("    return __torch__.../../etc.f(x)\n", "not laid out"),
        ("    with open('x'):\n      return x\n", "With"),
    ],
)  # fmt: skip
def test_hostile_code_is_followed_or_refused(archive, tmp_path, body, message):
    code = f"  def forward(self, x: Tensor) -> Tensor:\n{body}"
    hostile = with_code(archive, tmp_path / "m.pt", code)
    if message is None:
        try:
            torchscript.read(hostile)
        except InputError as error:
            assert str(error)  # noqa: PT017
    else:
        with pytest.raises(InputError, match=message):
            torchscript.read(hostile)


def test_calls_that_double_are_refused(archive, tmp_path):
    methods = "".join(
        f"  def f{i}(self, x: Tensor) -> Tensor:\n    y = (self).f{i + 1}(x, )\n    return (self).f{i + 1}(y, )\n"
        for i in range(40)
    )
    code = "  def forward(self, x: Tensor) -> Tensor:\n    return (self).f0(x, )\n" + methods
    code += "  def f40(self, x: Tensor) -> Tensor:\n    return x\n"
    with pytest.raises(InputError, match="steps to follow"):
        torchscript.read(with_code(archive, tmp_path / "m.pt", code))


def test_hostile_pickles_are_refused(archive, tmp_path):
    cyclic = b"\x80\x02c__torch__\nM\nq\x00)\x81q\x01}X\x01\x00\x00\x00aq\x02h\x01sb."
    for content in (
        b"", b"\x80\x02.", b"\x80\x02]q\x00h\x00a.", cyclic, b"\x80\x02}.", b"\x80\x02K\x01.",
        b"cos\nsystem\n(S'x'\ntR.",
        b"\x80\x04\x96" + struct.pack("<Q", 1 << 60) + b".", b"\x80\x02X" + struct.pack("<I", 1 << 31) + b"a.",
        b"\x80\x02r\xff\xff\xff\xff.", b"\x80\x02" + b"(" * 100_000 + b".",
    ):  # fmt: skip
        hostile = rezipped(archive, tmp_path / "m.pt", lambda n, c, new=content: new if n.endswith("data.pkl") else c)
        with pytest.raises(InputError):
            torchscript.read(hostile)


def test_what_is_no_archive_of_torchscript_is_said_to_be_none(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "weights.pt")
    with pytest.raises(InputError, match="no TorchScript archive"):
        torchscript.read(tmp_path / "weights.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(InputError, match="damaged zip archive"):
        torchscript.read(tmp_path / "text.pt")
    with pytest.raises(InputError):
        torchscript.read(tmp_path / "nothing.pt")
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("m/data.pkl", bytes(1 << 25))
        bomb.writestr("m/code/__torch__.py", "")
    with pytest.raises(InputError, match="more than the"):
        torchscript.read(tmp_path / "bomb.pt")


@settings(max_examples=80)
@given(st.data())
def test_a_damaged_archive_is_read_or_refused(archive, data):
    content = archive.read_bytes()
    if data.draw(st.booleans()):
        content = damaged(data, content)
    else:
        ending = data.draw(st.sampled_from(["data.pkl", ".py", "constants.pkl"]))
        buffer = io.BytesIO()
        rezipped(archive, buffer, lambda n, c: damaged(data, c) if n.endswith(ending) else c)
        content = buffer.getvalue()
    target = archive.with_name("damaged.pt")
    target.write_bytes(content)
    try:
        torchscript.read(target)
    except InputError as error:
        assert str(error)  # noqa: PT017


def test_a_gated_block_scripted_by_halves_keeps_its_layout():
    class Halves(Gated):
        def forward(self, x):
            gate, up = self.gate_up(x).chunk(2, -1)
            return self.down(nn.functional.silu(gate) * up)

    (site,) = identify(torch.jit.script(Halves(False)))
    assert (site.activation, site.layout) == ("swiglu", "gate_up")
