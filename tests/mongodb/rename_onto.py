"""Stands before a MongoDB server and tells the end of a collection as another kind of server does: where one was renamed onto it.

    rename_onto.py PORT DATABASE COLLECTION

MongoDB tells a rename onto a watched collection (which `$out` is) as `rename` with `to`; the server of the tests tells a drop.
Prints the port that it listens on. What is no such event goes through as it is.
"""

import asyncio
import struct
import sys

from bson import CodecOptions, SON, decode, encode

PORT, DATABASE, COLLECTION = int(sys.argv[1]), sys.argv[2], sys.argv[3]
OP_MSG = 2013
# Flags, and the kind of the only section.
PREFIX = 5


def told(event):
    """The event as the other server has it."""
    if event.get("operationType") != "drop" or event["ns"]["coll"] != COLLECTION:
        return event
    event["operationType"] = "rename"
    event["ns"] = SON(db=DATABASE, coll=COLLECTION + "_new")
    event["to"] = SON(db=DATABASE, coll=COLLECTION)
    return event


def rewritten(header, content):
    length, own, to, code = struct.unpack("<iiii", header)
    if code != OP_MSG or b"operationType\0\x05\0\0\0drop\0" not in content:
        return header + content
    reply = decode(content[PREFIX : PREFIX + struct.unpack_from("<i", content, PREFIX)[0]], CodecOptions(document_class=SON))
    for name in ("firstBatch", "nextBatch"):
        if name in reply.get("cursor", {}):
            reply["cursor"][name] = [told(event) for event in reply["cursor"][name]]
    # Without a checksum.
    content = struct.pack("<IB", 0, 0) + encode(reply)
    return struct.pack("<iiii", len(content) + 16, own, to, code) + content


async def messages(reader, writer, change):
    try:
        while True:
            header = await reader.readexactly(16)
            content = await reader.readexactly(struct.unpack_from("<i", header)[0] - 16)
            writer.write(change(header, content))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def serve(reader, writer):
    server_reader, server_writer = await asyncio.open_connection("127.0.0.1", PORT)
    to_server = messages(reader, server_writer, lambda header, content: header + content)
    await asyncio.gather(to_server, messages(server_reader, writer, rewritten))


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
