"""What a trained policy does, as data to train another network on: what it saw, and what its network answered.

N observations, A actions, D numbers of a continuous action.
"""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from apps.common import compressing
from apps.common.splits import Splits, evaluation_stream, training_stream
from apps.reinforcement import drivers, evaluation, networks, policies, policy_files
from apps.reinforcement.environments import catalogue
from apps.reinforcement.environments import environment as environment_lib
from apps.reinforcement.environments.environment import split, uniform
from strategies import export
from strategies.copying import copy_model

_PURE_BATCH, _PYTHON_BATCH = 64, 16  # environments that are stepped together
_OF_VALUES, _OF_LOGITS = 0.01, 1.0  # temperatures; Rusu et al. 2016, section 3.2
_SEED = 0x1817A7E


@dataclasses.dataclass(frozen=True)
class PolicySpec:
    """The environment, and the part of the teacher's network that acts."""

    environment: object
    teacher: object


@dataclasses.dataclass(frozen=True)
class PolicySplits(Splits):
    """`representative(count)`: observations [count, ...] of the training part."""

    representative: object = None


def resolve(config):
    """The configuration with what was left to the teacher: environment, temperature, epochs.

    Raises:
        ValueError: there is no such teacher.
    """
    if not config.teacher:
        raise ValueError("--teacher is missing: expected the workdir of a run of train, or a .keras file.")
    (network,) = compressing.load_models(config.teacher, "teacher")
    temperature = config.temperature
    if temperature < 0:
        temperature = _OF_VALUES if "q" in network.output_names else _OF_LOGITS
    epochs = config.epochs if config.epochs >= 0 else 20 if config.units else 0
    return config.replace(env=config.env or policy_files.environment_near(config.teacher, "teacher"),
                          temperature=temperature, epochs=epochs)


def load(config):
    """Plays the teacher's policy.

    Args:
        config: `DistillConfig` that `resolve` has completed.

    Returns:
        `PolicySplits` of (observation [B, ...], target): the teacher's probabilities [B, A], softmax(outputs / T), or
        its means [B, D]. Parts come from environments of their own.

    Raises:
        ValueError: the teacher does not fit the environment.
    """
    environment = catalogue.make(config.env)
    teacher = networks.acting_network(compressing.load_models(config.teacher, "teacher")[0])
    policy_files.check_fits(lambda x: export.predict(teacher, x), environment)
    parts = played(environment, teacher, config)
    if len(parts["train"]) < config.batch_size:
        raise ValueError(f"--steps={config.steps} leave {len(parts['train'])} observations to train on: expected at "
                         f"least a batch of {config.batch_size}. Give more --steps, or a smaller --batch_size.")
    arrays = {part: (seen, targets_of(environment.action_spec, export.predict(teacher, seen), config.temperature))
              for part, seen in parts.items() if len(seen)}
    streams = {part: evaluation_stream(len(pair[0]), config.batch_size, _fetcher(*pair))
               for part, pair in arrays.items()}
    fetch = _fetcher(*arrays["train"])
    train = training_stream(len(parts["train"]), config.batch_size, config.seed, lambda index, noise: fetch(index))
    chosen = np.random.default_rng(config.seed).permutation(len(parts["train"]))
    return PolicySplits(train, streams.get("validation"), streams["test"], PolicySpec(environment, teacher),
                        lambda count: parts["train"][chosen[:count]])


def played(environment, teacher, config):
    """Observations of the teacher's episodes, {part: [N, ...]}.

    `config.random_share` of the actions are random, so that it is also seen how the policy comes back from where it
    does not go by itself.
    """
    policy = mixed(policies.greedy(teacher, environment.action_spec), policies.random(environment.action_spec),
                   config.random_share)
    begin, act = split(tf.constant([config.seed, _SEED], tf.int32), 2)
    if isinstance(environment, environment_lib.Environment):
        batch = _PURE_BATCH
        running, first = environment_lib.reset(environment, batch, begin)
        rows = tf.function(lambda: drivers.run_steps(
            environment, policy, running, first, (), math.ceil(config.steps / batch), act)[3], jit_compile=True)()
    else:
        batch = _PYTHON_BATCH
        environments = environment.open(batch, evaluation.python_seed(config.seed))
        compiled = policy._replace(action=tf.function(policy.action, autograph=False))
        rows = drivers.python_steps(environments, compiled, environments.reset(), math.ceil(config.steps / batch),
                                    act)[2]
        environments.close()
    seen, is_move = rows.observation.numpy(), ~rows.is_boundary().numpy()
    # At least one environment for the test, and one for the validation where it is wanted.
    test = max(1, round(config.test_fraction * batch))
    validation = max(1, round(config.validation_fraction * batch)) if config.validation_fraction else 0
    ends = np.cumsum([batch - test - validation, validation, test])
    return {part: seen[end - size:end][is_move[end - size:end]] for part, end, size in zip(
        ("train", "validation", "test"), ends, (batch - test - validation, validation, test))}


def mixed(policy, other, share):
    """A policy that at each step is `other` with probability `share`. Neither may have a state."""
    def action(time_step, policy_state, seed):
        seeds = split(seed, 3)
        first, second = (each.action(time_step, (), seeds[i]).action for i, each in enumerate((policy, other)))
        tries = uniform(time_step.step_type.shape, seeds[2]) < share
        tries = tf.reshape(tries, [*tries.shape, *[1] * (first.shape.rank - 1)])
        return policies.PolicyStep(tf.where(tries, second, first), policy_state)

    return policies.Policy(action)


def targets_of(action_spec, outputs, temperature):
    """What is learned from a teacher's outputs: probabilities float32 [N, A], or the means as they are."""
    return tf.nn.softmax(outputs / temperature).numpy() if action_spec.is_discrete else outputs


def student_of(config, spec):
    """A new student: the teacher itself, or a network of `config.units`."""
    if not config.units:
        return copy_model(spec.teacher)
    environment = spec.environment
    network = networks.policy_network(
        environment.observation_spec, environment.action_spec, activation=config.activation, value=False,
        units=tuple(int(part) for part in config.units.split(",")), seed=config.seed)
    return networks.acting_network(network)


def _fetcher(observations, targets):
    with tf.device("CPU:0"):  # where tf.data runs
        x, y = tf.constant(observations), tf.constant(targets)
    return lambda index: (tf.gather(x, index), tf.gather(y, index))
