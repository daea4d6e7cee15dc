"""A game against a player, line by line in a terminal."""

from apps.alphago.go import rules as go
from apps.alphago.go import sgf, text
from apps.alphago.go.board import Board
from apps.alphago.players import RESIGN

HELP = """D4      plays there                     undo    takes your last move back
pass    passes                          hint    what the player would do
resign  gives up                        save FILE    writes the game as SGF
quit    ends the program                help    shows this"""
_SIDES = {go.BLACK: "Black", go.WHITE: "White"}


class Terminal:
    """A person against a player.

    Args:
        player: of `players`' protocol.
        rules: `Rules`.
        person: the person's colour, +1 or -1.
        seconds: that the player may take for a move, or None.
        read: () -> the next line; raises EOFError at the end.
        write: function that shows text.
    """

    def __init__(self, player, rules, person, *, seconds=None, read=input, write=print):
        self._player, self._person, self._seconds, self._read, self._write = player, person, seconds, read, write
        self.board, self._loser = Board(rules), 0

    def run(self):
        """Plays until the game is over, or the person has had enough."""
        self._player.begin(self.board.rules)
        self._write(f"You are {_SIDES[self._person].lower()}. Type help for what can be typed.")
        while not self.board.is_over and not self._loser:
            if self.board.turn == self._person:
                self._show()
                try:
                    line = self._read().strip()
                except EOFError:
                    return
                if line.lower() == "quit":
                    return
                self._obey(line)
            else:
                self._answer()
        self._show()
        self._write(self._result())

    def _obey(self, line):
        word, _, rest = line.partition(" ")
        commands = {"undo": self._undo, "hint": self._hint, "help": lambda: self._write(HELP),
                    "resign": self._resign, "save": lambda: self._save(rest.strip()), "": lambda: None}
        try:
            if word.lower() in commands:
                commands[word.lower()]()
            else:
                self.board.play(text.move_of(line, self.board.rules.size))
        except (ValueError, OSError) as error:
            self._write(str(error))

    def _answer(self):
        choice = self._player.choose(self.board, self._seconds)
        if choice.move == RESIGN:
            self._loser = -self._person
            return
        side = _SIDES[self.board.turn]
        self.board.play(choice.move)
        told = "" if choice.analysis is None else f" ({choice.analysis.win_rate:.0%} for {side.lower()}, " \
                                                  f"{choice.analysis.visits} visits)"
        self._write(f"{side} plays {text.name_of(choice.move, self.board.rules.size)}{told}")

    def _undo(self):
        if all(colour != self._person for colour, _ in self.board.moves):
            raise ValueError("You have made no move yet.")
        self.board.undo()
        while self.board.turn != self._person:
            self.board.undo()

    def _hint(self):
        choice = self._player.choose(self.board, self._seconds)
        name = "resign" if choice.move == RESIGN else text.name_of(choice.move, self.board.rules.size)
        self._write(f"{self._player.name} would play {name}")

    def _resign(self):
        self._loser = self._person

    def _save(self, name):
        if not name:
            raise ValueError("save needs a file's name, as in: save game.sgf")
        with open(name, "wb") as file:
            file.write(sgf.write(self.board.record()))
        self._write(f"The game is in {name}")

    def _show(self):
        last = self.board.moves[-1][1] if self.board.moves else None
        lines = text.show(self.board.stones).splitlines()
        if last is not None and last < self.board.rules.num_points:
            row, column = divmod(last, self.board.rules.size)
            place, line = 3 + 2 * column, lines[1 + row]
            lines[1 + row] = f"{line[:place - 1]}({line[place]}){line[place + 2:]}"
        black, white = self.board.prisoners
        self._write("\n".join([*lines, f"move {len(self.board.moves) + 1}, taken: black {black}, white {white}"]))

    def _result(self):
        if self._loser:
            return f"{_SIDES[-self._loser]} wins: {_SIDES[self._loser].lower()} resigned."
        margin = self.board.score()
        if not margin:
            return "The game is drawn."
        winner = _SIDES[go.BLACK if margin > 0 else go.WHITE]
        return f"{winner} wins by {abs(margin):g} points, with every stone on the board alive."
