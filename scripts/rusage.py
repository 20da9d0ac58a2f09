#!/usr/bin/env python3
"""Runs a program and appends its usage to a file of raw results: wall seconds, CPU seconds, peak memory.

Usage: rusage.py CSV NAMES VALUES -- PROGRAM ARGUMENT...
NAMES and VALUES (comma-separated) are columns that describe the run. The program's output is discarded; its errors are shown
when it fails. The figures come from the kernel and cover only this process.
"""

import os
import subprocess
import sys
import tempfile
import time


def main():
    csv, names, values, dashes, *command = sys.argv[1:]
    if dashes != "--" or not command:
        sys.exit(__doc__)
    with tempfile.TemporaryFile() as errors:
        start = time.monotonic()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            errors.seek(0)
            sys.stderr.write(errors.read().decode(errors="replace")[-2000:])
            sys.exit(f"error: exit code {process.returncode}: {' '.join(command)}")
    new = not os.path.exists(csv) or os.path.getsize(csv) == 0
    row = f"{values},{seconds:.3f},{used.ru_utime + used.ru_stime:.4f},{used.ru_maxrss / 1024:.1f}"
    with open(csv, "a", encoding="ascii") as file:
        if new:
            file.write(f"{names},seconds,cpu_s,rss_mb\n")
        file.write(f"{row}\n")
    print(f"{os.path.basename(csv)}: {row}", flush=True)


main()
