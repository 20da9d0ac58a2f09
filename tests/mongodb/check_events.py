"""Proves that a file of events contains every logged write once, in order per document, with its bytes.

Usage: check_events.py LOG EVENTS [--ns DATABASE.COLLECTION] [--baseline N] [--repeats] [--upserts]
--baseline N   the first N writes precede the initial read: documents that still exist then arrive as `baseline`
--repeats      events that were delivered before a kill may be repeated, with the same version
--upserts      the source does not report operations: all events are `upsert`, and there are no deletes

It only reads the two files. The server looks up the document of an update when the update is read, so it may be that of
a later write of the same document, or missing if that was a delete, but never that of an earlier write.
"""

import argparse
import base64
import json
import sys

import bson

import lives

OPS = {"insert": "create", "update": "update", "replace": "replace", "delete": "delete"}


class Wrong(Exception):
    pass


def expected(log, baseline, upserts):
    """The expected events of each document in order: op, number of the write, and the possible bytes."""
    alive, wanted = {}, {}
    for line in log[:baseline]:
        alive.pop(line["id"], None)
        if line["bson"] is not None:
            alive[line["id"]] = line
    for text, line in alive.items():
        wanted[text] = [("baseline", line["n"], [line["bson"]])]
    states = {}
    for line in log[baseline:]:
        states.setdefault(line["id"], []).append(line)
    for text, lines in states.items():
        for at, line in enumerate(lines):
            allowed = [line["bson"]]
            if line["op"] == "update":
                allowed = [later["bson"] for later in lines[at:]]
            op = "upsert" if upserts else OPS[line["op"]]
            wanted.setdefault(text, []).append((op, line["n"], allowed))
    return wanted


def look_at(event, number):
    """Checks the format of an event and returns its bytes."""
    for name in ("op", "id", "version", "doc", "ns"):
        if name not in event:
            raise Wrong(f"line {number}: no {name}")
    if not event["version"].startswith(event["id"] + "~"):
        raise Wrong(f"line {number}: the version {event['version']} is not one of {event['id']}")
    if event.get("bson") is None:
        if event["doc"] is not None:
            raise Wrong(f"line {number}: a document without its bytes")
        return None
    raw, doc = base64.b64decode(event["bson"], validate=True), event["doc"]
    if doc["id"] != event["id"]:
        raise Wrong(f"line {number}: the document has another id")
    if json.dumps(doc["_id"], sort_keys=True) != lives.id_text(raw):
        raise Wrong(f"line {number}: _id is {doc['_id']}, not {lives.id_text(raw)}")
    # A name with a special meaning for the program has a `~` in front. Values that JSON cannot express are stored as
    # bytes.
    names = [name.removeprefix("~") for name in doc if name != "id"]
    if "$bson" not in doc and names != [name.removeprefix("~") for name in bson.decode(raw, lives.OPTIONS)]:
        raise Wrong(f"line {number}: the document has other fields than its bytes: {names}")
    return raw


def check(args):
    wanted = expected(lives.read_log(args.log), args.baseline, args.upserts)
    # Documents by the text of their id, the changes by version, and the events of each document.
    texts, seen, came, repeats = {}, {}, {}, 0
    with open(args.events, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            event = json.loads(line)
            if event["op"] in ("drop", "rename", "dropDatabase", "invalidate"):
                continue
            if args.ns and event["ns"] != args.ns:
                continue
            raw = look_at(event, number)
            if raw is not None:
                if texts.setdefault(event["id"], lives.id_text(raw)) != lives.id_text(raw):
                    raise Wrong(f"line {number}: two documents have the id {event['id']}")
            text = texts.get(event["id"])
            if text is None:
                raise Wrong(f"line {number}: a {event['op']} of {event['id']}, which was never there")
            # The document of an update is looked up again when the event is repeated.
            change = (event["op"], text, None if event["op"] == "update" else event.get("bson"))
            if event["version"] in seen:
                repeats += 1
                if seen[event["version"]] != change:
                    raise Wrong(f"line {number}: the version {event['version']} is two different changes")
                if not args.repeats:
                    raise Wrong(f"line {number}: the version {event['version']} came twice")
                continue
            seen[event["version"]] = change
            came.setdefault(text, []).append((event["op"], event.get("bson"), event.get("lsn"), number))
    for text in wanted.keys() | came.keys():
        compare(text, wanted.get(text, []), came.get(text, []))
    return len(seen), repeats


def compare(text, wanted, came):
    for (op, n, allowed), (other, got, _, number) in zip(wanted, came):
        if op != other:
            raise Wrong(f"line {number}: {text}: {other}, and write {n} was {op}")
        if got not in allowed:
            raise Wrong(f"line {number}: {text}: other bytes than write {n} left\n  {allowed[0]}\n  {got}")
    if len(wanted) != len(came):
        next_one = wanted[len(came)] if len(came) < len(wanted) else came[len(wanted)]
        raise Wrong(f"{text}: {len(wanted)} changes were written and {len(came)} came; first {next_one}")
    places = [lsn for op, _, lsn, _ in came if op != "baseline" and lsn is not None]
    if places != sorted(places):
        raise Wrong(f"{text}: lsn goes back: {places}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("log")
    parser.add_argument("events")
    parser.add_argument("--ns")
    parser.add_argument("--baseline", type=int, default=0)
    parser.add_argument("--repeats", action="store_true")
    parser.add_argument("--upserts", action="store_true")
    args = parser.parse_args()
    try:
        events, repeats = check(args)
    except Wrong as wrong:
        sys.exit(f"wrong: {wrong}")
    print(f"ok {events} changes, {repeats} repeats")


if __name__ == "__main__":
    main()
