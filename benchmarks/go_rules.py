"""The rules of Go against open_spiel's, over many random games of each size.

    python -m benchmarks.go_rules [--games=2000] [--sizes=5,9,13,19]

Every legal move, every stone after every move, and the winner of every game that ends by passes or length; a difference
ends the program. Simple ko, komi 7.5.
"""

import argparse
import time

from benchmarks import common
from tests.apps.alphago.go import spiel

BATCH = 100  # games at a time


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--games", type=int, default=2000)
    parser.add_argument("--sizes", default="5,9,13,19")
    options = parser.parse_args()
    for size in map(int, options.sizes.split(",")):
        began, found = time.monotonic(), []
        for first in range(0, options.games, BATCH):
            found.append(spiel.compare(size, min(BATCH, options.games - first), seed=first))
            print(f"{size}x{size}: {first + BATCH} games, {sum(part.positions for part in found):,} positions alike, "
                  f"{time.monotonic() - began:.0f} s", flush=True)
        common.write("go_rules", [{
            "size": size, "games": options.games, "positions": sum(part.positions for part in found),
            "winners": sum(part.judged for part in found), "differences": 0}], key="size")


if __name__ == "__main__":
    main()
