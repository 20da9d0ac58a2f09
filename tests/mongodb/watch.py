"""A minimal reader of change streams that writes events in the checker's format.

Usage: watch.py URI DATABASE COLLECTION EVENTS [--begin]
With --begin it writes the existing documents as `baseline` and stores the stream's position in EVENTS.token. Without, it
continues from there until it has caught up.
"""

import json
import sys

import bson
import pymongo
from bson import json_util

import lives

OPS = {"insert": "create", "update": "update", "replace": "replace", "delete": "delete"}


def event(op, identity, raw, namespace, place):
    text = json_util.dumps(identity, json_options=lives.CANONICAL)
    doc = None
    if raw is not None:
        view = json_util.dumps(bson.decode(raw, lives.OPTIONS), json_options=lives.CANONICAL)
        doc = {"id": text, **json.loads(view)}
    bytes_of = None if raw is None else lives.base64_of(raw)
    return {"op": op, "id": text, "version": f"{text}~{place}", "doc": doc, "ns": namespace, "bson": bytes_of}


def main():
    uri, database, collection, path, *more = sys.argv[1:]
    source = pymongo.MongoClient(uri)[database].get_collection(collection, codec_options=lives.RAW)
    namespace = f"{database}.{collection}"
    with open(path, "a", encoding="utf-8") as events:
        if more == ["--begin"]:
            with source.watch() as stream:
                token = stream.resume_token
            for document in source.find({}):
                identity = bson.decode(document.raw, lives.OPTIONS)["_id"]
                events.write(json.dumps(event("baseline", identity, document.raw, namespace, "start")) + "\n")
        else:
            with open(path + ".token", encoding="utf-8") as file:
                token = json.load(file)
            with source.watch(resume_after=token, full_document="updateLookup", max_await_time_ms=200) as stream:
                while (change := stream.try_next()) is not None:
                    identity = bson.decode(change["documentKey"].raw, lives.OPTIONS)["_id"]
                    found = change.get("fullDocument")
                    op, place = OPS[change["operationType"]], change["_id"]["_data"]
                    events.write(json.dumps(event(op, identity, found and found.raw, namespace, place)) + "\n")
                token = stream.resume_token
    with open(path + ".token", "w", encoding="utf-8") as file:
        json.dump({"_data": token["_data"]}, file)


if __name__ == "__main__":
    main()
