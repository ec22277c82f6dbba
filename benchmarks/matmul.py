"""Products of many rows with packed weights against what there is.

    python benchmarks/matmul.py --out docs/results/

Every case is checked, then timed in turns with its peers, as in matvec.py. The bound beside a
figure is the larger of the kernel's bytes over the bandwidth and the multiplications with weights
that are kept over the most multiply-adds that this machine does, of int8 or float32 as the
activations are; both are measured in the same run. GFLOP/s count the dense product, two operations
a weight and row, whatever is skipped: so they compare one pattern with another. The last line is
JSON.
"""

import dataclasses
import itertools
import operator
from collections.abc import Iterator

from products import Case
from race import peers_text, race
from results import THREADS, arguments, keep

from gossamer.kernels.bandwidth import read_gb_per_second
from gossamer.kernels.peak import multiply_adds_per_second
from gossamer.quantization import Int
from gossamer.sparsity import NM


def cases(quick: bool) -> Iterator[Case]:
    """What a prompt and a batch meet."""
    small = Case(576, 1536, 64, 64, 4, None, Int(8), False)
    large = Case(2048, 8192, 128, 512, 4, None, Int(8), False)
    shapes = [small, dataclasses.replace(small, rows=512)]
    if not quick:
        shapes += [dataclasses.replace(large, rows=64), large]
    for shape in shapes:
        for bits, pattern in (4, None), (4, NM(2, 4)), (4, NM(1, 4)), (8, None):
            for activations in Int(8), None:
                yield dataclasses.replace(
                    shape, bits=bits, pattern=pattern, activations=activations
                )


def multiply_adds(case: Case) -> float:
    """With weights that are kept."""
    kept = 1 if case.pattern is None else case.pattern.n / case.pattern.m
    return case.rows * case.size * case.out * kept


def show(row: dict) -> None:
    """A line for people."""
    seconds, bound = row["ours_seconds"], row["bound_seconds"]
    print(
        f"{seconds * 1e3:9.3f} ms, {row['gflops']:6.0f} GFLOP/s, bound {bound * 1e3:.3f} ms "
        f"({bound / seconds:.0%})  {row['case']}: {peers_text(row)}",
        flush=True,
    )


def main() -> None:
    args = arguments(__doc__).parse_args()
    budget = 0.5 if args.quick else 3.0
    bandwidth = read_gb_per_second(threads=THREADS, seconds=budget)
    peaks = {
        floats: multiply_adds_per_second(floats=floats, threads=THREADS, seconds=budget)
        for floats in (False, True)
    }
    print(
        f"{bandwidth:.1f} GB/s; {peaks[False] / 1e9:.0f} and {peaks[True] / 1e9:.0f} G "
        "multiply-adds/s of int8 and float32"
    )
    rows = []
    for _, alike in itertools.groupby(cases(args.quick), operator.attrgetter("shape")):
        same = list(alike)
        for case, row in zip(same, race(same, budget), strict=True):
            adds = multiply_adds(case) / peaks[case.activations is None]
            row["bound_seconds"] = max(row["bytes"] / bandwidth / 1e9, adds)
            row["gflops"] = 2e-9 * case.rows * case.size * case.out / row["ours_seconds"]
            rows.append(row)
            show(row)
    keep(
        "matmul",
        {
            "read_gb_per_second": bandwidth,
            "int8_multiply_adds_per_second": peaks[False],
            "float32_multiply_adds_per_second": peaks[True],
            "rows": rows,
        },
        args.out,
    )


if __name__ == "__main__":
    main()
