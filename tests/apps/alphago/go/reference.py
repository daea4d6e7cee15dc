"""Go as a beginner would program it: a dictionary of stones, chains by flood fill. Slow, and plain to see."""


class Board:
    """One game. Points are (row, column); `turn` is +1 for black, -1 for white."""

    def __init__(self, size, *, superko=False, suicide=False):
        self.size, self.superko, self.suicide = size, superko, suicide
        self.stones, self.turn, self.passes = {}, 1, 0
        self.positions, self.ko, self.prisoners = [frozenset()], None, {1: 0, -1: 0}

    def neighbours(self, point):
        row, column = point
        around = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
        return [(r, c) for r, c in around if 0 <= r < self.size and 0 <= c < self.size]

    def chain(self, point, stones):
        """(stones of the chain of a point, its liberties)."""
        chain, liberties, to_see = {point}, set(), [point]
        while to_see:
            for other in self.neighbours(to_see.pop()):
                if other not in stones:
                    liberties.add(other)
                elif stones[other] == stones[point] and other not in chain:
                    chain.add(other)
                    to_see.append(other)
        return chain, liberties

    def after(self, point):
        """(stones after a move at an empty point, prey, own stones lost)."""
        stones = {**self.stones, point: self.turn}
        prey, lost = set(), set()
        for other in self.neighbours(point):
            if stones.get(other) == -self.turn:
                chain, liberties = self.chain(other, stones)
                prey |= set() if liberties else chain
        for other in prey:
            del stones[other]
        chain, liberties = self.chain(point, stones)
        if not liberties:
            lost = chain
            for other in lost:
                del stones[other]
        return stones, prey, lost

    def is_legal(self, point):
        if point in self.stones or point == self.ko:
            return False
        stones, _, lost = self.after(point)
        if lost and (not self.suicide or len(lost) == 1):
            return False
        return not (self.superko and frozenset(stones.items()) in self.positions)

    def legal(self):
        return {(r, c) for r in range(self.size) for c in range(self.size) if self.is_legal((r, c))}

    def play(self, point):
        """A legal move; None passes."""
        self.ko = None
        if point is None:
            self.passes += 1
        else:
            self.passes = 0
            self.stones, prey, lost = self.after(point)
            self.prisoners[self.turn] += len(prey)
            self.prisoners[-self.turn] += len(lost)
            if not lost:
                chain, liberties = self.chain(point, self.stones)
                if len(prey) == 1 and len(chain) == 1 and len(liberties) == 1:
                    self.ko = next(iter(prey))
        self.positions.append(frozenset(self.stones.items()))
        self.turn = -self.turn

    def area(self):
        """Points of black less those of white."""
        total, seen = sum(self.stones.values()), set()
        for start in ((r, c) for r in range(self.size) for c in range(self.size)):
            if start in self.stones or start in seen:
                continue
            region, colours, to_see = {start}, set(), [start]
            while to_see:
                for other in self.neighbours(to_see.pop()):
                    if other in self.stones:
                        colours.add(self.stones[other])
                    elif other not in region:
                        region.add(other)
                        to_see.append(other)
            seen |= region
            total += len(region) * colours.pop() if len(colours) == 1 else 0
        return total
