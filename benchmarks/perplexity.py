"""Dense perplexity evaluation against transformers with PyTorch, interleaved in one process.

    python benchmarks/perplexity.py smollm2 --text wiki.test.raw.xz --out docs/results/

Both read the same weights (ours are exported to a Hugging Face folder first), the same windows and
use the same number of threads; loading and compiling are left out on both sides. Needs
`pip install torch transformers`, which gossamer itself does not. The last line is JSON.
"""

import argparse
import json
import math
import os
import pathlib
import platform
import statistics
import tempfile
import time

import torch
import transformers

import gossamer
from gossamer.data import builtin_text, read_text, windows
from gossamer.evaluation import perplexity
from gossamer.loading import export_dense


def torch_perplexity(model, tokens) -> float:
    """The mean over the L - 1 predictions of each window, a window at a time."""
    total = 0.0
    with torch.inference_mode():
        for window in torch.from_numpy(tokens.astype("int64")):
            total += model(window[None], labels=window[None], use_cache=False).loss.item()
    return math.exp(total / len(tokens))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--text", help="default: the text that every Python has")
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=pathlib.Path, help="folder for the result as JSON")
    args = parser.parse_args()

    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    checkpoint = gossamer.load(args.model)
    text = read_text(args.text) if args.text else builtin_text("evaluation")
    tokens = windows(checkpoint.tokenizer.encode(text), args.context, args.windows)
    with tempfile.TemporaryDirectory() as folder:
        export_dense(checkpoint, pathlib.Path(folder) / "dense")
        peer = transformers.AutoModelForCausalLM.from_pretrained(f"{folder}/dense").eval()
    # Both have their weights in memory, as float32.
    checkpoint = checkpoint.with_tensors({path: checkpoint.read(path) for path in checkpoint.paths})
    ours, theirs = perplexity(checkpoint, tokens).perplexity, torch_perplexity(peer, tokens)
    assert math.isclose(ours, theirs, rel_tol=1e-4), (ours, theirs)

    seconds: dict[str, list[float]] = {"gossamer": [], "transformers": []}
    for _ in range(args.repeats):
        for name, measure in (
            ("gossamer", lambda: perplexity(checkpoint, tokens)),
            ("transformers", lambda: torch_perplexity(peer, tokens)),
        ):
            start = time.perf_counter()
            measure()
            seconds[name].append(time.perf_counter() - start)
    result = {
        "case": f"{args.model}, {args.windows} windows of {args.context}",
        "machine": f"{platform.machine()}, {threads} threads",
        "perplexity": {"gossamer": ours, "transformers": theirs},
        "seconds_min": {name: min(times) for name, times in seconds.items()},
        "seconds_median": {name: statistics.median(times) for name, times in seconds.items()},
        "ratio_min": min(seconds["transformers"]) / min(seconds["gossamer"]),
        "ratio_median": statistics.median(seconds["transformers"])
        / statistics.median(seconds["gossamer"]),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    line = json.dumps(result)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "dense-perplexity-speed.json").write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
