"""What a configuration means for the game, the network and self-play."""

import dataclasses
import functools
import re
import typing

from apps.alphago import games, networks
from apps.alphago.go import features
from apps.alphago.go import rules as go
from apps.alphago.search.tree import Game
from apps.alphago.selfplay import Settings
from layers.checking import unknown_name

_NOISE = 0.03 * 361  # Silver et al. 2017 took 0.03 on 19x19: the typical number of moves counts
_SAMPLED = 30 / 361  # and drew 30 moves there


@dataclasses.dataclass(frozen=True)
class Setting:
    """A game to learn.

    Attributes:
        game: `Game`.
        new_state: number -> states of so many new games.
        structure: `networks.Structure`.
        rules: `go.Rules`; None in other games.
    """

    game: Game
    new_state: typing.Callable
    structure: networks.Structure
    rules: go.Rules | None = None


def setting_of(config):
    """The `Setting` that a `ZeroConfig` describes.

    Raises:
        ValueError: unknown network, or a board of no legal size.
    """
    blocks, filters = blocks_and_filters(config.model)
    shared = {"blocks": blocks, "filters": filters, "pooling_every": config.pooling_every, "hidden": config.hidden,
              "heads": config.heads}
    if config.game == "tic_tac_toe":
        structure = networks.Structure(size=3, num_actions=9, planes=2, **shared)
        return Setting(games.tic_tac_toe(), games.empty_marks, structure)
    rules = go.Rules(size=config.size, komi=config.komi, superko=config.superko)
    planes = features.NUM_LIBERTY_PLANES if config.liberties else features.NUM_ZERO_PLANES
    structure = networks.Structure(size=config.size, num_actions=rules.num_points + 1, planes=planes,
                                   ownership=config.ownership, score=config.score, **shared)
    game = games.go_game(rules, planes=planes, **game_options(config, rules))
    return Setting(game, functools.partial(go.new, rules), structure, rules)


def game_options(config, rules):
    """The arguments of `games.go_game` that say what a search considers and what a game is worth, {name: value}."""
    first_pass = rules.num_points // 2 if config.first_pass < 0 else config.first_pass
    return {"margin_share": config.margin_share, "first_pass": first_pass, "losing_pass": config.losing_pass}


def blocks_and_filters(name):
    """Blocks and filters of a network's name, such as zero_6x64.

    Raises:
        ValueError: it is no such name.
    """
    found = re.fullmatch(r"zero_(\d+)x(\d+)", name)
    if not found or not int(found[1]) or not int(found[2]):
        raise unknown_name("model", name, [*networks.PRESETS, "zero_<blocks>x<filters>"])
    return int(found[1]), int(found[2])


def self_play_of(config, setting):
    """`selfplay.Settings` of a configuration."""
    points = setting.structure.size**2
    sampled = max(4, round(_SAMPLED * points)) if config.sampled_moves < 0 else config.sampled_moves
    return Settings(games=config.parallel_games, policy=config.policy, simulations=config.simulations,
                    fast_simulations=config.fast_simulations, full_share=config.full_share,
                    alpha=config.noise_alpha or _NOISE / points, noise_share=config.noise_share, sampled_moves=sampled,
                    opening_moves=points // 10 if config.opening_moves < 0 else config.opening_moves,
                    first_play=config.first_play, interval=min(8, config.fast_simulations))
