"""A page in a headless Chromium: clicks, keys, screenshots, over the browser's own protocol (Chrome DevTools).

The browser is spoken to through two pipes (`--remote-debugging-pipe`: it reads file 3 and writes file 4), each message
as JSON that ends with a zero; so nothing but Chromium itself is needed.
"""

import base64
import fcntl
import json
import os
import pathlib
import queue
import shutil
import subprocess
import sys
import threading
import time

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--disable-sync",
          "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
          "--remote-debugging-pipe")
# Gives the pipes the numbers that the browser expects.
_START = "import os, sys; os.dup2({}, 3); os.dup2({}, 4); os.execv(sys.argv[1], sys.argv[1:])"
_CODES = {"ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35, "Enter": 13}


class Page:
    """An empty page; a context, which ends the browser.

    Args:
        folder: where the browser keeps its files.
        width, height: of the page, in pixels.

    Attributes:
        complaints: what the page wrote as an error, threw or could not load.
    """

    def __init__(self, folder, width=1280, height=900):
        ours, theirs = [], []
        for mode in ("w", "r"):
            read, write = (fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in os.pipe())  # well above 3 and 4
            theirs.append(read if mode == "w" else write)
            ours.append(os.fdopen(write if mode == "w" else read, f"{mode}b", 0))
        command = [PROGRAM, *_FLAGS, f"--user-data-dir={folder}", "about:blank"]
        self._process = subprocess.Popen([sys.executable, "-c", _START.format(*theirs), *command], pass_fds=theirs,
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for end in theirs:
            os.close(end)
        self._write, self._read = ours
        self._messages, self._number, self._session, self.complaints = queue.Queue(), 0, None, []
        threading.Thread(target=self._listen, daemon=True).start()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.resize(width, height)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait(timeout=20)
        self._write.close()

    def call(self, method, **parameters):
        """Sends a command and returns its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._write.write(json.dumps(message).encode() + b"\0")
        while True:
            received = self._messages.get(timeout=60)
            if received.get("id") == self._number:
                assert "error" not in received, f"{method}: {received['error']}"
                return received["result"]
            self._note(received)

    def open(self, url):
        """Opens a page, without waiting for it."""
        self.call("Page.navigate", url=url)

    def resize(self, width, height, dark=False):
        """Gives the page another size and colour scheme."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def run(self, script):
        """The value of an expression in the page."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, f"{script}: {result['exceptionDetails']}"
        return result["result"].get("value")

    def wait(self, script, seconds=30):
        """Waits until an expression is true."""
        until = time.monotonic() + seconds
        while not self.run(f"Boolean({script})"):
            if time.monotonic() > until:
                shown = self.run("document.body.innerText")
                raise AssertionError(f"Not within {seconds} s: {script}\n{shown}\n{self.complaints}")
            time.sleep(0.1)

    def click(self, selector, x=0.5, y=0.5):
        """Clicks an element in the page, by default in its middle."""
        place = f"document.querySelector({json.dumps(selector)})"
        self.run(f"{place}.scrollIntoView({{block: 'nearest'}})")
        box = self.run(f"{place}.getBoundingClientRect().toJSON()")
        self.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=self._at[0], y=self._at[1], button="left", clickCount=1)

    def move(self, x, y):
        """Moves the mouse."""
        self._at = x, y
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, key):
        """Presses a key: a letter, or a name such as ArrowLeft."""
        code = _CODES.get(key) or ord(key.upper())
        words = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **words)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def write(self, words):
        """Types words where the cursor is."""
        self.call("Input.insertText", text=words)

    def screenshot(self, path, whole=True):
        """Writes a PNG file of the page."""
        content = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        pathlib.Path(path).write_bytes(base64.b64decode(content))

    def _listen(self):
        rest = b""
        while received := self._read.read(2**16):
            *messages, rest = (rest + received).split(b"\0")
            for message in messages:
                self._messages.put(json.loads(message))
        self._read.close()

    def _note(self, event):
        details = event.get("params", {})
        level = {"Runtime.exceptionThrown": "error", "Runtime.consoleAPICalled": details.get("type"),
                 "Log.entryAdded": details.get("entry", {}).get("level")}.get(event.get("method"))
        if level == "error":
            self.complaints.append(json.dumps(details))
