"""Requests to a server on this machine that only its own page, and programs, may make.

Any page that is open in the same browser can send requests to 127.0.0.1. They are refused unless they come from this
server's page: `Host` must name this machine (another name that leads here is an attack by DNS), `Origin` must be this
server, and what a POST request contains must be of a kind for which browsers ask the server first, which never agrees.
"""

import http.server
import json
import logging
import socket
import sys
import time
import urllib.parse

JSON, SGF = "application/json", "application/x-go-sgf"
_LIMITS = {JSON: 4096, SGF: 2**20}  # bytes of a request
_HOSTS = ("127.0.0.1", "localhost")
_HEADERS = {
    "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
                               "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"}


class Refused(Exception):
    """A request that is answered with a status and a message."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class Server(http.server.ThreadingHTTPServer):
    """A thread for every connection; none keeps the program from ending."""

    daemon_threads = True

    def handle_error(self, request, client_address):
        """Into the log, unless the other side has gone."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            logging.exception("A request of %s failed.", client_address)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET requests by `get(path, query)` and POST requests by `post(path)`, of subclasses.

    These raise `Refused`, or ValueError for a mistake of the caller, whose message is answered as {"error": message}.
    """

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "usagi", ""
    timeout = 60  # seconds that a client may keep a read or a write waiting

    def do_GET(self):
        """Called by http.server."""
        self._answer(lambda url: self.get(url.path, dict(urllib.parse.parse_qsl(url.query))))

    def do_POST(self):
        """Called by http.server."""
        self._answer(lambda url: self.post(url.path))

    def log_message(self, format, *arguments):
        """Requests are not worth a line on the terminal."""
        logging.debug(format, *arguments)

    def send(self, content, kind=JSON, status=200, file=None):
        """Answers with bytes; `file` is a name under which browsers save them."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if file:
            self.send_header("Content-Disposition", f'attachment; filename="{file}"')
        self._end_headers()
        self.wfile.write(content)

    def begin_stream(self):
        """Begins an answer of server-sent events, which ends with the connection."""
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self._end_headers()

    def body(self, kind):
        """What a request contains, in bytes.

        Raises:
            Refused: it is of another kind, too long, or of unknown length.
        """
        received = (self.headers.get("Content-Type") or "nothing").partition(";")[0].strip().lower()
        if received != kind:
            raise Refused(415, f"The header Content-Type must be {kind}; received {received}.")
        length = self.headers.get("Content-Length") or ""
        if not (length.isascii() and length.isdigit()) or "Transfer-Encoding" in self.headers:
            raise Refused(411, f"The header Content-Length must be a number; received {length or 'none'}.")
        if len(length) > 9 or int(length) > _LIMITS[kind]:
            raise Refused(413, f"A request may have {_LIMITS[kind]} bytes; received {length}.")
        content, self._is_read = self.rfile.read(int(length)), True
        if len(content) < int(length):
            raise Refused(400, f"The request ends after {len(content)} of {length} bytes.")
        return content

    def fields(self, types):
        """The JSON object of a request.

        Args:
            types: {key: tuple of the types that its value may have}; all keys must be there, and no others.

        Raises:
            Refused: it is not such an object.
        """
        try:
            values = json.loads(self.body(JSON), parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise Refused(400, f"The request is not JSON: {error}.") from error
        if not isinstance(values, dict) or values.keys() != types.keys():
            received = ", ".join(sorted(values)) if isinstance(values, dict) else type(values).__name__
            raise Refused(400, f"Expected a JSON object with the keys: {', '.join(types) or 'none'}; received: "
                               f"{received or 'none'}.")
        for key, value in values.items():
            if type(value) not in types[key]:  # isinstance would take True for a number
                names = " or ".join(cls.__name__ for cls in types[key])
                raise Refused(400, f"{key} must be {names}; received {value!r}.")
        return values

    def _answer(self, method):
        self._is_read = self.command == "GET"
        try:
            self._check_source()
            method(urllib.parse.urlsplit(self.path))
        except Refused as error:
            self._refuse(error.status, error)
        except ValueError as error:
            self._refuse(400, error)
        except (ConnectionError, TimeoutError):
            self.close_connection = True  # the other side has gone
        except Exception as error:
            logging.exception("%s failed.", self.requestline)
            self._refuse(500, f"{type(error).__name__}: {error}")

    def _refuse(self, status, error):
        self.close_connection = True
        try:
            self.send(json.dumps({"error": str(error)}).encode(), status=status)
            if not self._is_read:
                self._drain()
        except OSError:
            pass  # the other side has gone

    def _drain(self):
        """Reads on for a while: who is cut off while still sending never sees the answer."""
        self.connection.shutdown(socket.SHUT_WR)
        self.connection.settimeout(1)
        until = time.monotonic() + 5
        while time.monotonic() < until and self.rfile.read1(2**16):
            pass

    def _check_source(self):
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or hosts[0].partition(":")[0] not in _HOSTS:
            raise Refused(403, "The header Host must be 127.0.0.1 or localhost; received "
                               f"{', '.join(hosts) or 'none'}.")
        origin = self.headers.get("Origin")
        if origin is not None and origin != f"http://{hosts[0]}":
            raise Refused(403, f"Requests must come from http://{hosts[0]}; the header Origin is {origin}.")
        if self.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none") and self.path != "/":
            raise Refused(403, "Requests that pages of other sites make are refused (header Sec-Fetch-Site).")

    def _end_headers(self):
        if self.close_connection:
            self.send_header("Connection", "close")
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()


def _no_number(name):
    raise ValueError(f"{name} is no number")
