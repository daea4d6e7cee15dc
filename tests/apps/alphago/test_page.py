"""The page of the board in the browser, in a browser: clicks and keys, and what is seen after them."""

import pytest

from apps.alphago.browser import serve
from apps.alphago.go import rules as go
from tests import chromium
from tests.apps.alphago.scripted import Scripted

pytestmark = pytest.mark.skipif(chromium.PROGRAM is None, reason="no Chromium is installed")
RULES = go.Rules(size=5, komi=0.5)
SIDE, EDGE, CELL = 248, 44, 40  # of the drawing of a board of 5, in its units


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium.Page(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture
def page(browser):
    """The browser, in which nothing may fail but what a test expects."""
    browser.complaints.clear()
    browser.resize(1280, 900)
    yield browser
    browser.open("about:blank")
    assert [words for words in browser.complaints if "status of 4" not in words] == []


def opened(page, server):
    page.open(server.url)
    page.wait("document.querySelector('#board .letters')")


def click(page, name):
    """Clicks a point of the board."""
    column, row = "ABCDE".index(name[0]), 5 - int(name[1])
    page.click("#board", (EDGE + column * CELL) / SIDE, (EDGE + row * CELL) / SIDE)


def stones(page):
    return page.run("""Object.fromEntries([...document.querySelectorAll('#board .stones .stone')].map(
        (stone) => [stone.dataset.point, stone.classList.contains('black') ? 'black' : 'white']))""")


def words(page, selector):
    return page.run(f"document.querySelector({selector!r}).textContent.trim()")


def moves(page):
    return page.run("[...document.querySelectorAll('#moves button')].map((b) => b.getAttribute('aria-label'))")


def test_a_game_by_clicks(page):
    player = Scripted("B2", "B3", visits=(10, 20, 40))
    with serve(player, RULES, watch=0.2, interval=0.05) as server:
        opened(page, server)
        assert words(page, "#status b") == "Your turn, Black" and words(page, "#against") == f"against {player.name}"
        assert page.run("document.getElementById('undo').disabled") and moves(page) == []
        click(page, "C3")
        page.wait("document.querySelector('#board .white[data-point=B2]')")
        assert stones(page) == {"C3": "black", "B2": "white"} and words(page, "#status span") == "White played B2."
        assert page.run("document.querySelector('.last').getAttribute('cx')") == str(EDGE + CELL)
        assert moves(page) == ["Move 1, black C3", "Move 2, white B2"] and words(page, "#shown") == "Move 2 of 2"

        # The win rate before and after the player's move.
        page.wait("document.querySelectorAll('#graph .point').length == 2")
        assert page.run("[...document.querySelectorAll('#graph .point')].map((p) => p.dataset.moves)") == ["1", "2"]
        assert page.run("Boolean(document.querySelector('#graph .black-share'))")
        assert words(page, "#rate") == "Black 0.0 % · White 100.0 %"

        # A move back, there is what the player thought; its heat map.
        page.press("ArrowLeft")
        page.wait("document.querySelector('#board .candidate.candidate[data-point=B2]')")
        assert stones(page) == {"C3": "black"} and words(page, "#shown") == "Move 1 of 2"
        assert page.run("document.querySelectorAll('#board .heat rect').length") == 0
        page.click("#policy")
        heat = page.run("[...document.querySelectorAll('#board .heat rect')].map((r) => r.dataset.point)")
        assert heat == ["B2", "A5", "B5", "C5"] and words(page, "#board .heat text") == "60"
        assert page.run("document.querySelectorAll('#board .candidate').length") == 0
        click(page, "E5")  # this is not the newest position
        page.wait("document.querySelector('#toast.shown')")
        assert "You are looking back" in words(page, "#toast")
        page.press("End")

        click(page, "C3")
        page.wait("document.getElementById('toast').textContent == 'There is a stone on C3 already.'")
        click(page, "C2")
        page.wait("document.querySelectorAll('#moves li').length == 4")
        page.press("u")
        page.wait("document.querySelectorAll('#moves li').length == 2")
        assert stones(page) == {"C3": "black", "B2": "white"}
        page.press("p")
        page.wait("document.getElementById('status').textContent.includes('wins by')")
        assert words(page, "#status").startswith("White wins by 0.5 points") and page.run(
            "document.getElementById('pass').disabled")
        assert page.run("document.title") == f"Go against {player.name}"


def test_the_search_is_seen_while_it_goes_on(page):
    with serve(Scripted(visits=range(10, 91, 5)), RULES, interval=0.1, watch=0) as server:
        opened(page, server)
        page.press("a")
        page.wait("document.querySelector('#board .candidate')")
        page.wait("document.querySelector('#board .candidate text').textContent == '90'")
        assert words(page, "#visits") == "93 visits"
        cells = page.run("[...document.querySelectorAll('tbody tr:not([hidden]) > *')].map((c) => c.textContent)")
        assert cells[:10] == ["A5", "90.0 %", "90", "60.0 %", "pass B5", "B5", "25.0 %", "0", "10.0 %", ""]
        page.click("tbody button")  # its line stays on the board
        page.wait("document.querySelectorAll('#board .expected').length == 2")
        page.move(5, 500)
        seen = "[...document.querySelectorAll('#board .expected')].map((e) => [e.dataset.point, e.textContent])"
        assert page.run(seen) == [["A5", "1"], ["B5", "3"]]
        page.click("tbody button")
        page.move(5, 500)
        page.run("document.activeElement.blur()")
        page.wait("document.querySelector('#board .candidate')")
        column, row = 0, 0
        box = page.run("document.getElementById('board').getBoundingClientRect().toJSON()")
        page.move(box["x"] + (EDGE + column) / SIDE * box["width"], box["y"] + (EDGE + row) / SIDE * box["height"])
        page.wait("document.querySelector('#board .expected')")
        page.press("a")
        page.wait("document.getElementById('analyse').ariaPressed == 'false'")
        click(page, "C3")
        page.wait("document.querySelectorAll('#moves li').length == 2")
        assert words(page, "#nothing").startswith("Nothing is known of this position")


def test_new_games_and_typed_moves(page):
    with serve(Scripted("C3", "pass"), RULES, sizes=(5, 9), watch=0) as server:
        opened(page, server)
        page.press("n")
        page.run("document.querySelector('[name=colour][value=white]').click()")
        assert page.run("[...document.querySelector('[name=size]').options].map((o) => o.value)") == ["5", "9"]
        page.click("#new-game .main")
        page.wait("document.querySelector('#board .black[data-point=C3]')")
        assert words(page, "#black .name") == "scripted <i>&amp;" and words(page, "#white .name") == "You"
        assert words(page, "#white .taken") == "0 taken · komi 0.5"
        page.press("m")
        page.write("d3")
        page.press("Enter")
        page.wait("document.querySelector('#board .white[data-point=D3]')")
        page.wait("document.getElementById('status').textContent.includes('Pass too to end the game')")
        page.click("#resign")
        page.click("#resigning .main")
        page.wait("document.getElementById('status').textContent.includes('Black wins by resignation')")
        page.click("#undo")
        page.wait("document.getElementById('status').textContent.includes('Your turn, White')")


def test_files_are_shown_as_they_are(page, tmp_path):
    file = tmp_path / "game.sgf"
    file.write_text("(;SZ[5]KM[0.5]PB[<b>Lee</b>]PW[Alpha]AB[aa];B[cc]C[<img src=x onerror=alert(1)>];W[dd];B[];W[ab])")
    with serve(Scripted(), RULES, watch=0) as server:
        opened(page, server)
        root = page.call("DOM.getDocument")["root"]["nodeId"]
        field = page.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        page.call("DOM.setFileInputFiles", nodeId=field, files=[str(file)])
        page.wait("document.querySelectorAll('#moves li').length == 4")
        assert stones(page) == {"A5": "black", "C3": "black", "D2": "white", "A4": "white"}
        assert words(page, "#black .name") == "<b>Lee</b>" and words(page, "#white .name") == "Alpha"
        page.press("Home")
        assert stones(page) == {"A5": "black"} and page.run("document.getElementById('previous').disabled")
        page.press("ArrowRight")
        assert words(page, "#comment") == "<img src=x onerror=alert(1)>" and words(page, "#shown") == "Move 1 of 4"
        page.click("#moves li:nth-child(3) button")
        assert words(page, "#shown") == "Move 3 of 4"
        page.click("#back")
        page.wait("document.querySelectorAll('#moves li').length == 3")
        assert words(page, "#status b") == "White to move"
        file.write_text("no game")
        page.call("DOM.setFileInputFiles", nodeId=field, files=[str(file)])
        page.wait("document.getElementById('toast').textContent.startsWith('The file is not a game of Go')")


def test_failures_are_shown(page):
    with serve(Scripted(RuntimeError("<i>out of memory</i>"), "B2"), RULES, watch=0) as server:
        opened(page, server)
        click(page, "C3")
        page.wait("!document.getElementById('alert').hidden")
        assert words(page, "#alert p") == "scripted <i>&amp; failed. RuntimeError: <i>out of memory</i>"
        assert words(page, "#status b") == "The player could not move"
        page.click("#retry")
        page.wait("document.querySelector('#board .white[data-point=B2]')")
        assert page.run("document.getElementById('alert').hidden")
    page.wait("document.querySelector('#alert p').textContent.startsWith('The connection to the server is lost')")
    page.complaints[:] = [words for words in page.complaints if "ERR_" not in words]


@pytest.mark.parametrize("width, height, dark", [(1280, 900, False), (400, 800, True), (768, 1024, False),
                                                 (320, 640, True)])
def test_the_page_fits(page, width, height, dark):
    page.resize(width, height, dark)
    with serve(Scripted("B2", visits=(10, 20)), RULES, watch=0.1, interval=0.05) as server:
        opened(page, server)
        click(page, "C3")
        page.wait("document.querySelectorAll('#moves li').length == 2")
        page.press("a")
        page.wait("document.querySelector('#board .candidate')")
        assert page.run("document.documentElement.scrollWidth") <= width
        outside = page.run(f"""[...document.querySelectorAll('main *, header *')].filter((e) => {{
            const {{left, right}} = e.getBoundingClientRect();
            return !e.closest('svg, .unseen') && (left < 0 || right > {width});
        }}).map((e) => e.outerHTML)""")
        assert outside == []
        unnamed = page.run("""[...document.querySelectorAll('button, select, input, svg[role]')].filter((e) =>
            e.getClientRects().length && !e.textContent.trim() && !e.ariaLabel && !e.labels?.length
        ).map((e) => e.outerHTML)""")
        assert unnamed == []
        page_colour = page.run("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, page_colour[4:-1].split(","))) < 200) == dark
