"""Where the time of a DQN step on CartPole goes: prints seconds of sampling and of a whole step as JSON."""

import json
import time

import tensorflow as tf

from apps.reinforcement import defaults
from apps.reinforcement.config import Config
from apps.reinforcement.environments import catalogue
from apps.reinforcement.learner import Learner

STEPS, ROUNDS = 300, 7


def seconds_of(prioritized):
    """{"sampling": seconds, "step": seconds} of a step, medians."""
    environment = catalogue.make("cart_pole")
    settings = defaults.resolve(Config(workdir="none", algorithm="dqn", prioritized=prioritized), environment.model)
    learner = Learner(settings, environment)
    learner.advance(5000)  # a buffer with something in it
    buffer, agent, first = learner._buffer, learner.agent, learner.state.replay

    def sampled(sample):
        return tf.reduce_sum(sample.experience.observation), tf.abs(sample.experience.reward[:, 0]) + 0.1

    def learned(sample):
        info = agent.train(sample.experience, sample.weight)
        return info.loss, info.extra["td_error"]

    def program_of(what):
        def program(number):
            def body(i, replay, total):
                sample = buffer.get_next(replay, settings.batch_size, tf.stack([i, 7]))
                value, errors = what(sample)
                return i + 1, buffer.update_priorities(replay, sample.index, errors), total + value

            return tf.while_loop(lambda i, *_: i < number, body, (0, first, 0.0))[2]

        return tf.function(program, jit_compile=True, autograph=False)

    found = {}
    for name, what in (("sampling", sampled), ("step", learned)):
        program, rounds = program_of(what), []
        program(tf.constant(10))
        for _ in range(ROUNDS):
            began = time.perf_counter()
            program(tf.constant(STEPS)).numpy()
            rounds.append((time.perf_counter() - began) / STEPS)
        found[name] = sorted(rounds)[ROUNDS // 2]
    return found


def main():
    print(json.dumps({"uniform": seconds_of(False), "prioritised": seconds_of(True)}))


if __name__ == "__main__":
    main()
