"""A board in the browser: `serve(player, rules)` starts a server on this machine, whose page plays against the player.

The page (`static/`) shows what the player thinks, plays, and loads and saves games. There is one game, which all tabs
see; it lives in `table.Table`. Requests of other pages are refused (`local_http.py`).
"""

import functools
import importlib.resources
import threading

from apps.alphago.go import pictures, sgf
from apps.alphago.local_http import SGF, Handler, Refused, Server
from apps.alphago.table import Conflict, Table

_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_STATIC = {"/": "board.html", **{f"/{name}": name for name in (
    "board.css", "board.js", "drawing.js", "graph.js", "icon.svg", "panels.js", "server.js")}}
_OPTIONAL = (int, type(None))
_CALLS = {  # path of a POST request: (method of the table, {key of its JSON object: types})
    "/api/play": (Table.play, {"move": (str,), "position": _OPTIONAL}), "/api/resign": (Table.resign, {}),
    "/api/undo": (Table.undo, {}), "/api/back": (Table.back, {"position": (int,)}),
    "/api/new": (Table.new, {"size": (int,), "komi": (int, float), "colour": (str,)}),
    "/api/seat": (Table.seat, {"colour": (str,)}), "/api/retry": (Table.retry, {}),
    "/api/analyse": (Table.analyse, {"on": (bool,), "position": _OPTIONAL})}
_STREAMS = 32  # that may be open at a time
_HEARTBEAT = 15  # seconds after which a stream without news says that it is alive
_PIXELS = 800  # of pictures


class BoardServer:
    """A running server; as a context, it is closed at the end.

    Args:
        table: `Table`.
        port: of 127.0.0.1; 0: any that is free.

    Attributes:
        url: of the page.
        table: see there.

    Raises:
        OSError: the port is taken.
    """

    def __init__(self, table, port=0):
        self.table = table
        streams = threading.BoundedSemaphore(_STREAMS)
        try:
            self._server = Server(("127.0.0.1", port), functools.partial(_Handler, table, streams))
        except OSError as error:
            table.close()
            raise OSError(error.errno, f"Port {port} of 127.0.0.1 cannot be used: {error.strerror}. 0 takes any that "
                                       "is free") from error
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="board", daemon=True)
        self._thread.start()

    def wait(self):
        """Returns when the server has been closed, from another thread; or raises KeyboardInterrupt."""
        self._thread.join()

    def close(self):
        """Ends the server, its streams, and the player's thread as soon as it has finished its thought."""
        self.table.close()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def serve(player, rules, *, port=0, **settings):
    """Starts a board in the browser and returns at once.

        with serve(player, rules) as server:
            print(server.url)
            server.wait()

    Args:
        player: see `players`.
        rules: `Rules` of the first game.
        port: of 127.0.0.1; 0: any that is free.
        **settings: sizes, colour, seconds, interval and watch of `Table`.

    Returns:
        `BoardServer`.

    Raises:
        OSError: the port is taken.
        ValueError: a setting is out of range.
    """
    return BoardServer(Table(player, rules, **settings), port)


class _Handler(Handler):
    """What the page asks for.

    GET: the page's files; /api/game, /api/analysis?position=, /api/events: JSON; /api/game.sgf; /api/board.svg and
    /api/board.png, both with ?position= and ?numbers=1. POST: `_CALLS`, and /api/load with an SGF file.
    """

    def __init__(self, table, streams, *arguments):
        self._table, self._streams = table, streams
        super().__init__(*arguments)

    def get(self, path, query):
        """See `Handler`."""
        if path in _STATIC:
            name = _STATIC[path]
            content = (importlib.resources.files("apps.alphago") / "static" / name).read_bytes()
            self.send(content, f"{_KINDS[name.rpartition('.')[2]]}; charset=utf-8")
        elif path == "/api/events":
            self._stream()
        elif path == "/api/game":
            self.send(next(content for _, name, content in self._table.news() if name == "game").encode())
        elif path == "/api/analysis":
            self.send(self._table.analysis(_position(query)).encode())
        elif path == "/api/game.sgf":
            self.send(sgf.write(self._table.record()), SGF, file="game.sgf")
        elif path == "/api/board.svg":
            self.send(pictures.svg(self._picture(query), _PIXELS).encode(), "image/svg+xml", file="board.svg")
        elif path == "/api/board.png":
            self.send(pictures.png(self._picture(query), _PIXELS), "image/png", file="board.png")
        elif path in _CALLS or path == "/api/load":
            raise Refused(405, f"{path} takes POST requests.")
        else:
            raise Refused(404, f"There is nothing at {path}.")

    def post(self, path):
        """See `Handler`."""
        try:
            if path == "/api/load":
                self._table.load(self.body(SGF))
            elif path in _CALLS:
                call, types = _CALLS[path]
                call(self._table, **self.fields(types))
            else:
                raise Refused(404, f"Nothing takes POST requests at {path}.")
        except Conflict as error:
            raise Refused(409, str(error)) from error
        self.send(b"{}")

    def _picture(self, query):
        return pictures.of_board(self._table.board(_position(query)), numbers="numbers" in query)

    def _stream(self):
        """The game and what the player thinks, as events, until one of the sides closes."""
        if not self._streams.acquire(blocking=False):
            raise Refused(503, f"{_STREAMS} pages watch this game already. Close one of them.")
        try:
            self.begin_stream()
            seen = -1
            while not self._table.is_closed:
                news = self._table.news(seen, _HEARTBEAT)
                for serial, name, content in news:
                    self.wfile.write(f"event: {name}\ndata: {content}\n\n".encode())
                    seen = serial
                if not news:
                    self.wfile.write(b": nothing new\n\n")
        finally:
            self._streams.release()


def _position(query):
    """The number in a query, or None."""
    value = query.get("position")
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) < 16):
        raise ValueError(f"A position must be a number; received {value!r}.")
    return int(value)
