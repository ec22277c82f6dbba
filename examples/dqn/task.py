"""CartPole, or Pong where ale-py is installed: environments, networks, and the replay buffer."""

import dataclasses
import pathlib
import sys
from typing import Any

import gymnasium
import jax
import numpy as np
from flax import linen as nn

sys.path.append(str(pathlib.Path(__file__).parents[1]))
from outcome import Run, options

__all__ = ["Game", "ReplayBuffer", "Run", "options"]


class CartPoleNetwork(nn.Module):
    """Two wide layers with norms, without which Q-learning forgets what it has learned."""

    actions: int

    @nn.compact
    def __call__(self, observations: jax.Array) -> jax.Array:
        x = nn.relu(nn.LayerNorm()(nn.Dense(128, name="first")(observations)))
        x = nn.relu(nn.LayerNorm()(nn.Dense(128, name="hidden")(x)))
        return nn.Dense(self.actions, name="values")(x)


class AtariNetwork(nn.Module):
    """Convolutions over four frames `[B, 84, 84, 4]` of bytes, as in Mnih et al. 2015."""

    actions: int

    @nn.compact
    def __call__(self, observations: jax.Array) -> jax.Array:
        x = observations / 255.0
        for features, size, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
            x = nn.relu(nn.Conv(features, (size, size), (stride, stride), "VALID")(x))
        x = nn.relu(nn.Dense(512, name="hidden")(x.reshape(len(x), -1)))
        return nn.Dense(self.actions, name="values")(x)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Game:
    """An environment with the network for it, and the settings of DQN that suit it.

    Attributes:
        kernels: the weights that may be pruned, as a regular expression.
        learning_rate: falls to 0 in a straight line.
        capacity: transitions that the replay buffer holds.
        warm_up: steps before the first training step.
        train_every: steps in the environment from one round of training to the next.
        rounds: training steps in a round.
        sync_every: training steps from one target network to the next.
        explore: the fraction of all steps over which epsilon falls from 1 to its end.
        epsilon: how often a random action is taken in the end.
    """

    name: str
    network: type[nn.Module]
    kernels: str = r"params\.hidden\.kernel"
    learning_rate: float
    capacity: int
    warm_up: int = 1000
    batch: int = 64
    train_every: int
    rounds: int
    sync_every: int
    explore: float
    epsilon: float
    discount: float = 0.99

    def make(self, seed: int) -> gymnasium.Env:
        """A new environment."""
        env = cartpole() if self.name == "CartPole" else atari(self.name)
        env.action_space.seed(seed)
        return env

    @classmethod
    def named(cls, name: str) -> "Game":
        """CartPole, or any game of Atari."""
        if name == "CartPole":
            return CARTPOLE
        return dataclasses.replace(ATARI, name=name)


CARTPOLE = Game(
    name="CartPole",
    network=CartPoleNetwork,
    learning_rate=2e-3,
    capacity=50_000,
    batch=128,
    train_every=256,
    rounds=128,
    sync_every=128,
    explore=0.2,
    epsilon=0.04,
    discount=0.98,
)
# 20 000 transitions of two times four frames take 1.1 GB.
ATARI = Game(
    name="Pong",
    network=AtariNetwork,
    learning_rate=1e-4,
    capacity=20_000,
    batch=32,
    train_every=4,
    rounds=1,
    sync_every=2000,
    explore=0.1,
    epsilon=0.01,
)


def cartpole() -> gymnasium.Env:
    return gymnasium.make("CartPole-v1")


def atari(name: str) -> gymnasium.Env:
    """Frames of 84 by 84, each the last of four, four of them stacked on the last axis."""
    try:
        import ale_py
        import cv2  # noqa: F401  (gymnasium shrinks frames by it)
    except ModuleNotFoundError as error:
        raise SystemExit(
            f"{name} runs on the Arcade Learning Environment; not installed: {error.name}. "
            "pip install ale-py opencv-python-headless"
        ) from error
    gymnasium.register_envs(ale_py)
    env = gymnasium.make(f"ALE/{name}-v5", frameskip=1, repeat_action_probability=0.25)
    env = gymnasium.wrappers.AtariPreprocessing(env, noop_max=0)
    env = gymnasium.wrappers.FrameStackObservation(env, 4)
    return gymnasium.wrappers.TransformObservation(
        env,
        lambda frames: np.moveaxis(frames, 0, -1),
        gymnasium.spaces.Box(0, 255, (84, 84, 4), np.uint8),
    )


class ReplayBuffer:
    """The last `capacity` transitions, drawn from uniformly."""

    def __init__(self, env: gymnasium.Env, capacity: int, seed: int) -> None:
        shape, dtype = env.observation_space.shape, env.observation_space.dtype
        assert shape is not None
        self.columns = {
            "observations": np.zeros((capacity, *shape), dtype),
            "next_observations": np.zeros((capacity, *shape), dtype),
            "actions": np.zeros(capacity, np.int32),
            "rewards": np.zeros(capacity, np.float32),
            "terminals": np.zeros(capacity, np.float32),
        }
        self.capacity, self.added = capacity, 0
        self.rng = np.random.default_rng(seed)

    def add(self, **transition: Any) -> None:
        for name, value in transition.items():
            self.columns[name][self.added % self.capacity] = value
        self.added += 1

    def sample(self, size: int) -> dict[str, np.ndarray]:
        chosen = self.rng.integers(0, min(self.added, self.capacity), size)
        return {name: column[chosen] for name, column in self.columns.items()}
