"""Stands before a MongoDB server and tells the end of a collection as another kind of server does: where one was renamed onto it.

    rename_onto.py PORT DATABASE COLLECTION

MongoDB tells a rename onto a watched collection (which `$out` is) as `rename` with `to`; the server of the tests tells a drop.
Prints the port that it listens on. What is no such event goes through as it is.
"""

import sys

from bson import SON

from between import batch_of, serve

PORT, DATABASE, COLLECTION = int(sys.argv[1]), sys.argv[2], sys.argv[3]


def told(event):
    """The event as the other server has it."""
    if event.get("operationType") != "drop" or event["ns"]["coll"] != COLLECTION:
        return event
    event["operationType"] = "rename"
    event["ns"] = SON(db=DATABASE, coll=COLLECTION + "_new")
    event["to"] = SON(db=DATABASE, coll=COLLECTION)
    return event


def change(cursor):
    batch = batch_of(cursor)
    cursor[batch] = [told(event) for event in cursor[batch]]


serve(PORT, lambda content: b"operationType\0\x05\0\0\0drop\0" in content, change)
