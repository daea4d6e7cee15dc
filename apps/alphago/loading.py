"""Players from files: a run of `train_zero`, a Keras model, a TFLite file, or a network that comes with the suite."""

import dataclasses
import functools
import pathlib
import typing

import tf_keras as keras

from apps.alphago import games, networks
from apps.alphago import settings as settings_lib
from apps.alphago.config import ZeroConfig
from apps.alphago.go import rules as go
from apps.alphago.search_player import DEFAULTS, SearchPlayer, SearchSettings
from apps.common import config as config_lib
from layers.checking import unknown_name

_SUFFIXES = (".keras", ".tflite")
_TRAINED = pathlib.Path(__file__).with_name("trained")  # a folder for each network that comes with the suite


class Loaded(typing.NamedTuple):
    """A network from a file: as `SearchPlayer` takes it, the size of its board, the `go.Rules` that it has learned
    under, or those by default, and what else it has learned under, as of `SearchSettings.game`."""

    network: typing.Callable
    size: int
    rules: go.Rules
    game: dict


def maker(spec):
    """How players of a specification are made: `FOLDER` or `FILE`, then settings, as runs/zero9,simulations=100.

    Returns:
        make(seed) -> `SearchPlayer`; all of them share the network and its compiled programs.

    Raises:
        ValueError: from `load`, or a setting that there is not.
    """
    path, *words = spec.split(",")
    fields = {item.name: item.type for item in dataclasses.fields(SearchSettings) if item.name != "seed"}
    given = {}
    for word in words:
        key, _, value = word.strip().partition("=")
        if key not in fields:
            raise unknown_name("setting of a search", key, fields)
        try:
            given[key] = fields[key](value)
        except ValueError:
            raise ValueError(f"{key} of a search must be a number; received {value!r} in {spec!r}.") from None
    found = load(path.strip())
    settings = SearchSettings(**{**found.game, **given})

    def make(seed):
        return SearchPlayer(found.network, found.size, dataclasses.replace(settings, seed=seed),
                            name=f"{name_of(path)} ({settings.simulations})")

    return make


def rules_of(path):
    """The `go.Rules` of a network; see `load`."""
    return load(path).rules


def name_of(path):
    """What a player is called after its file, or its folder."""
    return pathlib.Path(path).stem


def trained_names():
    """Names of the networks that come with the suite."""
    return sorted(file.parent.name for file in _TRAINED.glob("*/model.keras"))


@functools.lru_cache(maxsize=8)
def load(path):
    """A network for players.

    Args:
        path: workdir of a run, whose network is `model.keras`; a .keras or .tflite file; or, where there is no such
            file and no run of that name, one of `trained_names()`.

    Returns:
        `Loaded`.

    Raises:
        ValueError: there is no such network, or it is for another game.
    """
    path = pathlib.Path(path)
    if str(path) in trained_names() and not path.is_file() and not (path / "config.json").exists():
        path = _TRAINED / path
    config, file = (_config_of(path), path / "model.keras") if path.is_dir() else (None, path)
    if file.suffix not in _SUFFIXES or not file.is_file():
        names = ", ".join(trained_names()) or "there is none"
        raise ValueError(f"{path} has no network: expected the workdir of a finished run of train_zero, a .keras or a "
                         f".tflite file, or one that comes with the suite: {names}.")
    network, size = networks.lite_network(file) if file.suffix == ".tflite" else _evaluator(file)
    try:
        rules = go.Rules(size=size)
    except ValueError:
        raise ValueError(f"{path} is a network for a board of {size}; Go is played on 5 to 19.") from None
    if network.planes not in games.PLANES:
        raise ValueError(f"{path} is a network that sees {network.planes} planes; Go is shown as "
                         f"{' or '.join(map(str, games.PLANES))}.")
    if config is not None:
        rules = go.Rules(size=config.size, komi=config.komi, superko=config.superko)
    return Loaded(network, size, rules, DEFAULTS.game if config is None else settings_lib.game_options(config, rules))


def _config_of(folder):
    try:
        config, _ = config_lib.load(ZeroConfig, folder)
    except (ValueError, OSError) as error:
        raise ValueError(f"{folder} is not the workdir of a run of train_zero: {error}") from None
    if config.game != "go":
        raise ValueError(f"{folder} has learned {config.game}; this program plays Go.")
    return config


def _evaluator(file):
    try:
        model = keras.models.load_model(file, compile=False)
    except Exception as error:  # Keras raises what the zip file, the JSON and the weights raise
        raise ValueError(f"{file} cannot be read as a Keras model: {error}") from None
    return networks.Evaluator(model), networks.structure_of(model).size
