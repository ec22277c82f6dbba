import numpy as np
import pytest

from gossamer.loading import load
from gossamer.weights import materialize


@pytest.mark.parametrize(("dtype", "relative"), [("float32", 0), ("bfloat16", 2**-8)])
def test_the_exported_values_are_those_the_model_stands_for(
    gossamer, model, checkpoint, tmp_path, dtype, relative
):
    out = tmp_path / "dense"
    result = gossamer("export", model, "--dense", "--out", out, "--dtype", dtype, "--json").json()
    assert result["out"] == str(out)
    assert result["bytes_on_disk"] == sum(file.stat().st_size for file in out.iterdir())
    exported = load(out)
    for path in checkpoint.paths:
        want = np.asarray(materialize(checkpoint.read(path)))
        np.testing.assert_allclose(exported.read(path), want, rtol=relative, err_msg=path)


def test_a_reader_is_told_where_it_is(gossamer, model, tmp_path):
    outcome = gossamer("export", model, "--dense", "--out", tmp_path / "dense")
    assert outcome.status == 0
    assert str(tmp_path / "dense") in outcome.out


def test_without_dense_it_is_wrong_use(gossamer, model, tmp_path):
    outcome = gossamer("export", model, "--out", tmp_path / "dense")
    assert (outcome.status, outcome.out) == (2, "")
    assert "Say --dense" in outcome.err


def test_an_output_that_exists_is_wrong_use_unless_it_may_be_replaced(gossamer, model, tmp_path):
    command = ("export", model, "--dense", "--out", tmp_path / "dense")
    assert gossamer(*command).status == 0
    outcome = gossamer(*command)
    assert (outcome.status, outcome.out) == (2, "")
    assert "--overwrite" in outcome.err
    assert gossamer(*command, "--overwrite").status == 0
