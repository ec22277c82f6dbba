import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.compression import Calibration, magnitude_mask, one_shot, wanda_mask
from gossamer.compression.interplay import (
    DENSE,
    FORMATS,
    PATTERNS,
    Cell,
    Journal,
    compose,
    compress_cell,
    error_by_depth,
    grid,
    relative_error,
    run_cell,
    run_grid,
)
from gossamer.compression.observe import input_statistics
from gossamer.evaluation import perplexity
from gossamer.inference.blockwise import begin
from gossamer.models import build_block
from gossamer.recipe import Recipe, Rule
from tests.inference.tiny import tiny

BLOCKS = r"layers\..*\.kernel"


def silent(_stage, _steps):
    return lambda: None


@pytest.mark.parametrize("order", ["sq", "qs"])
@pytest.mark.parametrize("pattern", ["2:4", "50%"])
@pytest.mark.parametrize("name", ["INT4", "MXFP6-E2M3", "HBFP8", "NVFP4"])
def test_kernels_are_composed_in_the_order_of_the_cell_and_nothing_else_changes(
    experiment, name, pattern, order
):
    cell = Cell(format=name, pattern=pattern, method="magnitude", order=order)
    compressed = compress_cell(experiment, cell)
    choose = functools.partial(magnitude_mask, pattern=PATTERNS[pattern])
    for path in experiment.checkpoint.paths:
        want = experiment.checkpoint.read(path)
        if path in experiment.kernels:
            want = compose(jnp.asarray(want), FORMATS[name], choose, order).values
        np.testing.assert_array_equal(compressed.read(path), want, err_msg=path)
    assert len(experiment.kernels) == 2 * 7


def test_wanda_prunes_rounded_weights_by_their_own_score(experiment):
    """The first block, whose inputs no compressed weight has touched."""
    cell = Cell(format="INT4", pattern="2:4", method="wanda", order="qs")
    compressed = compress_cell(experiment, cell)
    checkpoint = experiment.checkpoint
    hidden = begin(checkpoint, jnp.asarray(experiment.calibration.tokens))
    block = build_block(checkpoint.config, checkpoint.read, 0)
    for path in ("attention.q_proj.kernel", "mlp.down_proj.kernel"):
        gram = input_statistics(block, hidden, [path])[path].gram
        choose = functools.partial(
            wanda_mask, input_norm=jnp.sqrt(jnp.diag(gram)), pattern=PATTERNS["2:4"]
        )
        kernel = jnp.asarray(checkpoint.read(f"layers.0.{path}"))
        want = compose(kernel, FORMATS["INT4"], choose, "qs").values
        np.testing.assert_array_equal(compressed.read(f"layers.0.{path}"), want)


@pytest.mark.rounding  # two programs, compared to 2e-5
@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize("activations", [False, True])
def test_a_cell_predicts_as_the_model_that_compress_packs(experiment, method, activations):
    cell = Cell(format="INT8", pattern="2:4", method=method, order="sq", activations=activations)
    format = FORMATS["INT8"]
    rule = Rule(
        path=BLOCKS,
        pattern=PATTERNS["2:4"],
        weights=format,
        activations=format if activations else None,
    )
    recipe = Recipe(rules=(rule,))
    calibration = None if method == "magnitude" else experiment.calibration
    packed, report = one_shot(experiment.checkpoint, recipe, method=method, calibration=calibration)
    result = run_cell(experiment, cell)
    want = perplexity(packed, experiment.tokens)
    # Native kernels sum in another order: float32, some dozens of products of size 1.
    np.testing.assert_allclose(result.losses, want.losses, rtol=2e-5)
    assert result.perplexity == pytest.approx(want.perplexity, rel=1e-4)
    held = sum(packed.read(path).nbytes for path in packed.paths)
    assert result.model_bytes == held
    kernels = [each for each in report.kernels if each.path in experiment.kernels]
    sizes = [each.shape[0] * each.shape[1] for each in kernels]
    bits = np.average([each.bits_per_weight for each in kernels], weights=sizes)
    assert result.bits_per_weight == pytest.approx(bits, rel=1e-12)


def test_the_dense_cell_is_the_dense_model(experiment):
    result = run_cell(experiment, DENSE)
    assert result.perplexity == pytest.approx(
        perplexity(experiment.checkpoint, experiment.tokens).perplexity, rel=1e-12
    )
    assert (result.weight_error, result.bits_per_weight) == (0, 32)
    assert set(result.depth_relative) == set(result.depth_absolute) == {0.0}
    elements = sum(np.prod(t.shape) for t in experiment.checkpoint.tensors.values())
    assert result.model_bytes == 4 * elements


def test_errors_are_those_of_the_weights_and_of_the_hidden_states(experiment):
    cell = Cell(format="INT4", pattern="50%", method="magnitude", order="sq")
    result = run_cell(experiment, cell)
    compressed = compress_cell(experiment, cell)
    before, after = (
        np.concatenate([np.asarray(each.read(path)).ravel() for path in experiment.kernels])
        for each in (experiment.checkpoint, compressed)
    )
    assert result.weight_error == pytest.approx(relative_error(before, after), rel=1e-6)
    states = []
    for checkpoint in (experiment.checkpoint, compressed):
        seen = []
        perplexity(checkpoint, experiment.tokens, watch=seen.append)
        states.append([np.asarray(hidden, np.float64).reshape(-1, 64) for hidden in seen])
    norms = [np.linalg.norm(after - before) for before, after in zip(*states, strict=True)]
    relative = [norm / np.linalg.norm(dense) for norm, dense in zip(norms, states[0], strict=True)]
    np.testing.assert_allclose(result.depth_relative, relative, rtol=1e-5)
    absolute = np.array(norms) / np.sqrt(experiment.tokens.size)
    np.testing.assert_allclose(result.depth_absolute, absolute, rtol=1e-5)
    assert result.depth_relative[0] == 0
    assert len(result.depth_relative) == 1 + 2
    alone = error_by_depth(experiment.checkpoint, compressed, experiment.tokens)
    assert tuple(alone.relative) == result.depth_relative


def test_a_grid_goes_on_where_it_stopped(experiment, tmp_path, monkeypatch):
    cells = grid(["INT8"], ["2:4"], methods=["magnitude"], numerics=["weights"])
    journal = Journal(tmp_path / "grid", experiment.protocol())
    run_grid(experiment, cells[:2], journal, silent)
    ran = []
    original = run_cell
    monkeypatch.setattr(
        "gossamer.compression.interplay.experiment.run_cell",
        lambda experiment, cell: (ran.append(cell), original(experiment, cell))[1],
    )
    again = Journal(tmp_path / "grid", experiment.protocol())
    results = run_grid(experiment, cells, again, silent)
    assert ran == cells[2:]
    assert [result.cell for result in results] == cells
    assert results[0] == journal.results[DENSE]


def test_a_cell_that_fails_is_named_and_those_before_are_kept(experiment, tmp_path, monkeypatch):
    def overflow(experiment, cell):
        if cell != DENSE:
            raise ValueError("The likelihood is nan")
        return run_cell(experiment, cell)

    monkeypatch.setattr("gossamer.compression.interplay.experiment.run_cell", overflow)
    journal = Journal(tmp_path / "grid", experiment.protocol())
    cells = grid(["INT8"], ["2:4"], methods=["magnitude"])
    with pytest.raises(ValueError, match="Cell 'INT8': The likelihood is nan"):
        run_grid(experiment, cells, journal, silent)
    assert list(Journal(tmp_path / "grid", experiment.protocol()).results) == [DENSE]


def test_kernels_that_some_format_does_not_suit_take_no_part_and_are_named(experiment):
    checkpoint = tiny("llama", hidden_size=64, intermediate_size=96, head_dim=16)
    other = dataclasses.replace(experiment, checkpoint=checkpoint)
    assert list(other.left_out) == [f"layers.{i}.mlp.down_proj.kernel" for i in range(3)]
    assert all("multiple of 64, got 96" in why for why in other.left_out.values())
    assert len(other.kernels) == 3 * 6
    assert other.protocol()["left_out"] == other.left_out


def test_models_and_texts_that_do_not_suit_are_refused(experiment):
    with pytest.raises(ValueError, match=r"no kernel .* suits: .*multiple of 64, got 32"):
        dataclasses.replace(experiment, checkpoint=tiny("llama", intermediate_size=32))
    packed = dataclasses.replace(experiment.checkpoint, recipe={"name": "int8"})
    with pytest.raises(ValueError, match="compressed already; a grid starts from the dense model"):
        dataclasses.replace(experiment, checkpoint=packed)
    with pytest.raises(ValueError, match="context of 1"):
        dataclasses.replace(experiment, tokens=experiment.tokens[:, :1])
    long = Calibration(text="long", tokens=np.zeros((1, 49), np.int32))
    with pytest.raises(ValueError, match="of 49 tokens are longer than the 48 positions"):
        dataclasses.replace(experiment, calibration=long)
