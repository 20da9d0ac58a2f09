#!/usr/bin/env python3
"""Four independent writers (pip install azure-cosmos) that run until stdin ends.

Usage: writers.py ENDPOINT KEY DATABASE CONTAINER SEED
Prints a line for each acknowledged write: {"id", "pk", "op", "etag", "document"}; "etag" is null for a delete.
A write without an answer is {"id", "pk", "op": "maybe"}.
"""

import json
import random
import sys
import threading

from azure.core.exceptions import AzureError
from azure.cosmos import CosmosClient

endpoint, key, database, name, seed = sys.argv[1:]
stop, said = threading.Event(), threading.Lock()


def say(**what):
    with said:
        print(json.dumps(what), flush=True)


def write(writer):
    # No two writers share a document, so the order of each document's writes is known.
    chance = random.Random(f"{seed}-{writer}")
    container = CosmosClient(endpoint, key).get_database_client(database).get_container_client(name)
    live, n = set(), 0
    while not stop.is_set():
        n += 1
        number = chance.randrange(25)
        document = {"id": f"{writer}-{number}", "pk": f"key-{number % 7}", "n": n, "text": "x" * chance.choice([1, 60, 4000])}
        of = {"id": document["id"], "pk": document["pk"]}
        try:
            if of["id"] in live and chance.random() < 0.15:
                container.delete_item(of["id"], of["pk"])
                live.discard(of["id"])
                say(**of, op="delete", etag=None, document=None)
            else:
                etag = container.upsert_item(document)["_etag"]
                live.add(of["id"])
                say(**of, op="put", etag=etag, document=document)
        except AzureError as error:
            print(f"{of}: {error}", file=sys.stderr)
            say(**of, op="maybe")


threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
for thread in threads:
    thread.start()
sys.stdin.read()
stop.set()
for thread in threads:
    thread.join()
