"""A proxy that reports a rename onto a watched collection as MongoDB does.

    rename_onto.py PORT DATABASE COLLECTION

MongoDB reports such a rename (`$out` makes one) as `rename` with `to`; the test server reports a drop. Other events
pass through unchanged. Prints the port it listens on.
"""

import sys

from bson import SON

from between import batch_of, in_cursor, serve

PORT, DATABASE, COLLECTION = int(sys.argv[1]), sys.argv[2], sys.argv[3]


def told(event):
    """The event in MongoDB's format."""
    if event.get("operationType") != "drop" or event["ns"]["coll"] != COLLECTION:
        return event
    event["operationType"] = "rename"
    event["ns"] = SON(db=DATABASE, coll=COLLECTION + "_new")
    event["to"] = SON(db=DATABASE, coll=COLLECTION)
    return event


def change(cursor):
    batch = batch_of(cursor)
    cursor[batch] = [told(event) for event in cursor[batch]]


serve(PORT, lambda content: b"operationType\0\x05\0\0\0drop\0" in content, in_cursor(change))
