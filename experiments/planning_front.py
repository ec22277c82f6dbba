"""Chips that narrower and sparser weights save: one front of each kind of weights.

    python experiments/planning_front.py --out docs/results/

Steps of decoding at a context of 2048 on up to 256 chips, every mesh, layout and batch that
`gossamer plan serve` tries, by the constants that are fitted to TPU v4. Sizes are those that the
recipes take on disk, ends, scales and indices included. PaLM 540B on TPU v4, as it multiplies (no
product is faster for being sparse or narrow), with bf16 and with int8 keys and values; and
Llama-2-70B on H100, up to 8 of which are linked and whose 2:4 products take half the time: there
the constants are a guess. Quality is not in it, and neither is what unpacking costs a kernel beyond
reading packed weights. One core, half a minute.
"""

import argparse
import dataclasses
import json
import pathlib

from gossamer.planning import (
    ServeSearch,
    cheapest_within,
    find_chip,
    find_shape,
    meshes_of,
    search_serving,
    serving_plot,
    store_weights,
)
from gossamer.recipe import Recipe

RECIPES = ("bf16", "int8", "int4", "2:4-int4", "1:4-int4")
CASES = {
    "PaLM 540B on TPU v4": ("palm-540b", "tpu-v4", "bf16"),
    "PaLM 540B on TPU v4, int8 keys and values": ("palm-540b", "tpu-v4", "int8"),
    "Llama-2-70B on H100": ("llama-2-70b", "h100-sxm", "bf16"),
}
LATENCIES_MS = (10, 15, 20, 25, 30, 40, 50, 75, 100)


def search(model: str, chip_name: str, cache: str) -> dict[str, ServeSearch]:
    """The front of each kind of weights."""
    chip = find_chip(chip_name)
    return {
        name: search_serving(
            find_shape(model),
            chip,
            phase="decode",
            context=2048,
            meshes=meshes_of(chip, 256),
            weights=["bf16" if name == "bf16" else Recipe.load(name)],
            caches=[cache],
        )
        for name in RECIPES
    }


def saved(found: dict[str, ServeSearch]) -> list[dict]:
    """Of each latency and kind of weights: chips for 1,000 tokens a second, and what they save."""
    rows = []
    for limit in LATENCIES_MS:
        dense = cheapest_within(found["bf16"].front, limit / 1e3)
        for each in found.values():
            best = cheapest_within(each.front, limit / 1e3)
            if best is None:
                continue
            row = dataclasses.asdict(best) | {"mesh": str(best.mesh), "latency_ms": limit}
            row["chips_saved"] = (
                None
                if dense is None
                else 1 - best.cost.chip_ms_per_token / dense.cost.chip_ms_per_token
            )
            rows.append(row)
    return rows


def table(rows: list[dict]) -> list[str]:
    """A line a latency."""
    lines = ["| latency | " + " | ".join(RECIPES) + " |", "|---|" + "---|" * len(RECIPES)]
    for limit in sorted({row["latency_ms"] for row in rows}):
        cells = []
        for name in RECIPES:
            row = next((r for r in rows if (r["latency_ms"], r["weights"]) == (limit, name)), None)
            if row is None:
                cells.append("-")
                continue
            share = row["chips_saved"]
            saving = f", {share:.0%} saved" if share and name != "bf16" else ""
            cost = row["cost"]["chip_ms_per_token"]
            cells.append(f"{cost:.3g} ({row['mesh']}, batch {row['batch']}{saving})")
        lines.append(f"| {limit} ms | " + " | ".join(cells) + " |")
    return lines


def sizes(model: str) -> str:
    """Gigabytes of each kind of weights."""
    each = {name: "bf16" if name == "bf16" else Recipe.load(name) for name in RECIPES}
    stored = {name: store_weights(find_shape(model), weights) for name, weights in each.items()}
    listed = ", ".join(f"{name} {found.nbytes / 1e9:,.0f}" for name, found in stored.items())
    return f"Weights in GB: {listed}."


def main() -> None:
    """Searches, and writes the plots, the tables and the plans."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="an existing folder")
    out = parser.parse_args().out
    lines = [
        "# Chips for 1,000 tokens a second at equal latency",
        "",
        "Decoding at a context of 2048; made by `experiments/planning_front.py`. In brackets the",
        "mesh and the batch, and how many fewer chips than with bf16 weights at the same latency",
        "and the same tokens a second.",
    ]
    plans = {}
    for title, (model, chip, cache) in CASES.items():
        found = search(model, chip, cache)
        plans[title] = saved(found)
        fronts = {name: each.front for name, each in found.items()}
        name = f"planning-front-{model}-{cache}"
        plot = serving_plot(fronts, title=f"{title}: a step at 2048 tokens")
        out.joinpath(f"{name}.png").write_bytes(plot)
        considered = sum(each.considered for each in found.values())
        lines += ["", f"## {title}", "", sizes(model), "", *table(plans[title]), ""]
        lines += [f"{considered:,} plans considered.", "", f"![fronts]({name}.png)"]
    text = "\n".join([*lines, ""])
    print(text)
    out.joinpath("planning-front.md").write_text(text)
    out.joinpath("planning-front.json").write_text(json.dumps(plans) + "\n")


if __name__ == "__main__":
    main()
