"""Campaign mail: whom to write to, and when.

An episode is a customer's year of 52 weeks; a batch is as many customers, each decided on in turn, week by week: write
(1) or do not (0). The reward is the week's sales less the cost of the letter, 1.20. The model, all of it:

* A customer belongs to a segment for good:

  | segment | share | basket | buys unasked | and by a letter | season: month of its peak, lowest share |
  | bargain | 0.45  | 18     | 0.010        | 0.16            | none, 1                                |
  | gifts   | 0.30  | 55     | 0.010        | 0.15            | December, 0.10                         |
  | garden  | 0.25  | 40     | 0.008        | 0.16            | April, 0.05                            |

  Season s(week) = lowest + (1 - lowest) ((1 + cos(2 pi (week - peak) / 52)) / 2)^3, peak week 49 and 16.
* Fatigue f is 0 to 5. A letter adds 1; a week without one takes 1 away with probability 0.5.
* Appetite for a purchase, by the weeks since the last one, 0 to 4 and more: 0.2, 0.5, 0.8, 1, 1.
* Probability of a purchase in a week = appetite x (unasked x s + letter x by a letter x s x (1 - f / 5)).
* A purchase is basket x (0.5 + u), u uniform in [0, 1).
* A letter to a customer of fatigue f makes him leave for good with probability 0.06 (f / 5)^2, after the sale: the
  episode ends.

A year begins in week 0 with fatigue 0 to 3 and 0 to 4 weeks since the last purchase, each alike.

As segments, fatigue, weeks since a purchase and weeks are few, any plan's profit and the best plan are known exactly.
G segments, F levels of fatigue, R of weeks since the last purchase, W weeks, B batch.
"""

import itertools
import math
import typing

import numpy as np
import tensorflow as tf

from apps.reinforcement.environments.environment import Environment, uniform
from apps.reinforcement.trajectories import Spec

SEGMENTS = ("bargain", "gifts", "garden")
COST, WEEKS, TIRED, RECENT = 1.2, 52, 5, 4
SHARES, BASKETS = np.array([0.45, 0.30, 0.25]), np.array([18.0, 55.0, 40.0])
UNASKED, BY_LETTER = np.array([0.010, 0.010, 0.008]), np.array([0.16, 0.15, 0.16])
_PEAKS, _LOWEST = np.array([0, 49, 16]), np.array([1.0, 0.10, 0.05])
_APPETITE = np.array([0.2, 0.5, 0.8, 1.0, 1.0])
_RECOVERY, _LEAVING = 0.5, 0.06
_FIRST_TIRED = 4  # levels of fatigue that a year may begin with
RULES = ((0, 0.0), *itertools.product((1, 2, 3, 4, 5, 6, 8, 13, 26), (0.0, 0.25, 0.5, 0.75)))


class State(typing.NamedTuple):
    """int32 [B] each."""

    segment: tf.Tensor
    fatigue: tf.Tensor
    recency: tf.Tensor  # weeks since the last purchase, at most `RECENT`
    week: tf.Tensor


def seasons():
    """s(week) of every segment, [G, W]."""
    phase = 2 * math.pi * (np.arange(WEEKS) - _PEAKS[:, None]) / WEEKS
    return _LOWEST[:, None] + (1 - _LOWEST[:, None]) * ((1 + np.cos(phase)) / 2) ** 3


def purchase_chances():
    """Probability of a purchase, [2, G, F, R, W]: without a letter, and with one."""
    season, fresh = seasons()[:, None, None], 1 - np.arange(TIRED + 1) / TIRED
    unasked = UNASKED[:, None, None, None] * season * _APPETITE[:, None]
    by_letter = BY_LETTER[:, None, None, None] * season * fresh[:, None, None] * _APPETITE[:, None]
    return np.stack([np.broadcast_to(unasked, by_letter.shape), unasked + by_letter])


def leaving_chances():
    """Probability that a letter makes a customer leave, [F]."""
    return _LEAVING * (np.arange(TIRED + 1) / TIRED) ** 2


def campaign_mail():
    """The environment. Observations are float32 [B, 8]: segment one-hot, fatigue / 5, weeks since the last purchase /
    4, week / 52, sine and cosine of the season of the year."""
    chances, leaving = (tf.constant(table, tf.float32) for table in (purchase_chances(), leaving_chances()))
    baskets, limits = tf.constant(BASKETS, tf.float32), tf.constant(np.cumsum(SHARES)[:-1], tf.float32)

    def initial(batch, seed):
        numbers = tf.unstack(uniform([3, batch], seed))
        segment = tf.reduce_sum(tf.cast(numbers[0][:, None] >= limits, tf.int32), axis=1)
        tired, recent = (tf.cast(number * levels, tf.int32)
                         for number, levels in zip(numbers[1:], (_FIRST_TIRED, RECENT + 1)))
        return State(segment, tired, recent, tf.zeros([batch], tf.int32))

    def dynamics(state, action, seed):
        buys, worth, leaves, rests = tf.unstack(uniform([4, action.shape[0]], seed))
        action = tf.cast(action, tf.int32)
        place = tf.stack([action, *state._replace(week=tf.minimum(state.week, WEEKS - 1))], axis=1)
        has_bought = buys < tf.gather_nd(chances, place)
        sales = tf.where(has_bought, tf.gather(baskets, state.segment) * (0.5 + worth), 0.0)
        has_left = tf.equal(action, 1) & (leaves < tf.gather(leaving, state.fatigue))
        rested = tf.maximum(state.fatigue - tf.cast(rests < _RECOVERY, tf.int32), 0)
        after = State(state.segment, tf.where(tf.equal(action, 1), tf.minimum(state.fatigue + 1, TIRED), rested),
                      tf.where(has_bought, 0, tf.minimum(state.recency + 1, RECENT)), state.week + 1)
        return after, sales - COST * tf.cast(action, tf.float32), has_left | (after.week >= WEEKS)

    def observe(state):
        year = 2 * math.pi / WEEKS * tf.cast(state.week, tf.float32)
        scaled = [tf.cast(part, tf.float32) / top for part, top in zip(state[1:], (TIRED, RECENT, WEEKS))]
        return tf.concat([tf.one_hot(state.segment, len(SEGMENTS)),
                          tf.stack([*scaled, tf.sin(year), tf.cos(year)], axis=1)], axis=1)

    return Environment("campaign_mail", Spec((8,), tf.float32, (0.0,) * 6 + (-1.0,) * 2, 1.0),
                       Spec((), tf.int32, 0, 1), initial, dynamics, observe, WEEKS, _draw)


def follow(plan):
    """The policy of a plan: observation [B, 8] -> action int32 [B]; plan: 0 or 1, [G, F, R, W]."""
    table = tf.constant(np.asarray(plan), tf.int32)

    def act(observation):
        scaled = [tf.cast(tf.round(observation[:, 3 + i] * top), tf.int32)
                  for i, top in enumerate((TIRED, RECENT, WEEKS))]
        segment = tf.argmax(observation[:, :3], axis=1, output_type=tf.int32)
        return tf.gather_nd(table, tf.stack([segment, *scaled[:2], tf.minimum(scaled[2], WEEKS - 1)], axis=1))

    return act


def timetable(rules):
    """The plan, [G, F, R, W], of a fixed rule (interval, season) for each segment: every so many weeks, counted from
    week 0, write to it if s(week) is at least so much. An interval of 0: never."""
    weeks = np.arange(WEEKS)
    rows = np.array([(weeks % interval == 0) & (season >= least) if interval else 0 * weeks
                     for (interval, least), season in zip(rules, seasons())], np.int32)
    return np.broadcast_to(rows[:, None, None], [len(SEGMENTS), TIRED + 1, RECENT + 1, WEEKS])


def profit(plan):
    """Expected profit of a year under a plan [G, F, R, W], of each segment, [G]; exact."""
    return _expected(_backwards(lambda worth, week: np.take_along_axis(
        worth, np.asarray(plan)[None, ..., week].astype(int), axis=0)[0]))


def best_plan():
    """(the best plan of all, [G, F, R, W], its expected profit of each segment, [G]); by backward induction."""
    plan = np.zeros([len(SEGMENTS), TIRED + 1, RECENT + 1, WEEKS], np.int32)

    def choose(worth, week):
        plan[..., week] = worth[1] > worth[0]
        return worth.max(axis=0)

    values = _backwards(choose)
    return plan, _expected(values)


def best_timetable():
    """(the best fixed rule, out of `RULES` for each segment; its profits, [G])."""
    profits = np.array([profit(timetable([rule] * len(SEGMENTS))) for rule in RULES])
    return tuple(RULES[row] for row in profits.argmax(axis=0)), profits.max(axis=0)


def mean_profit(profits):
    """Expected profit of a customer drawn by the shares, of profits [G]."""
    return float(SHARES @ profits)


def baselines():
    """{name: policy, observation -> action}: to all, to none, the best fixed rule."""
    never, always = (timetable([(interval, 0.0)] * len(SEGMENTS)) for interval in (0, 1))
    return {"send to none": follow(never), "send to all": follow(always),
            "best fixed rule": follow(timetable(best_timetable()[0]))}


def _backwards(choose):
    """Worth of the year from week 0 on, [G, F, R]; choose(worth of both actions [2, G, F, R], week) -> [G, F, R]."""
    chances, stays = purchase_chances(), (1 - leaving_chances())[:, None]
    less, more = (np.clip(np.arange(TIRED + 1) + change, 0, TIRED) for change in (-1, 1))
    later = np.minimum(np.arange(RECENT + 1) + 1, RECENT)
    values = np.zeros(chances.shape[1:-1])
    for week in reversed(range(WEEKS)):
        rested = _RECOVERY * values[:, less] + (1 - _RECOVERY) * values
        ahead = np.stack([rested, stays * values[:, more]])  # by the weeks since a purchase that will have passed
        bought = chances[..., week]
        worth = bought * (BASKETS[:, None, None] + ahead[..., :1]) + (1 - bought) * ahead[..., later]
        worth[1] -= COST
        values = choose(worth, week)
    return values


def _expected(values):
    """Mean [G] over the states that a year begins with, of their worth [G, F, R]."""
    return values[:, :_FIRST_TIRED].mean(axis=(1, 2))


def _draw(state):
    """A customer as text."""
    segment, fatigue, recency, week = (int(part) for part in state)
    since = f"{recency} weeks" if recency < RECENT else f"{RECENT} weeks or more"
    return (f"week {week:2d} {'=' * week}{'.' * (WEEKS - week)}\n"
            f"{SEGMENTS[segment]:8s} fatigue {'#' * fatigue}{'-' * (TIRED - fatigue)}, last purchase {since} ago")
