"""The writers and the checks of scripts/mongodb-listen.sh, which use only pymongo.

Usage: mongodb-listen.py absent            fails if the database exists
       mongodb-listen.py drop              drops the database
       mongodb-listen.py make              creates a collection with pre- and post-images
       mongodb-listen.py write LOG PART    makes the writes of a part (first, second), each with a line in LOG
       mongodb-listen.py told LOG          checks that the listeners have reported the expected number of events
       mongodb-listen.py check LOG         checks the events themselves
MONGODB_URI names the server.
"""

import base64
import json
import sys

import bson
from bson import Int64, json_util
from bson.raw_bson import RawBSONDocument
from mongodb_people import Database, act, read_log, text_of

DATABASE = Database("rewind_listen", "accounts")
# The test server looks up the document after an update when it reads the update, even with post-images. So within a
# part, no document changes after an update. A server that stores post-images does not need that.
PARTS = {
    "first": [
        ("insert", {"_id": "ada", "balance": Int64(100), "city": "Turin"}),
        ("insert", {"_id": "bob", "balance": Int64(40), "city": "Leeds"}),
        ("insert", {"_id": "cid", "balance": 12.5, "city": "Paris"}),
        ("insert", {"_id": "dan", "balance": 0}),
        ("update", "cid", {"$set": {"city": "Rome"}}),
        ("update", "ada", {"$inc": {"balance": 50}}),
        ("update", "bob", {"$inc": {"balance": -60}}),
        ("delete", "dan"),
    ],
    "second": [
        ("update", "ada", {"$inc": {"balance": -25}, "$set": {"city": "Bonn"}}),
        ("update", "bob", {"$unset": {"city": ""}}),
        ("insert", {"_id": "eve", "balance": Int64(-5)}),
        ("replace", "eve", {"_id": "eve", "balance": Int64(5)}),
        ("delete", "eve"),
    ],
}


def write(log, part):
    accounts = DATABASE.collection()
    live = lambda key: getattr(accounts.find_one({"_id": key}), "raw", None)
    with open(log, "a", encoding="utf-8") as file:
        for op, what, *change in PARTS[part]:
            key = what if isinstance(what, str) else what["_id"]
            before = live(key)
            if op == "insert":
                accounts.insert_one(RawBSONDocument(bson.encode(what)))
            elif op == "update":
                assert accounts.update_one({"_id": key}, change[0]).modified_count == 1
            elif op == "replace":
                assert accounts.replace_one({"_id": key}, change[0]).modified_count == 1
            else:
                assert accounts.delete_one({"_id": key}).deleted_count == 1
            line = {"part": part, "op": op, "id": key, "before": text_of(before), "after": text_of(live(key))}
            file.write(json.dumps(line) + "\n")


def decoded(text):
    return text and bson.decode(base64.b64decode(text))


def wanted(log):
    """The expected events of each listener by name."""
    lines = read_log(log)
    balance = lambda text: (decoded(text) or {}).get("balance")
    moved = lambda line: line["op"] == "update" and balance(line["before"]) != balance(line["after"])
    doors = [line for line in lines if line["op"] in ("insert", "delete")]
    return {"doors": doors, "balances": [line for line in lines if moved(line)]}, len(lines)


def events(name):
    with open(f"{name}.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file.read().splitlines()]


def told(log):
    if any(len(events(name)) < len(lines) for name, lines in wanted(log)[0].items()):
        sys.exit(1)


def check(log):
    lists, writes = wanted(log)
    for name, lines in lists.items():
        came = events(name)
        said = [(event["op"].replace("create", "insert"), event["id"], event.get("bson")) for event in came]
        due = [(line["op"], line["id"], line["after"]) for line in lines]
        if said != due:
            sys.exit(f"FAILED     {name} reported {said}, expected {due}")
        for line, event in zip(lines, came):
            # The field id is not part of the document: it is _id as text.
            before = {k: v for k, v in (event["previous"] or {}).items() if k != "id"}
            if json_util.loads(json.dumps(before)) != (decoded(line["before"]) or {}):
                sys.exit(f"FAILED     {name}: wrong document before the change: {before}")
            if event["op"] != "delete" and bson.decode(base64.b64decode(event["bson"])) != json_util.loads(
                json.dumps({k: v for k, v in event["doc"].items() if k != "id"})
            ):
                sys.exit(f"FAILED     {name}: the document and its bytes differ: {event['doc']}")
        with open(f"{name}-before.txt", encoding="utf-8") as one, open(f"{name}.txt", encoding="utf-8") as two:
            heads = [line for line in one.read().splitlines() + two.read().splitlines() if not line.startswith(" ")]
        if len(heads) != len(lines):
            sys.exit(f"FAILED     {name} printed {len(heads)} events, expected {len(lines)}")
    counts = ", ".join(f"{name} {len(lines)}" for name, lines in lists.items())
    print(f"proved     of {writes} writes exactly those that were asked for, before and after exact: {counts}")


if __name__ == "__main__":
    act(__doc__, DATABASE.absent, DATABASE.drop, DATABASE.make, write, told, check)
