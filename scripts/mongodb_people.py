"""Shared by the Python parts of the MongoDB scripts: a database on the server of MONGODB_URI, and the command line."""

import base64
import json
import os
import sys

import pymongo
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument


class Database:
    """The database of one script. Its public methods can be called from the command line through `act`."""

    def __init__(self, name, collection):
        self.name, self._collection = name, collection

    def client(self):
        return pymongo.MongoClient(os.environ["MONGODB_URI"])

    def collection(self):
        """The collection; documents are read and written as raw bytes."""
        raw = CodecOptions(document_class=RawBSONDocument)
        return self.client()[self.name].get_collection(self._collection, codec_options=raw)

    def absent(self):
        """Fails if the database exists."""
        if self.name in self.client().list_database_names():
            sys.exit(1)

    def drop(self):
        self.client().drop_database(self.name)

    def make(self):
        """Creates the collection with pre- and post-images."""
        self.client()[self.name].create_collection(self._collection, changeStreamPreAndPostImages={"enabled": True})


def text_of(raw):
    """The bytes of a document as encoded in a log; None stays None."""
    return raw and base64.b64encode(raw).decode()


def read_log(path):
    """The logged writes, one per line."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def act(usage, *parts):
    """Calls the part named by the first argument with the remaining ones, or prints the usage."""
    what, *args = sys.argv[1:] or [""]
    known = {part.__name__: part for part in parts}
    if what not in known:
        sys.exit(usage)
    known[what](*args)
