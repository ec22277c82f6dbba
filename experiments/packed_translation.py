"""A translator trained at 1:4 and int4, packed: BLEU as trained and as it runs, size and speed.

    python experiments/packed_translation.py --pairs deu.txt.xz --work translation-runs \
        --out docs/results/

Takes up (or makes) two runs of `translation_ranking.py`, seed 0: dense, and the preset
`translation-1:4-int4`. The sparse one is packed by its recipe, saved, loaded, and translates the
2,798 sentences held out through the native kernels; its BLEU is set beside that of its training
numerics, which round the same weights in floats. Then dense and packed translate in turns, in
batches of 64 and one sentence at a time; and so do models of Flan-T5-small's sizes with random
weights, a token at a time, where weights no longer fit in the processor's cache.

Hardware: one core, five minutes when the runs are there. Expected: the same BLEU but for sentences
in which the rounding of sums decides between two words; 1:4 int4 is 1.5 bits a weight of the
blocks, and a quarter of a bit for scales; embeddings are int8.
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from translation_ranking import PACKED, Run

from gossamer import compress, load
from gossamer.evaluation import bleu
from gossamer.inference import generate
from gossamer.inference.encoder_decoder import EncoderDecoderRunner
from gossamer.kernels import processor
from gossamer.loading import Checkpoint, Tensor, save
from gossamer.models import T5Config, parameter_shapes
from gossamer.packing import Packed, model_bytes
from gossamer.sparsity import NM
from gossamer.training import PairCorpus, as_checkpoint, read_corpus, train, translations

ROUNDS, ALONE = 3, 40  # rounds of the timing; sentences translated one at a time
NEW = 48  # tokens of the timing with random weights
FLAN_T5_SMALL = T5Config(
    vocab_size=32128,
    hidden_size=512,
    intermediate_size=1024,
    num_layers=8,
    num_decoder_layers=8,
    num_heads=6,
    head_dim=64,
    activation="gated-gelu",
    tied=False,
    scaled_output=False,
)
DENSE_RUN, PACKED_RUN = Run("dense", None, 0), Run(PACKED, NM(1, 4), 0)


def trained(
    run: Run, corpus: PairCorpus, pairs: str, work: pathlib.Path
) -> tuple[Checkpoint, dict[str, Any]]:
    """A run's model, and its BLEU in the numerics of training."""
    config = run.config(pairs)
    folder = work / run.key.replace(":", "-")
    found = train(config, folder=folder, resume=True, corpus=corpus)
    scored = translations(config, found, corpus)
    row = {"bleu": scored.bleu, "texts": scored.texts, "signature": scored.signature}
    return as_checkpoint(config, found.weights, corpus), row


def stored(checkpoint: Checkpoint, folder: pathlib.Path) -> Checkpoint:
    """The model from disk, as a user has it."""
    save(checkpoint, folder, overwrite=True)
    return load(folder)


def seconds_of(
    checkpoint: Checkpoint, corpus: PairCorpus, sources: list[str]
) -> tuple[float, float]:
    """Seconds of all sentences in batches, and of a new token where one is translated alone."""
    begin = time.perf_counter()
    bleu(checkpoint, corpus.held_out, max_tokens=64)
    whole = time.perf_counter() - begin
    rates = [
        made.decode_tokens_per_second
        for source in sources
        if (made := generate(checkpoint, source, max_tokens=64)).decode_tokens_per_second
    ]
    return whole, 1 / statistics.median(rates)


def of_flan_t5_small() -> Checkpoint:
    """A model of its sizes with random weights."""
    draw = np.random.default_rng(0)

    def weight(path: str, shape: tuple[int, ...]) -> np.ndarray:
        if path.endswith("scale"):
            return np.ones(shape, np.float32)
        return draw.normal(0, shape[0] ** -0.5, shape).astype(np.float32)

    arrays = {path: weight(path, shape) for path, shape in parameter_shapes(FLAN_T5_SMALL).items()}
    return Checkpoint(
        config=FLAN_T5_SMALL,
        tensors={
            path: Tensor(array.shape, array.dtype, lambda array=array: array)
            for path, array in arrays.items()
        },
        tokenizer=None,
        source={"name": "Flan-T5-small's sizes, random weights"},
        hf_config=FLAN_T5_SMALL.to_hf(),
    )


def token_seconds(runner: EncoderDecoderRunner) -> float:
    """The median time of a token, behind a text of 32."""
    token = jnp.int32(5)
    _, progress = runner.prefill([5] * 32, 32 + NEW)
    times = []
    for _ in range(NEW):
        begin = time.perf_counter()
        logits, progress = runner.step(token, progress)
        jax.block_until_ready(logits)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def large() -> dict[str, dict[str, float]]:
    """Bytes and speed at Flan-T5-small's sizes."""
    dense = of_flan_t5_small()
    packed = compress(dense, "1:4-int4", method="magnitude")
    models = {"dense": dense, "1:4 int4": packed}
    runners = {name: EncoderDecoderRunner(model) for name, model in models.items()}
    for runner in runners.values():
        runner.compile(32, 32 + NEW)
    rounds = [{name: token_seconds(runner) for name, runner in runners.items()} for _ in range(5)]
    return {
        name: {
            "bytes": sum(model.read(path).nbytes for path in model.paths),
            "token_ms_alone": 1e3 * min(each[name] for each in rounds),
        }
        for name, model in models.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", required=True, help="two columns, a tab between them")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("translation-runs"))
    args = parser.parse_args()
    corpus = read_corpus(DENSE_RUN.config(args.pairs).data)
    assert isinstance(corpus, PairCorpus)
    rows: dict[str, dict[str, Any]] = {}
    models: dict[str, Checkpoint] = {}
    for name, run in (("dense", DENSE_RUN), ("1:4 int4", PACKED_RUN)):
        checkpoint, row = trained(run, corpus, args.pairs, args.work)
        if name != "dense":
            checkpoint = compress(checkpoint, "1:4-int4", method="magnitude")
        folder = args.work / f"model-{run.recipe.replace(':', '-')}"
        models[name] = stored(checkpoint, folder)
        kernels = [models[name].read(path) for path in models[name].paths]
        run_as = bleu(models[name], corpus.held_out, max_tokens=64)
        same = np.mean([a == b for a, b in zip(row.pop("texts"), run_as.texts, strict=True)])
        rows[name] = row | {
            "bleu_as_run": run_as.bleu,
            "sentences": run_as.sentences,
            "same_translations": float(same),
            "bytes": model_bytes(folder),
            "packed_kernels": sum(isinstance(kernel, Packed) for kernel in kernels),
            "block_bits": block_bits(models[name]),
        }
    sources = list(dict.fromkeys(pair.source for pair in corpus.held_out))[:: 2798 // ALONE]
    timed = {
        name: [seconds_of(models[name], corpus, sources) for _ in range(ROUNDS)] for name in rows
    }
    for name, row in rows.items():
        batch, alone = zip(*timed[name], strict=True)
        row |= {"seconds_in_batches": min(batch), "token_ms_alone": 1e3 * min(alone)}
    result = {
        "processor": dataclasses.asdict(processor.read()),
        "rows": rows,
        "flan_t5_small_sizes": large(),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "packed-translation.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def block_bits(checkpoint: Checkpoint) -> float:
    """Bits stored for a weight of the blocks' kernels."""
    kernels = [checkpoint.read(path) for path in checkpoint.paths if ".layers." in path]
    kernels = [kernel for kernel in kernels if len(kernel.shape) == 2]
    return 8 * sum(k.nbytes for k in kernels) / sum(k.shape[0] * k.shape[1] for k in kernels)


if __name__ == "__main__":
    main()
