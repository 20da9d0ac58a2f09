#!/usr/bin/env python3
"""Tests the local account with the Python SDK (pip install azure-cosmos).

Usage: python_sdk.py ENDPOINT KEY
Prints "ok <n> checks", or the differences and exits with 1.
"""

import sys
import time
import uuid

from azure.core import MatchConditions
from azure.cosmos import CosmosClient, PartitionKey, exceptions

checks = 0


def check(what, found, expected=True):
    global checks
    checks += 1
    if found != expected:
        print(f"failed: {what}: expected {expected!r}, found {found!r}")
        sys.exit(1)


def refused(what, status, call):
    try:
        call()
    except exceptions.CosmosHttpResponseError as error:
        check(what, error.status_code, status)
        return
    check(what, "no error", status)


def ids(items):
    return sorted(item["id"] for item in items)


def crud(container):
    made = container.create_item({"id": "a", "pk": "x", "n": 1, "text": "Köln 😀"})
    check("create returns the document", made["n"], 1)
    check("read", container.read_item("a", "x")["text"], "Köln 😀")
    refused("create twice", 409, lambda: container.create_item({"id": "a", "pk": "x"}))
    check("upsert", container.upsert_item({"id": "a", "pk": "x", "n": 2})["n"], 2)
    check("replace", container.replace_item("a", {"id": "a", "pk": "x", "n": 3})["n"], 3)
    stale = {"etag": made["_etag"], "match_condition": MatchConditions.IfNotModified}
    refused("a stale etag", 412, lambda: container.replace_item("a", {"id": "a", "pk": "x"}, **stale))
    patched = container.patch_item("a", "x", [
        {"op": "incr", "path": "/n", "value": 4},
        {"op": "add", "path": "/tags", "value": ["t"]},
        {"op": "set", "path": "/deep", "value": {"a": 1}},
    ])
    check("patch", (patched["n"], patched["tags"], patched["deep"]), (7, ["t"], {"a": 1}))
    container.delete_item("a", "x")
    refused("read after delete", 404, lambda: container.read_item("a", "x"))
    refused("an id that is too long", 400, lambda: container.create_item({"id": "i" * 1024, "pk": "x"}))
    odd = "a b+c%d'e"
    container.create_item({"id": odd, "pk": "x"})
    check("an odd id", container.read_item(odd, "x")["id"], odd)
    container.delete_item(odd, "x")
    for key in [None, True, 1.5, "ä"]:
        container.create_item({"id": "k", "pk": key})
        check(f"partition key {key!r}", container.read_item("k", key)["pk"], key)
        container.delete_item("k", key)


def queries(container):
    for n in range(60):
        container.upsert_item({"id": f"q{n:02}", "pk": f"p{n % 7}", "n": n})
    everywhere = {"enable_cross_partition_query": True}
    found = container.query_items("SELECT VALUE c.n FROM c WHERE c.n >= 55 ORDER BY c.n DESC", **everywhere)
    check("order by across partitions", list(found), [59, 58, 57, 56, 55])
    found = container.query_items("SELECT VALUE c.n FROM c ORDER BY c.n", max_item_count=4, **everywhere)
    check("order by in small pages", list(found), list(range(60)))
    found = container.query_items("SELECT * FROM c", max_item_count=7, **everywhere)
    check("everything in small pages", len(ids(found)), 60)
    found = container.query_items(
        "SELECT c.id FROM c WHERE c.n < @n", parameters=[{"name": "@n", "value": 10}], partition_key="p3")
    check("in one partition", ids(found), ["q03"])
    pages = container.query_items("SELECT * FROM c", partition_key="p1", max_item_count=4).by_page()
    first = list(next(pages))
    rest = container.query_items("SELECT * FROM c", partition_key="p1", max_item_count=4).by_page(
        pages.continuation_token)
    others = [item for page in rest for item in page]
    check("a continuation in another iterator", len(ids(first + others)), 9)
    check("count in one partition", list(container.query_items("SELECT VALUE COUNT(1) FROM c", partition_key="p0")), [9])
    check("read all", len(list(container.read_all_items(max_item_count=10))), 60)
    refused("a query that is none", 400, lambda: list(container.query_items("SELEKT", **everywhere)))


def batches(container):
    container.upsert_item({"id": "old", "pk": "b", "n": 1})
    results = container.execute_item_batch([
        ("create", ({"id": "new", "pk": "b"},)),
        ("upsert", ({"id": "old", "pk": "b", "n": 2},)),
        ("patch", ("old", [{"op": "incr", "path": "/n", "value": 5}])),
        ("read", ("old",)),
        ("delete", ("new",)),
    ], "b")
    check("batch statuses", [result["statusCode"] for result in results], [201, 200, 200, 200, 204])
    check("a batch reads what it wrote", results[3]["resourceBody"]["n"], 7)
    try:
        container.execute_item_batch([
            ("create", ({"id": "x1", "pk": "b"},)),
            ("replace", ("missing", {"id": "missing", "pk": "b"})),
        ], "b")
        check("a failing batch", "no error", "error")
    except exceptions.CosmosBatchOperationError as error:
        check("the failing operation", error.error_index, 1)
        check("its status", [result["statusCode"] for result in error.operation_responses], [424, 404])
    refused("nothing of a failed batch stays", 404, lambda: container.read_item("x1", "b"))


def feed_of(container, **options):
    feed = container.query_items_change_feed(**options)
    items = list(feed)
    return items, container.client_connection.last_response_headers.get("etag")


def change_feeds(container):
    _, now = feed_of(container, start_time="Now")
    _, all_now = feed_of(container, start_time="Now", mode="AllVersionsAndDeletes")
    for n in range(3):
        container.upsert_item({"id": "f", "pk": "f", "n": n})
    container.upsert_item({"id": "g", "pk": "g"})
    container.delete_item("g", "g")
    items, token = feed_of(container, continuation=now)
    check("latest: once, newest", [(item["id"], item["n"]) for item in items], [("f", 2)])
    check("latest: with its lsn", isinstance(items[0]["_lsn"], int))
    check("latest: nothing new", feed_of(container, continuation=token)[0], [])
    items, _ = feed_of(container, continuation=all_now, mode="AllVersionsAndDeletes")
    kinds = sorted(item["metadata"]["operationType"] for item in items)
    check("all versions", kinds, ["create", "create", "delete", "replace", "replace"])
    previous = [item["previous"]["n"] for item in items if item["metadata"]["operationType"] == "replace"]
    check("previous images", previous, [0, 1])
    items, _ = feed_of(container, start_time="Beginning", partition_key="p3")
    check("one key's feed", {item["pk"] for item in items}, {"p3"})
    count = 0
    for feed_range in container.read_feed_ranges():
        count += len(feed_of(container, start_time="Beginning", feed_range=feed_range, max_item_count=5)[0])
    check("all ranges together", count, len(list(container.read_all_items())))


def hierarchical(database):
    container = database.create_container("tree", PartitionKey(path=["/a", "/b"], kind="MultiHash"))
    for n in range(12):
        container.create_item({"id": f"t{n}", "a": f"a{n % 3}", "b": n})
    check("a full key", container.read_item("t4", ["a1", 4])["b"], 4)
    found = container.query_items("SELECT * FROM c", partition_key=["a1"], max_item_count=2)
    check("the beginning of a key", ids(found), ["t1", "t10", "t4", "t7"])


def time_to_live(database):
    container = database.create_container("short", PartitionKey(path="/pk"), default_ttl=-1)
    container.create_item({"id": "s", "pk": "x", "ttl": 1})
    container.create_item({"id": "l", "pk": "x"})
    time.sleep(2.2)
    refused("an expired document", 404, lambda: container.read_item("s", "x"))
    check("the others stay", ids(container.read_all_items()), ["l"])


def main():
    if len(sys.argv) != 3:
        print(__doc__)
        sys.exit(2)
    client = CosmosClient(sys.argv[1], sys.argv[2])
    name = f"python-{uuid.uuid4().hex[:8]}"
    database = client.create_database(name)
    container = database.create_container("items", PartitionKey(path="/pk"))
    crud(container)
    queries(container)
    batches(container)
    change_feeds(container)
    hierarchical(database)
    time_to_live(database)
    client.delete_database(name)
    print(f"ok {checks} checks")


main()
