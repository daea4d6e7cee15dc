"""What is started again, what is not, and that nothing is left. The members are small programs without TensorFlow."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from strategies import supervisor as supervisor_lib
from strategies.supervisor import Supervisor

# Each member notes its start in a file; `act` says what it does then.
PROGRAM = """
    import json, os, pathlib, signal, sys, time
    task = json.loads(os.environ["TF_CONFIG"])["task"]
    me, notes = f"{task['type']} {task['index']}", pathlib.Path(sys.argv[1])
    with open(notes / me, "a") as file:
        file.write(f"{os.getpid()}\\n")
    starts = len((notes / me).read_text().split())

    def others_started(number):
        while len(list(notes.iterdir())) < number:
            time.sleep(0.02)

"""


def member(tmp_path, act):
    notes = tmp_path / "notes"
    notes.mkdir()
    program = tmp_path / "member.py"
    program.write_text(textwrap.dedent(PROGRAM) + textwrap.dedent(act))
    return [sys.executable, str(program), str(notes)], notes


def starts(notes):
    return {path.name: len(path.read_text().split()) for path in notes.iterdir()}


def assert_gone(notes):
    for path in notes.iterdir():
        for pid in path.read_text().split():
            assert not pathlib.Path(f"/proc/{pid}").exists() or \
                pathlib.Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"


def run(command, **sizes):
    lines = []
    supervisor = Supervisor(command, report=lines.append, **sizes)
    return supervisor.run(), lines


def test_servers_end_with_the_coordinator(tmp_path):
    command, notes = member(tmp_path, """
        others_started(4)
        print("here", flush=True)
        if me == "chief 0":
            time.sleep(1)
            sys.exit(0)
        time.sleep(60)
    """)
    code, lines = run(command, workers=2, servers=1)
    assert code == 0 and starts(notes) == {"chief 0": 1, "worker 0": 1, "worker 1": 1, "ps 0": 1}
    assert {"ps 0: here", "worker 0: here", "worker 1: here"} <= set(lines)
    assert_gone(notes)


def test_a_worker_of_servers_is_replaced(tmp_path):
    command, notes = member(tmp_path, """
        others_started(3)
        if me == "worker 0" and starts == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        while me == "chief 0" and len((notes / "worker 0").read_text().split()) < 2:
            time.sleep(0.02)
        sys.exit(0) if me == "chief 0" else time.sleep(60)
    """)
    code, lines = run(command, workers=1, servers=1)
    assert code == 0 and starts(notes) == {"chief 0": 1, "worker 0": 2, "ps 0": 1}
    assert "cluster: worker 0 was killed by SIGKILL" in lines
    assert_gone(notes)


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="needs waitid")
def test_a_stopped_worker_is_replaced_and_one_that_goes_on_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor_lib, "_LONGEST_STOP", 1.0)
    command, notes = member(tmp_path, """
        others_started(4)
        if me == "worker 0" and starts == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        while me == "chief 0" and len((notes / "worker 0").read_text().split()) < 2:
            if len(list(notes.glob("*.continued"))) == 0:
                one = int((notes / "worker 1").read_text())
                os.kill(one, signal.SIGSTOP)
                time.sleep(0.6)
                os.kill(one, signal.SIGCONT)
                (notes / "1.continued").write_text("0")
            time.sleep(0.02)
        sys.exit(0) if me == "chief 0" else time.sleep(60)
    """)
    code, lines = run(command, workers=2, servers=1)
    found = {name: number for name, number in starts(notes).items() if not name.endswith("continued")}
    assert code == 0 and found == {"chief 0": 1, "worker 0": 2, "worker 1": 1, "ps 0": 1}
    assert "cluster: worker 0 has been stopped for 1 s" in lines


@pytest.mark.parametrize("victim, sizes", [("ps 0", {"servers": 1}), ("chief 0", {"servers": 1}), ("worker 1", {}),
                                           ("worker 0", {})])
def test_all_are_started_again(tmp_path, victim, sizes):
    command, notes = member(tmp_path, f"""
        others_started({4 if sizes else 2})
        if me == "{victim}" and starts == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if starts == 1:
            time.sleep(60)
        sys.exit(0) if me == "chief 0" or {not sizes} else time.sleep(60)
    """)
    code, _ = run(command, workers=2, **sizes)
    assert code == 0 and set(starts(notes).values()) == {2}
    assert_gone(notes)


def test_bad_input_ends_it(tmp_path):
    command, notes = member(tmp_path, """
        others_started(2)
        sys.exit(2) if me == "worker 1" else time.sleep(60)
    """)
    assert run(command, workers=2)[0] == 2 and set(starts(notes).values()) == {1}
    assert_gone(notes)


def test_gives_up(tmp_path):
    command, notes = member(tmp_path, """
        others_started(2)
        sys.exit(138) if me == "worker 1" else time.sleep(60)
    """)
    code, lines = run(command, workers=2, max_restarts=1)
    assert code == 138 and starts(notes) == {"worker 0": 2, "worker 1": 2}
    assert "giving up" in lines[-1]


def test_a_program_that_fails_at_once_is_not_started_for_ever(tmp_path):
    command, notes = member(tmp_path, "sys.exit(1)")
    assert run(command, workers=1)[0] == 1 and starts(notes) == {"worker 0": 3}


def as_process(command, *flags):
    return subprocess.Popen([sys.executable, "-m", "apps.cluster", *flags, "--", *command], stderr=subprocess.PIPE,
                            text=True)


def wait_until(condition):
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_sigterm_lets_all_save(tmp_path):
    command, notes = member(tmp_path, """
        def save(*_):
            (notes / f"{me} saved").write_text("0")
            sys.exit(143)
        signal.signal(signal.SIGTERM, save)
        (notes / f"{me} ready").write_text("0")
        time.sleep(60)
    """)
    process = as_process(command, "--workers=2")
    wait_until(lambda: len(list(notes.glob("* ready"))) == 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    assert len(list(notes.glob("* saved"))) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_a_killed_supervisor_leaves_nothing(tmp_path):
    command, notes = member(tmp_path, "time.sleep(60)")
    process = as_process(command, "--workers=2", "--servers=1")
    wait_until(lambda: len(list(notes.iterdir())) == 4 and all(path.read_text() for path in notes.iterdir()))
    stopped = int((notes / "worker 1").read_text())
    os.kill(stopped, signal.SIGSTOP)
    process.kill()
    process.wait()
    time.sleep(1)
    assert_gone(notes)


def test_a_command_is_needed():
    process = subprocess.run([sys.executable, "-m", "apps.cluster"], capture_output=True, text=True)
    assert process.returncode == 2 and process.stderr.startswith("error: No command: expected --")
    process = subprocess.run([sys.executable, "-m", "apps.cluster", "--", "no_such_program"], capture_output=True,
                             text=True)
    assert process.returncode == 2 and "'no_such_program' is not there" in process.stderr


def test_each_member_knows_its_task(tmp_path):
    command, notes = member(tmp_path, """
        (notes / f"{me} config").write_text(os.environ["TF_CONFIG"])
    """)
    assert run(command, workers=2)[0] == 0
    contents = [json.loads((notes / f"worker {index} config").read_text()) for index in range(2)]
    assert contents[0]["cluster"] == contents[1]["cluster"]
    assert [content["task"] for content in contents] == [{"type": "worker", "index": index} for index in range(2)]
    assert len(set(contents[0]["cluster"]["worker"])) == 2


def test_temporary_files_of_killed_members_are_removed(tmp_path):
    command, notes = member(tmp_path, """
        import tempfile
        (notes.parent / f"folder {os.getpid()}").write_text(tempfile.mkdtemp())
        if starts == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert run(command, workers=1)[0] == 0
    folders = [pathlib.Path(path.read_text()) for path in tmp_path.glob("folder *")]
    assert len(folders) == 2 and not any(folder.exists() or folder.parent.exists() for folder in folders)
