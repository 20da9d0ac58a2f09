"""A proxy in front of a MongoDB server that passes its responses on, some of them changed."""

import asyncio
import struct

from bson import CodecOptions, SON, decode, encode

OPTIONS = CodecOptions(document_class=SON)
OP_MSG, OP_REPLY = 2013, 1
# What comes before the document of a response: the flags and the kind of the only section, or flags and numbers.
PREFIX = {OP_MSG: 5, OP_REPLY: 20}


def serve(port, is_of_interest, change, asked=None):
    """Prints the port it listens on. `change` gets each response whose bytes `is_of_interest` selects; `asked` gets each
    request: the command, and the documents that it has beside it, by their name."""

    def rewritten(header, content):
        length, own, to, code = struct.unpack("<iiii", header)
        if code not in PREFIX or not is_of_interest(content):
            return header + content
        at = PREFIX[code]
        reply = decode(content[at : at + struct.unpack_from("<i", content, at)[0]], OPTIONS)
        change(reply)
        # Without a checksum.
        before = struct.pack("<IB", 0, 0) if code == OP_MSG else content[:at]
        content = before + encode(reply)
        return struct.pack("<iiii", len(content) + 16, own, to, code) + content

    def passed_on(header, content):
        if asked and struct.unpack("<iiii", header)[3] == OP_MSG:
            asked(*sections(content))
        return header + content

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
        to_server = messages(reader, server_writer, passed_on)
        await asyncio.gather(to_server, messages(server_reader, writer, rewritten))

    async def main():
        server = await asyncio.start_server(one, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    asyncio.run(main())


def sections(content):
    """The command of a request, and the documents that it has beside it, by their name."""
    command, beside, at = None, {}, 4
    has_checksum = struct.unpack_from("<I", content)[0] & 1
    while at < len(content) - 4 * has_checksum:
        kind, end = content[at], at + 1 + struct.unpack_from("<i", content, at + 1)[0]
        if kind == 0:
            command = decode(content[at + 1 : end], OPTIONS)
        else:
            begin = content.index(0, at + 5)
            name, documents = content[at + 5 : begin].decode(), content[begin + 1 : end]
            beside[name] = []
            while documents:
                length = struct.unpack_from("<i", documents)[0]
                beside[name].append(decode(documents[:length], OPTIONS))
                documents = documents[length:]
        at = end
    return command, beside


def in_cursor(change):
    """Changes the cursor of a response that has one."""

    def changed(reply):
        if "cursor" in reply:
            change(reply["cursor"])

    return changed


def batch_of(cursor):
    """The name of the cursor's batch."""
    return "firstBatch" if "firstBatch" in cursor else "nextBatch"
