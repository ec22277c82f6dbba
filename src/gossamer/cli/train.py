"""`gossamer train`: a text in, a trained model out."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import tyro

from gossamer.cli.console import Command, Console, WrongUseError, arguments, native_output_aside

if TYPE_CHECKING:
    from gossamer.training import Corpus, Trained, TrainingConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(Command):
    """Train a model of ours, dense, sparse or as if quantized.

    Example: gossamer train translation-1:4-int4 --data english-german.tsv --out run
    """

    interrupted: ClassVar[str] = (
        "Interrupted. With --resume the same command goes on from the latest checkpoint."
    )

    config: tyro.conf.Positional[str]
    """A YAML file, or a preset: byte-lm, byte-lm-2:4-sr-ste, byte-lm-1:16-mdgf, digits,
    digits-2:4-sr-ste, translation, translation-2:4-sr-ste, translation-1:4-int4."""
    data: str | None = None
    """Instead of the config's: a text for a language model; for translation a text file with two
    columns and a tab between them (names may end in .gz or .xz); for images a folder with a
    sub-folder for each class, an .npz with x and y, or the word digits."""
    out: Path | None = None
    """Folder for the run: checkpoints, metrics.jsonl, TensorBoard's events, and the model."""
    resume: bool = False
    """Go on from the latest checkpoint in the folder; a new run begins where there is none."""
    seed: int | None = None
    """Instead of the config's: of the first weights and the order of the data."""
    show_config: bool = False
    """Print the config in full, as the YAML that this command reads, and do nothing."""
    coordinator: str | None = None
    """Of several processes that train together: address:port of the first."""
    processes: int = 1
    """How many processes train together."""
    process: int = 0
    """Which of them this one is, from 0 on."""

    def run(self, console: Console) -> dict[str, Any]:
        """Trains; returns where the model is and how good it is."""
        if not self.show_config:
            self._check()
        if self.coordinator is None:
            return self._train(console)
        from gossamer.training import start_processes

        with native_output_aside():
            with arguments():
                start_processes(
                    coordinator=self.coordinator, processes=self.processes, process=self.process
                )
            return self._train(console)

    def _train(self, console: Console) -> dict[str, Any]:
        config = self._config()
        if self.show_config or self.out is None:
            return config.to_dict()
        from gossamer.training import read_corpus, task_scores, train

        console.note("reading the data ...")
        corpus = read_corpus(config.data)
        trained = train(
            config, folder=self.out, resume=self.resume, corpus=corpus, progress=console.stage
        )
        saved = self._save(self.out, config, trained, corpus)
        return saved | task_scores(config, trained, corpus, console.stage)

    def _check(self) -> None:
        if self.out is None:
            raise WrongUseError("Training needs --out, a folder for the run.")
        # Of several processes one looks: the others may find what it made.
        if self.process == 0 and self.out.exists() and not self.resume:
            raise WrongUseError(
                f"The folder {self.out} exists: --resume goes on with the run in it; or choose "
                "another."
            )
        if (self.coordinator is None) != (self.processes == 1):
            raise WrongUseError("Several processes need --coordinator and --processes both.")

    def _config(self) -> "TrainingConfig":
        from gossamer.training import PRESETS, TrainingConfig

        with arguments():
            if self.config in PRESETS:
                config = PRESETS[self.config]
            elif Path(self.config).is_file():
                config = TrainingConfig.from_file(self.config)
            else:
                raise ValueError(
                    f"{self.config!r} is neither a file nor a preset; presets: {list(PRESETS)}."
                )
            if self.data is not None:
                config = dataclasses.replace(config, data=config.data.at(self.data))
            return config if self.seed is None else dataclasses.replace(config, seed=self.seed)

    def _save(
        self, out: Path, config: "TrainingConfig", trained: "Trained", corpus: "Corpus"
    ) -> dict[str, Any]:
        import math

        import jax

        from gossamer.loading import save
        from gossamer.training import as_checkpoint, patterns_of, training_flops, zeros_of

        patterns = {} if config.method is None else patterns_of(config.method, config.model)
        if jax.process_index() == 0:
            checkpoint = as_checkpoint(config, trained.weights, corpus)
            save(checkpoint, out / "model", overwrite=True)
        return {
            "out": str(out),
            "model": str(out / "model"),
            "steps": config.steps,
            "skipped": trained.skipped,
            "loss": trained.evaluation,
            "accuracy": trained.accuracy,
            "bits_per_token": trained.evaluation / math.log(2),
            "parameters": sum(weight.size for weight in trained.weights.values()),
            "pruned_weights": len(patterns),
            "sparsity": zeros_of(trained.weights, patterns),
            "flops": training_flops(
                config.model,
                sequence=config.length,
                batch=config.batch,
                steps=config.steps,
                method=config.method,
            ),
        }

    def show(self, result: dict[str, Any], console: Console) -> None:
        """The loss on what was held out, and where the model is."""
        if self.show_config:
            import yaml

            console.out.print(yaml.safe_dump(result, sort_keys=False).rstrip())
            return
        console.out.print(
            f"{result['bits_per_token']:.4f} bits a prediction ({result['loss']:.4f} nats), "
            f"{result['accuracy']:.2%} of them right, on what was held out, after "
            f"{result['steps']} steps and {result['flops']:.3g} FLOPs"
        )
        if "bleu" in result:
            console.out.print(
                f"BLEU {result['bleu']:.2f} on {result['sentences']} sentences held out "
                f"({result['signature']})"
            )
        if result["sparsity"] is not None:
            console.out.print(
                f"{result['sparsity']:.2%} zeros in {result['pruned_weights']} pruned weights"
            )
        if result["skipped"]:
            console.out.print(f"{result['skipped']} steps skipped: gradients were not finite")
        console.out.print(f"model: {result['model']}")
