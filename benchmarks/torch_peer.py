"""PyTorch's products on a CPU.

    float32, and of 16 bits   linear with a kernel of that type
    int8 x int8               in either orientation; nothing is quantized on the way, nor scaled
    dynamic int8              activations are quantized on the way; by FBGEMM and by oneDNN
    int8, int4 weights        bfloat16 activations and results; scales of outputs, of groups
    dynamic int4              activations are quantized on the way; on Arm alone

They are called one by one, as a model in PyTorch calls them. An operation then costs a few
microseconds of its own, which show where a kernel is small. Needs `pip install torch`.
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator

import jax
import numpy as np
import torch
from products import Case, Peers, Timed, in_a_call, int4_codes, rotation, several
from results import THREADS


@dataclasses.dataclass(frozen=True)
class Product:
    """How an operation multiplies."""

    dtype: torch.dtype  # of the activations it takes
    bits: int  # of a weight
    new_kernel: Callable[[], tuple]  # tensors, or what an operation packed, in memory of its own
    multiply: Callable[..., torch.Tensor]  # by all that `new_kernel` gives


def torch_peers(case: Case, x: jax.Array, values: np.ndarray) -> Peers:
    """The products with `values` [in, out] that this version has for this processor."""
    torch.set_num_threads(THREADS)
    weights = torch.from_numpy(values).T.contiguous()
    for name, prepare in _operations(case):
        try:
            timed = _timed(f"PyTorch {name}", case, x, prepare(weights))
            timed.call()
        except (AttributeError, RuntimeError) as error:
            _tell(f"PyTorch {name} is left out: {str(error).splitlines()[0]}")
        else:
            yield timed


@functools.cache
def _tell(text: str) -> None:
    """Says it once, not for every case."""
    print(text, flush=True)


def _timed(name: str, case: Case, x: jax.Array, product: Product) -> Timed:
    """A call that multiplies by copies of the kernel in turns."""
    count = rotation(case, case.size * case.out * product.bits / 8)
    kernels = [product.new_kernel() for _ in range(count)]
    # Integers as XLA's: of numbers around 20.
    factor = 1 if product.dtype.is_floating_point else 20
    inputs = [
        torch.from_numpy(factor * np.asarray(row)).to(product.dtype)
        for row in several(x, in_a_call(case, count))
    ]

    def call() -> list[torch.Tensor]:
        with torch.inference_mode():
            return [product.multiply(row, *kernels[i % count]) for i, row in enumerate(inputs)]

    return Timed(name, call, len(inputs))


def _operations(case: Case) -> Iterator[tuple[str, Callable[[torch.Tensor], Product]]]:
    """Names, and what prepares a product with weights [out, in]."""
    for name in "float32", "bfloat16", "float16":
        yield name, functools.partial(_float, getattr(torch, name))
    yield "int8 x int8", _int8_by_int8
    yield "int8 x int8 [out, in]", _int8_by_int8_across
    for engine in "fbgemm", "onednn":
        if engine in torch.backends.quantized.supported_engines:
            yield f"dynamic int8 ({engine})", functools.partial(_dynamic_int8, engine)
    yield "int8 weights", _int8_weights
    yield "int4 weights", functools.partial(_int4_weights, case.group)
    yield "dynamic int4", functools.partial(_dynamic_int4, case.group)


def _copies(*tensors: torch.Tensor) -> Callable[[], tuple]:
    return lambda: tuple(tensor.clone() for tensor in tensors)


def _float(dtype: torch.dtype, weights: torch.Tensor) -> Product:
    kernel = _copies(weights.to(dtype))
    return Product(dtype, 8 * dtype.itemsize, kernel, torch.nn.functional.linear)


def _int8(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes [out, in] and a scale for each output."""
    scales = weights.abs().amax(1) / 127
    return (weights / scales[:, None]).round().to(torch.int8), scales


def _int8_by_int8(weights: torch.Tensor) -> Product:
    codes = (20 * weights.T).to(torch.int8, memory_format=torch.contiguous_format)
    return Product(torch.int8, 8, _copies(codes), torch._int_mm)


def _int8_by_int8_across(weights: torch.Tensor) -> Product:
    kernel = _copies((20 * weights).to(torch.int8))
    return Product(torch.int8, 8, kernel, lambda rows, codes: torch._int_mm(rows, codes.T))


def _dynamic_int8(engine: str, weights: torch.Tensor) -> Product:
    codes, scales = _int8(weights)
    with warnings.catch_warnings():  # deprecated, without another to take its place in PyTorch
        warnings.simplefilter("ignore", UserWarning)
        zeros = torch.zeros(len(scales), dtype=torch.long)
        quantized = torch._make_per_channel_quantized_tensor(codes, scales.double(), zeros, 0)

    def pack() -> tuple:
        torch.backends.quantized.engine = engine
        return (torch.ops.quantized.linear_prepack(quantized, None),)

    return Product(torch.float32, 8, pack, torch.ops.quantized.linear_dynamic)


def _int8_weights(weights: torch.Tensor) -> Product:
    codes, scales = _int8(weights)
    # Rows of float32 are multiplied by scalar code: 25 times the time on a Zen 4.
    kernel = _copies(codes, scales.to(torch.bfloat16))
    return Product(torch.bfloat16, 8, kernel, torch.ops.aten._weight_int8pack_mm)


def _int4_weights(group: int, weights: torch.Tensor) -> Product:
    codes, scales = (torch.from_numpy(array) for array in int4_codes(weights.T.numpy(), group))
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.flatten(1).int(), 1)
    pairs = torch.stack([scales.T, torch.zeros_like(scales.T)], -1)  # scales and zero points
    product = torch.ops.aten._weight_int4pack_mm_for_cpu
    return Product(
        torch.bfloat16,
        4,
        _copies(packed, pairs.to(torch.bfloat16)),
        lambda rows, packed, pairs: product(rows, packed, group, pairs),
    )


def _dynamic_int4(group: int, weights: torch.Tensor) -> Product:
    if not torch.backends.kleidiai.is_available():
        # 100 times the time of `_int4_weights` on a Zen 4.
        raise RuntimeError("Without KleidiAI, which is for Arm, it is scalar code.")
    codes, scales = (torch.from_numpy(array) for array in int4_codes(weights.T.numpy(), group))
    codes, shape = codes.flatten(1), (weights.shape[1], weights.shape[0])
    packed = torch.ops.aten._dyn_quant_pack_4bit_weight(
        codes[:, ::2] | codes[:, 1::2] << 4, scales.to(torch.bfloat16), None, group, *shape
    )
    product = torch.ops.aten._dyn_quant_matmul_4bit
    return Product(
        torch.float32,
        4,
        _copies(packed),
        lambda rows, packed: product(rows, packed, group, *shape),
    )
