"""Whole games by the clock, kept beside it by somebody else who never gives a second more."""

import numpy as np
import pytest

from apps.alphago.clock import Clock
from apps.alphago.go import rules as go


class Judge:
    """Time of one side as the protocol has it; raises when it has run out."""

    def __init__(self, main, period, stones):
        self.period, self.stones = period, stones
        self.left, self.to_play = (main, 0) if main else (period, stones)

    def move(self, seconds):
        self.left -= seconds
        if self.left <= 0 and not self.to_play and self.period:
            self.left, self.to_play = self.left + self.period, self.stones
        assert self.left > 0, "lost on time"
        if self.to_play:
            self.to_play -= 1
            if not self.to_play:
                self.left, self.to_play = self.period, self.stones


@pytest.mark.parametrize("told", ["never", "always", "whole seconds"])
@pytest.mark.parametrize("late", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("settings", [(300, 0, 0), (900, 0, 0), (3600, 0, 0), (0, 5, 1), (0, 1, 1), (60, 10, 1),
                                      (60, 300, 25), (0, 30, 10), (1, 1, 1), (600, 2, 3)])
def test_no_game_is_lost_on_time(settings, late, told):
    noise, clock = np.random.default_rng(0), Clock(*settings)
    judges = {colour: Judge(*settings) for colour in (go.BLACK, go.WHITE)}
    used, shares = 0.0, []
    for number in range(800):
        colour = (go.BLACK, go.WHITE)[number % 2]
        seconds = clock.seconds(colour, (0.8 * 361 - number) / 2)
        assert seconds > 0
        taken = seconds * noise.uniform(0.5, 1) + late * noise.uniform(0, 2)
        judges[colour].move(taken)
        clock.spend(colour, taken)
        left, to_play = judges[colour].left, judges[colour].to_play
        assert clock.left(colour)[0] >= 0
        if told == "whole seconds":
            clock.set_left(colour, int(left), to_play)
        else:
            assert clock.left(colour) == pytest.approx((left, to_play)), "its own measure is right"
        if told == "always":
            clock.set_left(colour, left, to_play)
        used, shares = used + taken, [*shares, seconds]
    main, period, stones = settings
    assert used > 0.5 * 2 * main, "time is there to be used"
    if period >= 5:
        assert min(shares) > 0.3 * period / stones


def test_a_slow_machine_gets_less():
    quick, slow = Clock(0, 10, 1), Clock(0, 10, 1)
    for clock, late in ((quick, 0.0), (slow, 3.0)):
        clock.spend(go.BLACK, clock.seconds(go.BLACK, 50) + late)
    assert quick.seconds(go.BLACK, 50) == 9 and slow.seconds(go.BLACK, 50) == pytest.approx(7)
    for _ in range(40):
        slow.spend(go.BLACK, slow.seconds(go.BLACK, 50))
    assert slow.seconds(go.BLACK, 50) == 9, "until it has been in time for long"


@pytest.mark.parametrize("settings", [(0, 1, 0), (100, 5, 0), (0, 0, 0), (0, 0, 5)])
def test_no_limit(settings):
    clock = Clock(*settings)
    clock.set_left(go.BLACK, 1, 1)
    clock.spend(go.BLACK, 10**9)
    assert not clock.limited and clock.seconds(go.BLACK, 100) is None


def test_nothing_left_and_very_much():
    clock = Clock(10, 0, 0)
    clock.set_left(go.WHITE, 0, 0)
    assert 0 < clock.seconds(go.WHITE, -5) < 0.1 and clock.seconds(go.BLACK, 100) < 0.1
    clock.spend(go.WHITE, 5)
    assert clock.left(go.WHITE) == (0, 0) and clock.left(go.BLACK) == (10, 0)
    assert Clock(2**31 - 1, 2**31 - 1, 2**31 - 1).seconds(go.BLACK, 1) > 1000
    assert clock.restarted().left(go.WHITE) == (10, 0)


def test_periods():
    clock = Clock(10, 20, 4)
    assert clock.left(go.BLACK) == (10, 0)
    clock.spend(go.BLACK, 12)
    assert clock.left(go.BLACK) == (18, 3)
    for _ in range(3):
        clock.spend(go.BLACK, 1)
    assert clock.left(go.BLACK) == (20, 4)
    clock.set_left(go.BLACK, 6, 2)
    assert clock.seconds(go.BLACK, 100) == pytest.approx(3 * 0.7)
    clock.set_left(go.BLACK, 0, 0)
    assert clock.left(go.BLACK) == (20, 4), "main time has just ended"
