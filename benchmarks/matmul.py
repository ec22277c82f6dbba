"""Products of many rows with packed weights against what there is.

    python benchmarks/matmul.py --out docs/results/

Every case is checked, then timed in turns with its peers, as in matvec.py; peers are those of there
and, where `torch` is installed, PyTorch's. The bound beside a figure is the larger of the kernel's
bytes over the bandwidth and the multiplications with weights that are kept over the most
multiply-adds that this machine does, of int8 or float32 as the activations are; both are measured
in the same run. GFLOP/s count the dense product, two operations a weight and row, whatever is
skipped: so they compare one pattern with another. The last line is JSON.
"""

import dataclasses
from collections.abc import Callable, Iterator

import jax
import numpy as np
from matvec import (
    THREADS,
    Case,
    Peers,
    arguments,
    keep,
    measure,
    onnx_peer,
    peers_text,
    xla_peers,
)

from gossamer.kernels.bandwidth import read_gb_per_second
from gossamer.kernels.peak import multiply_adds_per_second
from gossamer.quantization import Int
from gossamer.sparsity import NM


def torch_peers(case: Case, x: jax.Array) -> Peers:
    """PyTorch's products; nothing where it is not installed, nor what a version lacks."""
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(THREADS)
    rows = torch.from_numpy(np.array(x))
    weights = torch.from_numpy(
        np.random.default_rng(0).normal(size=(case.out, case.size)).astype(np.float32)
    )
    for name, make in torch_products(case).items():
        try:
            call = make(torch, rows, weights)
            call()
        except (AttributeError, RuntimeError, NotImplementedError):
            continue  # an operation that this version or this processor lacks
        yield f"PyTorch {name}", call, 1


def torch_products(case: Case) -> dict[str, Callable]:
    """By name, what makes a call from the module, rows and weights [out, in]."""

    def floats(dtype: str) -> Callable:
        def make(torch, rows, weights):
            rows, weights = rows.to(getattr(torch, dtype)), weights.to(getattr(torch, dtype))
            return lambda: torch.nn.functional.linear(rows, weights)

        return make

    def int4(torch, rows, weights):
        codes = (weights * 3).clamp(-8, 7).to(torch.int32) + 8
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        groups = torch.ones(case.size // case.group, case.out, 2, dtype=torch.bfloat16)
        rows = rows.to(torch.bfloat16)
        product = torch.ops.aten._weight_int4pack_mm_for_cpu
        return lambda: product(rows, packed, case.group, groups)

    def int8(torch, rows, weights):
        codes, scales = (weights * 20).to(torch.int8), torch.ones(case.out, dtype=torch.bfloat16)
        rows = rows.to(torch.bfloat16)
        return lambda: torch.ops.aten._weight_int8pack_mm(rows, codes, scales)

    def integers(torch, rows, weights):
        rows, codes = (rows * 20).to(torch.int8), (weights * 20).to(torch.int8).T
        return lambda: torch._int_mm(rows, codes)

    return {
        "float32": floats("float32"),
        "bfloat16": floats("bfloat16"),
        "int4 weights": int4,
        "int8 weights": int8,
        "int8 x int8": integers,
    }


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
    for case in cases(args.quick):
        row = measure(case, budget, (xla_peers, onnx_peer, torch_peers))
        row["bound_seconds"] = max(
            row["bytes"] / bandwidth / 1e9, multiply_adds(case) / peaks[case.activations is None]
        )
        seconds = row["ours_seconds"]
        row["gflops"] = 2 * case.rows * case.size * case.out / seconds / 1e9
        rows.append(row)
        print(
            f"{seconds * 1e3:9.3f} ms, {row['gflops']:6.0f} GFLOP/s, bound "
            f"{row['bound_seconds'] * 1e3:.3f} ms ({row['bound_seconds'] / seconds:.0%})  {case}: "
            f"{peers_text(row)}",
            flush=True,
        )
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
