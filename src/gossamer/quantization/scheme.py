"""How a product is quantized in training: formats, what is multiplied, how gradients come back."""

import dataclasses
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp

from gossamer.quantization.formats import Format
from gossamer.quantization.integers import Int
from gossamer.quantization.products import CodesProduct, multiply_codes
from gossamer.quantization.quantized import check_activations

_INT8 = Int(8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StraightThrough:
    r"""Gradients of the product of the quantized operands, as if rounding were the identity.

    .. math:: \partial L / \partial x = g \hat w^T, \quad \partial L / \partial w = \hat x^T g

    Elements that the grid's ends clip by more than half a step get no gradient.

    Attributes:
        scale_gradient: "stopped" takes scales as constants; "flowing" differentiates them too: the
            element that sets a scale s = absmax / qmax also gets
            :math:`\mathrm{sign}(w) / q_{max} \sum_j G_j (q_j - w_j / s)`, shared by ties. Scales
            count as proportional to the group's range, whatever they are rounded to.

    Source: Bengio et al. 2013, arXiv 1308.3432, for the estimator; stopped is the default of AQT
    v2, flowing that of praxis' `TensorQuantizer`.
    """

    scale_gradient: Literal["stopped", "flowing"] = "stopped"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FloatResiduals:
    r"""Gradients of the product of the operands as they were before rounding.

    .. math:: \partial L / \partial x = g w^T, \quad \partial L / \partial w = x^T g

    Source: the default of qwix and of AQT's `config_v4` where only the forward is quantized.
    """


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizedGradients:
    r"""Both gradients by products of integers, with the codes of the forward pass.

    With the gradient g times a forward scale quantized over the axis that is summed, Q:

    .. math::
        \partial L / \partial x = Q(g \, s_w) \, q_w^T, \quad
        \partial L / \partial w = q_x^T \, Q(s_x \, g)

    Attributes:
        format: of the gradients; symmetric and without groups.
        rounding: "stochastic" has no bias and needs a key at every step.

    Source: praxis' `custom_einsum`, AQT's `fully_quantized`, qwix's `QtRule(bwd_qtype=...)`. Both
    roundings of a gradient use the same noise here: each is without bias.
    """

    format: Int = _INT8
    rounding: Literal["stochastic", "nearest"] = "stochastic"

    def __post_init__(self) -> None:
        if not is_plain(self.format):
            raise ValueError(
                f"Gradients are quantized symmetrically with a scale a row, got {self.format}; "
                "leave out group and symmetric."
            )


Backward: TypeAlias = StraightThrough | FloatResiduals | QuantizedGradients

STRAIGHT_THROUGH = StraightThrough()
"""The default rule."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scheme:
    """How a product is quantized in training, forwards and backwards.

    Attributes:
        weights: the format of the kernel.
        activations: the format of the rows of `x`; None leaves them.
        activation_scale: "row" as the packed kernels have it; "tensor" is one for all rows, which
            only training computes.
        multiply: "native" is the product that a packed kernel makes: integers by integers where
            activations are quantized, floats by decoded weights where they are not. "fake"
            multiplies floats that are rounded.
        backward: the rule for gradients.
        product: multiplies codes by codes; XLA's integer product unless another is given.
    """

    weights: Format
    activations: Format | None = None
    activation_scale: Literal["row", "tensor"] = "row"
    multiply: Literal["native", "fake"] = "native"
    backward: Backward = STRAIGHT_THROUGH
    product: CodesProduct = multiply_codes

    def __post_init__(self) -> None:
        if self.activations is not None:
            check_activations(self.activations, self.weights)
        if self.activation_scale == "tensor" and not is_plain(self.activations):
            raise ValueError(
                "A scale for all rows needs activations such as Int(8), symmetric and without "
                f"groups, got {self.activations}."
            )
        if self.integers and not (is_plain(self.activations) and has_integers(self.weights)):
            raise ValueError(
                "Integers are multiplied natively where weights have integer codes and activations "
                f"are such as Int(8), symmetric and without groups; got weights {self.weights} and "
                f"activations {self.activations}: multiply='fake' multiplies what they stand for."
            )
        self._check_backward()

    def _check_backward(self) -> None:
        if isinstance(self.backward, QuantizedGradients):
            per_output = has_integers(self.weights) and self.weights.group is None
            if not (per_output and is_plain(self.activations)):
                raise ValueError(
                    "QuantizedGradients reuses integer codes with one scale for each row of x and "
                    "each output of the kernel: weights such as Int(4) and activations such as "
                    f"Int(8), without groups; got {self.weights} and {self.activations}. Leave out "
                    "groups, or choose StraightThrough or FloatResiduals."
                )
        elif self.backward == StraightThrough(scale_gradient="flowing"):
            for format in (self.weights, self.activations):
                if not isinstance(format, Int | None):
                    raise ValueError(
                        f"A gradient flows through the scales of Int; those of {format} are steps, "
                        "which have none: choose scale_gradient='stopped'."
                    )

    @property
    def integers(self) -> bool:
        """Whether integers are multiplied forwards."""
        return self.multiply == "native" and self.activations is not None

    @property
    def flowing(self) -> bool:
        """Whether scales are differentiated."""
        return self.backward == StraightThrough(scale_gradient="flowing")


def is_plain(format: Format | None) -> bool:
    """Whether it is an `Int` with one scale a row and no zero points."""
    return isinstance(format, Int) and format.symmetric and format.group is None


def has_integers(format: Format) -> bool:
    """Whether its codes are integers."""
    column = jax.ShapeDtypeStruct((format.group or 1, 1), jnp.float32)
    return jnp.issubdtype(jax.eval_shape(format.encode, column).codes.dtype, jnp.integer)
