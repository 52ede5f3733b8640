"""Every entry on tensors of every kind: strides, empty, without dimensions, dtypes, devices without data, NaN."""

from __future__ import annotations

import math

import pytest
import torch
from cases import gradients, inputs, tensors, torchs
from torch._subclasses.fake_tensor import FakeTensorMode

from softknee.errors import InputError

VIEWS = {
    "channels_last": lambda v: v.to(memory_format=torch.channels_last),
    "transposed": lambda v: v.transpose(0, 3),
    "sliced": lambda v: v[:, ::2, 1:, ::3],
    "expanded": lambda v: v[:1].expand(5, -1, -1, -1),
    "flipped": lambda v: v.flip(-1)[..., 1:],
}


@pytest.mark.parametrize("view", VIEWS)
def test_strides(case, view):
    """The values of the contiguous tensor, gradients too, laid out as PyTorch's elementwise ops lay out theirs."""
    x = inputs(case.activation, 2, 3, 4, 6, dtype=torch.float32)
    viewed, plain = [tuple(f(v) for v in map(VIEWS[view], x)) for f in (lambda v: v, torch.Tensor.contiguous)]
    if case.draws:  # noise is drawn in the order of the elements in memory
        y = case.function(*viewed)
        assert y.shape == viewed[0].shape and gradients(y, x)[0].isfinite().all()
        return
    got, wanted = case.function(*viewed), case.function(*plain)
    # PyTorch's own ops round otherwise in a vector than in what is left over
    torch.testing.assert_close(got, wanted, rtol=5e-7, atol=1e-7)
    torch.testing.assert_close(gradients(got, x), gradients(wanted, x), rtol=1e-6, atol=1e-7)
    assert got.stride() in strides(case, *viewed)


def strides(case, *x):
    """Those of PyTorch's elementwise ops, which keep a dense input's, and of the function it has for the entry."""
    found = {(x[0] * x[-1]).stride()}
    theirs = torchs(case.activation, *x)
    if theirs is not None:
        found.add(theirs.stride())
    if case.name == "identity":
        found.add(x[0].stride())
    if case.activation.kind == "normalizer":
        found.add(x[0].contiguous().stride())
    return found


def test_channels_last(case):
    """Stays channels_last, forward and backward, with one parameter for each channel too."""
    x = tuple(v.to(memory_format=torch.channels_last) for v in inputs(case.activation, 2, 3, 4, 5))
    x = tuple(v.detach().requires_grad_() for v in x)
    if len(strides(case, *x)) > 1:
        pytest.skip("PyTorch's own function does not keep it")
    for parameters in ({}, tensors(case.activation, 3, 1, 1)):
        y = case.seeded(*x, **parameters)
        assert y.is_contiguous(memory_format=torch.channels_last)
        for g in torch.autograd.grad(y, x, torch.ones_like(y)):
            assert g.is_contiguous(memory_format=torch.channels_last)


def test_inplace_through_strides(elementwise_case):
    case = elementwise_case
    (x,) = inputs(case.activation, 4, 6, grad=False)
    for view in (lambda v: v.t(), lambda v: v[::2, 1::2], lambda v: v[:, 3]):
        mine = x.clone()
        wanted = case.seeded(view(x).clone(memory_format=torch.preserve_format))
        case.seeded(view(mine), inplace=True)
        if not case.draws:
            assert torch.equal(view(mine), wanted)
        untouched = mine == x
        view(untouched)[...] = True
        assert untouched.all()


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1,), (3, 0)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_shapes(case, shape, dtype):
    """Empty tensors and tensors without dimensions, as PyTorch takes them, a softmax of a scalar too."""
    x = inputs(case.activation, *shape, dtype=dtype)
    y = case.function(*x)
    assert y.shape == shape and y.dtype == dtype
    y.sum().backward()
    assert all(v.grad.shape == shape for v in x)
    torch.autograd.grad(case.function(*x).square().sum(), x, create_graph=True)[0].sum().backward()


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (4, 0)])
def test_shapes_with_learned_parameters(parametrized_case, shape):
    case = parametrized_case
    x, given = inputs(case.activation, *shape), tensors(case.activation)
    y = case.function(*x, **given)
    grads = torch.autograd.grad(y.sum(), (*x, *given.values()))
    assert [g.shape for g in grads] == [v.shape for v in (*x, *given.values())]
    if 0 in shape:
        assert all(g == 0 for g in grads[len(x) :])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dtypes(case, dtype):
    """The input's dtype comes out, whatever dtype a parameter has; a parameter's gradient has the parameter's."""
    x = inputs(case.activation, 3, 4, dtype=dtype)
    for other in (torch.float64, torch.float32, torch.bfloat16):
        given = tensors(case.activation, dtype=other)
        y = case.function(*x, **given)
        assert y.dtype == dtype
        if given:
            assert [g.dtype for g in gradients(y, given.values())] == [other] * len(given)


def test_gates_of_two_dtypes_promote_as_in_torch(gated):
    gate, up = inputs(gated, 3, 4, grad=False)
    for a, b in ((torch.float32, torch.float64), (torch.bfloat16, torch.float32), (torch.float16, torch.bfloat16)):
        for left, right in ((gate.to(a), up.to(b)), (gate.to(b), up.to(a))):
            y = gated(left.requires_grad_(), right.requires_grad_())
            assert y.dtype == (left * right).dtype
            assert [g.dtype for g in torch.autograd.grad(y.sum(), (left, right))] == [left.dtype, right.dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_meta_and_fake(case, dtype):
    """Where there is no data: shape, dtype and strides are what a computation would give."""
    x = inputs(case.activation, 2, 3, 4, 6, dtype=dtype, grad=False)
    x = tuple(v.to(memory_format=torch.channels_last) for v in x)
    given = tensors(case.activation, grad=False)
    for parameters in ({}, given):
        wanted = case.function(*x, **parameters)
        on_meta = {name: v.to("meta") for name, v in parameters.items()}
        with FakeTensorMode() as mode:
            fake = [mode.from_tensor(v) for v in x]
            fakes = {name: mode.from_tensor(v) for name, v in parameters.items()}
            results = [case.function(*fake, **fakes)]
        results.append(case.function(*(v.to("meta") for v in x), **on_meta))
        for y in results:
            assert (y.shape, y.dtype) == (wanted.shape, wanted.dtype)
            assert y.stride() == wanted.stride() or len(strides(case, *x)) > 1  # PyTorch's own differ there
    leaves = [v.to("meta").requires_grad_() for v in x]
    grads = torch.autograd.grad(case.function(*leaves).sum(), leaves)
    assert [g.shape for g in grads] == [v.shape for v in x]


def test_meta_module(case):
    """A model laid out on the meta device, then made there: nothing is lost."""
    learn = tuple(tensors(case.activation))
    module = case.module(learn=learn, device="meta")
    assert all(p.is_meta for p in module.parameters())
    module.to_empty(device="cpu").load_state_dict(case.module(learn=learn).state_dict())
    x = inputs(case.activation, 3, 4, dtype=torch.float32, grad=False)
    torch.manual_seed(0)
    wanted = case.module(learn=learn)(*x)
    torch.manual_seed(0)
    assert torch.equal(module(*x), wanted)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_nan(case, dtype):
    """NaN in, NaN out, at that element only; a normalizer's whole row."""
    x = inputs(case.activation, 5, 4, dtype=dtype, grad=False)
    clean = case.seeded(*x)
    for i in range(len(x)):
        dirty = [v.clone() for v in x]
        dirty[i][2, 1] = math.nan
        y = case.seeded(*dirty)
        expected = torch.zeros(5, 4, dtype=torch.bool)
        if case.activation.kind == "normalizer":
            expected[2] = True
        else:
            expected[2, 1] = True
        if case.options.get("hard"):
            continue
        assert torch.equal(y.isnan(), expected)
        assert torch.equal(y[~expected], clean[~expected])


def test_complex_is_refused(activation):
    """No entry is defined on the complex plane; where PyTorch computes tanh there, the entry says that it does not."""
    x = [torch.zeros(2, 2, dtype=torch.complex64) for _ in activation.inputs]
    options = {"dim": -1} if activation.kind == "normalizer" else {}
    with pytest.raises(InputError, match=f"{activation.name}: .*real floating-point.*complex64"):
        activation(*x, **options)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
def test_integers_as_in_torch(activation, dtype):
    """What PyTorch's own function answers, or an error that names the dtype; never a silent conversion of one's own."""
    x = [torch.tensor([[0, 1], [1, 3]]).to(dtype) for _ in activation.inputs]
    options = {"dim": -1} if activation.kind == "normalizer" else {}
    y = answered(activation, x, options, f"{activation.inputs[0]} must be a real .*{str(dtype).removeprefix('torch.')}")
    if y is not None:
        assert activation.kind == "elementwise"
        wanted = x[0] if activation.name == "identity" else torchs(activation, *x)
        assert y.dtype == wanted.dtype and torch.equal(y, wanted)


def answered(activation, x, options, message):
    """The result, or None where the activation refuses with an InputError that matches."""
    try:
        return activation(*x, **options)
    except InputError:
        with pytest.raises(InputError, match=message):
            activation(*x, **options)
        return None


@pytest.mark.filterwarnings("ignore")  # PyTorch's own: sparse and nested tensors are in beta
@pytest.mark.parametrize("made", ["to_sparse", "to_sparse_csr", "nested", "to_mkldnn"])
def test_other_layouts_as_in_torch(activation, made):
    """Sparse and nested tensors: what PyTorch's own function answers, or an error that names the layout and the way."""
    x = inputs(activation, 3, 4, dtype=torch.float32, grad=False)
    x = [torch.nested.nested_tensor([v[0], v[1, :2]]) if made == "nested" else getattr(v, made)() for v in x]
    options = {"dim": -1} if activation.kind == "normalizer" else {}
    y = answered(activation, x, options, f"{activation.name}: .* must be a dense tensor, got one of layout")
    if y is not None and activation.name != "identity":
        theirs = torchs(activation, *x)
        assert y.layout == theirs.layout
        pairs = (
            zip(y.unbind(), theirs.unbind(), strict=True) if made == "nested" else [(y.to_dense(), theirs.to_dense())]
        )
        assert all(torch.equal(a, b) for a, b in pairs)


def test_jagged(traced):
    """Nested tensors of the jagged layout hold their values densely: computed like any tensor, with gradients; where
    PyTorch's own op does not take them, an error says what to pass."""
    lengths = torch.tensor([0, 2, 6])
    values = inputs(traced, 6, 3, dtype=torch.float32)
    x = [torch.nested.nested_tensor_from_jagged(v, lengths) for v in values]
    y = answered(traced, x, {}, "layout nested; pass its values")
    if y is not None:
        wanted = traced(*values)
        torch.testing.assert_close(y.values(), wanted)
        if not traced.torch:  # PyTorch's ops have no backward for some of its functions
            torch.testing.assert_close(gradients(y.values(), values), gradients(wanted, values))
