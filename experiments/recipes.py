"""Every recipe on one model: perplexity, size, bits a weight, seconds and peak memory.

    python experiments/recipes.py smollm2 --calibration sotu.txt.xz --evaluation wiki.test.raw.xz \
        --out docs/results/

Hardware: two CPU cores with AVX-512, about 40 minutes for SmolLM2-135M. Expected: at 2:4 the
perplexity is ordered SparseGPT < Wanda < magnitude; int8 per channel is within 1 % of dense. Each
case runs in a process of its own, so that its peak memory is its own, and its row is written as it
comes; a row that is there already is not computed again.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

from gossamer.plots import scatter_plot

CASES = [
    ("int8", "rtn"),
    ("2:4", "magnitude"),
    ("2:4", "wanda"),
    ("2:4", "sparsegpt"),
    ("2:4-int4", "sparsegpt"),
    ("int4", "rtn"),
    ("int4", "sparsegpt"),
    ("50%", "sparsegpt"),
    ("4:8-int4", "sparsegpt"),
    ("2:4-int4", "wanda"),
    ("2:4-int8", "sparsegpt"),
    ("1:4-int4", "sparsegpt"),
]


def command(*arguments: str) -> dict:
    """Runs a gossamer command with --json and reads what it prints."""
    line = [sys.executable, "-m", "gossamer", *arguments, "--json"]
    return json.loads(subprocess.run(line, check=True, stdout=subprocess.PIPE).stdout)


def measure(args: argparse.Namespace, recipe: str, method: str) -> dict:
    """Compresses by one recipe and method and evaluates the result."""
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/model"
        calibration = [] if method in ("rtn", "magnitude") else ["--calibration", args.calibration]
        report = command(
            *("compress", args.model, "--recipe", recipe, "--method", method, *calibration),
            *("--out", out, "--windows", "0"),
        )
        return evaluate(args, out) | {
            "recipe": recipe,
            "method": method,
            "bytes_on_disk": report["bytes_on_disk"],
            "share_of_float32": report["bytes_on_disk"] / report["bytes_float32"],
            "bits_per_weight": report["bits_per_weight"],
            "compress_seconds": report["seconds"]["compress"],
            "peak_memory_bytes": report["peak_memory_bytes"],
        }


def evaluate(args: argparse.Namespace, model: str) -> dict:
    windows = ("--context", str(args.context), "--windows", str(args.windows))
    result = command("eval", model, "--text", args.evaluation, *windows)
    return {"perplexity": result["perplexity"], "predictions": result["predictions"]}


def to_markdown(rows: list[dict], args: argparse.Namespace) -> str:
    dense = rows[0]["perplexity"]
    lines = [
        f"# {args.model}: perplexity against size",
        "",
        f"{pathlib.Path(args.evaluation).name}, first {args.windows} windows of {args.context} "
        f"tokens; calibration, where a method needs one, 64 sequences of 512 tokens of "
        f"{pathlib.Path(args.calibration).name}, seed 0. Made by",
        "",
        f"    python experiments/recipes.py {args.model} --calibration "
        f"{pathlib.Path(args.calibration).name} --evaluation {pathlib.Path(args.evaluation).name}",
        "",
        "| recipe | method | perplexity | times dense | size on disk | of float32 | bits/weight | "
        "compress, s | peak, MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row["recipe"], row["method"], f"{row['perplexity']:.2f}"]
        cells += [f"{row['perplexity'] / dense:.3f}"]
        if "bytes_on_disk" in row:
            cells += [f"{row['bytes_on_disk'] / 1e6:.1f} MB", f"{row['share_of_float32']:.1%}"]
            cells += [f"{row['bits_per_weight']:.3f}", f"{row['compress_seconds']:.0f}"]
            cells += [f"{row['peak_memory_bytes'] / 2**20:.0f}"]
        else:
            cells += ["", "100 %", "32", "", ""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", "![size against perplexity](recipes.png)", ""])


def draw(rows: list[dict], args: argparse.Namespace) -> None:
    (args.out / "recipes.md").write_text(to_markdown(rows, args))
    points = {
        f"{row['recipe']} {row['method']}": (row["bytes_on_disk"] / 1e6, row["perplexity"])
        for row in rows[1:]
    }
    plot = scatter_plot(points, x="MB on disk", y="perplexity", title=args.model, log_y=True)
    (args.out / "recipes.png").write_bytes(plot)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--evaluation", required=True)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "recipes.json"
    rows = json.loads(file.read_text()) if file.exists() else []
    done = {(row["recipe"], row["method"]) for row in rows}
    for case in [("dense", "-"), *CASES]:
        if case not in done:
            dense = {"recipe": "dense", "method": "-"}
            row = measure(args, *case) if case[0] != "dense" else evaluate(args, args.model) | dense
            rows.append(row)
            file.write_text(json.dumps(rows, indent=1))
            print(json.dumps(row), flush=True)
            draw(rows, args)


if __name__ == "__main__":
    main()
