"""What `softknee.kernelize` saves on models of other people's making: time and bytes kept for backward.

    python benchmarks/kernelize.py [--rounds 15] [--quick]

A small Llama (SwiGLU), a GPT-2 and a ViT (GELU), of transformers' classes, built at random, and an MLP with tanh. Each
is run as it is, kernelized, and reverted, in turn, in one process: the median of a forward pass in evaluation mode and
of a forward and backward pass in training mode (dropout 0), their ratios (above 1: softknee is faster), and the bytes
that `kernelize` counts. Outputs are verified by `kernelize` itself, which refuses where they differ. Two threads, as
it comes and with `softknee.keep_pages()` in force. Writes results/kernelize.json, unless --quick is given.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import machine
from torch import Tensor, nn

import softknee
from softknee.files import write_whole

THREADS = 2
DTYPES = (torch.float32, torch.bfloat16)


def llama() -> tuple[nn.Module, Tensor]:
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        vocab_size=1024, hidden_size=256, intermediate_size=1024, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, use_cache=False,
    )  # fmt: skip
    return LlamaModel(config), torch.randint(1024, (4, 256))


def gpt2() -> tuple[nn.Module, Tensor]:
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(
        vocab_size=1024, n_positions=256, n_embd=256, n_layer=2, n_head=4, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, use_cache=False, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return GPT2Model(config), torch.randint(1024, (4, 256))


def vit() -> tuple[nn.Module, Tensor]:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=192,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=768,
        image_size=224,
        patch_size=16,
    )
    return ViTModel(config, add_pooling_layer=False), torch.randn(4, 3, 224, 224)


def mlp() -> tuple[nn.Module, Tensor]:
    layers = [layer for _ in range(4) for layer in (nn.Linear(512, 512), nn.Tanh())]
    return nn.Sequential(*layers, nn.Linear(512, 10)), torch.randn(2048, 512)


MODELS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {"Llama": llama, "GPT-2": gpt2, "ViT": vit, "tanh MLP": mlp}


def passed(model: nn.Module, x: Tensor) -> float:
    """Seconds of a forward pass, in training mode with its backward pass."""
    model.zero_grad(set_to_none=True)
    start = time.perf_counter()
    with torch.set_grad_enabled(model.training):
        output = model(x)
        if model.training:
            result = output if isinstance(output, Tensor) else output.last_hidden_state
            result.float().square().mean().backward()
    return time.perf_counter() - start


def timed(model: nn.Module, x: Tensor, rounds: int) -> tuple[float, float, softknee.Kernelization]:
    """Median seconds before and after, in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 1):
        first = passed(model, x), passed(model, x)
        done = softknee.kernelize(model, x) if turn == 0 else None
        if done is not None:
            kept = done
        else:
            for change in kept.changes:
                change.apply()
        second = passed(model, x), passed(model, x)
        kept.revert()
        if turn:
            times[0].append(first[1])
            times[1].append(second[1])
    return statistics.median(times[0]), statistics.median(times[1]), kept


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="two rounds of training in float32, and no file")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    rounds = 2 if arguments.quick else arguments.rounds
    rows = []
    try:
        for regime in ("as it comes", "pages kept")[1 if arguments.quick else 0 :]:
            with softknee.keep_pages(limit=None) if regime == "pages kept" else contextlib.nullcontext():
                for name, build in MODELS.items():
                    for dtype in DTYPES[: 1 if arguments.quick else None]:
                        for training in (True,) if arguments.quick else (False, True):
                            torch.manual_seed(0)
                            model, x = build()
                            model.to(dtype).train(training)
                            x = x.to(dtype) if x.is_floating_point() else x
                            before, after, done = timed(model, x, rounds)
                            row = {"model": name, "dtype": str(dtype).removeprefix("torch."), "regime": regime}
                            row |= {"mode": "forward+backward" if training else "forward"}
                            row |= {"ms before": round(1e3 * before, 2), "ms after": round(1e3 * after, 2)}
                            row |= {"ratio": round(before / after, 3), "sites": len(done.replaced)}
                            row |= {"bytes before": done.bytes_before, "bytes after": done.bytes_after}
                            rows.append(row)
                            saved = f"  {done.bytes_before:,} → {done.bytes_after:,} bytes" if training else ""
                            print(f"{name:9} {row['dtype']:9} {regime:12} {row['mode']:17} {row['ms before']:8.1f} → "
                                  f"{row['ms after']:8.1f} ms  {row['ratio']:.2f}×{saved}", flush=True)  # fmt: skip
    except KeyboardInterrupt:
        print("interrupted; the results file is as it was", file=sys.stderr)
        return 130
    result = {"unit": "ms, medians; bytes kept for backward", "rounds": rounds, "rows": rows, "machine": machine()}
    if not arguments.quick:
        path = Path(__file__).parent / "results/kernelize.json"
        write_whole(path, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
