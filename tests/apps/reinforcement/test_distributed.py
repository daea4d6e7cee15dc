"""A learner under a distribution strategy takes the same steps as alone; and what a stream gives to its workers."""

import numpy as np
import pytest
import tensorflow as tf

from apps.reinforcement import defaults, distributed
from apps.reinforcement.agents.agent import Rows
from apps.reinforcement.config import Config
from apps.reinforcement.environments import catalogue
from apps.reinforcement.learner import Learner
from strategies import distribution
from tests import clusters

SMALL = {"workdir": "none", "steps_per_epoch": 40, "parallel_environments": 4, "rollout": 8, "units": "8",
         "jit_compile": False}
KINDS = {"ppo": {"batch_size": 16, "passes": 2}, "a2c": {},
         "dqn": {"batch_size": 8, "updates": 4, "warmup_steps": 16, "target_period": 2, "prioritized": True}}


@pytest.mark.parametrize("kind, iterations, tolerance", [("ppo", 2, 1e-5), ("a2c", 2, 1e-5), ("dqn", 1, 1e-5)])
def test_replicas_learn_what_one_device_learns(kind, iterations, tolerance):
    """DQN's targets are made at the beginning of an iteration: they are the same while the target network stays."""
    changes = {"target_period": 100} if kind == "dqn" else {}
    settings = defaults.resolve(Config(algorithm=kind, **{**SMALL, **KINDS[kind], **changes}))
    environment = catalogue.make("cart_pole")
    if kind == "dqn":
        settings = settings.replace(prioritized=False)
    alone = Learner(settings, environment)
    alone.advance(32 * iterations - 16)
    shared = distributed.SharedNetwork(settings, environment, distribution.create("sync", num_devices=2))
    spread = Learner(settings, environment, shared)
    spread.advance(32 * iterations - 16)
    assert int(alone.state.iteration) == int(spread.state.iteration) == iterations
    assert shared.step == int(alone.model.optimizer.iterations) > 0
    for a, b in zip(alone.agent.network.get_weights(), spread.agent.network.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance)
    np.testing.assert_array_equal(alone.state.metrics.num_steps, spread.state.metrics.num_steps)


def test_a_stream_is_shared_out_and_taken_in_turns():
    rows = Rows(np.arange(12.0), {"q": np.arange(12.0)[:, None]})
    order = np.arange(12, dtype=np.int32).reshape(3, 4)
    stream = distributed.stream(rows, order, 5)
    assert stream.steps_per_epoch == 3

    def taken(*options, number=4):
        return [inputs.numpy().tolist() for inputs, _ in stream(*options).take(number)]

    assert taken(None, 5) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [0, 1, 2, 3]]
    context = tf.distribute.InputContext(num_input_pipelines=2, input_pipeline_id=1)
    assert taken(context, 6, number=2) == [[6, 7], [10, 11]]
    assert taken(None, 5, (1, 2), number=2) == [[4, 5, 6, 7], [0, 1, 2, 3]]


@pytest.mark.conformance
def test_actors_and_learner_with_parameter_servers(tmp_path):
    flags = ["--env=cart_pole", "--algorithm=ppo", "--parallel_environments=16", "--rollout=128", "--batch_size=128",
             "--passes=10", "--epochs=10", "--steps_per_epoch=4096", "--learning_rate=1e-3", "--stop_return=300"]
    code, lines, _ = clusters.train(tmp_path, *flags, workers=2, servers=1, app="apps.reinforcement.train", common=())
    assert code == 0, lines
    assert (tmp_path / "report.md").exists()
