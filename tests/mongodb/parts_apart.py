"""A proxy that sends each fragment of a large event in a separate response, as MongoDB must.

    parts_apart.py PORT

The test server puts all fragments of an event into one response, whatever their size. Prints the port it listens on.
"""

import sys

from between import batch_of, in_cursor, serve

# The undelivered part of each cursor's batches.
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


serve(int(sys.argv[1]), lambda content: held or b"splitEvent" in content, in_cursor(change))
