"""What a model can still do: measures that compression is judged by."""

from gossamer.evaluation.perplexity import Perplexity, check_windows, perplexity

__all__ = ["Perplexity", "check_windows", "perplexity"]
