"""Pictures: what PNG says is what the array said."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
import pytest
import torch

from softknee.errors import InputError
from softknee.report.png import LARGEST, data_uri


def pixels(uri: str) -> np.ndarray:
    """Decode an 8-bit greyscale PNG without filters, checking every chunk's sum."""
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + content)
        chunks[kind] = content
        at += 12 + size
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    return np.frombuffer(zlib.decompress(chunks[b"IDAT"]), dtype=np.uint8).reshape(height, width + 1)[:, 1:]


def test_grey_levels_run_from_the_smallest_to_the_largest():
    image = np.array([[0.0, 8.0, 16.0], [4.0, 12.0, 2.0]])
    assert pixels(data_uri(image)).tolist() == np.round(image / 16 * 255).astype(int).tolist()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((3, 4)),
        np.full((2, 2), np.nan),
        torch.ones(5, 5, requires_grad=True),
        np.eye(3, dtype=bool),
        np.eye(3, dtype=np.uint8),
    ],
)
def test_flat_missing_and_other_kinds(image):
    assert pixels(data_uri(image)).shape == tuple(image.shape)


@pytest.mark.parametrize("shape", [(1, 1), (1, 1000), (1000, 1), (224, 224), (65, 130)])
def test_a_large_picture_is_reduced(shape):
    out = pixels(data_uri(np.random.default_rng(0).random(shape)))
    assert max(out.shape) <= LARGEST
    assert min(out.shape) >= 1


@pytest.mark.parametrize("image", [np.zeros(3), np.zeros((0, 3)), np.zeros((3, 4, 4)), np.array([["a", "b"]])])
def test_what_is_no_picture_is_refused(image):
    with pytest.raises(InputError, match=r"shape \(height, width\)"):
        data_uri(image)
