"""A proxy that makes a server look like the router of a sharded cluster, and logs every write that passes through it.

    router.py PORT LOG

Which collections are sharded is in config.collections, as in a cluster. A line of the log is one statement: op, the
filter (q) of an update or a delete, whether it is in a transaction. Prints the port it listens on.
"""

import sys

from bson import json_util

from between import serve

STATEMENTS = {"insert": "documents", "update": "updates", "delete": "deletes"}
# Members by which a driver recognises a replica set.
OF_A_SET = ("setName", "setVersion", "hosts", "primary", "me", "electionId", "topologyVersion", "lastWrite")

log = open(sys.argv[2], "a", encoding="utf-8")


def asked(command, beside):
    name = next(iter(command))
    for statement in beside.get(STATEMENTS.get(name), command.get(STATEMENTS.get(name), [])):
        line = {"op": name, "q": statement.get("q"), "inTransaction": command.get("autocommit") is False}
        log.write(json_util.dumps(line, json_options=json_util.CANONICAL_JSON_OPTIONS) + "\n")
    log.flush()


def change(reply):
    for name in OF_A_SET:
        reply.pop(name, None)
    reply["msg"] = "isdbgrid"


serve(int(sys.argv[1]), lambda content: b"maxWireVersion" in content, change, asked)
