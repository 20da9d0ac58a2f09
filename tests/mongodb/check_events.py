"""Proves that a file of events has every write of a log, once, in order for each document, with its bytes.

Usage: check_events.py LOG EVENTS [--ns DATABASE.COLLECTION] [--baseline N] [--repeats] [--upserts]
--baseline N   the first N writes came before the reading began: of them, what was alive comes as `baseline`
--repeats      what was delivered before a kill may come again, with the same version
--upserts      a source that does not say what a change was: all of them are `upsert`, and there are no deletes

It reads the two files and nothing else. The text that an update comes with is looked up by the server when it is read,
so it may be that of a later write of the same document, or none when that was a delete; never that of an earlier one.
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
    """For each document what has to come, in order: its op, the number of the write, and the bytes that it may have."""
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
    """The form of one event, and the bytes that it carries."""
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
    # A name that means something to the program has a `~` in front; what JSON cannot say at all is there as its bytes.
    names = [name.removeprefix("~") for name in doc if name != "id"]
    if "$bson" not in doc and names != [name.removeprefix("~") for name in bson.decode(raw, lives.OPTIONS)]:
        raise Wrong(f"line {number}: the document has other fields than its bytes: {names}")
    return raw


def check(args):
    wanted = expected(lives.read_log(args.log), args.baseline, args.upserts)
    # Documents by the text of their id, the changes by version, and what came of each document.
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
            # What an update comes with is looked up anew when it comes again.
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
