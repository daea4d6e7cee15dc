"""Every binary starts, and every command that a README prints names modules and flags that exist."""

import dataclasses
import importlib
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
from absl import flags

from apps import cluster, compress, tune
from apps.common import flagging

CONFIGS = {"predict": "PredictConfig", "train_zero": "ZeroConfig", "train_games": "GamesConfig", "play": "PlayConfig",
           "arena": "ArenaConfig", "compare": "CompareConfig",
           "distill": "DistillConfig"}  # binaries whose flags are not those of training
ROOT = pathlib.Path(__file__).parents[1]
READMES = [path for path in ROOT.rglob("*.md") if not {".venv", "runs", "node_modules"} & set(path.parts)]


def commands():
    """(file, module, flags) of each `python -m` command in a code block of a README."""
    for path in READMES:
        for block in re.findall(r"```\n(.*?)```", path.read_text(), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words[:2] == ["python", "-m"]:
                    yield pytest.param(words[2], words[3:], id=f"{path.relative_to(ROOT)}:{words[2]}")


@pytest.mark.parametrize("module, arguments", commands())
def test_commands_of_the_readmes_parse(module, arguments):
    package, name = module.rsplit(".", 1)
    assert importlib.util.find_spec(module), f"no module {module}"
    if package.startswith("benchmarks"):
        result = subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True)
        known = set(re.findall(r"--(\w+)", result.stdout))
        assert {a.split("=")[0].lstrip("-") for a in arguments if a.startswith("--")} <= known
        return
    values = flags.FlagValues()
    if module == "apps.cluster":
        end = arguments.index("--")
        cluster.define_flags(values)
        values(["program", *arguments[:end]])
        assert arguments[end + 1:end + 3] == ["python", "-m"]
        test_commands_of_the_readmes_parse(arguments[end + 3], arguments[end + 4:])
        return
    if module == "apps.tune":
        tune.define_flags(values)
        package = f"apps.{tune.app_named(arguments)}"
    if module == "apps.compress":
        compress.define_flags(values)
        package = "apps.image_classification"
    if name in CONFIGS:
        flagging.define_flags(getattr(importlib.import_module(module), CONFIGS[name]), values)
    else:
        flagging.define_flags(importlib.import_module(f"{package}.config").Config, values)
    values(["program", *arguments])
    if name == "train":
        config = flagging.config_from_flags(importlib.import_module(f"{package}.config").Config, values)
        assert dataclasses.asdict(config)["workdir"]


@pytest.mark.parametrize("target", re.findall(r"make (\w+)", (ROOT / "README.md").read_text()))
def test_make_targets_of_the_readme_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_links_of_the_readmes_lead_somewhere():
    for path in READMES:
        for link in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            assert link.startswith("http") or (path.parent / link).exists(), f"{path.relative_to(ROOT)}: {link}"


def test_paths_in_the_table_exist():
    for path in re.findall(r"`(tests/[\w/.]+)`", (ROOT / "README.md").read_text()):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("module", ["apps.image_classification.train", "apps.tune", "apps.compress"])
def test_help(module):
    result = subprocess.run([sys.executable, "-m", module, "--helpfull"], cwd=ROOT, capture_output=True, text=True)
    assert "--learning_rate" in result.stdout and "Peak learning rate." in result.stdout
    assert result.returncode in (0, 1)  # absl ends with 1 after --help


def test_explain_trains_nothing(tmp_path):
    result = subprocess.run([sys.executable, "-m", "apps.image_classification.train", "--explain", "--model=wrn_16_1",
                             f"--workdir={tmp_path / 'run'}"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "parameters | 17" in result.stdout.replace("|  ", "| ") and "--distribution=single | yes" in result.stdout
    assert not (tmp_path / "run").exists()


def test_a_start_does_not_wait_for_what_is_not_used():
    program = "import sys; import apps.language_model.train, apps.reinforcement.train; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"keras", "tensorflow_model_optimization", "sklearn"} & set(result.stdout.split())
