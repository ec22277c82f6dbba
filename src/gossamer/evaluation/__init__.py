"""What a model can still do: measures that compression is judged by."""

from gossamer.evaluation.perplexity import Perplexity, perplexity

__all__ = ["Perplexity", "perplexity"]
