"""Plays Go: as an engine for GTP programs such as Sabaki, in the terminal, or on a board in the browser.

    python -m apps.alphago.play --mode=browser
    python -m apps.alphago.play --player=network:go9,simulations=100 --mode=terminal --colour=white
    python -m apps.alphago.play --player=network:runs/zero9 --seconds=3 --mode=gtp

`go9` comes with the suite: what two hours of self-play on two cores have made.
"""

import contextlib
import dataclasses
import os
import sys

from apps.alphago.browser import serve
from apps.alphago.go import rules as go
from apps.alphago.gtp import Engine
from apps.alphago.opponents import player_of, rules_of
from apps.alphago.terminal import Terminal
from apps.common import config as config_lib
from apps.common import flagging
from apps.common.config import field

COLOURS = {"black": go.BLACK, "white": go.WHITE}


@dataclasses.dataclass(frozen=True)
class PlayConfig:
    """Options of this program."""

    player: str = field("network:go9", "Who plays: random[:SEED], gtp:COMMAND, or network:PATH[,simulations=NUMBER]: "
                                       "go9, which comes with the suite, the workdir of a run of train_zero, a .keras "
                                       "or a .tflite file.")
    mode: str = field("terminal", "gtp: an engine on standard input and output; terminal: a game here; "
                                  "browser: a page on this machine.", choices=("gtp", "terminal", "browser"))
    size: int = field(0, "Points a side. 0: as the network has learned, else 9.", minimum=0, maximum=19)
    komi: str = field("", "Points for white. Empty: as the network has learned, else 7.")
    superko: bool = field(False, "No position may come again, also where the network has learned otherwise.")
    colour: str = field("black", "The person's colour.", choices=tuple(COLOURS))
    seconds: float = field(0.0, "Seconds that the player may take for a move; in gtp mode, where no time settings are "
                                "given. 0: as many simulations as it has.", minimum=0)
    port: int = field(0, "Of the page, on 127.0.0.1. 0: any that is free.", minimum=0, maximum=65535)
    seed: int = field(0, "Of drawn moves.", minimum=0)

    def __post_init__(self):
        for item in dataclasses.fields(self):
            config_lib.check_value(item, getattr(self, item.name))


def rules_for(config):
    """The `Rules` of a configuration and its player.

    Raises:
        ValueError: a size or komi that there is not.
    """
    rules = rules_of(config.player) or go.Rules()
    try:
        komi = float(config.komi) if config.komi else rules.komi
    except ValueError:
        raise ValueError(f"--komi must be a number; received {config.komi!r}.") from None
    return dataclasses.replace(rules, size=config.size or rules.size, komi=komi,
                               superko=config.superko or rules.superko)


def main(config):
    """Plays as the configuration says."""
    rules = rules_for(config)
    player, seconds = player_of(config.player)(config.seed), config.seconds or None
    sizes = getattr(player, "sizes", None)
    if sizes and rules.size not in sizes:
        raise ValueError(f"{config.player} plays on boards of {', '.join(map(str, sizes))}; received "
                         f"--size={config.size}. Leave it out, or choose another --player, such as random.")
    if config.mode == "terminal":
        with contextlib.suppress(KeyboardInterrupt):
            Terminal(player, rules, COLOURS[config.colour], seconds=seconds).run()
    elif config.mode == "browser":
        with serve(player, rules, port=config.port, sizes=sizes or range(5, 20), colour=config.colour,
                   seconds=seconds) as server, contextlib.suppress(KeyboardInterrupt):
            print(f"The board is at {server.url} (Ctrl-C ends it)", flush=True)
            server.wait()
    else:
        # The protocol has standard output to itself: whatever else is printed goes the way of errors.
        with os.fdopen(os.dup(1), "wb") as output:
            os.dup2(2, 1)
            Engine(player, rules, sizes=sizes, seconds=seconds).serve(sys.stdin.buffer, output)


if __name__ == "__main__":
    from apps.alphago import play

    flagging.run_app(play.PlayConfig, play.main)
