"""Compares a collection with the final state of a writer's log, byte by byte.

Usage: check_state.py URI DATABASE COLLECTION LOG
"""

import base64
import sys

import pymongo

import lives


def main():
    uri, database, collection, log = sys.argv[1:]
    wanted = {}
    for line in lives.read_log(log):
        wanted.pop(line["id"], None)
        if line["bson"] is not None:
            wanted[line["id"]] = base64.b64decode(line["bson"])
    found = {}
    source = pymongo.MongoClient(uri)[database].get_collection(collection, codec_options=lives.RAW)
    for document in source.find({}):
        found[lives.id_text(document.raw)] = document.raw
    wrong = [text for text in wanted.keys() | found.keys() if wanted.get(text) != found.get(text)]
    for text in sorted(wrong)[:5]:
        print(f"differs: {text}\n  wanted {wanted.get(text)!r}\n  found  {found.get(text)!r}", file=sys.stderr)
    if wrong:
        sys.exit(f"{len(wrong)} of {len(wanted)} documents differ")
    print(f"ok {len(wanted)} documents")


if __name__ == "__main__":
    main()
