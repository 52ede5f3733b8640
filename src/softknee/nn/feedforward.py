"""Feed-forward blocks: act(x·W_up)·W_down, and gated: (act(x·W_gate) * (x·W_up))·W_down."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from ..catalog import Activation as Definition
from ..catalog import get
from ..errors import InputError
from .activations import Activation


class FeedForward(nn.Module):
    """`down(dropout(act(up(x))))`: two matrices. Input and output (..., dim).

    hidden: 4·dim unless given. Further keywords are the activation's parameters. Raises InputError for sizes below 1,
    an activation that is not elementwise, a parameter that it does not have.
    """

    def __init__(
        self,
        dim: int,
        hidden: int | None = None,
        activation: str | Definition = "gelu",
        *,
        bias: bool = True,
        dropout: float = 0.0,
        device: Any = None,
        dtype: Any = None,
        **parameters: Any,
    ) -> None:
        super().__init__()
        _size("dim", dim)
        hidden = 4 * dim if hidden is None else hidden
        _size("hidden", hidden)
        _fits(activation, "elementwise", parameters)
        self.up = nn.Linear(dim, hidden, bias=bias, device=device, dtype=dtype)
        self.activation = Activation(activation, device=device, dtype=dtype, **parameters)
        self.dropout = nn.Dropout(dropout)
        self.down = nn.Linear(hidden, dim, bias=bias, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.dropout(self.activation(self.up(x))))

    def extra_repr(self) -> str:
        return f"hidden={self.up.out_features}, parameters={_count(self):,}"


class GatedFeedForward(nn.Module):
    """`down(dropout(act(gate(x)) * up(x)))`: three matrices. Input and output (..., dim).

    hidden: unless given, 2/3 of `expansion`·dim rounded up to a multiple of `multiple_of`, so that the three matrices
    have about as many parameters as the two of `FeedForward` (Shazeer 2020, arXiv:2002.05202). Further keywords are the
    activation's parameters. Raises InputError for sizes below 1, an activation that is not gated, a parameter that it
    does not have.
    """

    def __init__(
        self,
        dim: int,
        hidden: int | None = None,
        activation: str | Definition = "swiglu",
        *,
        expansion: float = 4.0,
        multiple_of: int = 8,
        bias: bool = False,
        dropout: float = 0.0,
        device: Any = None,
        dtype: Any = None,
        **parameters: Any,
    ) -> None:
        super().__init__()
        _size("dim", dim)
        if hidden is None:
            _size("multiple_of", multiple_of)
            if not 1 <= expansion * dim * 2 / 3 < math.inf:
                raise InputError(
                    f"expansion={expansion!r} does not fit dim={dim}: 2/3·expansion·dim, the hidden size, must be "
                    "finite and at least 1"
                )
            hidden = -(-int(expansion * dim * 2 / 3) // multiple_of) * multiple_of
        _size("hidden", hidden)
        _fits(activation, "gated", parameters)
        self.gate = nn.Linear(dim, hidden, bias=bias, device=device, dtype=dtype)
        self.up = nn.Linear(dim, hidden, bias=bias, device=device, dtype=dtype)
        self.activation = Activation(activation, device=device, dtype=dtype, **parameters)
        self.dropout = nn.Dropout(dropout)
        self.down = nn.Linear(hidden, dim, bias=bias, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.dropout(self.activation(self.gate(x), self.up(x))))

    def extra_repr(self) -> str:
        hidden = self.up.out_features
        return (
            f"hidden={hidden}, parameters={_count(self):,}, as many as an ungated block with hidden={hidden * 3 // 2}"
        )


def _size(name: str, size: Any) -> None:
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise InputError(f"{name} must be a positive integer, got {size!r}")


def _fits(activation: str | Definition, kind: str, parameters: dict[str, Any]) -> None:
    found = get(activation)
    if found.kind != kind:
        block = "GatedFeedForward" if found.kind == "gated" else "FeedForward"
        raise InputError(f"{found.name} is {found.kind}, this block needs one that is {kind}; use nn.{block}")
    found.resolve(parameters)  # names what is no parameter: an option of Activation, such as channels, is none either


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
