import dataclasses
import json

import pytest
from absl import flags

from apps.common import config as config_lib
from apps.common import flagging
from apps.image_classification.config import Config


def test_round_trip_through_json(tmp_path):
    config = Config(workdir=str(tmp_path), model="wrn_16_2", learning_rate=0.3, jit_compile=True)
    config_lib.save(config, tmp_path, total_steps=7)
    loaded, resolved = config_lib.load(Config, tmp_path)
    assert loaded == config
    assert resolved == {"total_steps": 7}


def test_flags_cover_every_field_and_give_the_same_configuration(tmp_path):
    values = flags.FlagValues()
    flagging.define_flags(Config, values)
    values(["program", f"--workdir={tmp_path}", "--epochs=3", "--learning_rate=0.5", "--nodeterministic",
            "--model=vgg16"])
    config = flagging.config_from_flags(Config, values)
    assert config == Config(workdir=str(tmp_path), epochs=3, learning_rate=0.5, deterministic=False, model="vgg16")
    assert {item.name for item in dataclasses.fields(Config)} <= set(values)


def test_every_field_has_help_and_a_legal_default():
    for item in dataclasses.fields(Config):
        assert item.metadata["help"].endswith("."), item.name
        config_lib.check_value(item, item.default)


@pytest.mark.parametrize("change, message", [
    ({"epochs": -1}, r"--epochs must be at least 0; received -1"),
    ({"epochs": 2.5}, r"--epochs must be a whole number; received 2.5"),
    ({"epochs": True}, r"--epochs must be a whole number; received True"),
    ({"batch_size": 0}, r"--batch_size must be at least 1; received 0"),
    ({"learning_rate": 0.0}, r"--learning_rate must be above 0; received 0"),
    ({"learning_rate": float("nan")}, r"--learning_rate must be above 0; received nan"),
    ({"validation_fraction": 1.0}, r"--validation_fraction must be at least 0 and below 1; received 1"),
    ({"precision": "mixed_float8"}, r"Unknown value of --precision.*one of float32, .*Did you mean 'mixed_float16'"),
    ({"optimizer": "adm"}, r"Unknown value of --optimizer.*Did you mean 'adam'"),
    ({"time_budget": float("inf")}, r"--time_budget must be a finite number of minutes; received inf"),
    ({"workdir": ""}, r"--workdir is missing"),
    ({"learning_rte": 0.1}, r"Unknown configuration field 'learning_rte'.*Did you mean 'learning_rate'"),
])
def test_illegal_values(change, message):
    with pytest.raises(ValueError, match=message):
        Config(workdir="x").replace(**change)


def test_unknown_field_in_file():
    with pytest.raises(ValueError, match="Unknown configuration field 'epoch'.*Did you mean 'epochs'"):
        config_lib.from_dict(Config, {"workdir": "x", "epoch": 3})


@pytest.mark.parametrize("content, message", [
    (None, "is not the workdir of a run"),
    ("{", "cannot be read"),
    ("[1, 2]", "was not written by this suite"),
    (json.dumps({"usagi": 1, "app": "apps.translation", "config": {}, "resolved": {}}),
     "holds a run of apps.translation, not of apps.image_classification"),
])
def test_foreign_or_broken_config_file(tmp_path, content, message):
    if content is not None:
        (tmp_path / config_lib.CONFIG_FILE).write_text(content)
    with pytest.raises(ValueError, match=message):
        config_lib.load(Config, tmp_path)


def test_differences_ignore_what_does_not_change_the_result():
    config = Config(workdir="a")
    assert config_lib.differences(config, config.replace(workdir="b", data_dir="c", verbose=0)) == []
    assert config_lib.differences(config, config.replace(seed=1, model="vgg16")) == ["model", "seed"]
