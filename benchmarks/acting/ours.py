"""One side of `reinforcement_speed`: this suite's PPO learns CartPole. The case comes as JSON in the first argument."""

import json
import sys
import time

BEGAN = time.perf_counter()  # before what takes long to import

from apps.reinforcement import defaults  # noqa: E402
from apps.reinforcement.config import Config  # noqa: E402
from apps.reinforcement.environments import catalogue  # noqa: E402
from apps.reinforcement.evaluation import Evaluator  # noqa: E402
from apps.reinforcement.learner import Learner  # noqa: E402


def main():
    case = json.loads(sys.argv[1])
    environment = catalogue.make("cart_pole")
    settings = defaults.resolve(Config(workdir="none", seed=case["seed"], epochs=case["limit"] // case["every"],
                                       steps_per_epoch=case["every"]), environment.model)
    learner = Learner(settings, environment)
    trial = Evaluator(environment, learner.agent.policy, case["episodes"], 500)
    learner.advance(0)  # compiles, and makes no step
    trial(0)
    start, reached, trials = time.perf_counter(), None, 0.0
    for epoch in range(settings.epochs):
        learner.advance((epoch + 1) * case["every"])
        before = time.perf_counter()
        value = float(trial(epoch + 1)[0].mean())
        trials += time.perf_counter() - before
        if value >= case["wanted"]:
            reached = int(learner.state.metrics.num_steps)
            break
    seconds = time.perf_counter() - start - trials
    print(json.dumps({"seconds": seconds, "trials": trials, "steps": reached, "start": start - BEGAN, "return": value}))


if __name__ == "__main__":
    main()
