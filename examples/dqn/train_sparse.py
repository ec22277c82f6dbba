"""CartPole learned by double deep Q-learning, its hidden layer 90 % sparse by SET.

    python examples/dqn/train_sparse.py
    python examples/dqn/train_sparse.py --game Pong --steps 2000000

In the manner of Dopamine: an agent with a replay buffer, a target network and a train step, and a
runner of training and evaluation. Expected: a mean return above 400 of 500 over twenty episodes of
evaluation, in under a minute on one core. Pong needs `ale-py`.
SET stores zeros for what is pruned, so acting, the target network and evaluation stay as they are.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import task
from gossamer import recipe, sparsity

RECIPE = recipe.Recipe.of(r"params\.hidden\.kernel", pattern=sparsity.Unstructured(0.9))


class DQNAgent:
    def __init__(self, game, env, steps):
        self.game, self.rng = game, np.random.default_rng(0)
        self.network = game.network(env.action_space.n)
        self.replay = task.ReplayBuffer(env, game.capacity, seed=0)
        updates = max(steps * game.rounds // game.train_every, 1)
        schedule = sparsity.Periodic(start=100, every=100, stop=max(updates // 2, 100))
        self.method = sparsity.methods.SET(recipe=RECIPE, schedule=schedule)
        self.tx = optax.adam(optax.linear_schedule(game.learning_rate, 0, updates))
        self.tx = self.method.wrap(self.tx)
        observation, _ = env.reset(seed=0)
        self.online_params = self.network.init(jax.random.key(0), observation[None])
        self.state = self.tx.init(self.online_params)
        self.online_params = self.method.weights(self.online_params, self.state)
        self.target_params = self.online_params
        self.trained, self.epsilon_steps = 0, max(game.explore * steps, 1)

    def epsilon(self, step):
        return max(self.game.epsilon, 1 - (1 - self.game.epsilon) * step / self.epsilon_steps)

    def act(self, observation, epsilon=0.0):
        if self.rng.random() < epsilon:
            return int(self.rng.integers(self.network.actions))
        return int(self._best(self.online_params, observation))

    @functools.partial(jax.jit, static_argnums=0)
    def _best(self, params, observation):
        return jnp.argmax(self.network.apply(params, observation[None])[0])

    @functools.partial(jax.jit, static_argnums=0)
    def _train_step(self, params, target_params, state, batch):
        following = self.network.apply(target_params, batch["next_observations"])
        best = self.network.apply(params, batch["next_observations"]).argmax(axis=-1)
        following = jnp.take_along_axis(following, best[:, None], axis=-1)[:, 0]
        targets = batch["rewards"] + self.game.discount * following * (1 - batch["terminals"])

        def loss(params):
            values = self.network.apply(params, batch["observations"])
            chosen = jnp.take_along_axis(values, batch["actions"][:, None], axis=-1)[:, 0]
            return optax.l2_loss(chosen, targets).mean()

        weights = self.method.weights(params, state)
        gradients = jax.grad(loss)(weights)
        updates, state = self.tx.update(gradients, state, params, weights=weights)
        return optax.apply_updates(params, updates), state

    def train(self):
        for _ in range(self.game.rounds):
            batch = self.replay.sample(self.game.batch)
            self.online_params, self.state = self._train_step(
                self.online_params, self.target_params, self.state, batch
            )
            self.trained += 1
            if self.trained % self.game.sync_every == 0:
                self.target_params = self.online_params


class Runner:
    def __init__(self, game, steps):
        self.game, self.steps, self.env = game, steps, game.make(seed=0)
        self.agent = DQNAgent(game, self.env, steps)

    def train(self, run):
        observation, _ = self.env.reset(seed=0)
        episode, last = 0.0, 0.0
        for step in range(self.steps):
            action = self.agent.act(observation, self.agent.epsilon(step))
            new, reward, terminal, truncated, _ = self.env.step(action)
            self.agent.replay.add(
                observations=observation,
                next_observations=new,
                actions=action,
                rewards=reward,
                terminals=terminal,
            )
            observation, episode = new, episode + reward
            if terminal or truncated:
                observation, _ = self.env.reset()
                episode, last = 0.0, episode
            if step >= self.game.warm_up and step % self.game.train_every == 0:
                self.agent.train()
            run.show(step, last_return=last)

    def evaluate(self, episodes=20):
        env, returns = self.game.make(seed=1), []
        for episode in range(episodes):
            observation, _ = env.reset(seed=1000 + episode)
            returns.append(0.0)
            over = False
            while not over:
                observation, reward, terminal, truncated, _ = env.step(self.agent.act(observation))
                returns[-1] += float(reward)
                over = terminal or truncated
        return float(np.mean(returns))


def main(argv=None) -> dict:
    flags = task.options(__doc__, argv, steps=60_000, game={"default": "CartPole"})
    game = task.Game.named(flags.game)
    run = task.Run(metric="return", kernels=game.kernels, steps=flags.steps, as_json=flags.json)
    runner = Runner(game, flags.steps)
    runner.train(run)
    return run.finish(runner.evaluate(), runner.agent.online_params)


if __name__ == "__main__":
    main()
