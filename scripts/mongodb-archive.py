"""The writers and the checks of scripts/mongodb-archive.sh, which use only pymongo.

Usage: mongodb-archive.py absent              fails if the database exists
       mongodb-archive.py drop                drops the database
       mongodb-archive.py write LOG COUNT     makes COUNT writes, each with a line in LOG once the server has accepted it
       mongodb-archive.py container URL       creates a blob container
       mongodb-archive.py count URL           counts its blobs
       mongodb-archive.py check LOG URL       checks that there is exactly one correct blob for each write
       mongodb-archive.py pick LOG            prints the id of an existing document
       mongodb-archive.py show ID             prints the document, with a digest of its bytes
       mongodb-archive.py damage ID           damages the document with an update
MONGODB_URI names the server.
"""

import base64
import hashlib
import hmac
import http.client
import json
import random
import sys
import time
import urllib.parse
import xml.etree.ElementTree

import bson
from bson import Decimal128, Int64, ObjectId
from bson.raw_bson import RawBSONDocument
from mongodb_people import Database, act, read_log, text_of

DATABASE = Database("rewind_archive", "orders")
# Azurite's default account; Microsoft publishes its key, so it is not a secret.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
OPS = {"insert": "create", "update": "update", "replace": "replace", "delete": "delete"}


def identity(text):
    """The text of an id: the hex digits of an ObjectId, the digits of an integer, a string itself."""
    if len(text) == 24:
        return ObjectId(text)
    return int(text) if text.isdigit() else text


def write(log, count):
    rng, alive, orders = random.Random(7), {}, DATABASE.collection()
    with open(log, "a", encoding="utf-8") as file:
        for n in range(int(count)):
            op = rng.choice(["insert", "insert", "update", "update", "replace", "delete"])
            if op == "insert" or len(alive) < 5:
                op, key = "insert", rng.choice([f"order-{n:03}", ObjectId(rng.randbytes(12)), 1000 + n])
                alive[str(key)] = key
            else:
                key = rng.choice(list(alive.values()))
            price = Decimal128(f"{rng.randint(1, 99)}.{rng.randint(0, 99):02}")
            order = {"_id": key, "customer": f"c-{rng.randint(1, 9)}", "total": price, "items": Int64(n), "state": "new"}
            raw = bson.encode(order)
            if op == "insert":
                orders.insert_one(RawBSONDocument(raw))
            elif op == "replace":
                assert orders.replace_one({"_id": key}, RawBSONDocument(raw)).matched_count == 1
            elif op == "update":
                assert orders.update_one({"_id": key}, {"$set": {"total": price, "state": f"paid-{n}"}}).modified_count == 1
                # There is no other writer, so this is the document after the update.
                raw = orders.find_one({"_id": key}).raw
            else:
                assert orders.delete_one({"_id": key}).deleted_count == 1
                raw = None
                del alive[str(key)]
            line = {"n": n, "op": op, "id": str(key), "bson": text_of(raw)}
            file.write(json.dumps(line) + "\n")
            file.flush()
            time.sleep(0.01)


class Blobs:
    """A blob container, accessed over one connection without the storage SDK."""

    def __init__(self, url):
        self.url = urllib.parse.urlsplit(url)
        fields = [("sv", "2019-12-12"), ("ss", "b"), ("srt", "co"), ("sp", "rwdlc"), ("se", "2099-01-01T00:00:00Z")]
        text = f"{ACCOUNT}\nrwdlc\nb\nco\n\n2099-01-01T00:00:00Z\n\nhttps,http\n2019-12-12\n"
        mac = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
        self.query = urllib.parse.urlencode([*fields, ("spr", "https,http"), ("sig", base64.b64encode(mac).decode())])
        self.connection = http.client.HTTPConnection(self.url.netloc)

    def ask(self, method, path, status):
        headers = {"x-ms-version": "2021-12-02", "content-length": "0"}
        self.connection.request(method, f"{self.url.path}{path}&{self.query}", headers=headers)
        answer = self.connection.getresponse()
        body = answer.read()
        if answer.status != status:
            sys.exit(f"error: the blob store answered {answer.status}")
        return body

    def names(self):
        names, marker = [], ""
        while True:
            page = self.ask("GET", f"?restype=container&comp=list&marker={urllib.parse.quote(marker)}", 200)
            root = xml.etree.ElementTree.fromstring(page.decode("utf-8-sig"))
            names += [name.text for name in root.iter("Name")]
            marker = root.findtext("NextMarker") or ""
            if not marker:
                return names

    def read(self, name):
        return json.loads(self.ask("GET", f"/{urllib.parse.quote(name)}?", 200))


def check(log, url):
    lives, came, looked_up, gone = {}, {}, 0, 0
    for line in read_log(log):
        lives.setdefault(line["id"], []).append(line)
    blobs = Blobs(url)
    names = blobs.names()
    for name in names:
        event = blobs.read(name)
        came.setdefault(event["id"], []).append(event)
    for key in lives.keys() | came.keys():
        wrote = lives.get(key, [])
        got = sorted(came.get(key, []), key=lambda event: (event["ts"], event["lsn"]))
        if [OPS[line["op"]] for line in wrote] != [event["op"] for event in got]:
            ops = [line["op"] for line in wrote], [event["op"] for event in got]
            sys.exit(f"FAILED     {key}: {ops[0]} were written, but the blobs contain {ops[1]}")
        for at, (line, event) in enumerate(zip(wrote, got)):
            # The server looks up the document of an update when it reads the update, so it may be a later version.
            allowed = [later["bson"] for later in wrote[at:]] if line["op"] == "update" else [line["bson"]]
            if event.get("bson") not in allowed:
                sys.exit(f"FAILED     {key}: the bytes of write {line['n']} differ from the blob")
            if event.get("bson") != line["bson"]:
                looked_up, gone = looked_up + 1, gone + (event.get("bson") is None)
    writes = sum(map(len, lives.values()))
    if len(names) != writes:
        sys.exit(f"FAILED     {writes} writes and {len(names)} blobs")
    print(f"proved     {writes} writes of {len(lives)} documents, {len(names)} blobs: none missing, none duplicated, each in order")
    print(f"exact      {writes - looked_up} have the bytes as written")
    if looked_up:
        print(f"looked up  {looked_up} updates have the document of a later write, {gone} of them none because of a delete")


def container(url):
    Blobs(url).ask("PUT", "?restype=container", 201)


def count(url):
    print(len(Blobs(url).names()))


def pick(log):
    lives = {line["id"]: line for line in read_log(log)}
    # The last write is a full document, so that the archive contains the document itself.
    print(next(line["id"] for line in lives.values() if line["op"] in ("insert", "replace") and line["id"].startswith("order")))


def show(key):
    raw = DATABASE.collection().find_one({"_id": identity(key)}).raw
    print(bson.decode(raw), "bytes", hashlib.sha256(raw).hexdigest()[:16])


def damage(key):
    ruin = {"$set": {"total": -1}, "$unset": {"customer": "", "items": ""}}
    assert DATABASE.collection().update_one({"_id": identity(key)}, ruin).modified_count == 1


if __name__ == "__main__":
    act(__doc__, DATABASE.absent, DATABASE.drop, write, container, count, check, pick, show, damage)
