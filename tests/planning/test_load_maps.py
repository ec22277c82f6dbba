import io

import matplotlib.image
import numpy as np
import pytest

from gossamer.planning import link_load_map, mesh, plot_link_loads, torus, twisted_torus


def test_a_map_has_the_load_of_each_link_at_its_chip():
    regular = torus((4, 4, 8))
    for axis, load in enumerate((64.0, 64.0, 128.0)):
        got = link_load_map(regular, axis)
        assert got.shape == (16, 8)
        np.testing.assert_allclose(got, load)
    box = mesh((2, 3))
    np.testing.assert_array_equal(np.isnan(link_load_map(box, 0)), [[False] * 3, [True] * 3])
    np.testing.assert_array_equal(
        link_load_map(box, 1)[:, :2], box.link_loads[:, 2].reshape(2, 3)[:, :2]
    )


def test_a_twist_evens_out_the_colours():
    def colours(plot: bytes) -> set[tuple[int, ...]]:
        """Those of large areas, white apart."""
        image = (255 * matplotlib.image.imread(io.BytesIO(plot))[..., :3]).round().astype(int)
        found, counts = np.unique(image.reshape(-1, 3), axis=0, return_counts=True)
        large = found[counts > image[..., 0].size / 50]
        return {tuple(colour) for colour in large.tolist()} - {(255, 255, 255)}

    regular = colours(plot_link_loads({"4x4x8": torus((4, 4, 8))}))
    twisted = colours(plot_link_loads({"4x4x8_T": twisted_torus((4, 4, 8))}))
    both = {"4x4x8": torus((4, 4, 8)), "4x4x8_T": twisted_torus((4, 4, 8))}
    assert (len(regular), len(twisted)) == (2, 1)
    assert len(colours(plot_link_loads(both))) == 3


def test_impossible_maps_are_refused():
    with pytest.raises(ValueError, match="equally many axes, got"):
        plot_link_loads({})
    with pytest.raises(ValueError, match=r"equally many axes, got \[1, 2\]"):
        plot_link_loads({"a": torus((4,)), "b": torus((4, 4))})
    with pytest.raises(ValueError, match="axes of 4x4 are 0 to 1, got 2"):
        link_load_map(torus((4, 4)), 2)
