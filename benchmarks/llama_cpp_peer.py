"""llama.cpp through its low-level calls, for comparisons: one sequence, arg-max outside.

Needs `pip install llama-cpp-python gguf`, which builds llama.cpp for this machine.
"""

import ctypes
import math
import pathlib
from collections.abc import Sequence

import gguf
import llama_cpp
import numpy as np
from jaxtyping import Float, Int

from gossamer.models import LlamaConfig


@llama_cpp.llama_log_callback
def _silent(level: int, text: bytes, data: object) -> None:
    """Takes what llama.cpp says while it loads."""


class LlamaCpp:
    """A GGUF model in a context of its own.

    Args:
        path: the file.
        threads: of prefill and decoding.
        context: positions of the cache.
    """

    def __init__(self, path: pathlib.Path, threads: int, context: int) -> None:
        llama_cpp.llama_log_set(_silent, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        model = llama_cpp.llama_model_default_params()
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), model)
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = context
        settings.n_batch = settings.n_ubatch = 512
        settings.n_threads = settings.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, settings)
        vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(vocabulary)

    def prefill(self, tokens: Sequence[int]) -> int:
        """Forgets everything, reads a prompt, and gives the most likely next token."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        return self.step(*tokens)

    def step(self, *tokens: int) -> int:
        """Reads tokens more and gives the most likely next one."""
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        batch = llama_cpp.llama_batch_get_one(array, len(tokens))
        if llama_cpp.llama_decode(self._context, batch):
            raise RuntimeError("llama.cpp did not decode.")
        return int(np.argmax(self._logits(-1)))

    def perplexity(self, windows: Int[np.ndarray, "windows context"]) -> float:
        """As gossamer measures it: the mean over the L - 1 predictions of every window."""
        total = 0.0
        for window in windows:
            llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
            for first in range(0, len(window), 512):
                part = window[first : first + 512]
                self._read_all(part, first)
                for index in range(len(part) - (first + len(part) == len(window))):
                    logits = self._logits(index).astype(np.float64)
                    top = logits.max()
                    norm = top + math.log(np.exp(logits - top).sum())
                    total += norm - logits[window[first + index + 1]]
        return math.exp(total / (windows.shape[0] * (windows.shape[1] - 1)))

    def _logits(self, index: int) -> Float[np.ndarray, " V"]:
        pointer = llama_cpp.llama_get_logits_ith(self._context, index)
        return np.ctypeslib.as_array(pointer, (self.vocab_size,))

    def _read_all(self, tokens: Int[np.ndarray, " T"], start: int) -> None:
        """Reads tokens and keeps the logits of each."""
        batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for index, token in enumerate(tokens):
            batch.token[index] = int(token)
            batch.pos[index] = start + index
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = 0
            batch.logits[index] = 1
        if llama_cpp.llama_decode(self._context, batch):
            raise RuntimeError("llama.cpp did not decode.")
        llama_cpp.llama_batch_free(batch)


def requantize(source: pathlib.Path, out: pathlib.Path) -> None:
    """Writes a GGUF file once more as Q4_0, by llama.cpp itself."""
    llama_cpp.llama_log_set(_silent, ctypes.c_void_p(0))
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0
    settings.allow_requantize = True
    if llama_cpp.llama_model_quantize(
        str(source).encode(), str(out).encode(), ctypes.byref(settings)
    ):
        raise RuntimeError(f"llama.cpp did not requantize {source}.")


def write_random(config: LlamaConfig, out: pathlib.Path) -> None:
    """A GGUF file of this shape with random Q4_0 weights, the same in every layer."""
    random = np.random.default_rng(0)
    width, wide = config.hidden_size, config.intermediate_size
    keys = config.num_kv_heads * config.head_dim
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_context_length(config.max_positions)
    writer.add_embedding_length(width)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(wide)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_epsilon)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("none")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)

    def add(name: str, weights: np.ndarray) -> None:
        writer.add_tensor(name, weights, raw_dtype=gguf.GGMLQuantizationType.Q4_0)

    def kernel(outputs: int, inputs: int) -> np.ndarray:
        values = 0.02 * random.standard_normal((outputs, inputs), np.float32)
        return gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q4_0)

    add("token_embd.weight", kernel(config.vocab_size, width))
    add("output.weight", kernel(config.vocab_size, width))
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    shapes = {
        "attn_q": (width, width),
        "attn_k": (keys, width),
        "attn_v": (keys, width),
        "attn_output": (width, width),
        "ffn_gate": (wide, width),
        "ffn_up": (wide, width),
        "ffn_down": (width, wide),
    }
    kernels = {name: kernel(*shape) for name, shape in shapes.items()}
    for layer in range(config.num_layers):
        for name, weights in kernels.items():
            add(f"blk.{layer}.{name}.weight", weights)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(width, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
