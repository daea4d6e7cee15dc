"""A GTP program for tests, which does what its argument, a JSON object, says.

    log: file for the commands it gets.        pids: file for its process id and that of a child it starts.
    moves: answers to genmove.                 start: seconds before it does anything.
    stubborn: goes on when asked to quit, or when its input ends.
    name, undo, genmove, ...: what a command does: hang, die, kill, refuse, garbage, half, number, close, flood, or an
        answer.
"""

import json
import os
import signal
import subprocess
import sys
import time


def act(plan, number, word, moves):
    usual = next(moves, "pass") if word == "genmove" else {"name": "Fake", "version": "1.0"}.get(word, "")
    does = plan.get(word, usual)
    if does == "hang":
        print("still thinking", file=sys.stderr, flush=True)
        time.sleep(1000)
    elif does == "die":
        print("first line\nout of ideas", file=sys.stderr, flush=True)
        os._exit(3)
    elif does == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif does == "close":
        os.close(1)
        time.sleep(1000)
    elif does == "half":
        print(f"={number} E5", flush=True)
        time.sleep(1000)
    elif does == "flood":
        print(f"={number}")
        while True:
            print("x" * 10000)
    else:
        wrong = {"refuse": f"?{number} not today", "garbage": "Segmentation fault", "number": f"={int(number) + 1} E5"}
        print(wrong.get(does, f"={number} {does}"), end="\n\n", flush=True)


def main():
    plan = json.loads(sys.argv[1])
    if "pids" in plan:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        with open(plan["pids"] + ".new", "w") as file:
            file.write(f"{os.getpid()} {child.pid}")
        os.rename(plan["pids"] + ".new", plan["pids"])
    if plan.get("stubborn"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(plan.get("start", 0))
    moves = iter(plan.get("moves", []))
    for line in sys.stdin:
        number, _, command = line.strip().partition(" ")
        if number == "quit":
            break
        if "log" in plan:
            with open(plan["log"], "a") as file:
                file.write(command + "\n")
        act(plan, number, command.split()[0], moves)
    if plan.get("stubborn"):
        time.sleep(1000)


if __name__ == "__main__":
    main()
