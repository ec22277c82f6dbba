"""Products of few rows with packed weights, from memory and from cache, against what there is.

    python benchmarks/matvec.py --out docs/results/

Every case is checked against float64 on the kernel's own values, then timed in turns with its
peers; the least of each is kept. From memory means a rotation over kernels of 256 MB and more in
all. The bound beside a figure is the kernel's bytes over the speed at which this machine reads
memory, measured in the same run by the best of several readers, or by a kernel if one is faster.

Peers: XLA with a float32 kernel in either orientation (the faster counts), bfloat16 and int8; ONNX
Runtime's MatMulNBits with accuracy level 4 (`pip install onnxruntime onnx`, left out where it is
missing). The number of threads is that of the processors this process may use: `taskset -c 0`
makes it one. The last line is JSON.
"""

import argparse
import dataclasses
import json
import pathlib
import platform
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from gossamer.kernels import processor, targets
from gossamer.kernels.bandwidth import read_gb_per_second
from gossamer.packing import Packed, pack
from gossamer.quantization import Codes, Int
from gossamer.sparsity import NM

MEMORY_BYTES = 256e6
ROWS_IN_A_CALL = 16  # at least, so that calling costs little
THREADS = processor.threads()

Peers = Iterator[tuple[str, Callable[[], None], int]]
"""Names, calls, and how many products each call is."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One kernel and how it is read."""

    size: int  # in
    out: int
    group: int
    rows: int
    bits: int
    pattern: NM | None
    activations: Int | None
    from_memory: bool

    def __str__(self) -> str:
        pattern = "dense" if self.pattern is None else str(self.pattern)
        inputs = "floats" if self.activations is None else f"int{self.activations.bits}"
        place = "memory" if self.from_memory else "cache"
        return (
            f"{pattern} int{self.bits} x {inputs}, [{self.size}, {self.out}], groups of "
            f"{self.group}, {self.rows} rows, from {place}"
        )


def random_packed(case: Case, seed: int) -> Packed:
    """Codes as a trained kernel's would be, small ones more often."""
    random = np.random.default_rng(seed)
    format = Int(case.bits, group=case.group, scale="bfloat16")
    shape = (case.size, case.out)
    draws = random.integers(1, format.qmax + 1, shape, dtype=np.int8)
    codes = draws * random.choice(np.array([-1, 1], np.int8), shape)
    mask = None
    if case.pattern is not None:
        order = random.random((case.size // case.pattern.m, case.pattern.m, case.out))
        rank = np.argsort(np.argsort(order, axis=1), axis=1)
        mask = (rank < case.pattern.n).reshape(shape)
        codes = codes * mask
    scales = jnp.full((case.size // case.group, case.out), 2.0**-7)
    mask = None if mask is None else jnp.asarray(mask)
    return pack(Codes(jnp.asarray(codes), scales), format, case.pattern, mask, case.activations)


def check(kernel: Packed, x: jax.Array) -> None:
    """Against float64 on the kernel's values; int8 activations are allowed their rounding."""
    want = np.asarray(x, np.float64) @ np.asarray(kernel.materialize(), np.float64)
    got = np.asarray(kernel.dot(x))
    tolerance = 1e-4 if kernel.activations is None else 2e-2
    assert np.linalg.norm(got - want) <= tolerance * np.linalg.norm(want), str(kernel.shape)


def rotation(case: Case, nbytes: float) -> int:
    """How many kernels of so many bytes are taken in turns."""
    return max(1, int(np.ceil(MEMORY_BYTES / nbytes))) if case.from_memory else 1


def in_a_call(case: Case, kernels: int = 1) -> int:
    """How many products a call is: with every kernel one, and more of few rows."""
    return max(kernels, -(-ROWS_IN_A_CALL // case.rows))


def several(x: jax.Array, count: int) -> list[jax.Array]:
    """Inputs that differ, so that no compiler makes one product of many."""
    return [x * (1 + index / 64) for index in range(count)]


def ours(case: Case, x: jax.Array) -> tuple[Callable[[], None], int, int]:
    """A call that multiplies by kernels in turns, how many products it is, a kernel's bytes."""
    first = random_packed(case, 0)
    check(first, x)
    # Copies hold the same numbers in other memory, which is what matters here.
    kernels = [jax.tree.map(jnp.copy, first) for _ in range(rotation(case, first.nbytes))]
    inputs = several(x, in_a_call(case, len(kernels)))

    @jax.jit
    def multiply(inputs: list[jax.Array], kernels: list[Packed]) -> list[jax.Array]:
        return [kernels[i % len(kernels)].dot(x) for i, x in enumerate(inputs)]

    return lambda: jax.block_until_ready(multiply(inputs, kernels)), len(inputs), first.nbytes


def xla_call(
    form: str, inputs: list[jax.Array], kernels: list[jax.Array], result: type
) -> Callable[[], None]:
    """A call that multiplies every input by the kernels in turns."""

    @jax.jit
    def multiply(inputs: list[jax.Array], kernels: list[jax.Array]) -> list[jax.Array]:
        return [
            jnp.einsum(form, x, kernels[i % len(kernels)], preferred_element_type=result)
            for i, x in enumerate(inputs)
        ]

    return lambda: jax.block_until_ready(multiply(inputs, kernels))


def xla_peers(case: Case, x: jax.Array) -> Peers:
    """XLA's own products, with how many products each call is."""
    values = np.random.default_rng(0).normal(size=(case.size, case.out)).astype(np.float32)
    for name, dtype in (("float32", jnp.float32), ("bfloat16", jnp.bfloat16), ("int8", jnp.int8)):
        kernel = jnp.asarray(values * (20 if name == "int8" else 1)).astype(dtype)
        count = rotation(case, kernel.nbytes)
        inputs = [row.astype(dtype) for row in several(20 * x, in_a_call(case, count))]
        result = jnp.int32 if name == "int8" else jnp.float32
        for form in ("ri,io->ro", "ri,oi->ro") if name == "float32" else ("ri,io->ro",):
            laid = kernel.T if form == "ri,oi->ro" else kernel
            copies = [jnp.copy(laid) for _ in range(count)]
            label = f"XLA {name} [out, in]" if form == "ri,oi->ro" else f"XLA {name}"
            yield label, xla_call(form, inputs, copies, result), len(inputs)


def onnx_peer(case: Case, x: jax.Array) -> Peers:
    """ONNX Runtime's blockwise int4 product; nothing where it is not installed."""
    if case.bits != 4:
        return
    try:
        import onnx
        import onnxruntime
    except ImportError:
        return
    random = np.random.default_rng(0)
    blocks = case.size // case.group
    shape = (case.out, blocks, case.group // 2)
    kernels = rotation(case, np.prod(shape) + case.out * blocks * 4)
    rows = several(x, in_a_call(case, kernels))
    inputs = {f"x{index}": np.asarray(row) for index, row in enumerate(rows)}
    stored = []
    for index in range(kernels):  # of numbers that differ, or equal ones would become one
        weights = random.integers(0, 256, shape, dtype=np.uint8)
        scales = random.uniform(0.5, 1, case.out * blocks).astype(np.float32)
        stored.append(onnx.numpy_helper.from_array(weights, f"weights{index}"))
        stored.append(onnx.numpy_helper.from_array(scales, f"scales{index}"))
    settings = {"K": case.size, "N": case.out, "bits": 4, "block_size": case.group}
    nodes = [
        onnx.helper.make_node(
            "MatMulNBits",
            [name, f"weights{index % kernels}", f"scales{index % kernels}"],
            [f"y{index}"],
            domain="com.microsoft",
            accuracy_level=4,
            **settings,
        )
        for index, name in enumerate(inputs)
    ]

    def value(name: str, size: int) -> "onnx.ValueInfoProto":
        return onnx.helper.make_tensor_value_info(name, 1, [case.rows, size])  # 1: float32

    graph = onnx.helper.make_graph(
        nodes,
        "products",
        [value(name, case.size) for name in inputs],
        [value(node.output[0], case.out) for node in nodes],
        stored,
    )
    sets = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=sets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    yield "ONNX Runtime MatMulNBits", lambda: session.run(None, inputs), len(inputs)


def seconds_in_turns(
    calls: dict[str, tuple[Callable[[], None], int]], budget: float
) -> dict[str, float]:
    """The least time of one product of each, taken in turns.

    Those more than eight times as slow as the fastest take one turn, those more than twice as slow
    three; the others go on until the budget is used up.
    """
    for call, _ in calls.values():
        call()  # compiles
    best = dict.fromkeys(calls, float("inf"))
    racing, turn, end = list(calls), 0, float("inf")
    while time.perf_counter() < end:
        for name in racing:
            call, count = calls[name]
            start = time.perf_counter()
            call()
            best[name] = min(best[name], (time.perf_counter() - start) / count)
        turn += 1
        if turn in (1, 3):
            most = (8 if turn == 1 else 2) * min(best.values())
            racing = [name for name in racing if best[name] < most]
        if turn == 3:
            end = time.perf_counter() + budget
    return best


def measure(
    case: Case, budget: float, peers: tuple[Callable[[Case, jax.Array], Peers], ...]
) -> dict:
    """One row of the table: seconds of a single product."""
    x = jax.random.normal(jax.random.key(0), (case.rows, case.size))
    call, count, nbytes = ours(case, x)
    calls = {"ours": (call, count)}
    for find in peers:
        calls |= {name: (peer, peer_count) for name, peer, peer_count in find(case, x)}
    seconds = seconds_in_turns(calls, budget)
    return {
        "case": str(case),
        "ours_seconds": seconds.pop("ours"),
        "peers": seconds,
        "bytes": nbytes,
        "from_memory": case.from_memory,
    }


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


def arguments(description: str | None) -> argparse.ArgumentParser:
    """What every benchmark takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--out", type=pathlib.Path, help="folder for the result as JSON")
    return parser


def peers_text(row: dict) -> str:
    """How many times as long each peer takes."""
    return ", ".join(f"{name} {s / row['ours_seconds']:.2f}" for name, s in row["peers"].items())


def keep(name: str, result: dict, out: pathlib.Path | None) -> None:
    """Prints the last line, and writes it into the folder `out`."""
    machine = f"{platform.machine()}, {THREADS} threads, {targets()[0]}"
    line = json.dumps({"machine": machine} | result)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{name}-{THREADS}.json").write_text(line + "\n")
    print(line)


def main() -> None:
    args = arguments(__doc__).parse_args()
    budget = 0.5 if args.quick else 3.0
    rows = []
    for case in cases(args.quick):
        rows.append(measure(case, budget, (xla_peers, onnx_peer)))
        print(f"{rows[-1]['ours_seconds'] * 1e6:10.1f} us  {case}", flush=True)
    bandwidth = read_gb_per_second(threads=THREADS, seconds=budget)
    from_memory = [row for row in rows if row["from_memory"]]
    bandwidth = max(bandwidth, *(row["bytes"] / row["ours_seconds"] / 1e9 for row in from_memory))
    for row in rows:
        row["bound_seconds"] = row["bytes"] / bandwidth / 1e9
        share = row["bound_seconds"] / row["ours_seconds"]
        print(f"{row['case']}: {share:.0%} of the bound; {peers_text(row)}")
    keep("matvec", {"read_gb_per_second": bandwidth, "rows": rows}, args.out)


if __name__ == "__main__":
    main()
