"""Encoder-decoders through one-shot compression: pairs, methods, packing, the report, resuming."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gossamer.compression import (
    Calibration,
    ImageCalibration,
    PairCalibration,
    PairEvaluation,
    one_shot,
)
from gossamer.compression.methods import AWQ, SmoothQuant
from gossamer.compression.observe import input_statistics
from gossamer.compression.rescale import fold, rescalable, sources
from gossamer.data import Pair, encode_pairs, pack_pairs
from gossamer.inference.blockwise import begin, run_block
from gossamer.kernels import library
from gossamer.loading import export_dense, load, load_saved, save
from gossamer.models import T5Inputs, block_class, build, build_block
from gossamer.packing import Packed
from gossamer.quantization import Int
from gossamer.recipe import PRESETS, Recipe, Rule
from gossamer.sparsity import NM
from gossamer.weights import materialize
from tests.compression.tiny_model import in_memory, random_weights
from tests.compression.tiny_t5 import pair_calibration, random_pairs, tiny_t5, write_pairs

BLOCKS = r"\w+\.layers\..*\.kernel"
INT4 = Int(4, group=16, symmetric=False)
SPARSE = Recipe(name="2:4", rules=(Rule(path=BLOCKS, pattern=NM(2, 4)),))
DENSE4 = Recipe(name="int4", rules=(Rule(path=BLOCKS, weights=INT4),))
W8A8 = Recipe(name="w8a8", rules=(Rule(path=BLOCKS, weights=Int(8), activations=Int(8)),))
DECODER = "decoder.layers.0"
KERNELS = {"t5": 6 + 10, "flan_t5": 7 + 11}  # of a block of the encoder and one of the decoder


@pytest.fixture(scope="module", params=["t5", "flan_t5"])
def family(request):
    return request.param


@pytest.fixture(scope="module")
def tiny(family):
    return tiny_t5(family)


@pytest.fixture(scope="module")
def calibration(tiny, tmp_path_factory):
    return pair_calibration(tiny, tmp_path_factory.mktemp("pairs"))


def compiled(checkpoint):
    """The whole model as a function of the columns of its inputs, and its weights."""
    graph, state = nnx.split(build(checkpoint.config, checkpoint.read))
    return jax.jit(lambda state, *columns: nnx.merge(graph, state)(T5Inputs(*columns))), state


def logits_of(checkpoint, inputs):
    run, state = compiled(checkpoint)
    return run(state, *jax.tree.leaves(inputs))


def mean_error(report):
    return np.mean([kernel.output_error for kernel in report.kernels])


def local_weights(checkpoint, block):
    prefix = f"{block}."
    return {
        path.removeprefix(prefix): checkpoint.read(path)
        for path in checkpoint.paths
        if path.startswith(prefix)
    }


@pytest.mark.parametrize(
    ("recipe", "baseline", "method"),
    [
        (SPARSE, "magnitude", "wanda"),
        (SPARSE, "magnitude", "sparsegpt"),
        (DENSE4, "rtn", "gptq"),
        (DENSE4, "rtn", "awq"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_calibrated_methods_leave_less_error_than_their_baseline(
    family, tiny, calibration, recipe, baseline, method
):
    _, plain = one_shot(tiny, recipe, method=baseline, calibration=calibration)
    _, guided = one_shot(tiny, recipe, method=method, calibration=calibration)
    assert len(guided.kernels) == KERNELS[family]
    assert mean_error(guided) < mean_error(plain)


@pytest.mark.parametrize("family", ["flan_t5"], indirect=True)
def test_smoothquant_leaves_less_error_where_some_channels_are_large(tiny, calibration):
    path = f"{DECODER}.mlp_norm.scale"
    scale = np.ones(64, np.float32)
    scale[::16] = 50
    uneven = tiny.with_tensors({path: scale})
    errors = []
    for method in ("rtn", "smoothquant"):
        small, report = one_shot(uneven, W8A8, method=method, calibration=calibration)
        assert (path in report.rescaled) == (method == "smoothquant")
        change = logits_of(small, calibration.inputs) - logits_of(uneven, calibration.inputs)
        real = calibration.inputs.target_segments != 0
        errors.append(float(jnp.mean(change[real] ** 2)))
    assert errors[1] < errors[0]


@pytest.mark.parametrize("block", ["encoder.layers.0", DECODER])
def test_a_block_whose_inputs_are_rescaled_computes_the_same(family, tiny, calibration, block):
    rng = np.random.default_rng(3)
    local = local_weights(tiny, block)
    rules = {path: DENSE4.rules[0] for path in local if path.endswith("kernel")}
    shapes = {path: weight.shape for path, weight in local.items()}
    kind = block_class(tiny.config, block)
    pairs = rescalable(kind.rescalable(tiny.config), AWQ(), shapes, rules)
    found = {pair.source for pair in pairs}
    want = {"attention_norm", "attention.v_proj", "mlp_norm", "mlp.up_proj"}
    if block == DECODER:
        want |= {"cross_attention_norm", "cross_attention.v_proj"}
    assert found == want
    changed = {}
    for pair in pairs:
        size = local[f"{pair.projections[0]}.kernel"].shape[0]
        factors = np.exp(rng.normal(size=size)).astype(np.float32)
        changed |= fold(local | changed, pair, factors)
    assert {p for p in changed if not p.endswith("kernel")} <= set(sources(pairs, list(local)))
    assert all((changed[path] != local[path]).any() for path in changed)
    index = tiny.config.blocks.index(block)
    flow = begin(tiny, calibration.inputs)
    outputs = [
        jax.tree.leaves(
            run_block(
                build_block(
                    tiny.config, lambda path, w=w: w[path.removeprefix(f"{block}.")], index
                ),
                flow,
            )
        )[:2]
        for w in (local, local | changed)
    ]
    for got, same in zip(*outputs, strict=True):
        np.testing.assert_allclose(got, same, rtol=1e-3, atol=1e-3)  # of numbers up to 100


def test_smoothquant_rescales_behind_every_norm(tiny, calibration):
    _, report = one_shot(tiny, W8A8, method=SmoothQuant(), calibration=calibration)
    assert set(report.rescaled) == {
        path for path in tiny.paths if "layers" in path and path.endswith("norm.scale")
    }
    _, report = one_shot(tiny, DENSE4, method="awq", calibration=calibration)
    assert f"{DECODER}.cross_attention_norm.scale" in report.rescaled


@pytest.mark.parametrize("index", [0, 1])
def test_statistics_are_those_of_every_pair_alone_so_padding_counts_nothing(tiny, index):
    config, rng = tiny.config, np.random.default_rng(0)
    lengths = [(3, 2), (5, 3), (3, 2), (5, 3), (3, 2)]
    pairs = [tuple(rng.integers(2, 250, n).tolist() for n in sizes) for sizes in lengths]
    rows = pack_pairs(pairs, 12, start_id=config.start_id, end_id=config.end_id)
    columns = rows.source, rows.target, rows.source_segments, rows.target_segments
    packed = T5Inputs(*map(jnp.asarray, columns))
    assert packed.source.size > sum(read + 1 for read, _ in lengths)
    alone = [
        T5Inputs.of(
            jnp.asarray([[*read, config.end_id]]), jnp.asarray([[config.start_id, *written]])
        )
        for read, written in pairs
    ]
    block = build_block(config, tiny.read, index)
    paths = [p for p in local_weights(tiny, config.blocks[index]) if p.endswith("kernel")]

    def measured(inputs):
        flow = begin(tiny, inputs)
        for before in range(index):
            flow = run_block(build_block(config, tiny.read, before), flow)
        return input_statistics(block, flow, paths)

    found, parts = measured(packed), [measured(each) for each in alone]
    for path in paths:
        reads = index == 0 or path.startswith(("cross_attention.k", "cross_attention.v"))
        tokens = [(read if reads else written) + 1 for read, written in lengths]
        got, each = found[path], [part[path] for part in parts]
        close(got.gram, sum(np.asarray(one.gram, np.float64) for one in each))
        close(got.absmax, np.max([one.absmax for one in each], axis=0))
        close(got.absmean, np.average([one.absmean for one in each], axis=0, weights=tokens))


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("name", ["2:4-int4", "1:4-int4", "w8a8"])
def test_packed_kernels_give_the_logits_of_the_values_they_stand_for(
    tiny, calibration, tmp_path, name
):
    method = "smoothquant" if name == "w8a8" else "sparsegpt"
    kept, _ = one_shot(
        tiny, PRESETS[name], method=method, calibration=calibration, out=tmp_path / "a"
    )
    kernels = [path for path in kept.paths if path.endswith(".kernel")]
    assert all(isinstance(kept.read(path), Packed) for path in kernels)
    assert "embedding.kernel" in kernels
    assert ("output.kernel" in kernels) != tiny.config.tied
    plain = kept.with_tensors({path: np.asarray(materialize(kept.read(path))) for path in kernels})
    inputs = calibration.inputs
    real = np.asarray(inputs.target_segments) != 0
    floats = kept.with_activations(None)
    got, rounded, want, dense = (
        np.asarray(logits_of(each, inputs))[real] for each in (floats, kept, plain, tiny)
    )
    assert np.isfinite(rounded).all()
    largest = np.abs(want).max()
    # float32 sums in another order, through two blocks.
    np.testing.assert_allclose(got, want, atol=1e-4 * largest, rtol=0)
    if name == "w8a8":  # inputs are rounded to 254 steps on the way
        assert 0 < np.abs(rounded - want).mean() < 0.05 * np.abs(want).mean()
    else:
        np.testing.assert_array_equal(rounded, got)
    assert np.abs(want - dense).max() > 1e-3 * largest


@pytest.mark.skipif(library.why_unavailable() is not None, reason="no native kernels here")
def test_packed_models_run_by_the_native_kernels(family, tiny, calibration):
    small, _ = one_shot(tiny, PRESETS["2:4-int4"], calibration=calibration)
    run, state = compiled(small)
    text = run.lower(state, *jax.tree.leaves(calibration.inputs)).as_text()
    # A call is lowered once for each shape: projections of attention, into the feed-forward layer
    # and out of it, and the vocabulary's, which reads the embedding where they are tied.
    assert text.count(library.PRODUCT) == 4


@pytest.mark.parametrize("family", ["flan_t5"], indirect=True)
def test_memory_and_folder_hold_the_same_model_and_it_comes_back(tiny, calibration, tmp_path):
    arguments = {"method": "sparsegpt", "calibration": calibration}
    one_shot(tiny, PRESETS["2:4-int4"], out=tmp_path / "a", **arguments)
    kept, _ = one_shot(tiny, PRESETS["2:4-int4"], **arguments)
    save(kept, tmp_path / "b")
    for file in (tmp_path / "b").iterdir():
        assert (tmp_path / "a" / file.name).read_bytes() == file.read_bytes(), file.name
    again = load_saved(tmp_path / "b")
    assert again.config == tiny.config
    assert kept.source["calibration_pairs"] == "pairs.tsv"
    np.testing.assert_array_equal(
        logits_of(again, calibration.inputs), logits_of(kept, calibration.inputs)
    )


@pytest.mark.parametrize("family", ["flan_t5"], indirect=True)
def test_a_packed_model_is_exported_as_the_values_it_stands_for(tiny, calibration, tmp_path):
    small, _ = one_shot(tiny, PRESETS["2:4-int4"], calibration=calibration)
    export_dense(small, tmp_path / "dense")
    exported = load(tmp_path / "dense")
    assert exported.config == tiny.config
    assert exported.paths == small.paths
    for path in small.paths:
        want = np.asarray(materialize(small.read(path)))
        np.testing.assert_array_equal(exported.read(path), want, err_msg=path)


@pytest.mark.parametrize("family", ["t5"], indirect=True)
@pytest.mark.parametrize(("recipe", "method"), [(DENSE4, "awq"), (PRESETS["2:4-int4"], None)])
def test_an_interrupted_run_gives_the_same_bytes(tiny, calibration, tmp_path, recipe, method):
    def interrupt(_stage, _steps):
        done = iter(range(3))

        def advance():
            if next(done) == 1:
                raise KeyboardInterrupt

        return advance

    arguments = {"method": method, "calibration": calibration}
    with pytest.raises(KeyboardInterrupt):
        one_shot(tiny, recipe, out=tmp_path / "a", progress=interrupt, **arguments)
    assert len(list((tmp_path / "a.partial").glob("*.safetensors"))) == 2
    one_shot(tiny, recipe, out=tmp_path / "a", **arguments)
    one_shot(tiny, recipe, out=tmp_path / "b", **arguments)
    for file in (tmp_path / "b").glob("*.safetensors"):
        assert (tmp_path / "a" / file.name).read_bytes() == file.read_bytes()


def test_the_report_holds_bleu_and_calibration(tmp_path):
    pairs = [Pair("hello", "he"), Pair("he", "hello"), Pair("he", "hell")]
    file = write_pairs(tmp_path / "some.tsv", random_pairs())
    _, report = one_shot(
        tiny_t5(),
        SPARSE,
        method="wanda",
        calibration=str(file),
        sequences=2,
        sequence_length=24,
        out=tmp_path / "a",
        evaluation=PairEvaluation(source="three.tsv", pairs=pairs, max_tokens=4),
    )
    assert report.calibration is not None
    given = report.calibration
    assert (given["pairs"], given["rows"], given["row_length"]) == ("some.tsv", 2, 24)
    assert report.perplexity is report.accuracy is None
    assert report.bleu is not None
    assert (report.bleu.source, report.bleu.sentences) == ("three.tsv", 2)
    written = json.loads((tmp_path / "a" / "report.json").read_text())
    assert written == json.loads(json.dumps(report.to_dict()))
    assert {"BLEU before", "BLEU after"} <= set(written["seconds"])
    text = (tmp_path / "a" / "report.md").read_text()
    assert f"{given['count']} pairs from some.tsv, in 2 rows of 24 tokens, seed 0" in text
    assert f"BLEU {report.bleu.before:.2f} before" in text


def test_calibration_pairs_are_drawn_by_the_seed_and_none_twice(tmp_path):
    model, pairs = tiny_t5(), random_pairs()
    draws = [pair_calibration(model, tmp_path, count=4, seed=seed) for seed in (0, 0, 1)]
    assert draws[0].describe() == draws[1].describe() != draws[2].describe()
    everything = pair_calibration(model, tmp_path, count=1000, length=20)
    fitting = [p for p in encode_pairs(model.tokenizer, pairs) if max(map(len, p)) < 20]
    assert everything.describe()["count"] == len(fitting) < len(pairs)
    found = []
    for row, segments in zip(
        np.asarray(everything.inputs.source),
        np.asarray(everything.inputs.source_segments),
        strict=True,
    ):
        found += [row[segments == n][:-1].tolist() for n in range(1, segments.max() + 1)]
    assert sorted(found) == sorted(source for source, _ in fitting)


def test_files_that_are_no_calibration_are_refused(tmp_path):
    model = tiny_t5()
    for text, message in {
        "": r"empty\.tsv is empty",
        "hello\n": r"empty\.tsv: each line needs two texts .* line 1 \('hello'\)",
    }.items():
        (tmp_path / "empty.tsv").write_text(text)
        with pytest.raises(ValueError, match=message):
            one_shot(model, SPARSE, method="wanda", calibration=str(tmp_path / "empty.tsv"))
    with pytest.raises(ValueError, match=r"None of the 40 pairs of .* fits in 1 tokens"):
        pair_calibration(model, tmp_path, length=1)
    with pytest.raises(ValueError, match="at least 1 row of pairs, got 0"):
        pair_calibration(model, tmp_path, count=0)


def test_what_does_not_suit_the_model_is_told_before_any_weight_is_read(tmp_path):
    broken = tiny_t5().with_tensors({"encoder.norm.scale": np.full(64, np.nan, np.float32)})
    pairs = pair_calibration(broken, tmp_path)
    with pytest.raises(ValueError, match=r"'wanda' needs calibration pairs.*--calibration pairs"):
        one_shot(broken, SPARSE, method="wanda")
    tokens = Calibration(text="random", tokens=np.zeros((2, 8), np.int32))
    with pytest.raises(ValueError, match="continue a text, and a T5Config"):
        one_shot(broken, SPARSE, method="wanda", calibration=tokens)
    images = ImageCalibration(images="other", inputs=np.zeros((2, 8, 8, 1), np.float32))
    with pytest.raises(ValueError, match="classify images, and a T5Config"):
        one_shot(broken, SPARSE, method="wanda", calibration=images)
    language = in_memory(random_weights())
    with pytest.raises(ValueError, match=r"encoder-decoders, .* and a LlamaConfig"):
        one_shot(language, SPARSE, method="wanda", calibration=pairs)
    three = PairEvaluation(source="pairs", pairs=random_pairs(3))
    with pytest.raises(ValueError, match=r"encoder-decoders, .* and a LlamaConfig"):
        one_shot(language, PRESETS["2:4"], method="random", evaluation=three)
    none = PairEvaluation(source="pairs", pairs=())
    with pytest.raises(ValueError, match="no pairs to translate"):
        one_shot(broken, SPARSE, method="random", evaluation=none)
    long = PairEvaluation(source="pairs", pairs=[Pair("hello " * 600, "a")])
    with pytest.raises(ValueError, match=r"longer than 512; cut it"):
        one_shot(broken, SPARSE, method="random", evaluation=long)
    other = PairCalibration(
        source="other", inputs=T5Inputs.of(jnp.full((1, 4), 9999), jnp.zeros((1, 4), jnp.int32))
    )
    with pytest.raises(ValueError, match=r"token 9999 is outside the vocabulary of \d+"):
        one_shot(broken, SPARSE, method="wanda", calibration=other)
