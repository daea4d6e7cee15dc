"""Starts the real TensorBoard on a log folder and asks its plugins for their data, as the page in the browser does."""

import contextlib
import json
import re
import subprocess
import sys
import threading
import urllib.request


@contextlib.contextmanager
def tensorboard(logdir):
    """Yields `ask(path, request=None) -> JSON` of a TensorBoard that serves `logdir`."""
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={logdir}", "--port=0", "--host=localhost",
               "--load_fast=false", "--reload_interval=0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    alarm = threading.Timer(90, process.kill)
    alarm.start()
    try:
        address = next(m[1] for m in (re.search(r"(http://localhost:\d+)", line) for line in process.stderr) if m)
        threading.Thread(target=process.stderr.read, daemon=True).start()  # so that the pipe never fills

        def ask(path, request=None):
            body = None if request is None else json.dumps(request).encode()
            query = urllib.request.Request(f"{address}/data/plugin/{path}", body, {"Content-Type": "application/json"})
            return json.loads(urllib.request.urlopen(query, timeout=30).read())

        yield ask
    finally:
        alarm.cancel()
        process.kill()
        process.wait()
