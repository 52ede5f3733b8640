"""An activation between quantized tensors: a table with an entry for each of the 256 inputs, exact for its scales.

    table = softknee.int8.table("silu", scale=0.05)
    y = table(x)                  # x: torch.int8 → torch.int8
    y * table.out_scale           # about silu(x * 0.05)
    table.onnx()                  # the same as an ONNX graph

A quantized number q stands for (q − zero_point)·scale. f is evaluated in float64 and rounded once, half to even, so
that the result is the nearest there is: no port through float32 or half precision can be nearer.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .catalog import Activation, get
from .errors import InputError

if TYPE_CHECKING:
    import onnx

DTYPES = {torch.int8: np.int8, torch.uint8: np.uint8}


@dataclass(frozen=True, eq=False)
class Table:
    """What `table` makes. `values`: the results of all inputs in order, from the dtype's least to its largest."""

    activation: Activation
    dtype: torch.dtype
    scale: float
    zero_point: int
    out_scale: float
    out_zero_point: int
    values: np.ndarray

    def __call__(self, x: Tensor) -> Tensor:
        """Of the table's dtype and any shape; the result likewise. Raises InputError for another dtype."""
        if not isinstance(x, Tensor) or x.dtype != self.dtype:
            got = str(x.dtype).removeprefix("torch.") if isinstance(x, Tensor) else type(x).__name__
            raise InputError(f"this table of {self.activation.name} takes {self._word}, got {got}")
        index = x.to(torch.int32) - torch.iinfo(self.dtype).min
        return self._tensor(x.device).index_select(0, index.reshape(-1)).view(x.shape)

    def exact(self) -> np.ndarray:
        """f of every input, in float64, before it is rounded to the output's scale."""
        return _exact(self.activation, self.dtype, self.scale, self.zero_point)

    @property
    def error(self) -> float:
        """The largest difference from f over all inputs, in steps of the output: 0.5 where nothing is clipped."""
        kept = (self.values.astype(np.float64) - self.out_zero_point) * self.out_scale
        return float(np.abs(kept - self.exact()).max() / self.out_scale)

    def onnx(self, opset: int = 21) -> onnx.ModelProto:
        """A model of one lookup, for tensors of any size in two dimensions. Needs onnx."""
        try:
            from onnx import TensorProto, helper, numpy_helper
        except ModuleNotFoundError as error:
            raise InputError("a table as a graph needs onnx: pip install 'softknee[identify]'") from error

        kind = TensorProto.INT8 if self.dtype == torch.int8 else TensorProto.UINT8
        # Gather counts a negative index from the end: the table begins with 0
        wrapped = np.roll(self.values, torch.iinfo(self.dtype).min)
        nodes = [
            helper.make_node("Cast", ["x"], ["index"], to=TensorProto.INT32),
            helper.make_node("Gather", ["table", "index"], ["y"], axis=0),
        ]
        x, y = (helper.make_tensor_value_info(word, kind, ["batch", "features"]) for word in "xy")
        held = [numpy_helper.from_array(wrapped, "table")]
        graph = helper.make_graph(nodes, f"{self.activation.name}_{self._word}", [x], [y], held)
        opsets = [helper.make_opsetid("", opset)]
        version = helper.find_min_ir_version_for(opsets)
        return helper.make_model(graph, opset_imports=opsets, producer_name="softknee", ir_version=version)

    @property
    def _word(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @functools.cached_property
    def _tensors(self) -> dict[torch.device, Tensor]:
        return {}

    def _tensor(self, device: torch.device) -> Tensor:
        if device not in self._tensors:
            self._tensors[device] = torch.from_numpy(self.values).to(device)
        return self._tensors[device]


def table(
    activation: Activation | str,
    scale: float,
    zero_point: int = 0,
    out_scale: float | None = None,
    out_zero_point: int | None = None,
    dtype: torch.dtype = torch.int8,
    **parameters: float,
) -> Table:
    """The table of an elementwise activation, a user's own too.

    scale, zero_point: of the input; out_scale, out_zero_point: of the output, which cover what the inputs give unless
    said. dtype: torch.int8 or torch.uint8, of both.
    Raises InputError for a scale that is not positive, a zero point beyond the dtype, another dtype, an activation of
    two inputs or over a dimension, and where f is NaN or infinite at an input.
    """
    activation = get(activation).at(**parameters)
    if activation.kind != "elementwise":
        raise InputError(f"{activation.name} is {activation.kind}; a table of 256 entries is for an elementwise one")
    if dtype not in DTYPES:
        raise InputError(f"dtype must be torch.int8 or torch.uint8, got {dtype}")
    least, largest = torch.iinfo(dtype).min, torch.iinfo(dtype).max
    for word, value in (("scale", scale), ("out_scale", out_scale)):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (number and 0.0 < value < math.inf):
            raise InputError(f"{word} must be a positive number, got {value!r}")
    for word, point in (("zero_point", zero_point), ("out_zero_point", out_zero_point)):
        if point is not None and (
            isinstance(point, bool) or not isinstance(point, int) or not least <= point <= largest
        ):
            raise InputError(f"{word} must be a whole number from {least} to {largest}, got {point!r}")
    exact = _exact(activation, dtype, scale, zero_point)
    if not np.isfinite(exact).all():
        q = least + int(np.flatnonzero(~np.isfinite(exact))[0])
        raise InputError(f"{activation.name} is {exact[q - least]} at the input {q}, {(q - zero_point) * scale:g}")
    if out_scale is None:
        # 0 is kept exact, as every quantized padding needs it
        spread = max(float(exact.max()), 0.0) - min(float(exact.min()), 0.0)
        if out_zero_point is None:
            out_scale = spread / (largest - least) or 1.0
        else:
            above, below = largest - out_zero_point, out_zero_point - least
            need = [float(exact.max()) / above if above else 0.0, -float(exact.min()) / below if below else 0.0]
            out_scale = max(*need, 0.0) or 1.0
    if out_zero_point is None:
        low = min(float(exact.min()), 0.0)
        out_zero_point = int(np.clip(np.rint(least - low / out_scale), least, largest))
    steps = np.clip(np.rint(exact / out_scale) + out_zero_point, least, largest)
    values = steps.astype(DTYPES[dtype])
    return Table(activation, dtype, float(scale), zero_point, float(out_scale), out_zero_point, values)


def _exact(activation: Activation, dtype: torch.dtype, scale: float, zero_point: int) -> np.ndarray:
    q = np.arange(torch.iinfo(dtype).min, torch.iinfo(dtype).max + 1)
    return activation.value((q - zero_point) * float(scale))
