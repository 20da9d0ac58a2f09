"""The writers and the checks of scripts/mongodb-bank.sh, which use only pymongo.

Usage: mongodb-bank.py absent                    fails if the database exists
       mongodb-bank.py drop                      drops the database
       mongodb-bank.py make                      creates a collection with pre- and post-images
       mongodb-bank.py write LOG SEED UPDATES    writes until UPDATES of the operations were updates, each with a line in LOG
       mongodb-bank.py due LOG NAME              prints how many events a listener should receive
       mongodb-bank.py tell NAME                 prints the first two events of a listener
       mongodb-bank.py check LOG                 checks the events of all listeners, and the count
MONGODB_URI names the server.
"""

import base64
import json
import random
import sys
import time

import bson
from bson import Decimal128
from mongodb_people import Database, act, read_log, text_of

DATABASE = Database("rewind_bank", "accounts")
# The test server looks up the document after an update when it reads the update, even with post-images. So an account
# is left alone for this many operations. A server that stores post-images does not need that.
CALM = 10


def money(rng):
    return Decimal128(f"{rng.randint(-200, 800)}.{rng.randint(0, 99):02}")


def write(log, seed, updates):
    rng, accounts, left = random.Random(int(seed)), DATABASE.collection(), int(updates)
    lines = read_log(log)
    with open(log, "a", encoding="utf-8") as file:
        while left:
            n, lately = len(lines), {line["id"] for line in lines[-CALM:]}
            alive = sorted(found["_id"] for found in accounts.find({}) if found["_id"] not in lately)
            op = rng.choice(["insert", "update", "update", "update", "replace", "delete"]) if len(alive) > 2 else "insert"
            key = f"acct-{n:03}" if op == "insert" else rng.choice(alive)
            live = lambda: getattr(accounts.find_one({"_id": key}), "raw", None)
            before, account = live(), {"_id": key, "owner": f"owner-{rng.randint(1, 99)}", "balance": money(rng)}
            if op == "insert":
                accounts.insert_one(account)
            elif op == "replace":
                assert accounts.replace_one({"_id": key}, account).modified_count == 1
            elif op == "delete":
                assert accounts.delete_one({"_id": key}).deleted_count == 1
            else:
                # A deposit or a withdrawal, or the owner moves, which is not a deposit.
                change = rng.choice([{"$set": {"balance": money(rng)}}, {"$set": {"street": f"street-{n}"}}])
                assert accounts.update_one({"_id": key}, change).modified_count == 1
                left -= 1
            lines.append({"op": op, "id": key, "before": text_of(before), "after": text_of(live())})
            file.write(json.dumps(lines[-1]) + "\n")
            file.flush()
            time.sleep(0.05)


def balance(text):
    return bson.decode(base64.b64decode(text))["balance"].to_decimal()


IS_FOR = {
    "red": lambda line: line["op"] == "insert" and balance(line["after"]) < 0,
    "deposits": lambda line: line["op"] == "update" and balance(line["after"]) > balance(line["before"]),
    "closed": lambda line: line["op"] == "delete",
    "replaced": lambda line: line["op"] == "replace",
    "counter": lambda line: True,
}


def events(name):
    with open(f"{name}.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def due(log, name):
    print(sum(map(IS_FOR[name], read_log(log))))


def tell(name):
    for event in events(name)[:2]:
        amount = lambda doc: doc and doc["balance"]["$numberDecimal"]
        before, after = amount(event["previous"]), amount(event["doc"])
        print(f"{name:10} {event['op']:8} {event['id']}  balance {before or 'none'} -> {after or 'none'}")


def check(log):
    writes = read_log(log)
    for name, is_for in IS_FOR.items():
        said = [(e["op"].replace("create", "insert"), e["id"], e.get("bson")) for e in events(name)]
        wanted = [(line["op"], line["id"], line["after"]) for line in writes if is_for(line)]
        if said != wanted:
            first = next((i for i, pair in enumerate(zip(said, wanted)) if pair[0] != pair[1]), min(len(said), len(wanted)))
            sys.exit(f"FAILED     {name}: {len(said)} events and {len(wanted)} in the log; first difference at {first}")
        if name != "counter":
            print(f"told       {name}: {len(said)} of {len(writes)} operations, exactly those in the log")
    counted = events("counter")
    if len({event["version"] for event in counted}) != len(writes):
        sys.exit("FAILED     the counter has a version twice")
    print(f"proved     the counter has 1 to {len(counted)}: no number missing or duplicated, in the order of the log")
    # The collection that results from the events' bytes alone.
    sum_of = {}
    for event in counted:
        if event["op"] == "delete":
            del sum_of[event["id"]]
        else:
            sum_of[event["id"]] = base64.b64decode(event["bson"])
    if sum_of != {found["_id"]: bytes(found.raw) for found in DATABASE.collection().find({})}:
        sys.exit("FAILED     the sum of the events differs from the collection")
    total = sum(bson.decode(raw)["balance"].to_decimal() for raw in sum_of.values())
    print(f"agrees     {len(sum_of)} accounts with {total} in total: the sum of the events equals the collection, byte by byte")


if __name__ == "__main__":
    act(__doc__, DATABASE.absent, DATABASE.drop, DATABASE.make, write, due, tell, check)
