"""What the people of the stories with MongoDB share: a database of their own on the server of MONGODB_URI, and how they are called."""

import base64
import json
import os
import sys

import pymongo
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument


class Database:
    """The database of one story. Its public methods can be called from the command line, as `act` says."""

    def __init__(self, name, collection):
        self.name, self._collection = name, collection

    def client(self):
        return pymongo.MongoClient(os.environ["MONGODB_URI"])

    def collection(self):
        """Its documents come and go as bytes."""
        raw = CodecOptions(document_class=RawBSONDocument)
        return self.client()[self.name].get_collection(self._collection, codec_options=raw)

    def absent(self):
        """Fails when the database is there."""
        if self.name in self.client().list_database_names():
            sys.exit(1)

    def drop(self):
        self.client().drop_database(self.name)

    def make(self):
        """Makes the collection, which keeps what documents were before and after each change."""
        self.client()[self.name].create_collection(self._collection, changeStreamPreAndPostImages={"enabled": True})


def text_of(raw):
    """The bytes of a document as a line of a log has them; nothing stays nothing."""
    return raw and base64.b64encode(raw).decode()


def read_log(path):
    """What was written, a line each."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def act(usage, *parts):
    """Calls the part that the first word of the command line names with the other words; else says how it is used."""
    what, *args = sys.argv[1:] or [""]
    known = {part.__name__: part for part in parts}
    if what not in known:
        sys.exit(usage)
    known[what](*args)
