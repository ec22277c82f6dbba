"""Every post-training method against round to nearest, on one model at the same recipe.

    python experiments/post_training.py smollm2 --calibration sotu.txt.xz wiki.valid.raw.xz \
        --evaluation wiki.test.raw.xz --out docs/results/

Hardware: two CPU cores with AVX-512, about two hours for SmolLM2-135M and two calibration texts.
Expected: at 2:4 the perplexity is ordered SparseGPT or OBR < Wanda then GPTQ < Wanda; SmoothQuant
is below round to nearest where activations are int8. On which side of round to nearest GPTQ comes
out depends on how like the evaluation text the calibration text is. Each case runs in a process of
its own, and its row is written as it comes; a row that is there already is not computed again.
"""

import argparse
import json
import pathlib
import tempfile
from typing import Any

from recipes import command, evaluate

from gossamer.plots import Bar, bar_panels

ENDS = {"path": r"(embedding|output)\.kernel", "weights": {"type": "Int", "bits": 8}}
BLOCKS: dict[str, dict[str, Any]] = {  # recipe: the rule of the blocks' kernels
    "int4 per output": {"weights": {"type": "Int", "bits": 4, "symmetric": False}},
    "int4 groups of 96": {
        "weights": {"type": "Int", "bits": 4, "symmetric": False, "group": 96, "scale": "bfloat16"}
    },
    "2:4 int4": {
        "pattern": {"type": "NM", "n": 2, "m": 4},
        "weights": {"type": "Int", "bits": 4, "group": 64, "scale": "bfloat16"},
    },
    "w8a8": {
        "weights": {"type": "Int", "bits": 8},
        "activations": {"type": "Int", "bits": 8},
    },
    "w4a8": {
        "weights": {"type": "Int", "bits": 4, "symmetric": False},
        "activations": {"type": "Int", "bits": 8},
    },
}
CASES: dict[str, list[tuple[str, ...]]] = {  # recipe: methods with their settings, baseline first
    "int4 per output": [
        ("rtn",),
        ("gptq", "--act-order", "False"),
        ("gptq",),
        ("gptq", "--damping", "0.1"),
        ("awq",),
    ],
    "int4 groups of 96": [("rtn",), ("gptq",), ("awq",)],
    "2:4 int4": [
        ("wanda",),
        ("wanda-gptq",),
        ("obr", "--rounding", "rtn"),
        ("obr",),
        ("sparsegpt",),
    ],
    "w8a8": [("rtn",), ("smoothquant",), ("smoothquant", "--alpha", "0.8")],
    "w4a8": [("rtn",), ("smoothquant",)],
}
UNCALIBRATED = "none"


def measure(args: argparse.Namespace, recipe: str, method: tuple[str, ...], text: str) -> dict:
    """Compresses by one method and evaluates the result."""
    with tempfile.TemporaryDirectory() as folder:
        rules = [{"path": r"layers\..*\.kernel", **BLOCKS[recipe]}, ENDS]
        file = pathlib.Path(folder, "recipe.json")
        file.write_text(json.dumps({"name": recipe, "rules": rules}))
        calibration = [] if text == UNCALIBRATED else ["--calibration", text]
        out = f"{folder}/model"
        report = command(
            *("compress", args.model, "--recipe", str(file), "--method", *method, *calibration),
            *("--out", out, "--windows", "0"),
        )
        errors = [kernel["output_error"] for kernel in report["kernels"]]
        measured = [error for error in errors if error is not None]
        return evaluate(args, out) | {
            "recipe": recipe,
            "method": " ".join(method).replace("--", ""),
            "calibration": pathlib.Path(text).name,
            "mean_output_error": sum(measured) / len(measured) if measured else None,
            "bits_per_weight": report["bits_per_weight"],
            "compress_seconds": report["seconds"]["compress"],
        }


def to_markdown(rows: list[dict], args: argparse.Namespace) -> str:
    texts = " ".join(pathlib.Path(text).name for text in args.calibration)
    lines = [
        f"# {args.model}: post-training methods",
        "",
        f"{pathlib.Path(args.evaluation).name}, first {args.windows} windows of {args.context} "
        "tokens; calibration, where a method needs one, 64 sequences of 512 tokens, seed 0. The "
        "output error is the mean over the blocks' kernels, relative, on the calibration text. "
        "Made by",
        "",
        f"    python experiments/post_training.py {args.model} --calibration {texts} "
        f"--evaluation {pathlib.Path(args.evaluation).name} --out docs/results/",
        "",
        "| recipe | method | calibration | perplexity | output error | bits/weight | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        error = row["mean_output_error"]
        cells = [row["recipe"], row["method"], row["calibration"], f"{row['perplexity']:.2f}"]
        cells += ["" if error is None else f"{error:.4f}", f"{row['bits_per_weight']:.3f}"]
        cells += [f"{row['compress_seconds']:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", "![perplexity by method](post-training.png)", ""])


def draw(rows: list[dict], args: argparse.Namespace) -> None:
    (args.out / "post-training.md").write_text(to_markdown(rows, args))
    panels: dict[str, list[Bar]] = {}
    for row in rows:
        bar = Bar(
            label=row["method"],
            length=row["perplexity"],
            series=f"calibration: {row['calibration']}",
            text=f"{row['perplexity']:.2f}",
        )
        panels.setdefault(row["recipe"], []).append(bar)
    plot = bar_panels(panels, x="perplexity", title=args.model)
    (args.out / "post-training.png").write_bytes(plot)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--calibration", nargs="+", required=True)
    parser.add_argument("--evaluation", required=True)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "post-training.json"
    rows = json.loads(file.read_text()) if file.exists() else []
    done = {(row["recipe"], row["method"], row["calibration"]) for row in rows}
    for recipe, methods in CASES.items():
        for method in methods:
            for text in [UNCALIBRATED] if method == ("rtn",) else args.calibration:
                key = (recipe, " ".join(method).replace("--", ""), pathlib.Path(text).name)
                if key not in done:
                    rows.append(measure(args, recipe, method, text))
                    file.write_text(json.dumps(rows, indent=1))
                    print(json.dumps(rows[-1]), flush=True)
                    draw(rows, args)


if __name__ == "__main__":
    main()
