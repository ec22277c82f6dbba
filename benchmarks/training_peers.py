"""The products of qwix and AQT as weights of our models: the same model, steps and numerics."""

import dataclasses
import functools
import importlib.util
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from gossamer.weights import take

DotGeneral = Callable[..., jax.Array]
Wrap = Callable[[nnx.State, jax.Array], nnx.State]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PeerWeight:
    """A kernel [in, out] that is multiplied by a peer's `dot_general`."""

    kernel: jax.Array
    key: jax.Array
    dot_general: Callable[[jax.Array], DotGeneral] = dataclasses.field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        return self.kernel.shape

    @property
    def dtype(self) -> jnp.dtype:
        return self.kernel.dtype

    @property
    def nbytes(self) -> int:
        return self.kernel.nbytes

    def materialize(self) -> jax.Array:
        return self.kernel

    def dot(self, x: jax.Array) -> jax.Array:
        return self.dot_general(self.key)(x, self.kernel, (((x.ndim - 1,), (0,)), ((), ())))

    def take(self, indices: jax.Array) -> jax.Array:
        return take(self.kernel, indices)


def wrap(make: Callable[[jax.Array], DotGeneral]) -> Wrap:
    """Puts a peer's product around every kernel of a model."""

    def wrapped(state: nnx.State, key: jax.Array) -> nnx.State:
        number = iter(range(10**6))

        def one(leaf: nnx.Variable) -> nnx.Variable:
            value = leaf.get_value()
            if value.ndim != 2:
                return leaf
            return leaf.replace(PeerWeight(value, jax.random.fold_in(key, next(number)), make))

        return jax.tree.map(one, state, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))

    return wrapped


def peers() -> dict[str, Wrap]:
    """Those that are installed: int8 forwards, and int8 both ways with stochastic rounding."""
    found: dict[str, Wrap] = {}
    if importlib.util.find_spec("qwix"):
        found["qwix, int8 forwards"] = wrap(functools.partial(_qwix, backwards=False))
        found["qwix, int8 both ways"] = wrap(functools.partial(_qwix, backwards=True))
    if importlib.util.find_spec("aqt"):
        found["AQT, int8 forwards"] = wrap(functools.partial(_aqt, backwards=False))
        found["AQT, int8 both ways"] = wrap(functools.partial(_aqt, backwards=True))
    return found


def _qwix(key: jax.Array, backwards: bool) -> DotGeneral:
    """As its QtProvider configures it: for both ways the cheaper of its two noises."""
    from qwix._src.core import dot_general_qt, stochastic_rounding

    noise = functools.partial(stochastic_rounding.low_bit_uniform_noise, key)
    both = {
        "dlhs_grad_qtype": jnp.int8,
        "drhs_grad_qtype": jnp.int8,
        "dlhs_stochastic_rounding_noise_fn": jax.tree_util.Partial(noise),
        "drhs_stochastic_rounding_noise_fn": jax.tree_util.Partial(noise),
    }
    config = dot_general_qt.DotGeneralQtConfig(
        lhs_qtype=jnp.int8,
        rhs_qtype=jnp.int8,
        use_original_residuals=not backwards,
        **(both if backwards else {}),
    )
    return lambda x, kernel, axes: dot_general_qt.dot_general_qt(x, kernel, axes, config)


def _aqt(key: jax.Array, backwards: bool) -> DotGeneral:
    from aqt.jax.v2 import config

    if backwards:
        product = config.fully_quantized(fwd_bits=8, bwd_bits=8)
    else:
        product = config.config_v4(fwd_bits=8, dlhs_bits=None, drhs_bits=None)
    return config.set_context(product, key, train_step=None)
