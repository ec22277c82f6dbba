"""What a model can still do: measures that compression is judged by."""

from gossamer.evaluation.classification import (
    Accuracy,
    accuracy,
    accuracy_steps,
    check_images,
    model_images,
)
from gossamer.evaluation.perplexity import Perplexity, check_windows, perplexity
from gossamer.evaluation.translation import (
    GivenTranslations,
    Translations,
    bleu,
    bleu_steps,
    check_pairs,
    given_translations,
)

__all__ = [
    "Accuracy",
    "GivenTranslations",
    "Perplexity",
    "Translations",
    "accuracy",
    "accuracy_steps",
    "bleu",
    "bleu_steps",
    "check_images",
    "check_pairs",
    "check_windows",
    "given_translations",
    "model_images",
    "perplexity",
]
