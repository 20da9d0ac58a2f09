"""A proxy in front of a MongoDB server that passes its responses on, some of them changed."""

import asyncio
import struct

from bson import CodecOptions, SON, decode, encode

OP_MSG = 2013
# The flags, and the kind of the only section.
PREFIX = 5


def serve(port, is_of_interest, change):
    """Prints the port it listens on. `change` gets the cursor of each response whose bytes `is_of_interest` selects."""

    def rewritten(header, content):
        length, own, to, code = struct.unpack("<iiii", header)
        if code != OP_MSG or not is_of_interest(content):
            return header + content
        options = CodecOptions(document_class=SON)
        reply = decode(content[PREFIX : PREFIX + struct.unpack_from("<i", content, PREFIX)[0]], options)
        if "cursor" not in reply:
            return header + content
        change(reply["cursor"])
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

    async def one(reader, writer):
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
        to_server = messages(reader, server_writer, lambda header, content: header + content)
        await asyncio.gather(to_server, messages(server_reader, writer, rewritten))

    async def main():
        server = await asyncio.start_server(one, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    asyncio.run(main())


def batch_of(cursor):
    """The name of the cursor's batch."""
    return "firstBatch" if "firstBatch" in cursor else "nextBatch"
