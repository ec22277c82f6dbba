"""What `nm_ranking.py` found: its checks, tables and plots."""

import itertools
import math
import pathlib
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from gossamer.plots import Bar, Line, bar_panels, line_panels

DECAY, REFINED = "MdGf exponential, chain, to 70 %", "SR-STE"
CURVES = (REFINED, "STE", DECAY, "MdGf exponential, open")
HEAD = """# N:M training, measured

`experiments/nm_ranking.py --out docs/results/` writes this page. A byte-level model (OPT's
architecture, two layers, width 64, feed-forward kernels sparse along their inputs) learns
Python's standard library: loss in nats a byte on held-out text, with strict masks. Runs of a
seed share first weights and batches. FLOPs are of the whole run, over those of the dense run;
the second column is for hardware that cannot skip zeros in the gradient of the input. Checks
and thresholds were set before the runs, at about half of what another implementation had
measured.
"""
GELU = """
With GELU in the feed-forward layers, as in the published model, instead of OPT's ReLU:
"""
Row = dict[str, Any]


class Check(NamedTuple):
    """One published or measured statement, and what came out here."""

    letter: str
    says: str
    measured: str
    holds: bool | None
    """None is for what is reported and has no threshold."""


class Results:
    """Rows of one activation by what they are: of the usual number of steps, seeds in order."""

    def __init__(self, rows: Sequence[Row], activation: str = "relu") -> None:
        mine = [row for row in rows if row["activation"] == activation]
        self.rows = sorted(mine, key=lambda row: row["seed"])
        self.steps = min((row["steps"] for row in self.rows), default=0)

    def of(self, recipe: str, pattern: str = "1:16", steps: int | None = None) -> list[Row]:
        """A recipe's rows."""
        wanted = (recipe, pattern, self.steps if steps is None else steps, None)
        return [
            row
            for row in self.rows
            if (row["recipe"], row["pattern"], row["steps"], row["loss_scale"]) == wanted
        ]

    def losses(self, recipe: str, pattern: str = "1:16") -> list[float]:
        """A recipe's losses, seed by seed; dense training has no pattern."""
        return [row["loss"] for row in self.of(recipe, "1:16" if recipe == "dense" else pattern)]

    def gains(self, better: str, worse: str, pattern: str = "1:16") -> list[float]:
        """By how much one recipe's loss is lower than another's, seed by seed."""
        pairs = zip(self.losses(worse, pattern), self.losses(better, pattern), strict=True)
        return [high - low for high, low in pairs]

    def mean(self, recipe: str, field: str) -> float:
        """A field of a recipe's rows at 1:16."""
        return statistics.mean(row[field] for row in self.of(recipe))


def _signed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:+.3f}" for value in values)


def _noise(found: Results) -> Check:
    ratios = [
        a["variance"] / b["variance"]
        for a, b in zip(found.of(REFINED), found.of(DECAY), strict=True)
    ]
    return Check(
        "A",
        "Var of the gradients' size in mid-run, SR-STE over MdGf chain, at least 1.5",
        ", ".join(f"{ratio:.2f}" for ratio in ratios),
        min(ratios) >= 1.5,
    )


def _churn(found: Results) -> Check:
    middle = [found.mean(name, "flips") for name in (DECAY, REFINED, "STE")]
    last = [found.mean(name, "last_flips") for name in (DECAY, REFINED, "STE")]
    return Check(
        "B",
        "flips a step: MdGf chain < SR-STE < STE; MdGf chain at most 1e-4 in the last 20 %",
        " < ".join(f"{value:.1e}" for value in middle)
        + "; at the end "
        + ", ".join(f"{value:.1e}" for value in last),
        middle[0] < middle[1] < middle[2] and last[0] <= 1e-4,
    )


def _ranking(found: Results) -> Check:
    decay, refined = found.gains(DECAY, REFINED), found.gains(REFINED, "STE")
    return Check(
        "C",
        "1:16: MdGf chain is 0.015 below SR-STE on every seed; SR-STE is below STE",
        f"{_signed(decay)}; {_signed(refined)}",
        min(decay) >= 0.015 and min(refined) > 0,
    )


def _parity(found: Results) -> Check:
    gain = statistics.mean(found.gains(DECAY, REFINED, "2:4"))
    dense = found.losses("dense")
    worst = max(
        loss - base
        for name in (DECAY, REFINED)
        for loss, base in zip(found.losses(name, "2:4"), dense, strict=True)
    )
    return Check(
        "D",
        "2:4: MdGf chain and SR-STE differ by at most 0.01 on average, both within 0.05 of dense",
        f"{gain:+.3f}; at most {worst:.3f} above dense",
        abs(gain) <= 0.01 and worst <= 0.05,
    )


def _backward(found: Results) -> Check:
    gains = found.gains(DECAY, "MdGf exponential, open")
    return Check(
        "E", "1:16: chain is 0.03 below open on every seed", _signed(gains), min(gains) >= 0.03
    )


def _decay_rate(found: Results) -> Check:
    gains = found.gains("MdGf linear, chain, to 50 %", "MdGf linear, chain, to 70 %")
    return Check(
        "F",
        "linear decay done at 50 % of the run is 0.02 below one done at 70 %",
        _signed(gains),
        min(gains) >= 0.02,
    )


def _dense_start(found: Results) -> Check:
    gains = found.gains(REFINED, "SR-STE after 2 % dense")
    return Check(
        "G",
        "SR-STE from scratch is no worse than after 2 % dense steps",
        _signed(gains),
        min(gains) >= 0,
    )


def _auto_switch(found: Results) -> Check:
    rows = {row["loss_scale"]: row for row in found.rows if row["loss_scale"] is not None}
    begun = [rows[scale]["switched_at"] for scale in sorted(rows)]
    return Check(
        "H",
        "AutoSwitch goes from its earliest to its latest step as the loss is scaled by 1, 30, 1000",
        ", ".join(f"step {step}" for step in begun),
        begun == sorted(begun) and begun[0] < begun[-1],
    )


def _equal_flops(found: Results) -> Check:
    longer = max(row["steps"] for row in found.rows)
    rows = found.of(REFINED, steps=longer)
    pairs = zip((row["loss"] for row in rows), found.losses(DECAY), strict=True)
    return Check(
        "I",
        f"SR-STE with as many FLOPs as MdGf chain ({longer} steps), MdGf's gain",
        _signed([refined - decay for refined, decay in pairs]),
        None,
    )


CHECKS: tuple[Callable[[Results], Check], ...] = (
    *(_noise, _churn, _ranking, _parity, _backward),
    *(_decay_rate, _dense_start, _auto_switch, _equal_flops),
)
WITH_GELU = (_noise, _churn, _ranking, _parity, _dense_start)


def write(rows: Sequence[Row], out: pathlib.Path) -> None:
    """Writes `nm-training.md` and its plots, if the runs that the checks ask for are there."""
    found, gelu = Results(rows), Results(rows, "gelu")
    names = list(dict.fromkeys(row["recipe"] for row in found.rows))
    try:
        checks = [check(found) for check in CHECKS]
        smooth = [check(gelu) for check in WITH_GELU]
    except (ValueError, IndexError, KeyError) as error:
        print(f"No report yet, runs are missing: {error}")
        return
    (out / "nm-training.md").write_text("\n".join(_page(found, names, checks, gelu, smooth)) + "\n")
    (out / "nm-training.png").write_bytes(_losses_plot(found, names))
    (out / "nm-training-noise.png").write_bytes(_curves_plot(found))


def _page(
    found: Results,
    names: Sequence[str],
    checks: Sequence[Check],
    gelu: Results,
    smooth: Sequence[Check],
) -> Iterator[str]:
    yield HEAD
    yield from _checks_table(checks)
    yield GELU
    yield from _checks_table(smooth)
    for results, title in ((found, ""), (gelu, " with GELU")):
        for pattern in ("1:16", "2:4"):
            yield f"\n## {pattern}{title}\n"
            yield from _losses_table(results, names, pattern)
    yield "\n![Losses above dense](nm-training.png)\n"
    yield "![Gradient variance and flips](nm-training-noise.png)"


def _checks_table(checks: Sequence[Check]) -> Iterator[str]:
    yield "| check | | measured, by seed | holds |"
    yield "| --- | --- | --- | --- |"
    words = {True: "yes", False: "**no**", None: "reported"}
    for check in checks:
        yield f"| {check.letter} | {check.says} | {check.measured} | {words[check.holds]} |"


def _losses_table(found: Results, names: Sequence[str], pattern: str) -> Iterator[str]:
    seeds = [row["seed"] for row in found.of("dense")]
    titles = ["recipe", *(f"seed {seed}" for seed in seeds), "above dense", "steps"]
    titles += ["FLOPs", "and dense input gradient", "gradient variance", "flips a step"]
    yield "| " + " | ".join(titles) + " |"
    yield "| --- " * len(titles) + "|"
    groups = [found.of(name, pattern) for name in names]
    longer = max(row["steps"] for row in found.rows)
    if longer > found.steps:
        groups.append(found.of(REFINED, pattern, longer))
    if pattern != "1:16":
        groups.insert(0, found.of("dense"))
    groups = [group for group in groups if group]
    dense = {row["seed"]: row["loss"] for row in found.of("dense")}
    for group in sorted(groups, key=lambda rows: statistics.mean(_gaps(rows, dense))):
        yield "| " + " | ".join(_cells(group, dense)) + " |"


def _gaps(rows: Sequence[Row], dense: Mapping[int, float]) -> list[float]:
    """How much higher the losses are than dense training's of the same seeds."""
    return [row["loss"] - dense[row["seed"]] for row in rows]


def _cells(rows: Sequence[Row], dense: Mapping[int, float]) -> Iterator[str]:
    yield rows[0]["recipe"]
    losses = {row["seed"]: f"{row['loss']:.3f}" for row in rows}
    yield from (losses.get(seed, "") for seed in dense)
    yield f"{statistics.mean(_gaps(rows, dense)):.3f}"
    yield f"{rows[0]['steps']}"
    yield f"{rows[0]['flops']:.2f}"
    yield f"{rows[0]['flops_dense_input_gradient']:.2f}"
    for name in ("variance", "flips"):
        yield f"{statistics.mean(row[name] for row in rows):.1e}" if name in rows[0] else ""


def _losses_plot(found: Results, names: Sequence[str]) -> bytes:
    dense = {row["seed"]: row["loss"] for row in found.of("dense")}
    panels = {}
    for pattern in ("1:16", "2:4"):
        bars = []
        for name in names:
            if name == "dense" or not (rows := found.of(name, pattern)):
                continue
            gaps = _gaps(rows, dense)
            seeds = "1 seed" if len(gaps) == 1 else f"{len(gaps)} seeds"
            text = f"{min(gaps):.3f} to {max(gaps):.3f}, {seeds}"
            bars.append(Bar(name, statistics.mean(gaps), "strict masks", text))
        panels[pattern] = sorted(bars, key=lambda bar: bar.length)
    title = "Loss above dense training of the same seed"
    return bar_panels(panels, x="nats a byte, mean over seeds", title=title)


def _curves_plot(found: Results) -> bytes:
    panels: dict[str, list[Line]] = {}
    titles = {"gradient_variance": "variance of gradients' sizes", "flips": "flips a step"}
    for field, title in titles.items():
        panels[title] = [
            Line(name, _logarithms(found.of(name)[0]["curves"][field]), place)
            for place, name in enumerate(CURVES)
        ]
    return line_panels(panels, x="step", y="log10", title="1:16, feed-forward kernels, seed 0")


def _logarithms(points: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """Points from the first to the last that have one."""
    shown = itertools.filterfalse(lambda point: point[1] <= 0, points)
    return [(step, math.log10(value)) for step, value in shown]
