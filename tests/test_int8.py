"""int8 tables: the nearest result for every input, as a torch function and as an ONNX graph."""

import numpy as np
import pytest
import torch

import softknee
import softknee.int8 as int8
from softknee.errors import InputError

ELEMENTWISE = [a for a in softknee.activations() if a.kind == "elementwise"]


@pytest.mark.parametrize("activation", ELEMENTWISE, ids=lambda a: a.name)
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
def test_every_input_has_the_nearest_result(activation, dtype):
    table = int8.table(activation, scale=0.05, zero_point=3, dtype=dtype)
    info = torch.iinfo(dtype)
    x = torch.arange(info.min, info.max + 1).to(dtype)
    y = table(x).double()
    exact = activation.value((x.double().numpy() - 3) * 0.05)
    assert table(x).dtype == dtype
    # the ends may be half a step further where 0 is kept exact
    error = np.abs((y.numpy() - table.out_zero_point) * table.out_scale - exact).max()
    assert error <= (1.0 + 1e-9) * table.out_scale
    assert table.error <= 1.0 + 1e-9
    given = int8.table(activation, 0.05, 3, out_scale=2.0 * table.out_scale, out_zero_point=0, dtype=dtype)
    inside = np.clip(exact / given.out_scale, info.min, info.max)
    assert np.abs(given.values - inside).max() <= 0.5 + 1e-12


def test_shapes_and_values():
    table = int8.table("relu", scale=0.1, out_scale=0.1, out_zero_point=0)
    x = torch.tensor([[-128, -1, 0], [1, 5, 127]], dtype=torch.int8)
    assert table(x).tolist() == [[0, 0, 0], [1, 5, 127]]
    assert table(x.t()).tolist() == table(x).t().tolist()
    assert table(x[:0]).shape == (0, 3)
    assert table(x[0, 0]).shape == ()
    assert int8.table("leaky_relu", 0.1, out_scale=0.1, out_zero_point=0, negative_slope=0.5)(x)[0, 0] == -64


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
def test_as_a_graph(dtype):
    onnx = pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    table = int8.table("gelu", scale=0.03, zero_point=10, dtype=dtype)
    model = table.onnx()
    onnx.checker.check_model(model)
    info = torch.iinfo(dtype)
    x = torch.arange(info.min, info.max + 1).to(dtype).view(16, 16)
    (found,) = ReferenceEvaluator(model).run(None, {"x": x.numpy()})
    np.testing.assert_array_equal(found, table(x).numpy())
    assert not np.array_equal(found, int8.table("relu", 0.03, 10, dtype=dtype)(x).numpy())  # it could fail


def test_bad_input_is_named():
    for arguments, message in [
        ({"scale": 0.0}, "scale must be a positive number, got 0"),
        ({"scale": 0.1, "zero_point": 300}, "zero_point must be a whole number from -128 to 127, got 300"),
        ({"scale": 0.1, "out_scale": float("nan")}, "out_scale must be a positive number"),
        ({"scale": 0.1, "dtype": torch.int16}, "dtype must be torch.int8 or torch.uint8"),
        ({"scale": 0.1, "slope": 1.0}, "has no parameter 'slope'"),
    ]:
        with pytest.raises(InputError, match=message):
            int8.table("silu", **arguments)
    with pytest.raises(InputError, match="swiglu is gated"):
        int8.table("swiglu", 0.1)
    with pytest.raises(InputError, match="takes int8, got uint8"):
        int8.table("silu", 0.1)(torch.zeros(2, dtype=torch.uint8))

    @softknee.elementwise
    def inverse(x, ops):
        """1/x"""
        return 1.0 / x

    with pytest.raises(InputError, match="inverse is inf at the input 0"):
        int8.table(inverse, 0.1)
