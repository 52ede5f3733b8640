"""One whole story with every part filled, made by hand, quick to build and free to be hostile."""

from __future__ import annotations

import numpy as np
import torch

from softknee.diagnosis import Arm, Finding, LayerStatistics, Report, SiteStatistics, Trial
from softknee.identification.census import Affine, Census, Collapse, Head, Site
from softknee.report import Story
from softknee.verification import CohortComparison, Comparison, calibrate, paired
from softknee.verification.comparisons import Change
from softknee.verification.runs import Run


def site_statistics(i: int, name, *, sick: bool) -> SiteStatistics:
    std = 0.6 * 0.55 ** (i % 50) if sick else 0.9
    z = np.random.default_rng(i).normal(0.0, std, 2000)
    counts, edges = np.histogram(z, 60)
    return SiteStatistics(
        key=name(f"net.{2 * i + 1}#0"),
        path=name(f"net.{2 * i + 1}"),
        activation="relu",
        role="hidden",
        rows=360,
        units=64,
        mean=std / 3,
        std=std,
        across_row_std=std / 2,
        zeros=0.5,
        saturated=0.5,
        dead=max(0, 8 * i - 30) if sick else 0,
        dead_units=(),
        firing_bound=0.008,
        amax=4 * std,
        nonfinite=0,
        input_mean=0.0,
        input_std=std,
        histogram_edges=tuple(edges),
        histogram_counts=tuple(int(c) for c in counts),
        layer=name(f"net.{2 * i}"),
        gain=0.578,
        exact_gain=1.414,
        gradient_norm=1e-6 * 3.0 ** (i % 50) if sick else 0.1,
    )


def a_report(name, *, sick: bool, census: Census | None = None, sites: int = 8) -> Report:
    findings = ()
    if sick:
        cause = Finding(
            "wrong_gain",
            name("model"),
            name("bad initialisation"),
            "critical",
            name("weights start with gain 0.578 where relu needs 1.414"),
            {"measured_gain": 0.578, name("exact_gain"): 1.414},
            name("product of gains off by ≥ 10"),
            name("He et al. 2015, arXiv:1502.01852"),
            None,
            ("exact_gain", "he_gain"),
        )
        drift = Finding(
            "signal_drift",
            name("model"),
            name("signal fades across rows"),
            "warning",
            name("falls by 0.55 a layer"),
            {"slope": -0.6},
            name("outside [0.5, 2]"),
            name("TheDeepChecker"),
            cause.id,
        )
        dead = [
            Finding(
                "dead_unit",
                name(f"net.{2 * i + 1}#0"),
                name("dead units"),
                "warning",
                name(f"{8 * i - 30} of 64 units are dead"),
                {"dead": 8 * i - 30},
                name("0 of 360 rows"),
                name("rule of three"),
                cause.id,
            )
            for i in range(4, 8)
        ]
        constant = Finding(
            "constant_output",
            name("model"),
            name("constant output"),
            "critical",
            name("one class for every row"),
            {"classes": 1},
            name("one answer"),
            name("calibrated"),
            drift.id,
        )
        findings = (cause, drift, *dead, constant)
    return Report(
        model=name("Net"),
        verdict=name("bad initialisation; 6 findings follow from it" if sick else "healthy: look elsewhere"),
        findings=findings,
        checked=(name("dead unit"), "saturation"),
        unchecked=(name("flat loss: needs 50 more losses"),),
        rows=360,
        steps=0,
        statistics=tuple(site_statistics(i, name, sick=sick) for i in range(sites)),
        layers=(LayerStatistics("net.0", "Linear", 64, 64, 0.578, 4.6, 1e-6, 1e-4, 2e-4),),
        census=census,
    )


def a_census(name, sites: int = 8) -> Census:
    return Census(
        model=name("Net"),
        sites=tuple(
            Site(
                name(f"net.{2 * i + 1}#0"),
                name(f"net.{2 * i + 1}"),
                0,
                "relu",
                implementation=name("torch.nn.modules.activation.ReLU"),
                shape=(360, 64),
                units=64,
                preceded_by=name(f"net.{2 * i}"),
                note=name("a note") if i == 0 else "",
                source=name("model.py:12") if i == 1 else None,
            )
            for i in range(sites)
        ),
        head=Head(name("net.16"), "logits", 10),
        collapses=(Collapse((name("a"), name("b")), torch.zeros(2, 2), torch.zeros(2), 1e-7, name("no nonlinearity")),),
        affines=(Affine("net.0", "Linear", 64, 64),),
        notes=(name("nothing was left out"),),
    )


def a_trial(name) -> Trial:
    def arm(key, title, accuracy, gap, verdict, **more):
        return Arm(
            key,
            name(title),
            name(f"edit_{key}(model)"),
            2,
            1.5,
            name(verdict),
            accuracy,
            round(360 * max(gap, 0)),
            3,
            1e-60 if gap > 0.1 else 1.0,
            gap,
            (gap - 0.03, gap + 0.03),
            **more,
        )

    exact = arm("exact_gain", "initialise with the exact gain", 0.953, 0.853, "better")
    return Trial(
        (
            Arm("baseline", "as it is", "", 0, 1.5, "baseline", 0.1),
            arm("control", "another seed", 0.1, 0.0, "not different"),
            exact,
            arm("leaky_relu", "LeakyReLU in place of ReLU", 0.1, 0.0, "not different", folk=True),
            arm("clip", "clip the gradient norm to 1", 0.07, -0.05, "worse", folk=True, note=name("a note")),
            Arm("hand", name("by hand"), "", 3, 0.0, name("not tried: it needs a hand")),
        ),
        exact,
        ("exact_gain",),
        name("exact_gain is the smallest edit of those that helped"),
        (0,),
        360,
    )


def a_comparison(name, rows: int = 200) -> Comparison:
    generator = np.random.default_rng(0)
    targets = generator.integers(0, 10, rows)
    right = generator.random(rows) < 0.95
    before, after = (targets == 7).astype(float), right.astype(float)
    cohorts = {name(f"digit {d}"): targets == d for d in range(10)}

    def run(version, scores, answers):
        return Run(
            name(version),
            name("digits"),
            tuple(f"{i:032x}" for i in range(rows)),
            {"accuracy": scores},
            {"accuracy": True},
            tuple(answers),
            tuple(name(str(t)) if i == 0 else int(t) for i, t in enumerate(targets)),
            cohorts,
            None,
            np.full(rows, 1e-5),
            None,
            {},
        )

    a = run("before", before, [7] * rows)
    b = run(
        "after",
        after,
        [
            name("x") if i == 1 else int(t if ok else (t + 1) % 10)
            for i, (t, ok) in enumerate(zip(targets, right, strict=True))
        ],
    )
    judged = []
    for label, mask in cohorts.items():
        result = paired(before[mask], after[mask], resamples=200)
        judged.append(CohortComparison(label, int(mask.sum()), result, result.p, result.verdict))
    judged.append(CohortComparison(name("empty"), 0, None, None, "no scores"))
    return Comparison(
        before=a,
        after=b,
        metric="accuracy",
        result=paired(before, after, resamples=200),
        identical=False,
        cohorts=tuple(judged),
        latency=Change(1e-5, 1.1e-5),
        cost=None,
        differs={name("seed"): (name("0"), 1)},
        confounders=(name("seed"),),
        notes=(name("the training differs"),),
        order=tuple(range(rows)),
    )


def a_calibration():
    generator = np.random.default_rng(0)
    logits = 3 * generator.normal(size=(400, 10))
    targets = np.where(generator.random(400) < 0.8, logits.argmax(1), generator.integers(0, 10, 400))
    return calibrate(logits[:200], targets[:200], logits[200:], targets[200:], resamples=100)


def make_story(name=str) -> Story:
    """A story in which every text that a model, a dataset or a user may choose went through `name`."""
    census = a_census(name)
    compared = a_comparison(name)
    generator = np.random.default_rng(0)
    return Story(
        title=name("softknee demo"),
        verdict=name("Bad initialisation: 0.10 → 0.95 on untouched rows."),
        patch=name("softknee.nn.init.initialize(model, softknee.identify(model, x))"),
        census=census,
        before=a_report(name, sick=True, census=census),
        after=a_report(name, sick=False),
        trial=a_trial(name),
        comparison=compared,
        calibration=a_calibration(),
        images={row: generator.random((8, 8)) for row in compared.before.ids},
        provenance={name("torch"): name("2.13"), "seeds": [0, 1], "data": {name("sha256"): name("ab12"), "rows": 360}},
    )
