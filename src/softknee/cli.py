"""The command line: `softknee list | show | plot | recommend | explain | identify | diagnose | compare | demo | env`.

Errors are one line on standard error and exit code 2; a traceback only with --debug. Exit code 1 is a gate's "no".
Standard output is ours alone: what the modules, models and data named as targets print goes to standard error.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import __version__
from .errors import InputError, SoftkneeError

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="softknee",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of text.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Also write an HTML page to this file.")]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input", "-i", help="An example input, such as float32[1,3,224,224] or ids=int64[1,16]; repeatable."
    ),
]
Names = Annotated[
    list[str], typer.Argument(metavar="NAME...", help="Names or aliases, perhaps with parameters: elu:alpha=0.5.")
]
Target = Annotated[
    str, typer.Argument(metavar="TARGET", help="package.module:name or path/to/file.py:name, a model or its builder.")
]


def main(arguments: list[str] | None = None) -> None:
    """Entry point: runs the command and exits with its code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no "σ" shows "?"
    try:
        sys.exit(_main(arguments, debug))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _main(arguments: list[str], debug: bool) -> int:
    try:
        result = app(arguments, prog_name="softknee", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except typer.Exit as stop:
        return stop.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    except (BrokenPipeError, SystemExit) as stop:
        # Typer and Rich make exit code 1, a gate's "no", of a reader that has had enough: `softknee list | head -1`.
        if isinstance(stop, SystemExit) and not isinstance(stop.__context__, BrokenPipeError):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nor may the flush at exit complain
        return 141
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()  # type: ignore[attr-defined]
            return 0
        if debug:
            raise
        print(f"softknee: {_line(error)}", file=sys.stderr)
        return 2


def _line(error: Exception) -> str:
    """The error as one line; what is not the caller's mistake says its type and how to see more."""
    if hasattr(error, "format_message"):  # a usage error of Typer's, or of the Click that older ones stand on
        return " ".join(error.format_message().split())
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, SoftkneeError) else f"{type(error).__name__}: {text} (--debug shows where)"


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)


def _show(result: Any, as_json: bool, output: Path | None = None) -> None:
    from .report import dumps, render, write

    if output is not None:
        write(result, output)
    if as_json:
        print(dumps(result))
    else:
        render(result, _console())
        if output is not None:
            print(f"written to {output}")


def _version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback(
    epilog="With --debug anywhere, an error shows its traceback. Exit codes: 0 done, 1 a gate's no, 2 an error."
)
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Activation functions for PyTorch: what they are, which one a model really uses, whether it is healthy, what mends
    it, and whether a change hurt."""


@app.command("list")
def list_command(
    kind: Annotated[str | None, typer.Option(help="Only this kind: elementwise, gated or normalizer.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="Only with this tag, such as transformer, gate or cnn; repeatable.")
    ] = None,
    search: Annotated[
        str | None, typer.Option(help="Only with these words in the name, aliases, summary, source or torch's name.")
    ] = None,
    as_json: Json = False,
) -> None:
    """The activations in the catalog."""
    from .catalog import activations
    from .catalog.activation import KINDS

    if kind is not None and kind not in KINDS:
        raise InputError(f"--kind {kind!r} is unknown; it must be one of {', '.join(KINDS)}")
    known = sorted({t for a in activations() for t in a.tags})
    for one in tag or []:
        if one not in known:
            raise InputError(f"--tag {one!r} is unknown; it must be one of {', '.join(known)}")
    words = (search or "").lower().split()
    chosen = [
        a
        for a in activations()
        if kind in (None, a.kind)
        and set(tag or []) <= set(a.tags)
        and all(w in f"{a.name} {a.aliases} {a.summary} {a.source} {a.torch} {a.torch_module}".lower() for w in words)
    ]
    if as_json:
        _show(chosen, as_json)
    elif chosen:
        from .report.terminal import catalog

        catalog(chosen, _console())
    else:
        asked = [*([kind] if kind else []), *(f"tagged {one}" for one in tag or []), *([repr(search)] if words else [])]
        print(f"no activation fits: {', '.join(asked)}")


@app.command()
def show(
    names: Names,
    backend: Annotated[
        str | None,
        typer.Option("--code", metavar="BACKEND", help="Print its code there instead: torch, jax, onnx, triton, cpp …"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Formula, source, curve, facts, cost, the models that run it; side by side.

    Parameters stand behind a colon: softknee show elu:alpha=0.5 softplus:beta=2,threshold=20
    """
    from .report.choice import choices

    if backend is None:
        _show(choices(names), as_json)
        return
    from .report import code

    written = {one.label: code(one, backend) for one in choices(names)}
    if as_json:
        _show([{"name": name, "backend": backend, "code": text} for name, text in written.items()], as_json)
    else:
        print("\n\n".join(written.values()))


@app.command("plot")
def plot_command(
    names: Names,
    derivative: Annotated[bool, typer.Option("--derivative", "-d", help="Also f′, in a second panel.")] = False,
    range: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="LOW HIGH", help="Ends of the x axis; −6 6, or as far as something happens."),
    ] = None,
    as_json: Json = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write this .png, .svg or .html file instead of drawing in the terminal."),
    ] = None,
) -> None:
    """Curves of f, and of f′, in the terminal or in a picture.

    Parameters stand behind a colon: softknee plot elu elu:alpha=0.5
    """
    from .report import plot

    drawn = plot(*names, range=range, derivative=derivative)
    if output is not None:
        drawn.save(output)
    if as_json:
        _show(drawn, as_json)
    elif output is not None:
        print(f"written to {output}")
    else:
        _show(drawn, as_json)


@app.command("recommend")
def recommend_command(
    use: Annotated[
        str | None, typer.Argument(metavar="USE", help="Such as cnn or transformer-ffn; all of them unless given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Which activation for a use: one choice, what any other would gain, facts, sources, who runs it."""
    from .guide import recommend, uses

    if use is not None:
        _show(recommend(use), as_json)
    elif as_json:
        _show(uses(), as_json)
    else:
        from .report.terminal import uses as table

        table(uses(), _console())


@app.command("explain")
def explain_command(
    topic: Annotated[
        str | None, typer.Argument(metavar="TOPIC", help="Such as vanishing; lists them unless given.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the weights and data that are computed with.")] = 0,
    as_json: Json = False,
) -> None:
    """Why networks fail as they do, told with figures that are computed now."""
    from .guide import explain, topics

    if topic is not None:
        _show(explain(topic, seed), as_json)
    elif as_json:
        _show(topics(), as_json)
    else:
        print("\n".join(topics()))


@app.command("identify")
def identify_command(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET", help="A model's file or directory in any format; or module:build, path/to/file.py:build."
        ),
    ],
    against: Annotated[
        str | None, typer.Option(metavar="TARGET", help="A second model: where does it apply other functions?")
    ] = None,
    fail_on: Annotated[
        str,
        typer.Option(
            help="Exit with 1 on any difference (or conflict within a model), on a numeric one only, or on none."
        ),
    ] = "any",
    inputs: Inputs = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Load a pickled checkpoint, with weights_only=True.")
    ] = False,
    as_json: Json = False,
    output: Output = None,
) -> None:
    """Which activations a model really applies, and how that is known; with --against, what another does otherwise.

    ONNX, torch.export, TorchScript, GGUF, safetensors, Keras, Hugging Face's config.json or a directory with one.
    """
    from .identification import identify, is_file, load_target, parse_inputs
    from .identification.differences import FAIL_ON

    if fail_on not in FAIL_ON:
        raise InputError(f"--fail-on {fail_on!r} is unknown; it is one of {', '.join(FAIL_ON)}")
    if against is not None and output is not None:
        raise InputError("--output writes the page of one model's census; leave out --against, or use --json")
    example = parse_inputs(inputs) if inputs else None
    with contextlib.redirect_stdout(sys.stderr):
        census, *others = (
            identify(one, allow_pickle=allow_pickle) if is_file(one) else identify(load_target(one), example)
            for one in (target, against)
            if one is not None
        )
    if others:
        other = others[0]
        if census.model == other.model:
            census, other = replace(census, model=target), replace(other, model=str(against))
        found = census.against(other)
        _show(found, as_json)
        no = found.fails(fail_on)
    else:
        _show(census, as_json, output)
        no = fail_on == "any" and bool(census.conflicts)
    if no:
        raise typer.Exit(1)


@app.command("diagnose")
def diagnose_command(
    target: Target,
    inputs: Inputs = None,
    data: Annotated[
        str | None,
        typer.Option(help="module:name or file.py:name of the data, or of a function that returns them: (x, y), …"),
    ] = None,
    as_json: Json = False,
    output: Output = None,
) -> None:
    """Is the model healthy on these data, from what cause is it not, and what may mend it?"""
    from .diagnosis import diagnose
    from .identification import load_target, parse_inputs
    from .identification.targets import load_data

    if (data is None) == (not inputs):
        raise InputError("give either --data, or --input for random numbers of that shape")
    example = parse_inputs(inputs) if inputs else None
    with contextlib.redirect_stdout(sys.stderr):
        model = load_target(target)
        if data is not None:
            report = diagnose(model, load_data(data))
        else:
            report = diagnose(model, example[0] if isinstance(example, tuple) and len(example) == 1 else example)
    _show(report, as_json, output)
    if not as_json and report.causes:
        from .report import render

        render(report.plan(), _console())


@app.command("compare")
def compare_command(
    before: Annotated[Path, typer.Argument(help="A run saved by Run.save: the version to compare with.")],
    after: Annotated[Path, typer.Argument(help="A run saved by Run.save: the version that may have changed.")],
    metric: Annotated[str | None, typer.Option(help="Which metric; the first common one unless given.")] = None,
    fail_on: Annotated[str | None, typer.Option(help="worse: exit with 1 if AFTER is worse.")] = None,
    margin: Annotated[str, typer.Option(help="What is too little to matter, such as 0.5pp, 1% or 0.005.")] = "0.5pp",
    as_json: Json = False,
    output: Output = None,
) -> None:
    """Two runs on the same rows, paired row by row: different, equivalent, or how many rows that would need."""
    from .verification import Run, compare, parse_margin

    if fail_on not in (None, "worse"):
        raise InputError(f"--fail-on {fail_on!r} is unknown; it must be worse")
    tolerated = parse_margin(margin)
    comparison = compare(Run.load(before), Run.load(after), metric=metric, margin=tolerated)
    _show(comparison, as_json, output)
    if fail_on == "worse" and comparison.worse_than(tolerated):
        raise typer.Exit(1)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for report.html and summary.json.")] = Path(
        "softknee-demo"
    ),
    seed: Annotated[int, typer.Option(help="Seed of the split, the weights and the batches.")] = 0,
    epochs: Annotated[int, typer.Option(help="Epochs per arm.")] = 40,
) -> None:
    """A classifier that does not learn: the cause, every repair tried, the winner proved, the patch."""
    from .demo import run

    _, proved = run(output, seed=seed, epochs=epochs, console=_console())
    if not proved:
        print("softknee: the repaired model is not significantly better", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def env(as_json: Json = False) -> None:
    """Versions, extras and the fast paths that this installation has."""
    from .environment import environment

    _show(environment(), as_json)


if __name__ == "__main__":
    main()
