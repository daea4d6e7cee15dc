"""Players by specification, as flags name them: `random:3`, `gtp:gnugo --mode gtp --level 1`, `network:runs/zero9`."""

import typing

from apps.alphago import gtp_client, gtp_process, loading
from apps.alphago.players import RandomPlayer
from layers.checking import unknown_name

_SEED = "{seed}"


class Kind(typing.NamedTuple):
    """A kind of player: `forms` of its specification, and `read(what follows the colon, timeout) -> make(seed)`."""

    forms: tuple
    read: typing.Callable


def player_of(spec, *, timeout=60.0):
    """How the players of a specification are made.

    Args:
        spec: `random`, `random:SEED`, `gtp:COMMAND` or `network:PATH,settings`. In a command {seed} stands for the seed
            of the game, for programs that take one. A path is as of `loading.maker`.
        timeout: seconds that an external program may take for an answer.

    Returns:
        make(seed) -> player: a player for one game, `seed` being a whole number from 0 to 2^31 - 1. Where it has a
        method `close`, that is to be called after the game.

    Raises:
        ValueError: unknown or wrong specification; it lists what is known.
    """
    kind, _, rest = spec.strip().partition(":")
    if kind not in KINDS:
        raise unknown_name("player", spec, [form for each in KINDS.values() for form in each.forms])
    return KINDS[kind].read(rest, timeout)


def rules_of(spec):
    """The `go.Rules` that the network of a specification was trained under; None for other players.

    Raises:
        ValueError: there is no such network.
    """
    kind, _, rest = spec.strip().partition(":")
    return loading.rules_of(rest.split(",")[0].strip()) if kind == "network" else None


def _random(rest, timeout):
    text = rest.strip() or "0"
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"The seed of a random player is a whole number from 0, as in random:3; received {rest!r}.")
    return lambda seed: RandomPlayer([int(text), seed])


def _gtp(rest, timeout):
    words = gtp_process.words_of(rest)

    def make(seed):
        return gtp_client.GtpPlayer([word.replace(_SEED, str(seed)) for word in words], timeout=timeout)

    return make


def _network(rest, timeout):
    return loading.maker(rest)


KINDS = {"random": Kind(("random", "random:SEED"), _random), "gtp": Kind(("gtp:COMMAND",), _gtp),
         "network": Kind(("network:PATH", "network:PATH,simulations=NUMBER"), _network)}
