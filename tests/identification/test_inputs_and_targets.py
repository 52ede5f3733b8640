"""What the command line names: inputs and models."""

import contextlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from softknee.errors import InputError
from softknee.identification import load_target, parse_inputs


def test_inputs():
    (image,) = parse_inputs("float32[1,3,8,8]")
    assert (image.shape, image.dtype) == ((1, 3, 8, 8), torch.float32)
    assert torch.equal(image, parse_inputs("float32[1, 3, 8, 8]")[0])
    ids, mask = parse_inputs("int64[1,16]; bool[1,16]")
    assert (ids.dtype, mask.dtype, mask.all().item()) == (torch.int64, torch.bool, True)
    assert set(ids.unique().tolist()) <= {0, 1}
    assert [t.shape for t in parse_inputs(["float16[2]", "bfloat16[]", "float64[0,4]"])] == [(2,), (), (0, 4)]
    named = parse_inputs(["x=float32[2,4]", "mask = bool[2]"])
    assert {k: tuple(v.shape) for k, v in named.items()} == {"x": (2, 4), "mask": (2,)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("float32", "not of the form"),
        ("float32[1,3", "not of the form"),
        ("float32[1,,3]", "sizes must be numbers"),
        ("float32[-1]", "not of the form"),
        ("flot32[1]", "did you mean 'float32'"),
        ("complex64[1]", "unknown"),
        ("float32[99999,99999,99999]", "at most"),
        ("x=float32[1]; int64[1]", "either every input has a name or none"),
        ("x=float32[1]; x=int64[1]", "named twice"),
        ("__import__('os')[1]", "not of the form"),
    ],
)
def test_bad_inputs(text, message):
    with pytest.raises(InputError, match=message):
        parse_inputs(text)


SOURCE = """
from torch import nn
import neighbour
model = nn.ReLU()
number = 3
def build(): return nn.Sequential(nn.ReLU())
def needs(x): return nn.ReLU()
def wrong(): return 3
class Family:
    @staticmethod
    def build(): return nn.Tanh()
"""


@pytest.fixture
def script(tmp_path):
    (tmp_path / "neighbour.py").write_text("here = True\n")
    (tmp_path / "models_of_a_test.py").write_text(SOURCE)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    return tmp_path


def test_targets(script, monkeypatch):
    file = f"{script}/models_of_a_test.py"
    for attribute, kind in (("model", "ReLU"), ("build", "Sequential"), ("Family.build", "Tanh")):
        assert type(load_target(f"{file}:{attribute}")).__name__ == kind
    monkeypatch.chdir(script)
    assert type(load_target("models_of_a_test:build")).__name__ == "Sequential"
    assert type(load_target("torch.nn:ReLU")).__name__ == "ReLU"


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("buld", "did you mean 'build'"),
        ("number", "it must be a torch.nn.Module or a function"),
        ("needs", "could not be called without arguments: TypeError"),
        ("wrong", "returned a int"),
    ],
)
def test_bad_attributes(script, attribute, message):
    with pytest.raises(InputError, match=message):
        load_target(f"{script}/models_of_a_test.py:{attribute}")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere.py:build", "there is no file"),
        ("no_such_package_at_all:build", "could not be imported"),
        ("torch.nn", "not of the form"),
        (":build", "not of the form"),
        ("", "not of the form"),
    ],
)
def test_bad_targets(target, message):
    with pytest.raises(InputError, match=message):
        load_target(target)


def test_a_file_that_raises(script):
    with pytest.raises(InputError, match="could not be imported: ZeroDivisionError"):
        load_target(f"{script}/broken.py:build")


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text):
    """Nothing but an InputError, whatever is typed."""
    with contextlib.suppress(InputError):
        parse_inputs(text)


@given(st.sampled_from(["float32", "bfloat16", "int64", "bool"]), st.lists(st.integers(0, 5), max_size=4))
def test_every_shape_is_made(dtype, shape):
    (tensor,) = parse_inputs(f"{dtype}{shape}")
    assert (tensor.dtype, list(tensor.shape)) == (getattr(torch, dtype), shape)
