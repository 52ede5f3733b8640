"""Small greyscale pictures as PNG data URIs, so that a page can show rows of a dataset without a file beside it."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import numpy as np

from softknee.errors import InputError

LARGEST = 64
"""Pixels along the longer side; a larger picture is averaged down to this."""


def data_uri(image: Any) -> str:
    """`image`, shape (height, width), any real numbers: its smallest is black, its largest white, NaN black.

    Raises InputError for another shape or an empty picture.
    """
    pixels = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image)
    if pixels.ndim != 2 or 0 in pixels.shape or pixels.dtype.kind not in "biuf":
        raise InputError(f"an image must be numbers of shape (height, width), got {pixels.dtype} {pixels.shape}")
    pixels = _reduced(np.nan_to_num(pixels.astype(np.float64), posinf=np.nan, neginf=np.nan))
    low, high = pixels.min(), pixels.max()
    grey = np.zeros(pixels.shape) if high == low else (pixels - low) / (high - low)
    height, width = len(grey), grey[0].size
    rows = np.zeros((height, width + 1), dtype=np.uint8)  # each row opens with its filter: 0, none
    rows[:, 1:] = np.round(255 * grey)
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        [
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
            _chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)),
            _chunk(b"IEND", b""),
        ]
    )
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _reduced(pixels: np.ndarray) -> np.ndarray:
    """Block means, so that no side is longer than LARGEST; a remainder at the far edges is left out."""
    step = -(-max(pixels.shape) // LARGEST)
    height, width = max(1, pixels.shape[0] // step), max(1, pixels.shape[1] // step)
    pixels = pixels[: height * step, : width * step]
    return pixels.reshape(height, -1, width, pixels.shape[1] // width).mean(axis=(1, 3))
