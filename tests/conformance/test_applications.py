"""Any application × any strategy: it trains and evaluates, or says before training that it cannot."""

import json
import random
import subprocess
import sys

import numpy as np
import pytest

from strategies.distribution import DISTRIBUTIONS
from tests.conformance.test_combinations import OPTIONS, SIZES

pytestmark = pytest.mark.conformance
COMMON = ["--epochs=1", "--export=none", "--verbose=0"]
LANGUAGE = ["apps.language_model.train", "--data=sums", "--units=16", "--num_layers=1", "--length=16",
            "--batch_size=128", "--sample_tokens=0"]
TRANSLATION = ["apps.translation.train", "--data=tsv", "--tokens=characters", "--max_length=8", "--batch_size=32",
               "--num_layers=1", "--units=16", "--num_translated=8", "--learning_rate=3e-3"]
# {name: (module and flags, metric, what it is at least)}; a loss is given with the sign that makes more better.
APPLICATIONS = {
    "language_model_transformer": ([*LANGUAGE, "--model=transformer", "--num_heads=2"], "test_cross_entropy", -2.3),
    "language_model_lstm": ([*LANGUAGE, "--model=lstm", "--learning_rate=0.01"], "test_cross_entropy", -2.3),
    "translation_transformer": ([*TRANSLATION, "--model=transformer_tiny"], "test_cross_entropy", -2.0),
    "translation_attention": ([*TRANSLATION, "--model=additive"], "test_cross_entropy", -2.6)}
REFUSED = {**{(name, "model_parallel"): "has no rules for layer" for name in ("language_model_lstm",
                                                                              "translation_attention")},
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


@pytest.mark.parametrize("distribution", [name for name in DISTRIBUTIONS if name != "single"])
@pytest.mark.parametrize("application", APPLICATIONS)
def test_application(pairs, tmp_path, application, distribution):
    (module, *flags), metric, least = APPLICATIONS[application]
    if module == "apps.translation.train":
        flags = [*flags, f"--data_dir={pairs}"]
    flags += [f"--{name}={value}" for name, value in OPTIONS.get(distribution, {}).items()]
    command = [sys.executable, "-m", module, f"--distribution={distribution}", f"--workdir={tmp_path / 'run'}", *COMMON,
               *flags]
    if distribution in SIZES:
        sizes = [f"--{name}={value}" for name, value in SIZES[distribution].items()]
        command = [sys.executable, "-m", "apps.cluster", *sizes, "--max_restarts=0", "--", *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    if (application, distribution) in REFUSED:
        assert done.returncode == 2 and REFUSED[application, distribution] in done.stderr
        assert not (tmp_path / "run" / "config.json").exists()
        return
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())[metric]
    assert np.isfinite(found) and -found >= least, found
