import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.kernels.pages import use_huge_pages

HUGE = 2 << 20


def huge_kilobytes(address: int) -> int:
    """Of the mapping that holds an address, how much is in huge pages."""
    inside = False
    with open("/proc/self/smaps") as lines:
        for line in lines:
            if span := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
                inside = int(span[1], 16) <= address < int(span[2], 16)
            if inside and line.startswith("AnonHugePages:"):
                return int(line.split()[1])
    raise AssertionError("no mapping holds the address")


@pytest.fixture
def settings(tmp_path):
    def write(enabled: str):
        (tmp_path / "enabled").write_text(enabled)
        (tmp_path / "hpage_pmd_size").write_text(f"{HUGE}\n")
        return tmp_path

    return write


def test_a_large_array_moves_to_huge_pages_and_keeps_its_place_and_its_numbers():
    numbers = np.random.default_rng(0).integers(0, 256, 16 * HUGE, dtype=np.uint8)
    array = jax.block_until_ready(jnp.asarray(numbers) + jnp.uint8(0))
    before = array.unsafe_buffer_pointer()
    moved = use_huge_pages([array])
    if moved == 0:
        pytest.skip("this system has no huge pages for the asking")
    assert moved % HUGE == 0
    assert moved >= 15 * HUGE
    assert array.unsafe_buffer_pointer() == before
    assert huge_kilobytes(before + 8 * HUGE) * 1024 >= 15 * HUGE
    np.testing.assert_array_equal(array, numbers)


def test_an_array_smaller_than_a_huge_page_stays(settings):
    assert use_huge_pages([jnp.zeros(1000)], settings("always [madvise] never")) == 0


def test_nothing_moves_where_an_administrator_has_switched_huge_pages_off(settings):
    array = jax.block_until_ready(jnp.ones(4 * HUGE, jnp.uint8))
    assert use_huge_pages([array], settings("always madvise [never]")) == 0


def test_nothing_moves_where_the_system_does_not_say_that_it_has_huge_pages(tmp_path):
    assert use_huge_pages([jnp.ones(4 * HUGE, jnp.uint8)], tmp_path) == 0
