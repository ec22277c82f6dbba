"""What a model can still do: measures that compression is judged by."""

from gossamer.evaluation.classification import (
    Accuracy,
    accuracy,
    accuracy_steps,
    check_images,
    model_images,
)
from gossamer.evaluation.perplexity import Perplexity, check_windows, perplexity
from gossamer.evaluation.translation import Translations, bleu, bleu_steps, check_pairs

__all__ = [
    "Accuracy",
    "Perplexity",
    "Translations",
    "accuracy",
    "accuracy_steps",
    "bleu",
    "bleu_steps",
    "check_images",
    "check_pairs",
    "check_windows",
    "model_images",
    "perplexity",
]
