"""Tests check_events.py: events generated from a log pass, and every kind of fault in them is detected.

Usage: selftest.py
"""

import base64
import copy
import json
import pathlib
import subprocess
import sys
import tempfile

import bson
from bson import json_util

import lives

CHECKER = pathlib.Path(__file__).with_name("check_events.py")


def log_of(rng):
    """Two documents, each with every kind of write."""
    lines, n = [], 0
    for identity in ("a", 7):
        for op in ("insert", "update", "update", "replace", "delete", "insert"):
            raw = None if op == "delete" else lives.document(rng, identity, n)
            lines.append({"n": n, "op": op, "id": lives.id_text(bson.encode({"_id": identity})), "bson": raw})
            n += 1
    return lines


def events_of(lines):
    ops = {"insert": "create", "update": "update", "replace": "replace", "delete": "delete"}
    events = []
    for line in lines:
        doc, raw = None, line["bson"]
        text = "a" if line["id"] == '"a"' else "7"
        if raw is not None:
            view = json.loads(json_util.dumps(bson.decode(raw, lives.OPTIONS), json_options=lives.CANONICAL))
            doc = {"id": text, **view}
        version = f"{text}~{line['n']}"
        event = {"op": ops[line["op"]], "id": text, "version": version, "doc": doc, "ns": "d.c", "lsn": line["n"]}
        events.append({**event, "bson": raw and lives.base64_of(raw)})
    return events


def faults(events):
    """Each fault, and the events that contain it."""
    def changed(what, edit):
        edited = copy.deepcopy(events)
        edit(edited)
        return what, edited

    def texts(edited):
        edited[3]["bson"] = edited[0]["bson"]

    def byte(edited):
        raw = bytearray(base64.b64decode(edited[0]["bson"]))
        raw[raw.index(b"balance\0") + 8] ^= 1
        edited[0]["bson"] = lives.base64_of(bytes(raw))

    yield changed("one is missing", lambda e: e.pop(2))
    yield changed("the last is missing", lambda e: e.pop())
    yield changed("two are swapped", lambda e: e.insert(2, e.pop(3)))
    yield changed("one came twice", lambda e: e.insert(2, e[1]))
    yield changed("one came twice, as another version", lambda e: e.insert(2, {**e[1], "version": "a~x"}))
    yield changed("another op", lambda e: e[3].update(op="update"))
    yield changed("a text of before", texts)
    yield changed("another byte", byte)
    yield changed("another _id in the view", lambda e: e[0]["doc"].update(_id="b"))
    yield changed("a field less in the view", lambda e: e[0]["doc"].pop("n"))
    yield changed("a version for two", lambda e: e[2].update(version=e[1]["version"]))
    yield changed("another collection", lambda e: e[0].update(ns="d.other"))
    yield changed("lsn goes back", lambda e: e[3].update(lsn=0))


def verdict(folder, lines, events, *more):
    log, file = folder / "log.jsonl", folder / "events.jsonl"
    texts = [{**line, "bson": line["bson"] and lives.base64_of(line["bson"])} for line in lines]
    log.write_text("".join(json.dumps(line) + "\n" for line in texts))
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    command = [sys.executable, CHECKER, log, file, "--ns", "d.c", *more]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def main():
    lines = log_of(lives.generator(1))
    events, checks = events_of(lines), 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        later = copy.deepcopy(events)
        later[1]["bson"], later[1]["doc"] = events[3]["bson"], events[3]["doc"]
        again = events[:4] + events[1:]
        baseline = [{**events[5], "op": "baseline"}] + events[6:]
        right = [(events,), (later,), (again, "--repeats"), (baseline, "--baseline", "6")]
        for given in right:
            result = verdict(folder, lines, *given)
            assert result.returncode == 0, result
            checks += 1
        for what, wrong in faults(events):
            result = verdict(folder, lines, wrong)
            assert result.returncode == 1 and result.stderr.startswith("wrong: "), (what, result)
            checks += 1
    print(f"ok {checks} checks")


if __name__ == "__main__":
    main()
