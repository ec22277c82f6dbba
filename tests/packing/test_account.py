import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.packing import account, pack, pack_floats
from gossamer.quantization import Int
from gossamer.sparsity import NM


@pytest.mark.parametrize("out", [32, 35])
def test_planes_and_padding_add_up_to_the_bytes_held(out):
    format = Int(4, group=16, scale="bfloat16")
    got = account(pack(format.encode(jnp.ones((64, out))), format))
    assert got.values == 64 * out * 4
    assert got.scales == 4 * out * 16
    assert (got.indices, got.zeros) == (0, 0)
    lanes = 32 if out == 32 else 48
    assert got.padding == (lanes - out) * (64 * 4 + 4 * 16)
    assert got.bits == lanes * (64 * 4 + 4 * 16)


def test_every_plane_is_counted():
    eye = jnp.eye(64)
    sparse = account(pack(Int(4).encode(eye), Int(4), NM(2, 4)))
    assert (sparse.values, sparse.indices, sparse.scales) == (64 * 64 * 2, 64 * 64, 64 * 32)
    assert sparse.bits_per_weight == 3 + 32 / 64
    asymmetric = Int(4, symmetric=False)
    assert account(pack(asymmetric.encode(eye), asymmetric)).zeros == 64 * 8
    floats = account(pack_floats(eye, NM(4, 8)))
    assert (floats.values, floats.indices) == (64 * 64 * 16, 64 * 64)


def test_plain_tensors_are_all_values():
    got = account(np.zeros((3, 5), np.float16))
    assert (got.values, got.bits_per_weight, got.nbytes) == (240, 16, 30)
