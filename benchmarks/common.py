"""Paired timing and the record that every benchmark leaves.

Two ways to do the same thing are timed in turn, A B A B …, within one process, and compared pair by pair: the ratio
holds when the speed of the machine drifts. Figures are medians; the interval of a ratio is a bootstrap's.
"""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import sys
import time

import numpy as np
import tensorflow as tf

from apps.common import config as config_lib
from apps.common import reporting

RESULTS = pathlib.Path(__file__).with_name("results")
PACKAGES = ("tensorflow", "tf_keras", "tensorflow-model-optimization", "ai-edge-litert", "numpy")


def paired_seconds(functions, *, rounds, warmup=2):
    """Seconds of each call of each function, in alternation.

    Args:
        functions: {name: callable without arguments}.
        rounds: counted calls of each.
        warmup: calls of each before, not counted (tracing, caches).

    Returns:
        {name: float array [rounds]}.
    """
    for function in functions.values():
        for _ in range(warmup):
            function()
    seconds = {name: [] for name in functions}
    names = list(functions)
    for round_number in range(rounds):
        # The order turns round in every second round, so that neither always follows the other.
        for name in names if round_number % 2 == 0 else reversed(names):
            began = time.perf_counter()
            functions[name]()
            seconds[name].append(time.perf_counter() - began)
    return {name: np.asarray(values) for name, values in seconds.items()}


def repeated(*tensors):
    """An endless iterator over one batch, for the compiled functions of a Keras model.

    `train_on_batch` and `predict_on_batch` make an iterator a call; when it is dropped it may wait for the thread that
    tunes it, and the call is as long as that thread's sleep.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return iter(tf.data.Dataset.from_tensors(tensors).repeat().with_options(options))


def training_step(model, x, y):
    """() -> loss after one training step of a compiled model on a batch, by the function that `fit` uses."""
    function, batches = model.make_train_function(), repeated(x, y)
    return lambda: float(function(batches)["loss"])


def ratio_interval(numerator, denominator, *, confidence=0.95, resamples=4000, seed=0):
    """(low, median, high) of the median of paired ratios, by bootstrap over the pairs.

    `low` is the lower bound that the median exceeds with that confidence (one-sided); `high` likewise from above.
    """
    ratios = np.asarray(numerator) / np.asarray(denominator)
    picks = np.random.default_rng(seed).integers(0, len(ratios), (resamples, len(ratios)))
    medians = np.median(ratios[picks], axis=1)
    low, high = np.quantile(medians, [1 - confidence, confidence])
    return float(low), float(np.median(ratios)), float(high)


def summary(values):
    """Median, extremes and number of repeated measurements."""
    values = np.asarray(values, float)
    return {"median": float(np.median(values)), "min": float(values.min()), "max": float(values.max()),
            "n": len(values)}


def processor():
    """Name of the processor and the widest of its instructions that matter here."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    known = {"amx_bf16": "AMX", "avx512f": "AVX-512", "avx2": "AVX2"}
    widest = next((name for flag, name in known.items() if flag in facts.get("flags", "").split()), platform.machine())
    return f"{facts.get('model name', 'unknown')}, {widest}"


def machine():
    """What the figures were measured on."""
    return {"processor": processor(), "cores": os.cpu_count(),
            "system": platform.system(), "python": platform.python_version(),
            "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
            "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default")}


def write(name, rows, *, key=None, **content):
    """Writes `results/<name>.json` and prints the rows as a table.

    Args:
        name: of the benchmark.
        rows: list of dictionaries with the same keys; lists and dictionaries in them are not printed.
        key: a column; rows that stand in the file already and have another value in it are kept, and each row gets the
            date and the processor of its measurement. None: the file holds these rows only.
        **content: what else the record holds.
    """
    RESULTS.mkdir(exist_ok=True)
    today = datetime.date.today().isoformat()
    if key is not None:
        rows = [{**row, "date": today, "processor": processor()} for row in rows]
        path, new = RESULTS / f"{name}.json", {row[key] for row in rows}
        before = json.loads(path.read_text())["rows"] if path.exists() else []
        rows = [row for row in before if row[key] not in new] + rows
    module = sys.modules["__main__"].__spec__
    arguments = [re.sub(r"=/\S*/", "=", argument) for argument in sys.argv[1:]]  # where folders lie here tells nobody
    record = {"benchmark": name, "date": today,
              "command": " ".join(["python -m", module.name if module else name, *arguments]),
              "machine": machine(), "rows": rows, **content}
    config_lib.write_json(RESULTS / f"{name}.json", record)
    columns = dict.fromkeys(name for row in rows for name, value in row.items() if not isinstance(value, (list, dict)))
    print(reporting.markdown_table(list(columns), [[row.get(column) for column in columns] for row in rows]))
    print(f"kept in {RESULTS / name}.json")
    return record
