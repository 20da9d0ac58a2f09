#!/usr/bin/env python3
"""The baseline of scripts/bench-mongodb.sh: a typical pymongo loop over a change stream.

Usage: mongodb_watch.py write URI COUNT        writes COUNT documents of 1 KB to bench.documents
       mongodb_watch.py container URL          creates a blob container
       mongodb_watch.py begin URI TOKEN        saves the current stream position in the file TOKEN
       mongodb_watch.py read URI TOKEN SINK    reads from there until it has caught up; SINK is stdout, file:PATH,
                                               blob:URL or blob-sdk:URL

Every event is written as canonical Extended JSON. The token is saved after every 1,000 events and at the end. Blobs
are written over one keep-alive connection: with plain HTTP (blob), or with the storage SDK (blob-sdk), as is typical.
"""

import base64
import hashlib
import hmac
import http.client
import os
import sys
import urllib.parse

import pymongo
from bson.json_util import CANONICAL_JSON_OPTIONS, dumps, loads

# Azurite's default account; Microsoft publishes its key, so it is not a secret.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
INSISTED = [{"$match": {"operationType": {"$in": ["insert", "update", "replace"]}}}]


def signature():
    """An account SAS for blobs, in the form of version 2019-12-12."""
    fields = [("sv", "2019-12-12"), ("ss", "b"), ("srt", "co"), ("sp", "rwdlc"), ("se", "2099-01-01T00:00:00Z")]
    text = f"{ACCOUNT}\nrwdlc\nb\nco\n\n2099-01-01T00:00:00Z\n\nhttps,http\n2019-12-12\n"
    mac = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
    return urllib.parse.urlencode([*fields, ("spr", "https,http"), ("sig", base64.b64encode(mac).decode())])


class Blobs:
    def __init__(self, url):
        self.url = urllib.parse.urlsplit(url)
        self.query = signature()
        self.connection = http.client.HTTPConnection(self.url.netloc)

    def put(self, path, body, headers):
        headers = {"x-ms-version": "2021-12-02", **headers}
        self.connection.request("PUT", f"{self.url.path}{path}&{self.query}", body=body, headers=headers)
        answer = self.connection.getresponse()
        answer.read()
        if answer.status != 201:
            sys.exit(f"error: the blob store answered {answer.status}")

    def write(self, change, text):
        name = urllib.parse.quote(f"{change['documentKey']['_id']}-{change['_id']['_data']}")
        self.put(f"/{name}?", text.encode(), {"x-ms-blob-type": "BlockBlob"})


class SdkBlobs:
    def __init__(self, url):
        # Imported only where it is used, because it takes twice the memory of everything else.
        from azure.storage.blob import ContainerClient

        self.container = ContainerClient.from_container_url(url, credential=KEY)

    def write(self, change, text):
        name = f"{change['documentKey']['_id']}-{change['_id']['_data']}"
        self.container.upload_blob(name, text, overwrite=True)


class Lines:
    def __init__(self, file):
        self.file = file

    def write(self, _, text):
        self.file.write(text + "\n")


def sink(name):
    kind, _, place = name.partition(":")
    if kind == "blob":
        return Blobs(place)
    if kind == "blob-sdk":
        return SdkBlobs(place)
    return Lines(sys.stdout if kind == "stdout" else open(place, "a", encoding="utf-8"))


def documents(uri):
    return pymongo.MongoClient(uri)["bench"]["documents"]


def save(token, path):
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(dumps(token))
    os.replace(path + ".new", path)


def write(uri, count):
    text, collection = "x" * 900, documents(uri)
    for first in range(0, int(count), 1000):
        numbers = range(first, min(first + 1000, int(count)))
        made = [{"_id": f"doc-{n:07}", "pk": f"key-{n // 10:06}", "n": n, "text": text} for n in numbers]
        collection.insert_many(made)


def begin(uri, path):
    with documents(uri).watch(INSISTED, full_document="updateLookup") as stream:
        save(stream.resume_token, path)


def read(uri, path, name):
    with open(path, encoding="utf-8") as file:
        token = loads(file.read())
    count, out = 0, sink(name)
    watch = documents(uri).watch(INSISTED, full_document="updateLookup", resume_after=token, max_await_time_ms=100)
    with watch as stream:
        while (change := stream.try_next()) is not None:
            out.write(change, dumps(change, json_options=CANONICAL_JSON_OPTIONS))
            count += 1
            if count % 1000 == 0:
                save(stream.resume_token, path)
        save(stream.resume_token, path)
    print(f"{count} changes read", file=sys.stderr)


def main():
    what, *args = sys.argv[1:] or [""]
    if what == "container":
        Blobs(args[0]).put("?restype=container", b"", {})
    elif what in ("write", "begin", "read"):
        {"write": write, "begin": begin, "read": read}[what](*args)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
