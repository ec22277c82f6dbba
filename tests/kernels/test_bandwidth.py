import numpy as np
import pytest

from gossamer import kernels
from gossamer.kernels import library
from gossamer.kernels.bandwidth import READERS, read_gb_per_second

pytestmark = pytest.mark.skipif(
    kernels.why_unavailable() is not None, reason=f"no kernels: {kernels.why_unavailable()}"
)


def test_every_reader_reads_all_of_its_parts():
    data = np.random.default_rng(0).integers(0, 256, 4 * 2048, dtype=np.uint8)
    want = int(data.view(np.int32).sum(dtype=np.int32)) % 2**64  # int32 sums wrap around
    for streams, ahead in READERS:
        assert library.reader()(data.ctypes.data, data.nbytes, streams, ahead) == want


def test_the_bandwidth_is_that_of_a_memory():
    speed = read_gb_per_second(megabytes=16, seconds=0.05)
    assert 0.1 < speed < 10_000
