"""How long a move may take, by the time limits of the Go Text Protocol."""

from apps.alphago.go import rules as go

_LEAST = 0.01  # seconds for a move where there is no time
_FEWEST_MOVES = 10  # main time lasts for so many more moves at any time


class Clock:
    """Time of both sides: main time, then periods of byo-yomi, in each of which some stones must be played.

    What a move may take leaves something for what is not thinking: a tenth, and as much as moves have recently taken
    beyond what they were allowed. Without byo-yomi, a tenth of the main time is never given away.

    Args:
        main: seconds of main time.
        period: seconds of a period of byo-yomi, 0 where there is none.
        stones: to be played in a period. 0 with a period means no limit, and so does no time at all.
    """

    def __init__(self, main=0, period=0, stones=0):
        self._settings = main, period, stones
        self.limited = stones > 0 if period else main > 0
        self._reserve = 0 if period else 0.1 * main
        self._left = {colour: self._entered(main, 0) for colour in (go.BLACK, go.WHITE)}
        self._allowed, self._late = None, 0.0

    def restarted(self):
        """A clock with the same settings, as at the beginning of a game."""
        return Clock(*self._settings)

    def left(self, colour):
        """(seconds, stones to be played in them; 0: main time) of a side."""
        return self._left[colour]

    def set_left(self, colour, seconds, stones):
        """What somebody else's clock shows, as `left` has it. Without a limit it is of no interest."""
        if self.limited:
            # Where one stone is a period, the number is that of periods left: each is for one stone all the same.
            self._left[colour] = self._entered(seconds, min(stones, self._settings[2]))

    def seconds(self, colour, moves):
        """Seconds that a move of a side may take, more than 0; None: no limit.

        Args:
            colour: +1 or -1.
            moves: how many more moves this side may have to make.
        """
        if not self.limited:
            self._allowed = None
            return None
        _, period, stones = self._settings
        left, to_play = self._left[colour]
        if to_play:
            share = left / to_play
        else:
            share = max((left - self._reserve) / max(moves, _FEWEST_MOVES), period / stones if period else 0.0)
        spare = max(0.1 * share, min(1.0, 0.3 * share), min(self._late, 0.5 * share))
        self._allowed = max(share - spare, _LEAST)
        return self._allowed

    def spend(self, colour, seconds):
        """A move has taken so long."""
        if not self.limited:
            return
        if self._allowed is not None:
            self._late = max(seconds - self._allowed, 0.9 * self._late)
        _, period, stones = self._settings
        left, to_play = self._left[colour]
        left -= seconds
        if left <= 0 and not to_play and period:
            left, to_play = period + left, stones  # main time ended during this move, which counts in the period
        if to_play:
            to_play -= 1
            if not to_play:
                left, to_play = period, stones
        self._left[colour] = max(left, 0.0), to_play

    def _entered(self, left, to_play):
        """The same; at the beginning of a period where there is no main time left."""
        _, period, stones = self._settings
        return (period, stones) if period and not left and not to_play else (left, to_play)
