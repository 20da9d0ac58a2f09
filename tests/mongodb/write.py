"""Makes random changes to documents and logs them.

Usage: write.py URI DATABASE COLLECTION LOG COUNT SEED [--images] [--pause MS]
Makes COUNT writes. An existing log is continued, with the documents that exist at its end. With --images the collection
keeps pre- and post-images.
"""

import argparse
import json
import os
import time

import pymongo
from bson.raw_bson import RawBSONDocument

import lives


def main():
    parser = argparse.ArgumentParser()
    for name in ("uri", "database", "collection", "log"):
        parser.add_argument(name)
    parser.add_argument("count", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("--images", action="store_true")
    parser.add_argument("--pause", type=float, default=0)
    args = parser.parse_args()
    rng = lives.generator(args.seed)
    client = pymongo.MongoClient(args.uri)
    collection = client[args.database].get_collection(args.collection, codec_options=lives.RAW)
    if args.images and args.collection not in client[args.database].list_collection_names():
        client[args.database].create_collection(args.collection, changeStreamPreAndPostImages={"enabled": True})

    alive, n = {}, 0
    if os.path.exists(args.log):
        for line in lives.read_log(args.log):
            n = line["n"] + 1
            if line["bson"] is None:
                alive.pop(line["id"], None)
            else:
                alive[line["id"]] = None
        for found in collection.find({}):
            alive[lives.id_text(found.raw)] = found["_id"]

    with open(args.log, "a", encoding="utf-8") as log:
        for n in range(n, n + args.count):
            op, identity, raw = step(rng, collection, alive, n)
            line = {"n": n, "op": op, "id": identity, "bson": raw and lives.base64_of(raw)}
            log.write(json.dumps(line) + "\n")
            log.flush()
            if args.pause:
                time.sleep(args.pause / 1000)
    print(f"wrote {args.count}")


def step(rng, collection, alive, n):
    """Makes one write; returns its log entry."""
    op = rng.choice(["insert", "insert", "update", "update", "update", "replace", "delete"])
    # For some kinds of _id the server scans the whole collection, so long runs keep it small.
    if op == "insert" and len(alive) >= 200:
        op = "delete"
    if op == "insert" or len(alive) < 3:
        identity = lives.ids(rng, n)
        raw = lives.document(rng, identity, n)
        collection.insert_one(RawBSONDocument(raw))
        alive[lives.id_text(raw)] = identity
        return "insert", lives.id_text(raw), raw
    text = rng.choice(list(alive))
    identity = alive[text]
    if op == "delete":
        assert collection.delete_one({"_id": identity}).deleted_count == 1
        del alive[text]
        return op, text, None
    if op == "replace":
        raw = lives.document(rng, identity, n)
        assert collection.replace_one({"_id": identity}, RawBSONDocument(raw)).modified_count == 1
        return op, text, raw
    name, value = rng.choice(list(lives.values(rng).items()))
    change = {"$set": {"n": n, f"set-{name}": value}, "$inc": {"balance": rng.randint(-50, 50)}}
    assert collection.update_one({"_id": identity}, change).modified_count == 1
    # There is no other writer, so this is the document after the update.
    return op, text, collection.find_one({"_id": identity}).raw


if __name__ == "__main__":
    main()
