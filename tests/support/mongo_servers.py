"""Starts SecantusDB servers, each as a fork of this process.

A separate interpreter spends a second of CPU on imports and on WiredTiger, which calibrates the processor's clock
once per process; a fork inherits both. Requests are lines of JSON on standard input, each answered with a line:

    {"start": FOLDER, "args": [...], "ahead": SECONDS}
                                       the process id; standard error goes to FOLDER/log, and its clock is ahead
    {"wait": PID}                      how it ended, as subprocess says it

When standard input ends, all servers stop.
"""

import json
import os
import random
import signal
import sys
import tempfile
import time

import wiredtiger
from secantus.cli import main


def serve(folder, args, ahead):
    """Runs a server in the forked process; never returns."""
    code = 1
    try:
        own = time.time
        time.time = lambda: own() + ahead
        log = os.open(os.path.join(folder, "log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        nothing = os.open(os.devnull, os.O_RDWR)
        for old, new in ((0, nothing), (1, nothing), (2, log)):
            os.dup2(new, old)
        os.chdir(folder)
        random.seed()
        sys.argv = ["secantus", "--host", "127.0.0.1", "--storage-path", folder, *args]
        code = main()
    except SystemExit as end:
        code = end.code
    finally:
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


with tempfile.TemporaryDirectory() as folder:
    wiredtiger.wiredtiger_open(folder, "create").close()

running = set()
for line in sys.stdin:
    request = json.loads(line)
    if "start" in request:
        answer = os.fork()
        if answer == 0:
            serve(request["start"], request["args"], request["ahead"])
        running.add(answer)
    else:
        _, status = os.waitpid(request["wait"], 0)
        answer = os.waitstatus_to_exitcode(status)
        running.discard(request["wait"])
    print(json.dumps(answer), flush=True)
for pid in running:
    os.kill(pid, signal.SIGKILL)
