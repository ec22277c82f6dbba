"""Digits learned by a plain optax loop on a bare pytree, 2:4 by SR-STE with weights of four bits.

    python examples/optax_loop/train_sparse.py

In the manner of the loops in optax's own documentation. Expected: 98 % of 400 held-out
digits, in seconds on one core.
"""

import jax
import optax
import task
from gossamer import quantization, recipe, sparsity, training

RECIPE = recipe.Recipe.of(task.KERNELS, pattern=sparsity.NM(2, 4), weights=quantization.Int(4))
METHOD = sparsity.methods.SRSTE(recipe=RECIPE)


def main(argv=None) -> dict:
    flags = task.options(__doc__, argv, steps=3000)
    run = task.Run(metric="accuracy", kernels=task.KERNELS, steps=flags.steps, as_json=flags.json)
    schedule = optax.cosine_decay_schedule(2e-3, flags.steps)
    optimizer = METHOD.wrap(optax.adamw(schedule, weight_decay=1e-2))

    @jax.jit
    def step(params, state, batch):
        weights = training.fake_quantize(METHOD.weights(params, state), RECIPE)
        value, gradients = jax.value_and_grad(task.loss)(weights, batch)
        updates, state = optimizer.update(gradients, state, params, weights=weights)
        return optax.apply_updates(params, updates), state, value

    params = task.initialize(jax.random.key(0))
    state = optimizer.init(params)
    for number, batch in enumerate(task.batches(flags.steps)):
        params, state, value = step(params, state, batch)
        run.show(number, loss=value)
    params = training.fake_quantize(METHOD.weights(params, state), RECIPE)
    return run.finish(task.accuracy(params), params)


if __name__ == "__main__":
    main()
