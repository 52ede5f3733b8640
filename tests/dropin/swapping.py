"""Puts our activations in the place of those that a model runs: modules by class, functions by name as they are called.

`with Swap(): model(x)` runs every activation function of PyTorch's as ours and counts. What the model still ran of
PyTorch's own, under whatever name, is seen below the functions, where operators are dispatched.
"""

from __future__ import annotations

import inspect
import types

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import softknee
import softknee.functional as SF
import softknee.nn as sn

ENTRIES = [a for a in softknee.activations() if a.torch]
# Classes that write a formula out or call one function: transformers' and one of the zoo's
CLASSES = {
    "GELUActivation": "gelu",
    "GELUTanh": "gelu_tanh",
    "NewGELUActivation": "gelu_tanh",
    "AccurateGELUActivation": "gelu_tanh",
    "QuickGELUActivation": "quick_gelu",
    "SiLUActivation": "silu",
    "MishActivation": "mish",
    "ReLUSquaredActivation": "relu2",
    "LaplaceActivation": "laplace",
    "SqrtSoftplusActivation": "sqrt_softplus",
    "LinearActivation": "identity",
    "Sparsemax": "sparsemax",
}


def _functions():
    """{PyTorch's function: ours, in place}, under every name that it has: F.silu, torch.relu_, Tensor.sigmoid, …"""
    found = {}
    for name in dict.fromkeys(a.torch for a in ENTRIES):
        for place in (F, torch, torch.Tensor, torch.special):
            for suffix in ("", "_"):
                if function := getattr(place, name + suffix, None):
                    found[function] = (name, suffix == "_")
    return found | {torch.special.expit: ("sigmoid", False)}


FUNCTIONS = _functions()
OPERATORS = {"_softmax", "_log_softmax", "log_sigmoid_forward", "rrelu_with_noise", "_prelu_kernel", "celu", "selu"} | {
    a.torch for a in ENTRIES
}


class _Operators(TorchDispatchMode):
    def __init__(self, swap):
        super().__init__()
        self.swap = swap

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if not self.swap.inside and (name.rstrip("_") in OPERATORS or "scaled_dot_product" in name):
            self.swap.left.append(name)
        return func(*args, **(kwargs or {}))


class Swap(TorchFunctionMode):
    """swapped: what ran as ours. left: the operators of PyTorch's activations that ran outside of ours.

    modules: whether the model's modules are to be replaced too. instead: {name: another function}, to plant a fault.
    """

    def __init__(self, modules=True, **instead):
        super().__init__()
        self.swapped, self.left, self.inside = [], [], False
        self.modules, self.instead = modules, instead

    def __enter__(self):
        self.below = _Operators(self)
        self.below.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.below.__exit__(*error)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if isinstance(func, softknee.Activation):  # of a module that has been swapped
            return self._ours(func.name, func, args, kwargs)
        if func not in FUNCTIONS:
            return func(*args, **kwargs)
        name, inplace = FUNCTIONS[func]
        kwargs |= {"inplace": True} if inplace else {}
        if name in ("softmax", "log_softmax"):
            kwargs.pop("_stacklevel", None)
            args, dtype = args[:2], args[2:]
            kwargs |= {"dtype": dtype[-1]} if dtype else {}
        return self._ours(name, self.instead.get(name, getattr(SF, name)), args, kwargs)

    def _ours(self, name, function, args, kwargs):
        self.swapped.append(name)
        self.inside = True
        try:
            return function(*args, **kwargs)
        finally:
            self.inside = False


class Wide(TorchFunctionMode):
    """Keeps float64 float64 where a model asks for float32, as transformers' norms and softmaxes do."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        double = bool(args) and isinstance(args[0], torch.Tensor) and args[0].dtype == torch.float64
        if double and func in (torch.Tensor.to, torch.Tensor.type) and torch.float32 in (*args, *kwargs.values()):
            return args[0]
        if double and func is torch.Tensor.float:
            return args[0]
        if double and kwargs.get("dtype") == torch.float32:
            kwargs["dtype"] = None
        return func(*args, **kwargs)


def swap_modules(model):
    """Replaces every activation module, PyTorch's and transformers', and act(gate)·up. Returns how many."""
    count = 0
    for parent in list(model.modules()):
        count += _fuse(parent)
        for name, child in list(parent.named_children()):
            if (ours := _counterpart(child)) is not None:
                setattr(parent, name, ours.train(child.training))
                count += 1
    return count


def _counterpart(module):
    kind = type(module)
    if kind.__module__ == "torch.nn.modules." + kind.__module__.rsplit(".", 1)[-1] and hasattr(sn, kind.__name__):
        names = [n for n in inspect.signature(kind).parameters if hasattr(module, n)]
        ours = getattr(sn, kind.__name__)(**{n: getattr(module, n) for n in names})
        ours.load_state_dict(module.state_dict())
        return ours.to(next(module.parameters()).dtype) if list(module.parameters()) else ours
    if kind.__name__ not in (*CLASSES, "XIELUActivation"):
        return None
    if kind.__name__ == "XIELUActivation":
        ours = sn.XIELU(beta=float(module.beta), eps=float(module.eps)).to(module.alpha_p.dtype)
        ours.load_state_dict(dict(module.named_parameters()))
        return ours
    return sn.Activation(CLASSES[kind.__name__])


GATED = {"SiLUActivation": "swiglu", "GELUActivation": "geglu"}


def _fuse(module):
    """The gated activation in the place of act(gate)·up: one call."""
    kind = type(module).__name__
    act = type(getattr(module, "act_fn", getattr(module, "act", None))).__name__
    if kind == "GptOssExperts":
        module._apply_gate = lambda packed: SF.swiglu_oai(packed, alpha=module.alpha, limit=module.limit)
    elif kind == "DeepseekV4Experts":
        module._apply_gate = lambda packed: SF.swiglu_clamped(packed, limit=module.limit)
    elif kind == "DeepseekV4MLP":
        module.forward = types.MethodType(
            lambda self, x: self.down_proj(SF.swiglu_clamped(self.gate_proj(x), self.up_proj(x), limit=self.limit)),
            module,
        )
    elif kind in ("LlamaMLP", "DeepseekV3MLP"):
        gated = getattr(SF, GATED[act])
        module.forward = types.MethodType(
            lambda self, x: self.down_proj(gated(self.gate_proj(x), self.up_proj(x))), module
        )
    elif kind == "ModernBertMLP":
        gated = getattr(SF, GATED[act])
        module.forward = types.MethodType(lambda self, x: self.Wo(self.drop(gated(self.Wi(x)))), module)
    else:
        return 0
    return 1
