"""Players from files: a run of `train_zero`, a Keras model, or a TFLite file."""

import pathlib

import tf_keras as keras

from apps.alphago import networks
from apps.alphago.config import ZeroConfig
from apps.alphago.go import rules as go
from apps.alphago.search_player import DEFAULTS, SearchPlayer
from apps.common import config as config_lib

_SUFFIXES = (".keras", ".tflite")


def load_player(path, settings=DEFAULTS, *, name=""):
    """A player that searches with a network.

    Args:
        path: workdir of a run, whose network is `model.keras`; or a .keras or .tflite file.
        settings: `search_player.SearchSettings`.
        name: of the player; empty: the folder's or the file's.

    Returns:
        (`SearchPlayer`, the `go.Rules` that the network was trained under, or those by default for its size).

    Raises:
        ValueError: there is no such network, or it is for another game.
    """
    path = pathlib.Path(path)
    rules, file = None, path
    if path.is_dir():
        rules, file = _rules_of(path), path / "model.keras"
    if file.suffix not in _SUFFIXES or not file.is_file():
        raise ValueError(f"{path} has no network: expected the workdir of a finished run of train_zero, a .keras or a "
                         ".tflite file.")
    if file.suffix == ".tflite":
        network, size = networks.lite_network(file)
    else:
        network, size = _evaluator(file)
    try:
        rules = rules or go.Rules(size=size)
    except ValueError:
        raise ValueError(f"{path} is a network for a board of {size}; Go is played on 5 to 19.") from None
    return SearchPlayer(network, size, settings, name=name or path.stem), rules


def _rules_of(folder):
    try:
        config, _ = config_lib.load(ZeroConfig, folder)
    except (ValueError, OSError) as error:
        raise ValueError(f"{folder} is not the workdir of a run of train_zero: {error}") from None
    if config.game != "go":
        raise ValueError(f"{folder} has learned {config.game}; this program plays Go.")
    return go.Rules(size=config.size, komi=config.komi, superko=config.superko)


def _evaluator(file):
    try:
        model = keras.models.load_model(file, compile=False)
    except Exception as error:  # Keras raises what the zip file, the JSON and the weights raise
        raise ValueError(f"{file} cannot be read as a Keras model: {error}") from None
    return networks.Evaluator(model), networks.structure_of(model).size
