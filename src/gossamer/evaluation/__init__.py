"""What a model can still do: measures that compression is judged by."""

from gossamer.evaluation.classification import (
    Accuracy,
    accuracy,
    accuracy_steps,
    check_images,
    model_images,
)
from gossamer.evaluation.perplexity import Perplexity, check_windows, perplexity

__all__ = [
    "Accuracy",
    "Perplexity",
    "accuracy",
    "accuracy_steps",
    "check_images",
    "check_windows",
    "model_images",
    "perplexity",
]
