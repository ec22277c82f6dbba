"""How well planners predict measured seconds: ours, fitted and ideal, and GenZ, on the same points.

    pip install --target genz genz-llm==0.0.16 "pandas<3"
    PYTHONPATH=genz python experiments/planning_scores.py --out docs/results/

Points: all measurements on TPU v4 that gossamer has (Pope et al. 2022, arXiv 2211.05102). The
shipped constants are fitted to four tables; others check them, and each of the four is also
predicted from the other three. GenZ (Bambhaniya et al. 2024, arXiv 2406.01698) gets each model's
own sizes: its preset of PaLM has 48 key-value heads of 384, no gates and 32,000 words. It knows
tensor parallelism over all chips alone, so that this is what it predicts every point with. Without
GenZ the rest is made. One core, a minute.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import pathlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence

from gossamer.planning import (
    CALIBRATED,
    IDEAL,
    IDEAL_FLAT,
    Agreement,
    Measurement,
    agreement,
    builtin_measurements,
    find_chip,
    fit_constants,
    leave_one_table_out,
)
from gossamer.plots import bar_plot

TPU = find_chip("tpu-v4")
FITTED = builtin_measurements(fitted=True)
ALL = builtin_measurements()
APPENDIX = ("table-d.2", "table-d.3")
GENZ = {
    # GB/s and microseconds a hop; its own entry of TPU v4 has 24 GB/s and no microseconds.
    "GenZ, 270 GB/s, 1 us a hop": {"Memory_BW": 1200, "ICN": 270, "ICN_LL": 1},
    "GenZ, 270 GB/s, 0.3 us a hop": {"Memory_BW": 1200, "ICN": 270, "ICN_LL": 0.3},
    "GenZ, its own TPU v4": {"Memory_BW": 1228, "ICN": 24},
}
Predict = Callable[[Measurement], float]


def genz(system: Mapping[str, float]) -> Predict:
    """GenZ's seconds for a measurement on a system."""
    from GenZ import decode_moddeling, prefill_moddeling
    from GenZ.Models.default_models import ModelConfig

    # More memory than there is: it copies keys and values to all chips, which do not fit there, and
    # would charge for reading them from a host.
    chip = {"Flops": 275, "Memory_size": 32_000, "real_values": True, **system}

    def predict(made: Measurement) -> float:
        shape = made.shape
        common = {
            "model": ModelConfig(
                model=shape.name,
                vocab_size=shape.vocabulary,
                hidden_size=shape.d_model,
                intermediate_size=shape.d_ff,
                num_ffi=shape.ffn_matrices - 1,
                num_decoder_layers=shape.layers,
                # Without heads of padding, which are for layouts that it does not have.
                num_attention_heads=48 if "540b" in made.model else shape.heads,
                head_dim=shape.head_dim,
                num_key_value_heads=shape.kv_heads,
                hidden_act="silu" if shape.ffn_matrices == 3 else "gelu",
            ),
            "batch_size": made.batch,
            "system_name": chip,
            "bits": made.weights,
            "tensor_parallel": made.chips,
            "parallelism_heirarchy": f"TP{{{made.chips}}}_EP{{1}}_PP{{1}}",
            "model_offload": True,
        }
        milliseconds = 0.0
        with contextlib.redirect_stdout(io.StringIO()):
            if made.prompt:
                milliseconds += prefill_moddeling(input_tokens=made.prompt, **common)["Latency"]
            if made.steps:
                step = decode_moddeling(input_tokens=made.context, output_tokens=1, Bb=1, **common)[
                    "Latency"
                ]
                milliseconds += made.steps * step
        return milliseconds / 1e3

    return predict


def score(predict: Predict) -> dict[str, Agreement]:
    """Of each table."""
    return {
        name: Agreement(ratios=tuple(predict(made) / made.seconds for made in table))
        for name, table in ALL.items()
    }


def ours() -> dict[str, dict[str, Agreement]]:
    """Each way of predicting, and its agreement with each table."""
    appendix = fit_constants({name: ALL[name] for name in APPENDIX}, TPU)
    constants = {
        "fitted": CALIBRATED,
        "fitted to D.2 and D.3": appendix,
        "ideal, bandwidth by axis": IDEAL,
        "ideal, flat bandwidth": IDEAL_FLAT,
    }
    return {
        name: {table: agreement(rows, TPU, each) for table, rows in ALL.items()}
        for name, each in constants.items()
    }


def together(by_table: Mapping[str, Agreement], tables: Sequence[str]) -> Agreement:
    """All points of some tables."""
    return Agreement(ratios=tuple(r for name in tables for r in by_table[name].ratios))


def cell(found: Agreement) -> str:
    return f"{found.geometric_error:.1%} ({found.worst_ratio:.2f}x)"


def to_markdown(ways: Mapping[str, Mapping[str, Agreement]], left_out: Mapping[str, Agreement]):
    """The table: a row a table of measurements."""
    names = list(ways)
    lines = [
        "# Predicted against measured seconds",
        "",
        "Geometric-mean error, and in brackets how many times the worst point is off. Tables with",
        "a star are in the fit. Made by `experiments/planning_scores.py`.",
        "",
        "| measurements | points | each table from the others | " + " | ".join(names) + " |",
        "|---|---|---|" + "---|" * len(names),
    ]
    others = [name for name in ALL if name not in FITTED]
    groups = {f"{name}{' *' * (name in FITTED)}": [name] for name in ALL}
    groups |= {"all in the fit": list(FITTED), "all others": others, "all": list(ALL)}
    for label, tables in groups.items():
        count = sum(len(ALL[name]) for name in tables)
        known = [name for name in tables if name in left_out]
        apart = cell(together(left_out, known)) if known == tables else "-"
        cells = [cell(together(way, tables)) for way in ways.values()]
        lines.append(f"| {label} | {count} | {apart} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", "![errors](planning-scores.png)", ""])


def main() -> None:
    """Scores all, and writes a table, a plot and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="an existing folder")
    out = parser.parse_args().out
    ways = ours()
    if importlib.util.find_spec("GenZ") is None:
        print("GenZ is not installed: see the top of this file.", file=sys.stderr)
    else:
        warnings.simplefilter("ignore")
        ways |= {name: score(genz(system)) for name, system in GENZ.items()}
    left_out = leave_one_table_out(FITTED, TPU)
    text = to_markdown(ways, left_out)
    print(text)
    out.joinpath("planning-scores.md").write_text(text)
    errors = {
        name: {table: 100 * found.geometric_error for table, found in way.items()}
        for name, way in ways.items()
        if name in ("fitted", "ideal, bandwidth by axis", *list(GENZ)[:2])
    }
    plot = bar_plot(errors, y="error, %", title="Geometric-mean error of predicted seconds")
    out.joinpath("planning-scores.png").write_bytes(plot)
    ratios = {
        name: {table: [round(r, 4) for r in found.ratios] for table, found in way.items()}
        for name, way in ways.items()
    }
    out.joinpath("planning-scores.json").write_text(json.dumps(ratios) + "\n")


if __name__ == "__main__":
    main()
