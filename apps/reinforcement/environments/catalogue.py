"""Every environment by name."""

from apps.reinforcement.environments import campaign_mail, gym, traffic_light
from apps.reinforcement.environments.acrobot import acrobot
from apps.reinforcement.environments.advertising import advertising
from apps.reinforcement.environments.cart_pole import cart_pole
from apps.reinforcement.environments.gambler import gambler
from apps.reinforcement.environments.grid_world import cliff_walk, grid_world
from apps.reinforcement.environments.mountain_car import mountain_car, mountain_car_continuous
from apps.reinforcement.environments.pendulum import pendulum
from apps.reinforcement.environments.shortest_path import shortest_path
from layers.checking import unknown_name

ENVIRONMENTS = {
    "acrobot": acrobot,
    "advertising": advertising,
    "campaign_mail": campaign_mail.campaign_mail,
    "cart_pole": cart_pole,
    "cliff_walk": cliff_walk,
    "gambler": gambler,
    "grid_world": grid_world,
    "mountain_car": mountain_car,
    "mountain_car_continuous": mountain_car_continuous,
    "pendulum": pendulum,
    "shortest_path": shortest_path,
    "traffic_light": traffic_light.traffic_light,
}
# What anybody would try first: () -> {name: policy, observation -> action}.
BASELINES = {"campaign_mail": campaign_mail.baselines, "traffic_light": traffic_light.baselines}


def make(name):
    """The environment of that name.

    Args:
        name: of `ENVIRONMENTS`, or "gym:Name" for one of gymnasium's.

    Returns:
        `Environment`, which compiles; for "gym:Name" a `gym.GymEnvironment`, whose `open(batch, seed)` gives an object
        with `reset()` and `step(action)`.

    Raises:
        ValueError: there is none of that name, or gymnasium is not installed.
    """
    if name.startswith(gym.PREFIX):
        return gym.GymEnvironment(name)
    if name not in ENVIRONMENTS:
        raise unknown_name("environment", name, [*ENVIRONMENTS, f"{gym.PREFIX}Name"])
    return ENVIRONMENTS[name]()
