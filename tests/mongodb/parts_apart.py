"""Stands before a MongoDB server and sends each part of a large event in an answer of its own, as MongoDB has to.

    parts_apart.py PORT

The server of the tests puts all parts of an event into one answer, however large that is. Prints the port that it listens on.
"""

import sys

from between import batch_of, serve

# What is left of the batches of a cursor.
held = {}


def is_open(event):
    part = event.get("splitEvent", {"fragment": 1, "of": 1})
    return part["fragment"] < part["of"]


def change(cursor):
    batch = batch_of(cursor)
    events = held.pop(cursor["id"], []) + cursor[batch]
    end = next((place + 1 for place, event in enumerate(events) if is_open(event)), len(events))
    cursor[batch] = events[:end]
    if events[end:]:
        held[cursor["id"]] = events[end:]
        cursor["postBatchResumeToken"] = events[end - 1]["_id"]


serve(int(sys.argv[1]), lambda content: held or b"splitEvent" in content, change)
