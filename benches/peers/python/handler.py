#!/usr/bin/env python3
"""A capture handler as typically written in Python with the official SDK, as a baseline for the benchmark
(docs/performance.md).

A custom handler of Azure Functions: receives an invocation, builds a record for each document, writes the records, and
answers 200 only when all of them are written. Its records have the format of `serve`, but without what makes those
exact (original text, re-reads, dead letters), so it does less work. It uses the SDK's asynchronous client, and the
SDK's own HTTP library as its server.

Usage: FUNCTIONS_CUSTOMHANDLER_PORT=PORT CosmosDB=CONNECTION-STRING handler.py
"""

import asyncio
import datetime
import json
import logging
import os

from aiohttp import web
from azure.cosmos.aio import CosmosClient

BATCH_RECORDS = 100
BATCH_BYTES = 2 * 1024 * 1024 - 64 * 1024
MAX_WRITES = 64
MAX_BODY = 256 << 20
SYSTEM = ("id", "_rid", "_self", "_etag", "_attachments", "_ts", "_lsn")

logging.basicConfig(level=logging.WARNING)
log = logging.getLogger("handler")


def documents_of(body):
    """The documents of an invocation: an array in a string in a string, as sent by the host."""
    documents = next(iter(json.loads(body)["Data"].values()))
    while isinstance(documents, str):
        documents = json.loads(documents)
    if not isinstance(documents, list):
        raise ValueError("the invocation carries no list of documents")
    return documents


def record_of(document, at):
    lsn, ts = document.get("_lsn"), document.get("_ts")
    record = {"id": f"{document['id']}~{lsn}-{ts}"}
    for name, value in document.items():
        if name not in SYSTEM:
            record[name] = value
    record["_originalId"] = document["id"]
    record["_change"] = {
        "v": 1, "op": "upsert", "ts": ts, "lsn": lsn, "etag": document.get("_etag"), "rid": document.get("_rid"),
        "via": "trigger", "at": at,
    }
    return record


def batches_of(records, large):
    """Groups records for transactional batches: one key, at most 100 records, less than 2 MB."""
    if not large:
        for i in range(0, len(records), BATCH_RECORDS):
            yield records[i:i + BATCH_RECORDS]
        return
    batch, size = [], 0
    for record in records:
        own = len(json.dumps(record)) + 64
        if batch and (len(batch) == BATCH_RECORDS or size + own > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += own
    if batch:
        yield batch


class Capture:
    def __init__(self, container):
        self.container = container
        self.writes = asyncio.Semaphore(MAX_WRITES)

    async def upsert(self, record):
        async with self.writes:
            await self.container.upsert_item(record, no_response=True)

    async def write_batch(self, records):
        if len(records) == 1:
            await self.upsert(records[0])
            return
        operations = [("upsert", (record,)) for record in records]
        async with self.writes:
            # Raises if any operation fails.
            await self.container.execute_item_batch(operations, partition_key=records[0]["pk"])

    async def store(self, body):
        at = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
        records = [record_of(document, at) for document in documents_of(body)]
        keys = {json.dumps(record.get("pk")) for record in records}
        if len(records) > 1 and len(keys) == 1:
            # A small body does not need a check of the sizes.
            large = len(body) > BATCH_BYTES / 2
            writes = [self.write_batch(batch) for batch in batches_of(records, large)]
        else:
            writes = [self.upsert(record) for record in records]
        await asyncio.gather(*writes)
        return len(records)

    async def invoke(self, request):
        try:
            written = await self.store(await request.read())
        except Exception as error:  # pylint: disable=broad-except
            log.error("not stored, to be delivered again: %s", error)
            return web.json_response({"error": str(error)}, status=500)
        return web.json_response({"Outputs": {}, "Logs": [f"{written} records"], "ReturnValue": None})


async def alive(_request):
    return web.json_response({})


async def application():
    # The client and its connections live as long as the process.
    client = CosmosClient.from_connection_string(os.environ["CosmosDB"])
    await client.__aenter__()
    database = client.get_database_client(os.environ.get("COSMOS_DATABASE", "dev"))
    container = database.get_container_client(os.environ.get("COSMOS_CHANGES_CONTAINER", "changes"))
    app = web.Application(client_max_size=MAX_BODY)
    app.router.add_get("/", alive)
    app.router.add_post("/{function}", Capture(container).invoke)

    async def close(_app):
        await client.close()

    app.on_cleanup.append(close)
    return app


if __name__ == "__main__":
    port = int(os.environ["FUNCTIONS_CUSTOMHANDLER_PORT"])
    web.run_app(application(), host="127.0.0.1", port=port, print=None, access_log=None)
