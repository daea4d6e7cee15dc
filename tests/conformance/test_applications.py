"""Any application × any strategy, and × any precision: it trains and evaluates, or says before training that it cannot.
"""

import json
import random
import subprocess
import sys

import numpy as np
import pytest
import tf_keras as keras

import apps.language_model.models
import apps.translation.models  # noqa: F401 - Keras has to know their layers to read the models
from apps.common.variants import read_rows
from strategies.distribution import DISTRIBUTIONS
from tests.conformance.test_combinations import OPTIONS, SIZES, check_trace

pytestmark = pytest.mark.conformance
COMMON = ["--epochs=1", "--export=none", "--verbose=0"]
LANGUAGE = ["apps.language_model.train", "--data=sums", "--units=16", "--num_layers=1", "--length=16",
            "--batch_size=128", "--sample_tokens=0"]
TRANSLATION = ["apps.translation.train", "--data=tsv", "--tokens=characters", "--max_length=8", "--batch_size=32",
               "--num_layers=1", "--units=16", "--num_translated=8", "--learning_rate=3e-3"]
# {name: (module and flags, metric, what it is at least)}; a loss is given with the sign that makes more better.
APPLICATIONS = {
    "language_model_transformer": ([*LANGUAGE, "--model=transformer", "--num_heads=2"], "test_cross_entropy", -2.3),
    **{f"language_model_{model}": ([*LANGUAGE, f"--model={model}", "--learning_rate=0.01"], "test_cross_entropy", -2.3)
       for model in ("lstm", "peephole_lstm", "layer_norm_lstm", "masked_gru")},
    "translation_transformer": ([*TRANSLATION, "--model=transformer_tiny"], "test_cross_entropy", -2.0),
    "translation_attention": ([*TRANSLATION, "--model=additive"], "test_cross_entropy", -2.6)}
REFUSED = {**{(name, "model_parallel"): "has no rules for layer" for name in APPLICATIONS if "transformer" not in name},
           **{(name, "federated"): "come in batches of similar lengths" for name in ("translation_transformer",
                                                                                    "translation_attention")}}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A folder of pairs such as "bad cab" and "BAD CAB"."""
    folder, chance = tmp_path_factory.mktemp("pairs"), random.Random(0)
    for part, number in (("train", 2000), ("valid", 40), ("test", 45)):
        lines = ["".join(chance.choices("abcdef", k=chance.randint(2, 6))) for _ in range(number)]
        (folder / f"{part}.tsv").write_text("".join(f"{line}\t{line.upper()}\n" for line in lines))
    return folder


def command(application, pairs, workdir, **flags):
    """What trains an application in a process of its own."""
    module, *own = APPLICATIONS[application][0]
    flags = {"data_dir": pairs, **flags} if module == "apps.translation.train" else flags
    return [sys.executable, "-m", module, f"--workdir={workdir}", *COMMON, *own,
            *(f"--{name}={value}" for name, value in flags.items())]


def check(application, done, workdir):
    """Asserts that it has ended and learned."""
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    _, metric, least = APPLICATIONS[application]
    found = json.loads((workdir / "metrics.json").read_text())[metric]
    assert np.isfinite(found) and -found >= least, found


@pytest.mark.parametrize("distribution", [name for name in DISTRIBUTIONS if name != "single"])
@pytest.mark.parametrize("application", APPLICATIONS)
def test_application(pairs, tmp_path, application, distribution):
    line = command(application, pairs, tmp_path / "run", distribution=distribution, **OPTIONS.get(distribution, {}))
    if distribution in SIZES:
        sizes = [f"--{name}={value}" for name, value in SIZES[distribution].items()]
        line = [sys.executable, "-m", "apps.cluster", *sizes, "--max_restarts=0", "--", *line]
    done = subprocess.run(line, capture_output=True, text=True, timeout=500)
    if (application, distribution) in REFUSED:
        assert done.returncode == 2 and REFUSED[application, distribution] in done.stderr
        assert not (tmp_path / "run" / "config.json").exists()
        return
    check(application, done, tmp_path / "run")


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16", "float64"])
@pytest.mark.parametrize("application", APPLICATIONS)
def test_precision(pairs, tmp_path, application, precision):
    """What is exported is in float32, whatever it was trained in."""
    line = command(application, pairs, tmp_path / "run", precision=precision, export="float32,int8")
    check(application, subprocess.run(line, capture_output=True, text=True, timeout=500), tmp_path / "run")
    rows = {row["format"]: row for row in read_rows(tmp_path / "run" / "report.csv")}
    assert rows["float32"]["max_abs_diff"] < 1e-3 and {"keras", "float32", "int8"} <= set(rows)


@pytest.mark.parametrize("method", ["share", "low_bit", "filters"])
@pytest.mark.parametrize("application", APPLICATIONS)
def test_compression(pairs, tmp_path, application, method):
    """`prune`, `quantize` and `distill` on these are in the applications' own tests."""
    line = command(application, pairs, tmp_path / "run", compression=method, compression_epochs=1, export="float32")
    done = subprocess.run(line, capture_output=True, text=True, timeout=500)
    if method == "filters" and application != "translation_attention":
        assert done.returncode == 2 and "has no channel that can be removed" in done.stderr
        assert not (tmp_path / "run" / "config.json").exists()
        return
    check(application, done, tmp_path / "run")
    model = keras.models.load_model(tmp_path / "run" / "model.keras", compile=False)
    if method == "filters":  # what stands between attention and the last layer
        assert model.get_layer("attentional").units == 16 - round(0.3 * 16)
    else:
        check_trace(method, model)
