"""What is computed, and what it is in exact arithmetic."""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Float64

from gossamer.kernels import attention
from gossamer.kernels.attention import CachePlanes
from gossamer.kernels.product import Layout, Planes, product, why_not
from gossamer.packing import Packed, pack
from gossamer.quantization import E2M1, Codebook, Codes, Format, Int
from gossamer.sparsity import NM

UNIT = 2.0**-24
"""What a rounding to float32 changes at most, relatively."""

SIZE, OUT = 256, 72
"""Of a kernel: five tiles, of which some kernels take several at once and the last is half full."""
GROUP = 64
_GROUPS = {"group": GROUP, "scale": "bfloat16"}
FORMATS: dict[str, tuple[Format, NM | None]] = {
    "int4": (Int(4, **_GROUPS), None),
    "2:4 int4": (Int(4, **_GROUPS), NM(2, 4)),
    "1:4 int4": (Int(4, **_GROUPS), NM(1, 4)),
    "E2M1": (Codebook(E2M1, **_GROUPS), None),
    "int8": (Int(8, **_GROUPS), None),
    "int2": (Int(2, **_GROUPS), None),
}
ROWS = (1, 20)
"""Rows that are multiplied by codes in registers, and by a panel of codes."""
HEADS, KV_HEADS, HEAD_SIZE, SEEN_TOKENS = 6, 2, 64, 37


_pack = jax.jit(pack, static_argnames=("format", "pattern"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """Something to compute by a native kernel.

    Attributes:
        what: is computed.
        shape: of it, in words.
        compute: does so; can be traced and pickled.
        exact: the result.
        sizes: what errors are relative to: sums of the sizes of what the result sums.
        allowed: the largest relative error that roundings explain.
    """

    what: str
    shape: str
    compute: Callable[[], Array]
    exact: Float64[np.ndarray, "*dims"]
    sizes: Float64[np.ndarray, "*dims"]
    allowed: float


def draw_cases(seed: int = 0) -> list[Case]:
    """Products of several formats with float and int8 activations, and a step of attention."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((max(ROWS), SIZE), np.float32)
    inputs = {None: x.astype(np.float64), Int(8): _quantized(Int(8), x)}
    products = [
        _product_case(name, kernel, codes, activations, x[:rows], exact[:rows])
        for name, (format, pattern) in FORMATS.items()
        for kernel, codes in _kernels(rng, format, pattern)
        for activations, exact in inputs.items()
        for rows in ROWS
    ]
    return [*products, _attention_case(rng)]


def _kernels(
    rng: np.random.Generator, format: Format, pattern: NM | None
) -> Iterator[tuple[Packed, Codes]]:
    """Kernels of the same codes, with scales of groups and with one for each output."""
    most = 2 ** (format.bits - 1) - 1
    values = np.array(format.book or range(-most, most + 1), np.int8)
    codes = rng.choice(values, (SIZE, OUT))
    mask = None if pattern is None else _mask(rng, pattern)
    # Of seven bits, so that bfloat16 holds them.
    scales = rng.integers(1, 128, (SIZE // GROUP, OUT)).astype(np.float32) / 4096
    drawn = Codes(jnp.asarray(codes), jnp.asarray(scales))
    if mask is not None:
        drawn = drawn._replace(codes=jnp.where(mask, drawn.codes, 0))
    kernel = _pack(drawn, format, pattern, mask)
    yield kernel, drawn
    # Packed anew, most of the time would go into compiling.
    first = dataclasses.replace(kernel, scales=kernel.scales[:, :1])
    yield first, drawn._replace(scales=drawn.scales[:1])


def _mask(rng: np.random.Generator, pattern: NM) -> Bool[np.ndarray, "in out"]:
    places = rng.random((SIZE // pattern.m, pattern.m, OUT)).argsort(axis=1)
    return (places < pattern.n).reshape(SIZE, OUT)


def _quantized(format: Int, x: Float32[np.ndarray, "rows in"]) -> Float64[np.ndarray, "rows in"]:
    """The numbers that rows stand for once they are quantized."""
    codes = jax.jit(format.encode)(x.T)
    return (np.asarray(codes.codes, np.float64) * np.asarray(codes.scales, np.float64)).T


def _product_case(
    name: str,
    kernel: Packed,
    codes: Codes,
    activations: Int | None,
    x: Float32[np.ndarray, "rows in"],
    inputs: Float64[np.ndarray, "rows in"],
) -> Case:
    """The product of `x`, whose rows stand for `inputs`."""
    planes, layout = dataclasses.replace(kernel, activations=activations).parts()
    groups = len(codes.scales)
    weights = np.asarray(codes.codes, np.float64)
    weights *= np.repeat(np.asarray(codes.scales, np.float64), SIZE // groups, axis=0)
    # As `product` states it; sums of integers are exact, those of floats are not.
    roundings = groups + 3 + (SIZE if activations is None else 0)
    return Case(
        what=f"{name}, {'float' if activations is None else 'int8'} activations",
        shape=f"rows: {len(x)}, scales: {f'groups of {GROUP}' if groups > 1 else 'per channel'}",
        compute=functools.partial(_multiply, x, jax.tree.map(np.asarray, planes), layout),
        exact=inputs @ weights,
        sizes=np.abs(inputs) @ np.abs(weights),
        allowed=roundings * UNIT,
    )


def _multiply(
    x: Float32[np.ndarray, "rows in"], planes: Planes, layout: Layout
) -> Float[Array, "rows out"]:
    rows = jnp.asarray(x)
    arrays = jax.tree.map(jnp.asarray, planes)
    if (reason := why_not(rows, arrays, layout)) is not None:
        raise RuntimeError(f"No kernel multiplies: {reason}.")
    return product(rows, arrays, layout)


def _attention_case(rng: np.random.Generator) -> Case:
    r"""A token attends to those before it and itself.

    A score is a sum of H products of scaled numbers; it is shifted by the largest one, and `exp` is
    right to two units in the last place. A power is thus off relatively by (H + 4) units times the
    largest score's sum of sizes, and by four units; sums of powers by a unit a token more. That is
    counted twice, since the sum of the powers divides what they mix.
    """
    queries = rng.standard_normal((1, HEADS, HEAD_SIZE), np.float32)
    keys, values = rng.standard_normal((2, 1, KV_HEADS, SEEN_TOKENS + 1, HEAD_SIZE), np.float32)
    rows = queries.reshape(KV_HEADS, -1, HEAD_SIZE).astype(np.float64) / np.sqrt(HEAD_SIZE)
    scores = np.einsum("kgh,ksh->kgs", rows, keys[0])
    largest = np.einsum("kgh,ksh->kgs", np.abs(rows), np.abs(keys[0])).max()
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    powers /= powers.sum(-1, keepdims=True)
    exact, sizes = (
        np.einsum("kgs,ksh->kgh", powers, part).reshape(queries.shape)
        for part in (values[0].astype(np.float64), np.abs(values[0]).astype(np.float64))
    )
    roundings = (HEAD_SIZE + 4) * float(largest) + SEEN_TOKENS + 5
    return Case(
        what="attention",
        shape=f"{HEADS} heads, {SEEN_TOKENS + 1} tokens",
        compute=functools.partial(_attend, queries, keys, values),
        exact=exact,
        sizes=sizes,
        allowed=2 * roundings * UNIT,
    )


def _attend(
    queries: Float32[np.ndarray, "1 N H"],
    keys: Float32[np.ndarray, "1 K S H"],
    values: Float32[np.ndarray, "1 K S H"],
) -> Float[Array, "1 N H"]:
    """The last token's heads over a cache that has seen the others."""
    rows = jnp.asarray(queries)
    room = ((0, 0), (0, 0), (0, 1), (0, 0))
    cache = CachePlanes(
        jnp.pad(keys[:, :, :-1], room), jnp.pad(values[:, :, :-1], room), None, None
    )
    if (reason := attention.why_not(rows, cache)) is not None:
        raise RuntimeError(f"No kernel attends: {reason}.")
    key, value = (jnp.asarray(part[:, :, -1]) for part in (keys, values))
    out, _ = attention.attend(rows, key, value, cache, jnp.int32(keys.shape[2] - 1))
    return out
