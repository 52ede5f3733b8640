"""How exact ONNX Runtime is: its own operators, and the function bodies of softknee.onnx, in float32 on the CPU.

    python benchmarks/onnx_runtime.py [names …]

Every elementwise entry that ONNX has an operator for, at the points and in the units of docs/accuracy.md, rounded up as
there; the runtime's optimisations are on, as its users have them. Needs onnxruntime, which softknee does not ask for:
pip install onnxruntime. A minute. Writes results/onnxruntime.json, from which tools/accuracy.py makes a table.
"""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import onnx
import torch
from machine import machine

import softknee
from softknee.catalog import Activation
from softknee.catalog.names import meanings
from softknee.files import write_whole
from softknee.kernels import accuracy

TARGET = Path(__file__).parent / "results/onnxruntime.json"
OPSET = 21  # or that which brought the operator; the runtime lacks some operators of the newest
INPUTS = ("PRelu", "Clip")  # whose parameters are inputs, so that softknee.onnx.model writes a body for them


def session(runtime: Any, model: onnx.ModelProto) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def measured(runtime: Any, activation: Activation, opset: int, native: bool) -> list[object] | None:
    """[ULPs, where, from where the value is lost], as in accuracy.json; None where the runtime lacks an operator."""
    try:
        session(runtime, softknee.onnx.model(activation, opset, native=native))
    except Exception as error:  # its classes are not public
        if "NOT_IMPLEMENTED" not in str(error):
            raise
        return None

    def evaluate(x: torch.Tensor, order: int, **parameters: float) -> torch.Tensor:
        made = softknee.onnx.model(activation, opset, ("n",), native, **parameters)
        return torch.from_numpy(session(runtime, made).run(None, {"x": x.numpy()})[0])

    found = accuracy.worst(activation, evaluate, torch.float32, 0)
    values = (accuracy.stated(found.ulp), found.at, found.lost)
    return [str(v) if v is not None and math.isinf(v) else v for v in values]


def main() -> int:
    try:
        import onnxruntime as runtime
    except ModuleNotFoundError:
        print("needs onnxruntime: pip install onnxruntime", file=sys.stderr)
        return 2
    entries = {}
    for activation in softknee.activations():
        written = activation.name_in("onnx")
        if written is None or activation.kind != "elementwise" or written.startswith(INPUTS):
            continue
        if sys.argv[1:] and activation.name not in sys.argv[1:]:
            continue
        opset = max([OPSET, *(m.since for m in meanings("onnx") if m.entry == activation.name)])
        rows = {way: measured(runtime, activation, opset, way == "native") for way in ("native", "body")}
        entries[activation.name] = {"operator": written, "opset": opset, **rows}
        print(activation.name, entries[activation.name], flush=True)
    if not sys.argv[1:]:
        about = {"onnxruntime": runtime.__version__, "onnx": onnx.__version__, "machine": machine()}
        text = json.dumps(about | {"entries": entries}, indent=1, ensure_ascii=False)
        write_whole(TARGET, re.sub(r"\[\s+([^]]*?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
