"""Prints what the Python SDK reads from an account of the past as JSON: `past.py ENDPOINT KEY`."""

import json
import sys

from azure.cosmos import CosmosClient, exceptions

endpoint, key = sys.argv[1:]
container = CosmosClient(endpoint, key).get_database_client("dev").get_container_client("events")
queried = list(container.query_items("SELECT * FROM c", enable_cross_partition_query=True))


def status(call):
    try:
        call()
    except exceptions.CosmosHttpResponseError as error:
        return error.status_code
    return None


print(
    json.dumps(
        {
            "queried": queried,
            "read": [container.read_item(d["id"], d["pk"]) for d in queried if d["id"] != ".."],
            "missing": status(lambda: container.read_item("never", "never")),
            "write": status(lambda: container.upsert_item({"id": "new", "pk": "new"})),
        }
    )
)
