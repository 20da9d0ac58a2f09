"""Shared by writers and checkers: random documents with all BSON types, and their representation in a log.

A log has one JSON line per write, in order: n, op (insert, update, replace, delete), id (canonical Extended JSON of
_id) and bson (base64 of the document after the write, null after a delete).
"""

import base64
import json
import random
import struct
import uuid

import bson
from bson import Binary, Code, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp, json_util
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument

# Dates outside the range of datetime and UUIDs of any subtype are kept as they are.
OPTIONS = CodecOptions(tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_MS)
RAW = CodecOptions(document_class=RawBSONDocument)
CANONICAL = json_util.JSONOptions(
    json_mode=json_util.JSONMode.CANONICAL, datetime_conversion=DatetimeConversion.DATETIME_MS, tz_aware=True
)


def id_text(raw):
    """Canonical Extended JSON of _id with a single spelling, the same for every reader of the same bytes."""
    value = bson.decode(raw, OPTIONS)["_id"]
    return json.dumps(json.loads(json_util.dumps(value, json_options=CANONICAL)), sort_keys=True)


def base64_of(raw):
    return base64.b64encode(raw).decode("ascii")


def read_log(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def values(rng):
    """One value of every type that Python can express, with sizes and signs that readers often get wrong."""
    return {
        "double": rng.choice([0.0, -0.0, 1.5, -20.5, 1e300, 5e-324, float("inf"), float("-inf"), float("nan"), 5.0]),
        "string": rng.choice(["", "plain", "a\u0000b", "\u00e4\u20ac\U0001f600", 'quo"te\\', "\u2028\x7f", "x" * 500]),
        "object": rng.choice([{}, {"a": {"b": {"c": Int64(1)}}}, {"": 1, "a.b": 2, "$x": 3}, {"$numberInt": "5"}]),
        "array": rng.choice([[], [1, "a", None, [2.0]], [{"x": []}], list(range(12))]),
        "binary": Binary(rng.randbytes(rng.choice([0, 1, 40])), rng.choice([0, 5, 7, 8, 128, 255])),
        "uuid": Binary.from_uuid(uuid.UUID(bytes=rng.randbytes(16))),
        "objectid": ObjectId(rng.randbytes(12)),
        "bool": rng.choice([True, False]),
        "date": DatetimeMS(rng.choice([0, -1, 1_700_000_000_123, 253402300799999, -62135596800000])),
        "null": None,
        "regex": Regex(rng.choice(["", "^a.*b$", "a/b\\d"]), rng.choice(["", "im", "ix"])),
        "code": Code(rng.choice(["", "function() { return 1; }"])),
        "scoped": Code("x", {"a": Int64(1)}),
        "int": rng.choice([0, 1, -1, 2**31 - 1, -(2**31)]),
        "timestamp": Timestamp(rng.choice([0, 1, 2**32 - 1]), rng.choice([0, 1, 2**32 - 1])),
        "long": Int64(rng.choice([0, 5, 2**53 + 1, 2**63 - 1, -(2**63)])),
        "decimal": Decimal128(rng.choice(["0", "1.10", "-0E+3", "NaN", "Infinity", "1E-6176", "9" * 34])),
        "minkey": MinKey(),
        "maxkey": MaxKey(),
    }


def ids(rng, n):
    """An _id of a random type; within a run, all ids and their texts are distinct."""
    made = [
        lambda: f"doc-{n}",
        lambda: ObjectId(rng.randbytes(12)),
        lambda: n,
        lambda: Int64(10_000_000_000 + n),
        lambda: n + 0.5,
        lambda: Decimal128(f"{n}.25"),
        lambda: Binary(b"id" + struct.pack(">I", n), 0),
        lambda: Binary.from_uuid(uuid.UUID(int=n + 1)),
        lambda: DatetimeMS(1_600_000_000_000 + n),
        lambda: {"tenant": "t", "n": n},
        lambda: Timestamp(1_600_000_000, n),
        lambda: f"\u00e4 /{n}?#\"\\",
    ]
    return made[n % len(made)]()


def document(rng, identity, n):
    """The bytes of a document with some of the types in random order; `n` makes it unique."""
    all_of_them = list(values(rng).items())
    rng.shuffle(all_of_them)
    body = dict(all_of_them[: rng.choice([0, 1, 4, len(all_of_them)])])
    return bson.encode({"_id": identity, "n": n, "balance": rng.randint(-100, 100), **body})


def generator(seed):
    return random.Random(seed)
