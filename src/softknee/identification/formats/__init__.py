"""One reader per file format; each gives a Census. `read` tells the format by what is in the file.

A reader executes nothing that a file holds, writes nothing, reads no weights where it can do without, and answers
whatever is wrong with a file with one InputError.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from ...errors import InputError
from ..census import Census
from . import parsing

__all__ = ["read"]

_READ = ".keras, .onnx, .pt2, .gguf, .safetensors, TorchScript, config.json or a directory with one"
_HDF5 = b"\x89HDF\r\n\x1a\n"


def read(path: str | os.PathLike[str], *, allow_pickle: bool = False) -> Census:
    """The Census of the model in a file or directory, whatever its format.

    path: an ONNX model, a torch.export archive, a TorchScript archive, GGUF, safetensors (one file, an index of
        shards, a directory), a Hugging Face config.json or a directory with one, a .keras file, a Keras model's JSON.
    allow_pickle: whether a pickled checkpoint may be loaded, with weights_only=True. Never tried otherwise.

    Raises InputError for what is missing, damaged, of no format that is known, or a pickle.
    """
    name = format_of(path)
    if name == "checkpoint":
        from . import checkpoint

        return checkpoint.read(path, allow_pickle=allow_pickle)
    return importlib.import_module(f".{name}", __package__).read(path)


def format_of(path: str | os.PathLike[str]) -> str:
    """The reader for a file or directory, told by content: "gguf", "onnx", … Raises InputError where there is none."""
    found = Path(path)
    if _is_directory(found):
        return _directory(found)
    found = parsing.regular(found)
    start = parsing.beginning(found, 512)
    if not start:
        raise InputError(f"{found} is empty")
    if start[:4] == b"GGUF":
        return "gguf"
    if start[:4] == b"PK\x03\x04":
        return _archive(found)
    if start.startswith(_HDF5):
        raise InputError(f"{found} is HDF5, as Keras 2 saved models; load it in Keras and save it as .keras")
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 1 << 40:
        return "safetensors"  # before pickles: the length of a header may begin with the same two bytes
    if start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return "checkpoint"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] in (b"{", b"["):
        return _json(found)
    suffix = found.suffix.lower()
    if start[:1] == b"\x08" or suffix == ".onnx":  # a protobuf whose first field, a small number, is ONNX's ir_version
        return "onnx"
    for known, name in (
        (".gguf", "gguf"),
        (".safetensors", "safetensors"),
        (".json", "huggingface"),
        (".keras", "keras"),
    ):
        if suffix == known:
            return name  # which says what is wrong with it
    if suffix in (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle"):
        return "checkpoint"
    raise InputError(f"{found} is in no format that is known here; these are: {_READ}")


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _directory(path: Path) -> str:
    if (path / "config.json").exists():
        return "huggingface"
    if any(path.glob("*.safetensors")) or any(path.glob("*.safetensors.index.json")):
        return "safetensors"
    raise InputError(
        f"the directory {path} has no config.json and no .safetensors; name the file in it that is the model"
    )


def _archive(path: Path) -> str:
    names = parsing.Archive(path).members
    tails = {name.partition("/")[2] for name in names} | set(names)
    if "archive_format" in tails or any(t.startswith("models/") and t.endswith(".json") for t in tails):
        return "exported"
    if "serialized_exported_program.json" in tails:
        return "exported"
    if "constants.pkl" in tails or any(t.startswith("code/") for t in tails):
        return "torchscript"
    if "data.pkl" in tails:
        return "checkpoint"
    if "config.json" in names:
        return "keras"
    raise InputError(f"{path} is a zip archive, but no .keras, .pt2, TorchScript or checkpoint is in it")


def _json(path: Path) -> str:
    held = parsing.decoded(parsing.whole(path), str(path))
    if not isinstance(held, dict):
        raise InputError(f"{path} holds a JSON {type(held).__name__}; a config is an object")
    if "weight_map" in held:
        return "safetensors"
    return "keras" if "class_name" in held and "config" in held else "huggingface"
