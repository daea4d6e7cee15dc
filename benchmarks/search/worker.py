"""The protocol of a worker of `benchmarks.search_benchmark`: cases on standard input, rates on standard output.

A worker is a process that stays. Each line it gets is a case as JSON; the first time it builds the case and answers
with the seconds that this took, and each time with a rate. It imports nothing of either side.
"""

import json
import sys
import time

_SECONDS = 2.0  # that one measurement takes, about


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
