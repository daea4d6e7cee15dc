"""Imitation of policies: data, students, compression, and what is refused."""

import csv
import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from apps.reinforcement import distill, imitation, networks, policies
from apps.reinforcement.config import DistillConfig
from apps.reinforcement.environments import catalogue
from apps.reinforcement.environments import environment as environment_lib
from strategies import export

SMALL = {"steps": 4000, "batch_size": 64, "eval_episodes": 4, "export": "none", "num_representative": 64, "verbose": 0}


def teacher_of(path, env, make=networks.policy_network, **options):
    """A network with random weights, the file that it is saved in."""
    environment = catalogue.make(env)
    network = make(environment.observation_spec, environment.action_spec, units=(16,), seed=3, **options)
    weights = [np.random.default_rng(0).normal(size=w.shape) for w in network.get_weights()]
    network.set_weights(weights)
    network.save(path)
    return str(path)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return teacher_of(tmp_path_factory.mktemp("teacher") / "teacher.keras", "cart_pole")


def config(folder, teacher, **changes):
    return DistillConfig(**{"workdir": str(folder), "teacher": teacher, "env": "cart_pole", **SMALL, **changes})


def test_a_student_learns_to_act_alike(tmp_path, teacher):
    metrics = distill.train(config(tmp_path / "run", teacher, units="12", epochs=15, learning_rate=0.01))
    assert metrics["test_agreement"] > 0.95 and metrics["num_parameters"] == 4 * 12 + 12 + 12 * 2 + 2
    assert metrics == json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert keras.models.load_model(tmp_path / "run" / "model.keras").output_shape == (None, 2)


def test_the_teacher_itself_is_made_smaller(tmp_path, teacher):
    metrics = distill.train(config(tmp_path / "run", teacher, compression="prune,quantize", compression_epochs=4,
                                   prune_sparsity=0.5, export="int8"))
    assert metrics["test_agreement"] > 0.9 and metrics["num_nonzero"] < 0.75 * metrics["num_parameters"]
    assert not export.float_operators(tmp_path / "run" / "export" / "int8.tflite")
    with open(tmp_path / "run" / "report.csv") as file:
        assert [(row["format"], row["metric"]) for row in csv.DictReader(file)] == [("keras", "return"),
                                                                                    ("int8", "return")]


def test_without_training_it_is_the_teacher(tmp_path, teacher):
    metrics = distill.train(config(tmp_path / "run", teacher))
    assert metrics["test_agreement"] == 1.0 and metrics["test_return"] == metrics["teacher_return"]


def test_continuous_actions(tmp_path):
    path = teacher_of(tmp_path / "teacher.keras", "pendulum")
    flags = {"env": "pendulum", "units": "32", "learning_rate": 0.01}
    before = distill.train(config(tmp_path / "before", path, epochs=0, **flags))
    after = distill.train(config(tmp_path / "after", path, epochs=30, **flags))
    assert after["test_distance"] < 0.2 * before["test_distance"]
    with pytest.raises(ValueError, match="--distill_teacher=.* teaches by logits; the actions of pendulum are numbers"):
        distill.train(config(tmp_path / "taught", path, compression="prune", distill_teacher=path, **flags))


def test_what_is_left_to_the_teacher(tmp_path, teacher):
    (tmp_path / "config.json").write_text(json.dumps({"config": {"env": "cart_pole"}}))
    path = teacher_of(tmp_path / "q.keras", "cart_pole", networks.q_network, dueling=True)
    found = imitation.resolve(config("x", path, env=""))
    assert (found.env, found.temperature, found.epochs) == ("cart_pole", 0.01, 0)
    found = imitation.resolve(config("x", teacher, units="4"))
    assert (found.temperature, found.epochs) == (1.0, 20)
    splits = imitation.load(imitation.resolve(config("x", path, env="", temperature=2.0)))
    x, y = next(iter(splits.train()))
    acting = networks.acting_network(keras.models.load_model(path))
    np.testing.assert_allclose(y, tf.nn.softmax(acting(x) / 2.0), rtol=1e-5)


def test_parts_are_of_different_environments(teacher):
    splits = imitation.load(imitation.resolve(config("x", teacher)))
    parts = [{tuple(row) for x, _ in stream() for row in x.numpy()} for stream in (splits.validation, splits.test)]
    parts.append({tuple(row) for x, _ in splits.train().take(splits.train.steps_per_epoch) for row in x.numpy()})
    assert min(map(len, parts)) > 300 and not parts[0] & parts[1] and not (parts[0] | parts[1]) & parts[2]


@pytest.mark.parametrize("share, expected", [(0.0, 0.0), (1.0, 1.0), (0.25, 0.25)])
def test_some_actions_are_others(share, expected):
    zeros, ones = (policies.by_rule(lambda x, value=value: tf.fill([len(x)], value)) for value in (0, 1))
    environment = catalogue.make("cart_pole")
    _, time_step = environment_lib.reset(environment, 4000, tf.constant([0, 1]))
    actions = imitation.mixed(zeros, ones, share).action(time_step, (), tf.constant([2, 3])).action
    assert abs(float(np.mean(actions)) - expected) < 0.03


@pytest.mark.parametrize("changes, words", [
    ({"teacher": ""}, "--teacher is missing"), ({"teacher": "nowhere"}, "--teacher=nowhere has no trained model"),
    ({"env": ""}, "The environment of --teacher=.* is not known"), ({"env": "acrobot"}, "the observations of acrobot"),
    ({"env": "chess"}, "Unknown environment 'chess'"), ({"units": "a"}, "--units must be whole numbers"),
    ({"temperature": 0.0}, "--temperature must be above 0"), ({"steps": 64}, "--steps=64 leave .* observations")])
def test_bad_input(tmp_path, teacher, changes, words):
    with pytest.raises(ValueError, match=words):
        distill.train(config(tmp_path / "run", **{"teacher": teacher, **changes}))
    assert not (tmp_path / "run").exists()
