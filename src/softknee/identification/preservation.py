"""Running somebody's model and leaving it as it was: modes, buffers, parameters, attributes, random numbers."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """In eval mode, without gradients, without fused fast paths; afterwards everything is what it was before.

    Restored: the mode of every submodule, parameters and buffers that the forward overwrote or replaced, attributes
    that it set, the random state of torch, NumPy and Python; also when the block raises. Tensors are copied first,
    so the model must fit into memory twice.
    """
    modules = list(model.modules())
    # a forward may set attributes (a cache, a counter): the dictionaries are restored as they were
    plain = [m for m in modules if not isinstance(m, torch.jit.ScriptModule)]
    modes = [(m, m.training) for m in modules]
    attributes = [(m, dict(m.__dict__), dict(m._parameters), dict(m._buffers), dict(m._modules)) for m in plain]
    tensors = [t for t in (*model.parameters(), *model.buffers()) if not t.is_meta]
    copies = [(t, t.detach().clone(), t._version) for t in tensors if not t.is_inference()]
    devices = sorted({t.device.index or 0 for t in tensors if t.device.type == "cuda"})
    states = (random.getstate(), np.random.get_state())
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(torch.random.fork_rng(devices))
            if "torch._dynamo" in sys.modules:  # compiled submodules run as they were written
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            for module in modules:
                module.training = False
            torch.backends.mha.set_fastpath_enabled(False)
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        random.setstate(states[0])
        np.random.set_state(states[1])
        for module, training in modes:
            module.training = training
        for module, fields, parameters, buffers, children in attributes:
            _put_back(module.__dict__, fields)
            _put_back(module._parameters, parameters)
            _put_back(module._buffers, buffers)
            _put_back(module._modules, children)
        with torch.no_grad():
            for tensor, copy, version in copies:
                # writes through `.data` do not count as a new version
                if tensor._version != version or not torch.equal(tensor, copy):
                    tensor.data.copy_(copy)


def _put_back(now: dict[str, Any], before: dict[str, Any]) -> None:
    for key in [key for key in now if key not in before]:
        del now[key]
    for key, value in before.items():
        if now.get(key) is not value:
            now[key] = value
