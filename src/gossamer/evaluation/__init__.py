"""What a model can still do: measures that compression is judged by."""

from gossamer.evaluation.perplexity import Perplexity, check_windows, perplexity
from gossamer.evaluation.translation import Translations, bleu

__all__ = ["Perplexity", "Translations", "bleu", "check_windows", "perplexity"]
