"""A definition that the catalog does not have, over any primitive of the op table, becomes a kernel that is exact."""

from __future__ import annotations

import ctypes
import shutil
import subprocess

import numpy as np
import pytest
import torch

import softknee
from softknee.backends import cpp
from softknee.kernels import cpu
from softknee.kernels.accuracy import FLOOR, error

COMPILER = shutil.which("g++")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
KINDS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}


@softknee.elementwise
def swinging(x, ops):
    """x·sin(2.7·x): a Wide argument in every dtype."""
    return x * ops.sin(2.7 * x)


@softknee.elementwise
def waving(x, ops):
    """cos(5.1·x + 0.3)·x."""
    return ops.cos(5.1 * x + 0.3) * x


@softknee.elementwise
def bending(x, ops):
    """x·atan(3·x)."""
    return x * ops.atan(3.0 * x)


@softknee.elementwise
def logarithmic(x, ops):
    """x·log(2 + x²)."""
    return x * ops.log(2.0 + x * x)


@softknee.elementwise
def softened(x, ops):
    """sign(x)·log(1 + |x|)."""
    return ops.sign(x) * ops.log1p(ops.abs(x))


@softknee.elementwise
def erring(x, ops):
    """x·erf(0.7·x) + erfc(x)."""
    return x * ops.erf(0.7 * x) + ops.erfc(x)


DEFINED = (swinging, waving, bending, logarithmic, softened, erring)


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("emission")
    lines = [
        f'#include "{header}"' if header else "#define SOFTKNEE_ISA portable"
        for header in ("kernels.h", "", "simd_portable.h", "math.h", "loops.h")
    ]
    lines += ["namespace softknee { namespace portable { namespace activations {"]
    lines += [cpp.code(activation).functor for activation in DEFINED]
    lines += ["} } }", "using namespace softknee;", "using namespace softknee::portable;", 'extern "C" {']
    for name in (activation.name for activation in DEFINED):
        kinds = ", ".join(f"Unary<activations::{name}, {kind}>::loops" for kind in ("float", "half", "bfloat"))
        lines.append(f"static constexpr Loops {name}_loops[] = {{{kinds}}};")
        for way in ("forward", "backward"):
            lines.append(f"void {name}_{way}(int kind, int64_t n, const void* const* in, void* const* out) {{")
            lines.append(f"  {name}_loops[kind].{way}(n, in, out, nullptr);\n}}")
    (folder / "emitted.cpp").write_text("\n".join([*lines, "}", ""]))
    options = ["-std=c++17", "-O1", "-fPIC", "-shared", "-ffp-contract=off", "-w", f"-I{cpu.LIBRARY.parent}"]
    subprocess.run([COMPILER, *options, folder / "emitted.cpp", "-o", folder / "emitted.so"], check=True, timeout=200)
    return ctypes.CDLL(str(folder / "emitted.so"))


@pytest.mark.parametrize("dtype", KINDS, ids=str)
@pytest.mark.parametrize("activation", DEFINED, ids=lambda a: a.name)
def test_a_definition_becomes_an_exact_kernel(library, activation, dtype):
    if dtype == torch.float32:
        x = torch.cat([torch.linspace(-30, 30, 20_001), 1e-3 * torch.randn(1000), torch.tensor([-5e3, 5e3])])
    else:
        x = torch.arange(65_536, dtype=torch.int32).to(torch.int16).view(dtype)
        x = x[x.abs() < 1e4]
    inputs = (x, torch.ones_like(x), x)
    for order, way in enumerate(("forward", "backward")):
        got, read = torch.empty_like(x), inputs[:1] if order == 0 else inputs[1:]
        pointers = (ctypes.c_void_p * len(read))(*[v.data_ptr() for v in read])
        function = getattr(library, f"{activation.name}_{way}")
        function(KINDS[dtype], ctypes.c_int64(x.numel()), pointers, (ctypes.c_void_p * 1)(got.data_ptr()))
        truth, slope = (np.asarray(activation.derivative(x.double().numpy(), order=order + n)) for n in (0, 1))
        found = error(truth, slope, got, x, FLOOR if order else 0.0)
        assert found.ulp <= (4.0 if dtype == torch.float32 else 0.51) and found.lost is None, (way, found)
