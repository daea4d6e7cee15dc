import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tf_keras as keras

from strategies.export import ConversionError, conversion, convert, tflite
from tests.strategies.export import models

# Stands in for the worker without TensorFlow: does what the "format" of a request says.
FAKE = """
import json, os, signal, sys, time
for line in sys.stdin:
    what = json.loads(line)["format"]
    if what != "deaf": print(json.dumps({"begun": True}), flush=True)
    if what == "exit": print("bad tensor", file=sys.stderr, flush=True); os._exit(3)
    if what == "kill": os.kill(os.getpid(), signal.SIGKILL)
    if what == "abort": os.kill(os.getpid(), signal.SIGABRT)
    if what == "sleep": time.sleep(60)
    if what == "raise": print(json.dumps({"error": "KindOfError", "message": sys.argv[1]}), flush=True)
    if what == "deaf": os._exit(4)
    if what == "work": print(json.dumps({"ok": True}), flush=True)
"""
MESSAGE = """first line loc(callsite("f"("a.py":3)))
first line
<unknown>:0: error: second <unknown>:0: note: see current operation:
"func.func"() dump of the graph"""


@pytest.fixture
def worker():
    worker = conversion.Worker([sys.executable, "-c", FAKE, MESSAGE])
    yield worker
    worker.close()


def is_running(pid):
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


def wait_until_ended(pid, seconds=30):
    deadline = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_running(pid)


def test_starts_lazily_and_is_reused(worker):
    assert worker.pid is None
    worker.request({"format": "work"}, timeout=30)
    pid = worker.pid
    worker.request({"format": "work"}, timeout=30)
    assert pid is not None and worker.pid == pid
    worker.close()
    assert worker.pid is None and wait_until_ended(pid)


@pytest.mark.parametrize("what, message", [
    ("kill", r"was ended by signal 9 \(SIGKILL\) during the conversion\. Its last words: none"),
    ("abort", r"was ended by signal 6 \(SIGABRT\)"),
    ("exit", r"ended with code 3 during the conversion\. Its last words: bad tensor"),
    ("deaf", r"ended with code 4"),  # twice, before it could begin
])
def test_crash_is_reported_and_the_next_request_starts_anew(worker, what, message):
    worker.request({"format": "work"}, timeout=30)
    pid = worker.pid
    with pytest.raises(ConversionError, match=message):
        worker.request({"format": what}, timeout=30)
    worker.request({"format": "work"}, timeout=30)
    assert worker.pid not in (None, pid)


def test_killed_between_requests(worker):
    worker.request({"format": "work"}, timeout=30)
    pid = worker.pid
    os.kill(pid, signal.SIGKILL)
    worker.request({"format": "work"}, timeout=30)
    assert worker.pid not in (None, pid)


def test_time_out(worker):
    worker.request({"format": "work"}, timeout=30)
    pid = worker.pid
    with pytest.raises(ConversionError, match=r"did not finish in time and was stopped\. Allow more time"):
        worker.request({"format": "sleep"}, timeout=0.2)
    assert wait_until_ended(pid)
    worker.request({"format": "work"}, timeout=30)


def test_converters_message_is_trimmed(worker):
    with pytest.raises(ConversionError) as caught:
        worker.request({"format": "raise"}, timeout=30)
    assert str(caught.value) == "KindOfError: first line second"
    assert isinstance(caught.value, ValueError)


def test_long_message_is_cut(worker):
    worker = conversion.Worker([sys.executable, "-c", FAKE, "x" * 5000])
    with pytest.raises(ConversionError) as caught:
        worker.request({"format": "raise"}, timeout=30)
    worker.close()
    assert len(str(caught.value)) < 1300 and str(caught.value).endswith("x ...")


def test_worker_ends_when_its_parent_is_killed():
    # The parent loads the module alone: TensorFlow would take it seconds.
    parent = subprocess.Popen(
        [sys.executable, "-c", f"""
import importlib.util, threading, time
spec = importlib.util.spec_from_file_location("conversion", {conversion.__file__!r})
conversion = importlib.util.module_from_spec(spec)
spec.loader.exec_module(conversion)
worker = conversion.Worker()
threading.Thread(target=worker.request, args=({{"format": "float32"}}, 600), daemon=True).start()
while worker.pid is None:
    time.sleep(0.01)
print(worker.pid, flush=True)
time.sleep(600)
"""], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    assert is_running(pid)
    parent.kill()
    parent.communicate()
    assert wait_until_ended(pid)


def test_one_process_for_all_conversions_wherever_it_is_started(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("tensorflow.py").write_text("raise ImportError('the wrong file')")
    model = models.conv_norm_relu()
    convert(model, "a.tflite", "float32")
    pid = conversion.shared_worker().pid
    with pytest.raises(ConversionError, match=r"could not write b\.tflite\. ConverterError: .*Custom ops: Svd"):
        x = keras.Input((4, 4))
        convert(keras.Model(x, keras.layers.Lambda(svd)(x)), "b.tflite", "float32")
    convert(model, "c.tflite", "dynamic")
    assert conversion.shared_worker().pid == pid is not None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tflite", "c.tflite", "tensorflow.py"]


def svd(x):
    import tensorflow as tf
    return tf.linalg.svd(x)[0]


@pytest.mark.parametrize("crash", [False, True])
def test_a_trial_before_training_says_what_to_do(monkeypatch, crash):
    x = keras.Input((4, 4))
    strange = keras.Model(x, keras.layers.Lambda(svd)(x), name="strange")
    if crash:  # the worker of this test aborts at every conversion
        worker = conversion.Worker([sys.executable, "-c", FAKE.replace('["format"]', '["format"] and "abort"')])
        monkeypatch.setattr(tflite, "shared_worker", lambda: worker)
    reason = r"was ended by signal 6 \(SIGABRT\)" if crash else "Custom ops: Svd"
    with pytest.raises(ValueError, match="Model 'strange' cannot be exported as int8, which was tried before "
                                         f"training.*{reason}.*Leave the format out"):
        tflite.check_convertible(strange, "int8", np.ones((2, 4, 4), np.float32))


def test_a_new_process_after_a_crash(tmp_path):
    model = models.conv_norm_relu()
    convert(model, tmp_path / "a.tflite", "float32")
    pid = conversion.shared_worker().pid
    os.kill(pid, signal.SIGKILL)
    convert(model, tmp_path / "b.tflite", "float32")
    assert conversion.shared_worker().pid not in (None, pid)
    assert (tmp_path / "a.tflite").read_bytes() == (tmp_path / "b.tflite").read_bytes()
