"""Builds the compiled kernels; everything else about the package stands in pyproject.toml.

The library has no Python ABI: it is loaded with `torch.ops.load_library` and links only torch's stable ABI (2.10 on).
The loops are compiled once per instruction set and chosen at run time. Without a C++ compiler, or without torch, the
package is installed all the same and computes by its other paths; `softknee env` says which.
"""

import os
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

FOLDER = Path("src/softknee/kernels/cpu")
COMMON = ["-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wno-unused"]
# Contraction is for the emitted code to ask for, or results would differ between instruction sets. GCC's own intrinsics
# use variables before they are set.
LOOPS = ["-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-Wno-uninitialized", "-Wno-maybe-uninitialized"]
X86 = {
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma", "-mf16c"],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
}


def units() -> dict[str, list[str]]:
    """The translation units and their own options."""
    import torch

    include = Path(torch.__file__).parent / "include"
    sets = {**(X86 if platform.machine() in ("x86_64", "AMD64") else {}), "portable": [], "double": []}
    loops = {f"kernels_{name}": [*LOOPS, *options] for name, options in sets.items()}
    return {**loops, "library": [f"-isystem{include}", "-DTORCH_TARGET_VERSION=0x020a000000000000"]}


class Kernels(build_ext):
    def get_ext_filename(self, fullname: str) -> str:
        return os.path.join(*fullname.split(".")) + ".so"  # for any Python

    def build_extension(self, ext: Extension) -> None:
        compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")
        if compiler is None:
            return self._without("no C++ compiler was found")
        try:
            self._compile(compiler, Path(self.get_ext_fullpath(ext.name)))
        except ImportError:
            self._without("torch is not installed; install it first, and softknee with --no-build-isolation")
        except (OSError, subprocess.CalledProcessError) as error:
            self._without(f"the compiler failed: {error}")

    def _compile(self, compiler: str, target: Path) -> None:
        import torch

        build = Path(self.build_temp)
        build.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        parts = units()

        def made(name: str) -> str:
            out = str(build / f"{name}.o")
            subprocess.run([compiler, *COMMON, *parts[name], "-c", str(FOLDER / f"{name}.cpp"), "-o", out], check=True)
            return out

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(made, parts))
        shared = ["-dynamiclib"] if sys.platform == "darwin" else ["-shared", "-s"]
        libraries = Path(torch.__file__).parent / "lib"
        subprocess.run([compiler, *shared, *objects, f"-L{libraries}", "-ltorch_cpu", "-o", str(target)], check=True)

    def _without(self, reason: str) -> None:
        self.extensions = []  # nothing to copy
        print(f"softknee: without compiled kernels: {reason}", file=sys.stderr)


class Wheel(bdist_wheel):
    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[Extension("softknee.kernels.cpu._kernels", sorted(map(str, FOLDER.glob("*.cpp"))))],
    cmdclass={"build_ext": Kernels, "bdist_wheel": Wheel},
)
