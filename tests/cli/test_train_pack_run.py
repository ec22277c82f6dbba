"""The way of a sparse model: trained by the loop, packed N:M, and run on the native kernels.

What is trained is quantized in the forward pass as it is packed, so that nothing is left to differ
but the order in which float32 sums are taken.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import yaml
from safetensors import safe_open

from gossamer.compression import compress
from gossamer.inference import generate
from gossamer.kernels import why_unavailable
from gossamer.loading import load, save
from gossamer.models import build
from gossamer.quantization import Int
from gossamer.recipe import Recipe, Rule
from gossamer.sparsity import NM
from gossamer.sparsity.methods import SRSTE, MdGf
from gossamer.training import DataConfig, QuantizationConfig, read_corpus
from tests.training.runs import FEED_FORWARD, run

STEPS, PROMPT = 40, "hello, "


def recipe(pattern, weights):
    return Recipe(rules=(Rule(path=FEED_FORWARD, pattern=pattern, weights=weights),))


TWO_OF_FOUR = recipe(NM(2, 4), Int(8))
ONE_OF_FOUR = recipe(NM(1, 4), Int(4, group=16, scale="bfloat16"))
RUNS = {  # a method, and what a kernel's values and indices take in bits a weight
    "2:4, SRSTE": (SRSTE(recipe=TWO_OF_FOUR), 2 / 4 * 8, 2 / 4 * 2),
    "1:4, MdGf": (MdGf(recipe=ONE_OF_FOUR, start=4, stop=28), 1 / 4 * 4, 1 / 4 * 2),
}


def trained_and_packed(gossamer, folder, method):
    """What is trained and what is packed, both from their files, and the loss of the first."""
    text, file = folder / "text.txt", folder / "run.yaml"
    text.write_text("hello, hello, he fell; " * 60)
    quantization = QuantizationConfig(recipe=method.recipe)
    config = run(
        method=method, quantization=quantization, steps=STEPS, checkpoint_every=STEPS
    ).to_dict()
    config["data"] |= {"text": str(text), "held_out": 0.2}
    file.write_text(yaml.safe_dump(config))
    result = gossamer("train", file, "--out", folder / "run", "--json").json()
    trained = load(result["model"])
    # What `gossamer compress` does, without its report.
    save(compress(trained, method.recipe, method="magnitude"), folder / "packed")
    return trained, load(folder / "packed"), result["loss"]


def as_the_forward_pass_saw(trained, recipe):
    """A trained model with plain arrays of the values that its kernels stood for."""
    rules = recipe.match(trained.tensors)
    return trained.with_tensors(
        {
            path: np.asarray(rule.weights.encode(jnp.asarray(trained.read(path))).decode())
            for path, rule in rules.items()
        }
    )


def stored(folder):
    """Every plane in the files of a packed model."""
    for name in sorted(folder.glob("*.safetensors")):
        with safe_open(name, "numpy") as file:
            yield from ((plane, file.get_tensor(plane)) for plane in file.keys())  # noqa: SIM118


def logits(checkpoint, tokens):
    return np.asarray(jax.jit(build(checkpoint.config, checkpoint.read))(tokens))


@pytest.mark.parametrize(("method", "value_bits", "index_bits"), RUNS.values(), ids=RUNS)
def test_a_model_runs_packed_as_it_was_trained(gossamer, tmp_path, method, value_bits, index_bits):
    trained, packed, loss = trained_and_packed(gossamer, tmp_path, method)
    seen = as_the_forward_pass_saw(trained, method.recipe)
    paths = method.recipe.match(trained.tensors)
    assert len(paths) == 3
    planes = {name: plane for name, plane in stored(tmp_path / "packed") if "mlp" in name}
    for path, rule in paths.items():
        kernel, weight = packed.read(path), seen.read(path)
        # All outputs fill tiles of 16, so nothing is stored beside the fields.
        assert planes[f"{path}.values"].nbytes == weight.size * value_bits / 8
        assert planes[f"{path}.indices"].nbytes == weight.size * index_bits / 8
        assert kernel.pattern == rule.pattern
        np.testing.assert_array_equal(kernel.materialize(), weight, err_msg=path)
        if why_unavailable() is None:
            assert kernel.why_no_kernel(jnp.ones((1, len(weight)))) is None

    generated = generate(packed, PROMPT, max_tokens=10).tokens
    line = [*PROMPT.encode(), *generated]
    corpus = read_corpus(DataConfig(text=str(tmp_path / "text.txt"), held_out=0.2))
    windows = np.concatenate([corpus.windows(16, None), [line]])
    want, got = (logits(model, windows[:, :-1]) for model in (seen, packed))
    # Sums of at most 64 products in another order: each is off by at most 64 * 2^-24 of the sizes
    # of its products, 4e-6, and there are eight such sums in a row with the output's.
    np.testing.assert_allclose(got, want, rtol=0, atol=3e-5 * np.abs(want).max())
    losses = optax.softmax_cross_entropy_with_integer_labels(got, windows[:, 1:])
    assert float(losses[:-1].mean()) == pytest.approx(loss, rel=3e-5)
    # Greedy: each token is the likeliest after those before it.
    assert list(want[-1, -len(generated) :].argmax(-1)) == generated
