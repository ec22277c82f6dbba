"""Products of few rows with packed weights, from memory and from cache, against what there is.

    python benchmarks/matvec.py --out docs/results/

Every case is checked against float64 on the kernel's own values, then timed in turns with its
peers; the least of each is kept. Peers multiply dense kernels whatever ours is: they run beside all
cases of a shape, and their least of these counts. From memory means a rotation over kernels of
256 MB and more in all. The bound is the kernel's bytes over the speed at which this machine reads
memory, measured in the same run by the best of several readers, or by a kernel if one is faster;
it bounds nothing that comes from cache.

Peers: XLA with a float32 kernel in either orientation, bfloat16 and int8; ONNX Runtime's
MatMulNBits with accuracy level 4 and PyTorch's products of torch_peer.py (`pip install onnxruntime
onnx torch`, left out where they are missing). The number of threads is that of the processors this
process may use: `taskset -c 0` makes it one. The last line is JSON.
"""

import itertools
import operator
from collections.abc import Iterator

from products import Case
from race import peers_text, race
from results import THREADS, arguments, keep

from gossamer.kernels.bandwidth import read_gb_per_second
from gossamer.quantization import Int
from gossamer.sparsity import NM


def cases(quick: bool) -> Iterator[Case]:
    """What decoding meets: shapes of small and large models, 4 bits and others."""
    shapes = [(2048, 8192, 128, True), (576, 1536, 64, False)]
    if not quick:
        shapes = [
            (8192, 8192, 128, True),
            (2048, 8192, 128, True),
            (2048, 8192, 128, False),
            (576, 1536, 64, False),
        ]
    kinds = [(4, None), (4, NM(2, 4)), (4, NM(1, 4))]
    if not quick:
        kinds += [(8, None), (2, None), (2, NM(1, 4)), (4, NM(4, 8))]
    for size, out, group, from_memory in shapes:
        for bits, pattern in kinds:
            # Floats of every pattern would take the quick run over its minute.
            for activations in (Int(8),) if quick and pattern is not None else (Int(8), None):
                yield Case(size, out, group, 1, bits, pattern, activations, from_memory)


def main() -> None:
    args = arguments(__doc__).parse_args()
    budget = 0.5 if args.quick else 3.0
    rows = []
    speeds = []  # of reading, after every case: a shared machine's memory has its moments

    def read() -> None:
        speeds.append(read_gb_per_second(threads=THREADS, seconds=budget / 2))

    for _, alike in itertools.groupby(cases(args.quick), operator.attrgetter("shape")):
        for row in race(list(alike), budget, read):
            rows.append(row)
            print(f"{row['ours_seconds'] * 1e6:10.1f} us  {row['case']}", flush=True)
            if row["from_memory"]:
                speeds.append(row["bytes"] / row["ours_seconds"] / 1e9)
    bandwidth = max(speeds)
    for row in rows:
        row["bound_seconds"] = row["bytes"] / bandwidth / 1e9
        share = f"{row['bound_seconds'] / row['ours_seconds']:.0%} of the bound; "
        print(f"{row['case']}: {share if row['from_memory'] else ''}{peers_text(row)}")
    keep("matvec", {"read_gb_per_second": bandwidth, "rows": rows}, args.out)


if __name__ == "__main__":
    main()
