"""The protocol of a worker of `benchmarks.search_benchmark`: cases on standard input, rates on standard output.

A worker is a process that stays. Each line it gets is a case as JSON; the first time it builds the case and answers
with the seconds that this took, and each time with a rate. It imports nothing of either side, and holds the weights of
the network that both have.
"""

import json
import sys
import time

import numpy as np

_SECONDS = 2.0  # that one measurement takes, about
# How much a block adds to what it got, and the spread of logits and values: after 20 random moves the favourite move
# has a probability of 0.5 and the values a standard deviation of 0.5, as with the trained network `go9`. With a flat
# policy a move's search is of less use to the next.
_RESIDUAL, _LOGITS, _VALUE = 0.3, 20.0, 2.5


def tower(blocks=6, filters=64, planes=17, size=9, hidden=64):
    """{name: kernel, float32} of the residual network of AlphaGo Zero; biases are zero, and nothing is normalised."""
    noise = np.random.default_rng(0)

    def kernel(*shape, gain=1.0):
        return (noise.normal(size=shape) * gain / np.sqrt(np.prod(shape[:-1]))).astype("float32")

    rectified = np.sqrt(2)
    weights = {"stem": kernel(3, 3, planes, filters, gain=rectified)}
    for block in range(1, blocks + 1):
        weights[f"block_{block}_1"] = kernel(3, 3, filters, filters, gain=rectified)
        weights[f"block_{block}_2"] = kernel(3, 3, filters, filters, gain=_RESIDUAL)
    return weights | {
        "policy": kernel(1, 1, filters, 2, gain=rectified),
        "policy_dense": kernel(2 * size**2, size**2 + 1, gain=_LOGITS),
        "value": kernel(1, 1, filters, 1, gain=rectified), "value_hidden": kernel(size**2, hidden, gain=rectified),
        "value_dense": kernel(hidden, 1, gain=_VALUE)}


def serve(builders):
    """Answers cases until the input ends.

    Args:
        builders: {kind: function of the other keys of a case -> (function that runs once, units of work in it)}.
    """
    built = {}
    for line in sys.stdin:
        case, answer = json.loads(line), {}
        key = json.dumps(case, sort_keys=True)
        if key not in built:
            began = time.perf_counter()
            run, units = builders[case.pop("kind")](**case)
            run()
            answer["compile_seconds"] = time.perf_counter() - began
            began = time.perf_counter()
            run()
            built[key] = run, units, max(1, round(_SECONDS / (time.perf_counter() - began)))
        run, units, repeats = built[key]
        began, done = time.perf_counter(), 0
        for _ in range(repeats):
            done += run() or units
        answer["rate"] = done / (time.perf_counter() - began)
        print(json.dumps(answer), flush=True)
