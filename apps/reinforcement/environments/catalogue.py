"""Every environment by name."""

from apps.reinforcement.environments.cart_pole import cart_pole
from apps.reinforcement.environments.shortest_path import shortest_path
from layers.checking import unknown_name

ENVIRONMENTS = {
    "cart_pole": cart_pole,
    "shortest_path": shortest_path,
}


def make(name):
    """The environment of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in ENVIRONMENTS:
        raise unknown_name("environment", name, ENVIRONMENTS)
    return ENVIRONMENTS[name]()
