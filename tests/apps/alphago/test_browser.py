"""The server of the board in the browser: a game over HTTP, the news, and what is refused."""

import contextlib
import http.client
import importlib.resources
import io
import json
import pathlib
import re
import socket
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from apps.alphago.browser import serve
from apps.alphago.go import rules as go
from apps.alphago.go import sgf
from apps.alphago.go.board import Board
from apps.alphago.gtp_client import GtpPlayer
from apps.alphago.players import RandomPlayer
from tests.apps.alphago.scripted import Scripted

RULES = go.Rules(size=5, komi=0.5)
STATIC = importlib.resources.files("apps.alphago") / "static"


@pytest.fixture
def start():
    """Starts servers, and closes them."""
    with contextlib.ExitStack() as stack:
        def begin(*moves, visits=(), rules=RULES, **settings):
            player = Scripted(*moves, visits=visits)
            server = stack.enter_context(serve(player, rules, **{"interval": 0.01, "watch": 0, **settings}))
            stack.callback(player.gate.set)
            return server, player
        yield begin


def ask(server, method, path, content=None, **headers):
    """(status, bytes or the JSON object, headers) of a request."""
    connection = http.client.HTTPConnection("127.0.0.1", int(server.url.split(":")[-1].strip("/")), timeout=30)
    with contextlib.closing(connection):
        if isinstance(content, dict):
            content, headers = json.dumps(content).encode(), {"Content-Type": "application/json", **headers}
        connection.request(method, path, content, {name.replace("_", "-"): value for name, value in headers.items()})
        reply = connection.getresponse()
        received = reply.read()
        kind = reply.headers["Content-Type"]
        return reply.status, json.loads(received) if kind == "application/json" else received, reply.headers


def do(server, name, **fields):
    """A POST request that succeeds."""
    status, reply, _ = ask(server, "POST", f"/api/{name}", fields)
    assert status == 200, reply


def game(server, until=lambda told: True):
    """The game as soon as it is as wanted."""
    for _ in range(300):
        told = ask(server, "GET", "/api/game")[1]
        if until(told):
            return told
        time.sleep(0.02)
    raise AssertionError(told)


def after(number):
    return lambda told: len(told["moves"]) == number and not told["thinking"]


def names(told):
    return [move["move"] for move in told["moves"]]


def test_a_whole_game(start):
    server, player = start("B2", "B3", "pass")
    told = game(server)
    assert told["player"] == player.name and told["turn"] == told["colour"] == "black" and told["sizes"] == [5]
    for number, move in enumerate(("C3", "c2"), 1):
        do(server, "play", move=move, position=told["positions"][-1])
        told = game(server, after(2 * number))
    assert names(told) == ["C3", "B2", "C2", "B3"] and told["turn"] == "black" and "C3" not in told["legal"]
    do(server, "play", move="pass", position=None)
    told = game(server, after(6))
    board = Board(RULES)
    for move in (12, 16, 17, 11, 25, 25):
        board.play(move)
    assert board.score() < 0 and told["result"] == {
        "winner": "white", "points": -board.score(), "text": sgf.result_of(board.score())}
    assert told["owner"] == board.ownership().ravel().tolist()
    status, reply, _ = ask(server, "POST", "/api/play", {"move": "A1", "position": None})
    assert status == 409 and "over" in reply["error"]
    status, content, headers = ask(server, "GET", "/api/game.sgf")
    record = sgf.record_of(sgf.tree_of(content, "game"), "game")
    assert status == 200 and headers["Content-Disposition"] == 'attachment; filename="game.sgf"'
    assert [move for _, move in record.moves] == [12, 16, 17, 11, 25, 25] and record.margin == board.score()
    assert record.names == ("person", player.name) and record.komi == 0.5
    assert player.games == [RULES] and player.seconds == [None] * 3


def test_undo_takes_back_both_moves(start):
    server, _ = start("B2", "B3")
    do(server, "play", move="C3", position=None)
    before = game(server, after(2))
    do(server, "play", move="C2", position=None)
    game(server, after(4))
    do(server, "undo")
    told = game(server, after(2))
    assert names(told) == ["C3", "B2"] and told["positions"] == before["positions"]
    do(server, "undo")
    assert names(game(server)) == []
    status, reply, _ = ask(server, "POST", "/api/undo", {})
    assert status == 400 and "not made a move yet" in reply["error"]


def test_going_back_further(start):
    server, _ = start("B2", "B3")
    for number, move in enumerate(("C3", "C2"), 1):
        do(server, "play", move=move, position=None)
        told = game(server, after(2 * number))
    do(server, "back", position=told["positions"][2])
    assert names(game(server)) == ["C3", "B2"]
    status, reply, _ = ask(server, "POST", "/api/back", {"position": told["positions"][3]})
    assert status == 409 and "taken back" in reply["error"]


@pytest.mark.parametrize("move, status, words", [
    ("C3", 400, "There is a stone on C3 already."), ("Z9", 400, "'Z9' is no point of a board of 5"),
    ("F1", 400, "letter A to E"), ("", 400, "is no point"), ("A6", 400, "1 to 5")])
def test_illegal_moves_change_nothing(start, move, status, words):
    server, _ = start("B2")
    do(server, "play", move="C3", position=None)
    before = game(server, after(2))
    received, reply, _ = ask(server, "POST", "/api/play", {"move": move, "position": None})
    assert received == status and words in reply["error"] and game(server) == before


def test_nobody_waits_for_a_thought(start):
    server, player = start("B2", "D4")
    player.gate.clear()
    do(server, "play", move="C3", position=None)
    told = game(server)
    assert told["thinking"] and told["turn"] == "white"
    status, reply, _ = ask(server, "POST", "/api/play", {"move": "A1", "position": None})
    assert status == 409 and reply["error"] == "It is not your turn."
    do(server, "undo")
    do(server, "play", move="C2", position=None)  # while the player still thinks about C3
    player.gate.set()
    assert names(game(server, after(2))) == ["C2", "D4"]  # B2 was the answer to what was taken back


def test_moves_for_positions_that_are_gone(start):
    server, _ = start("B2")
    first = game(server)["positions"][0]
    do(server, "play", move="C3", position=first)
    game(server, after(2))
    status, reply, _ = ask(server, "POST", "/api/play", {"move": "C2", "position": first})
    assert status == 409 and "gone on" in reply["error"] and len(game(server)["moves"]) == 2


def test_resigning_of_both(start):
    server, _ = start("resign")
    do(server, "play", move="C3", position=None)
    assert game(server, lambda told: told["result"])["result"] == {"winner": "black", "points": None, "text": "B+R"}
    do(server, "undo")
    assert names(game(server)) == [] and game(server)["result"] is None
    do(server, "resign")
    assert game(server)["result"]["text"] == "W+R" and ask(server, "POST", "/api/resign", {})[0] == 409
    assert b"RE[W+R]" in ask(server, "GET", "/api/game.sgf")[1]


def test_the_player_begins_and_seats_change(start):
    server, _ = start("C3", "B2", colour="white")
    assert names(game(server, after(1))) == ["C3"]
    do(server, "seat", colour="both")
    do(server, "play", move="D3", position=None)
    do(server, "play", move="D2", position=None)
    told = game(server)
    assert names(told) == ["C3", "D3", "D2"] and not told["thinking"]
    do(server, "seat", colour="black")
    assert names(game(server, after(4)))[-1] == "B2"
    reply = ask(server, "POST", "/api/seat", {"colour": "green"})[1]
    assert reply["error"] == "The colour must be one of black, white, both; received 'green'."


def test_new_games(start):
    server, player = start("E5", sizes=(5, 9))
    do(server, "play", move="C3", position=None)
    game(server, after(2))
    do(server, "new", size=9, komi=7, colour="white")
    told = game(server, after(1))
    assert (told["size"], told["komi"], told["colour"], names(told)) == (9, 7, "white", ["pass"])
    assert [(rules.size, rules.komi) for rules in player.games] == [(5, 0.5), (9, 7)]
    for fields, words in (({"size": 7}, r"plays on boards of \(5, 9\); received 7"), ({"komi": 0.3}, "one half"),
                          ({"komi": 1e300}, "Komi must be -81 to 81"), ({"colour": ""}, "The colour must be")):
        status, reply, _ = ask(server, "POST", "/api/new", {"size": 9, "komi": 7, "colour": "black", **fields})
        assert status == 400 and re.search(words, reply["error"])
    assert game(server) == told


def test_files_are_loaded_and_written_again(start):
    server, _ = start(sizes=(5, 9))
    content = b"(;SZ[5]KM[0.5]PB[Lee]PW[Alpha]RE[W+R]AB[aa]AW[ee]C[Hello];B[cc];W[dd]C[<b>Hm</b>](;B[])(;B[ab]))"
    kind = {"Content_Type": "application/x-go-sgf"}
    assert ask(server, "POST", "/api/load", content, **kind)[0] == 200
    told = game(server)
    assert names(told) == ["C3", "D2", "pass"] and told["names"] == ["Lee", "Alpha"] and told["colour"] == "both"
    assert told["setup"] == {"black": ["A5"], "white": ["E1"]} and told["result"]["text"] == "W+R"
    assert told["comments"] == {"0": "Hello", "2": "<b>Hm</b>"} and not told["thinking"]
    again = sgf.record_of(sgf.tree_of(ask(server, "GET", "/api/game.sgf")[1], "x"), "x")
    first = sgf.record_of(sgf.tree_of(content, "x"), "x")
    assert (again.moves, again.names, again.margin, again.comments) == (
        first.moves, first.names, first.margin, first.comments)
    for content, words in ((b"Hello", "The file is not a game of Go"), (b"(;SZ[19])", "the file has 19"),
                           (b"(;SZ[5]KM[0.5];B[aa];W[aa])", "Move 2 of the file, white: There is a stone on A5"),
                           (b"(;SZ[5]KM[0.3])", "one half"), (b"", "not a game")):
        status, reply, _ = ask(server, "POST", "/api/load", content, **kind)
        assert status == 400 and words in reply["error"]
    assert game(server) == told


def events(server, until, act=lambda: None, kinds=("game", "analysis")):
    """Events of these kinds as (name, JSON), up to one that is wanted; `act` is called after the first event of all.

    Changes soon after one another may be told as one: there is no counting them.
    """
    connection = http.client.HTTPConnection("127.0.0.1", int(server.url.split(":")[-1].strip("/")), timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", "/api/events")
        reply = connection.getresponse()
        assert reply.status == 200 and reply.headers["Content-Type"] == "text/event-stream"
        found, is_first, name = [], True, ""
        while not (found and until(found[-1][1])):
            line = reply.readline().decode()
            assert line, "the stream ended"
            if line.startswith("event: "):
                name = line[7:].strip()
            elif line.startswith("data: "):
                if name in kinds:
                    found.append((name, json.loads(line[6:])))
                if is_first:
                    is_first = False
                    act()
        return found


def test_the_stream_tells_how_a_search_goes_on(start):
    server, player = start(visits=(10, 20, 40))
    found = events(server, lambda told: told["visits"] == 43,
                   lambda: do(server, "analyse", on=True, position=None), kinds=("analysis",))
    position = game(server)["positions"][0]
    assert {told["position"] for _, told in found} == {position}
    last = found[-1][1]
    assert last["visits"] == 43 and last["rate"] == 0.4 and last["turn"] == "black"
    assert last["candidates"][0] == {
        "move": "A5", "visits": 40, "rate": 0.4, "prior": 0.6, "line": ["A5", "pass", "B5"]}
    assert ask(server, "GET", f"/api/analysis?position={position}")[1] == last
    assert game(server, lambda told: player.ended)["rates"] == {"0": 0.4} and player.ended == 1
    assert ask(server, "GET", "/api/analysis?position=0")[1] is None
    assert ask(server, "GET", "/api/analysis?position=x")[0] == 400


def test_analysis_follows_the_game_and_can_stay(start):
    server, player = start("B2", "B3", visits=(10,) * 5)
    do(server, "analyse", on=True, position=None)
    game(server, lambda told: told["rates"])
    do(server, "play", move="C3", position=None)
    told = game(server, lambda told: told["rates"].get("2") == 0.1)  # until it was analysed: 0, what white thought
    assert told["rates"] == {"0": 0.1, "1": 0.0, "2": 0.1}
    do(server, "analyse", on=True, position=told["positions"][1])
    game(server, lambda told: told["rates"]["1"] == 0.9)
    do(server, "play", move="C2", position=None)
    assert game(server, after(4))["analysing"] == {"on": True, "position": told["positions"][1]}
    do(server, "analyse", on=False, position=None)
    time.sleep(0.3)  # the last stream may have been about to begin
    game(server, lambda told: len(player.asked) == player.ended)
    number = len(player.asked)
    time.sleep(0.1)
    assert len(player.asked) == number == player.ended and player.asked[:2] == [0, 2]


def test_the_search_is_shown_before_the_player_moves(start):
    server, player = start("B2", visits=(10, 20, 20, 30), watch=5, seconds=100)
    player.gate.clear()

    def until(told):
        player.gate.set()  # it chooses only after an analysis has been told
        return told["visits"] == 103

    found = events(server, until, lambda: do(server, "play", move="C3", position=None), kinds=("analysis",))
    visits = [told["visits"] for _, told in found]  # 20 again: nothing new, so it chooses
    assert visits == sorted(visits) and 1 < len(visits) and set(visits) <= {13, 23, 103}
    assert found[0][1]["rate"] == 0.9 and found[0][1]["turn"] == "white"
    told = game(server, lambda told: after(2)(told) and player.ended)
    assert told["rates"] == {"1": 0.0, "2": 0.0} and player.ended == 1 and 90 < player.seconds[0] <= 100


def test_all_pages_see_the_same(start):
    server, _ = start("B2")
    seen, all_look = [], threading.Barrier(3)
    threads = [threading.Thread(target=lambda: seen.append(
        events(server, after(2), lambda: all_look.wait(30), ("game",))))
               for _ in range(2)]
    for thread in threads:
        thread.start()
    all_look.wait(30)
    do(server, "play", move="C3", position=None)
    for thread in threads:
        thread.join(30)
    assert len(seen) == 2 and all(len(found[0][1]["moves"]) == 0 for found in seen)
    assert all(names(found[-1][1]) == ["C3", "B2"] for found in seen)


@pytest.mark.parametrize("failure, words", [
    (RuntimeError("out of memory"), "RuntimeError: out of memory"),
    ("C3", "ValueError: scripted <i>&amp; chose an illegal move. There is a stone on C3 already.")])
def test_failures_of_the_player_are_told(start, failure, words):
    server, _ = start(failure, "B2")
    do(server, "play", move="C3", position=None)
    told = game(server, lambda told: told["error"])
    assert told["error"] == words and not told["thinking"] and names(told) == ["C3"]
    do(server, "retry")
    told = game(server, after(2))
    assert names(told) == ["C3", "B2"] and told["error"] is None


def test_failures_of_an_analysis_are_told(start):
    server, player = start(visits=(10, RuntimeError("no such network")))
    do(server, "analyse", on=True, position=None)
    told = game(server, lambda told: told["error"] and player.ended)
    assert told["error"] == "RuntimeError: no such network" and told["rates"] == {"0": 0.1} and player.ended == 1
    do(server, "play", move="C3", position=None)
    assert names(game(server, lambda told: len(told["moves"]) == 2)) == ["C3", "pass"]


def test_rates_that_are_none_are_told_as_a_failure(start):
    server, _ = start(visits=(200,))
    do(server, "analyse", on=True, position=None)
    assert "must be 0 to 1; received 2" in game(server, lambda told: told["error"])["error"]


JSON = {"Content_Type": "application/json"}
PLAY = b'{"move": "C3", "position": null}'


@pytest.mark.parametrize("path, content, headers, status, words", [
    ("/api/play", b"{", JSON, 400, "not JSON"), ("/api/play", b"\xff\xfe", JSON, 400, "not JSON"),
    ("/api/play", b"[" * 4000, JSON, 400, "not JSON"), ("/api/play", b"[]", JSON, 400, "received: list"),
    ("/api/play", b'"C3"', JSON, 400, "received: str"), ("/api/play", b"{}", JSON, 400, "position; received: none"),
    ("/api/play", b'{"move": "C3"}', JSON, 400, "received: move"), ("/api/play", b"", JSON, 400, "not JSON"),
    ("/api/play", b'{"move": 12, "position": null}', JSON, 400, "move must be str; received 12"),
    ("/api/play", b'{"move": "C3", "position": true}', JSON, 400, "position must be int or NoneType; received True"),
    ("/api/play", b'{"move": "C3", "position": null, "x": 1}', JSON, 400, "received: move, position, x"),
    ("/api/play", PLAY.replace(b"null", b"NaN"), JSON, 400, "NaN is no number"),
    ("/api/play", PLAY.replace(b"null", b"9" * 4000), JSON, 409, "gone on"),
    ("/api/play", PLAY, {"Content_Type": "text/plain"}, 415, "must be application/json; received text/plain"),
    ("/api/play", PLAY, {}, 415, "received nothing"), ("/api/play", PLAY + b" " * 4096, JSON, 413, "4096 bytes"),
    ("/api/load", b"(;SZ[5])", JSON, 415, "application/x-go-sgf"),
    ("/api/load", b" " * (2**20 + 1), {"Content_Type": "application/x-go-sgf"}, 413, "1048576 bytes"),
    ("/api/play", PLAY, {**JSON, "Content_Length": "-1"}, 411, "received -1"),
    ("/api/play", PLAY, {**JSON, "Content_Length": "x"}, 411, "received x"),
    ("/api/play", PLAY, {**JSON, "Content_Length": "9" * 30}, 413, "9999"),
    ("/api/play", PLAY, {**JSON, "Transfer_Encoding": "chunked"}, 411, "Content-Length"),
    ("/api/play", PLAY, {**JSON, "Host": "evil.example"}, 403, "received evil.example"),
    ("/api/play", PLAY, {**JSON, "Host": "127.0.0.1.evil.example:80"}, 403, "Host must be"),
    ("/api/play", PLAY, {**JSON, "Host": ""}, 403, "Host must be"),
    ("/api/play", PLAY, {**JSON, "Origin": "http://evil.example"}, 403, "Origin is http://evil.example"),
    ("/api/play", PLAY, {**JSON, "Origin": "null"}, 403, "Origin is null"),
    ("/api/play", PLAY, {**JSON, "Origin": "http://127.0.0.1:1"}, 403, "Requests must come from"),
    ("/api/play", PLAY, {**JSON, "Sec_Fetch_Site": "cross-site"}, 403, "other sites"),
    ("/api/game", PLAY, JSON, 404, "Nothing takes POST requests at /api/game"), ("/", PLAY, JSON, 404, "Nothing takes"),
])
def test_bad_requests(start, path, content, headers, status, words):
    server, _ = start()
    received, reply, _ = ask(server, "POST", path, content, **headers)
    assert (received, game(server)["moves"]) == (status, []) and words in reply["error"]


@pytest.mark.parametrize("path, headers, status", [
    ("/api/game", {"Host": "evil.example"}, 403), ("/", {"Host": "evil.example"}, 403),
    ("/api/events", {"Origin": "http://evil.example"}, 403), ("/api/game", {"Sec_Fetch_Site": "same-site"}, 403),
    ("/board.js", {"Sec_Fetch_Site": "cross-site"}, 403), ("/", {"Sec_Fetch_Site": "cross-site"}, 200),
    ("/api/play", {}, 405), ("/api/load", {}, 405), ("/nothing", {}, 404), ("/../browser.py", {}, 404),
    ("/static/board.html", {}, 404), ("//[", {}, 404), ("/api/board.svg?position=7", {}, 400)])
def test_what_may_be_read(start, path, headers, status):
    server, _ = start()
    received, reply, _ = ask(server, "GET", path, **headers)
    assert received == status and (status == 200 or reply["error"])


def test_the_page_may_do_what_others_may_not(start):
    server, _ = start("B2")
    for host in (server.url[7:-1], server.url[7:-1].replace("127.0.0.1", "localhost"), "localhost:1234"):
        headers = {"Host": host, "Origin": f"http://{host}", "Sec_Fetch_Site": "same-origin"}
        assert ask(server, "POST", "/api/undo", {}, **headers)[1]["error"].startswith("You have not made a move")


def test_the_page_needs_nothing_from_elsewhere(start):
    server, _ = start()
    for file in STATIC.iterdir():
        path = "/" if file.name == "board.html" else f"/{file.name}"
        status, content, headers = ask(server, "GET", path)
        assert status == 200 and content == file.read_bytes(), f"{file.name} is not served"
        assert "default-src 'none'" in headers["Content-Security-Policy"] and headers["Cache-Control"] == "no-store"
        elsewhere = set(re.findall(r"https?://[^\"'\s]*|(?<=[\"'(])//[^\"'\s]*", content.decode()))
        assert elsewhere <= {"http://www.w3.org/2000/svg"}, f"{file.name} names {elsewhere}"
        assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|\beval\(", content.decode()), file.name


def test_pictures(start):
    server, _ = start("B2")
    do(server, "play", move="C3", position=None)
    told = game(server, after(2))
    status, content, headers = ask(server, "GET", f"/api/board.svg?position={told['positions'][1]}")
    assert status == 200 and headers["Content-Type"] == "image/svg+xml" and content.count(b"url(#black)") == 1
    assert b"url(#white)" not in content
    plain, numbered = (ask(server, "GET", f"/api/board.png{query}")[1] for query in ("", "?numbers=1"))
    assert np.asarray(Image.open(io.BytesIO(plain))).shape == (800, 800, 3) and plain != numbered


def test_too_many_streams_are_refused(start):
    server, _ = start()
    port = int(server.url.split(":")[-1].strip("/"))
    with contextlib.ExitStack() as stack:
        for _ in range(32):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            stack.callback(connection.close)
            connection.request("GET", "/api/events")
            assert connection.getresponse().status == 200
        assert ask(server, "GET", "/api/events")[0] == 503
        assert game(server)["moves"] == []


def test_closing_ends_streams_and_the_port_is_free_again():
    player = Scripted()
    server = serve(player, RULES, watch=0)
    port = int(server.url.split(":")[-1].strip("/"))
    with pytest.raises(OSError, match=f"Port {port} of 127.0.0.1 cannot be used"):
        serve(player, RULES, port=port)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/api/events")
    reply = connection.getresponse()
    assert reply.readline() == b"event: game\n"
    waiting = threading.Thread(target=server.wait)
    waiting.start()
    server.close()
    waiting.join(30)
    assert not waiting.is_alive() and reply.read().startswith(b"data: {")
    assert "player" not in [thread.name for thread in threading.enumerate()]
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    with serve(player, RULES, port=port) as again:
        assert again.url == server.url


@pytest.mark.parametrize("settings, words", [
    ({"sizes": (9,)}, r"boards of \(9,\); received 5"), ({"colour": "red"}, "received 'red'"),
    ({"interval": 0}, "interval 0"), ({"seconds": 0}, "seconds 0"), ({"watch": -1}, "watch -1")])
def test_settings_out_of_range(settings, words):
    with pytest.raises(ValueError, match=words):
        serve(Scripted(), RULES, **settings)


def test_a_game_against_a_program_that_cannot_analyse():
    command = [sys.executable, "-S", str(pathlib.Path(__file__).with_name("fake_gtp.py")), '{"moves": ["B2"]}']
    with contextlib.closing(GtpPlayer(command, timeout=20)) as player, serve(player, RULES) as server:
        do(server, "play", move="C3", position=None)
        assert names(game(server, after(2))) == ["C3", "B2"]
        do(server, "analyse", on=True, position=None)
        assert "cannot analyse" in str(game(server, lambda told: "cannot analyse" in str(told)))


def test_a_game_against_the_random_player_and_its_thoughts():
    with serve(RandomPlayer(), RULES, watch=0.2, interval=0.05) as server:
        do(server, "play", move="C3", position=None)
        told = game(server, after(2))
        assert len(told["moves"]) == 2 and told["rates"] == {"1": 0.5}
        do(server, "analyse", on=True, position=None)
        told = game(server, lambda told: "2" in told["rates"])
        found = ask(server, "GET", f"/api/analysis?position={told['positions'][2]}")[1]
        assert len(found["candidates"]) == 23 and found["visits"] == 0
