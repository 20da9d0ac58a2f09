"""Lets an older and a newer cosmos-rewind take turns, and compares what both say with the log of its own writes.

Started by scripts/upgrade.sh: OLDER NEWER LIVES SEED PHASES. Exits with 1 when anything differs.
"""

import http.client
import json
import os
import pathlib
import random
import socket
import subprocess
import sys
import tempfile
import time

from azure.cosmos import CosmosClient, PartitionKey

OLDER, NEWER, LIVES, SEED, PHASES = *sys.argv[1:3], *map(int, sys.argv[3:6])
BOTH = (OLDER, NEWER)
ROOT = pathlib.Path(__file__).resolve().parent.parent
IDS = ["a", "b", "c", "ü é"]
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith(("COSMOS", "Cosmos", "REWIND"))}
differences = 0


def differs(what, found, expected):
    global differences
    if found != expected:
        differences += 1
        print(f"{what}:\n  found    {found}\n  expected {expected}", file=sys.stderr)


def content(document):
    return {k: v for k, v in document.items() if not k.startswith("_")}


class Account:
    """The local account, as the newer program makes it, in a folder of its own."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.folder.name)
        command = [NEWER, "local", "--no-trigger", "--port", "0", "--partitions", "2"]
        self.process = subprocess.Popen(
            command, cwd=self.path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        ready = json.loads(self.process.stdout.readline())
        self.endpoint, self.key = ready["endpoint"], ready["key"]
        self.run(OLDER, "provision")
        self.database = CosmosClient(self.endpoint, self.key).get_database_client("dev")
        self.events = self.database.get_container_client("events")
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()

    def start(self, program, *arguments):
        return subprocess.Popen(
            [program, *arguments, "--endpoint", self.endpoint],
            cwd=self.path,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, program, *arguments, expected=(0,)):
        process = self.start(program, *arguments)
        out, err = process.communicate(timeout=300)
        if process.returncode not in expected:
            differs(f"{name(program)} {' '.join(arguments)}\n{out}{err}exit code", process.returncode, expected)
        return out

    def live(self, container="events"):
        documents = self.database.get_container_client(container).read_all_items()
        return {document["id"]: content(document) for document in documents}


def name(program):
    return "older" if program == OLDER else "newer"


class Life:
    def __init__(self, account, seed):
        self.account, self.random = account, random.Random(seed)
        self.log, self.moments, self.restores = {}, [], 0
        archive = account.path / "archive"
        archive.mkdir()
        self.follow_arguments = ["--mode", "all-versions", "--name", "upgrade", "--until-caught-up", "--poll", "20"]
        self.follow_arguments += ["--sink", "changes", "--sink", f"file:{archive / 'events.jsonl'}"]

    def either(self):
        return self.random.choice(BOTH)

    def follow(self):
        self.account.run(self.either(), "follow", *self.follow_arguments)

    def write(self):
        for _ in range(self.random.randint(1, 6)):
            key = self.random.choice(IDS)
            if key in self.log and self.random.random() < 0.3:
                self.account.events.delete_item(key, key)
                del self.log[key]
                continue
            document = {"id": key, "pk": key, "n": self.random.random(), "at": "2020-01-01T00:00:00.000Z"}
            document["text"] = self.random.choice(["", "ü", "x" * 5000])
            document["list"] = [1.0, 2e3, None, {"ttl": 1}]
            if self.random.random() < 0.3:
                document["ttl"] = 100000
            self.log[key] = content(dict(self.account.events.upsert_item(document)))

    def moment(self):
        # A second without writes: its state is no question of order.
        time.sleep(1.1)
        self.moments.append((int(time.time()), dict(self.log)))
        time.sleep(1.1)

    def restore_and_undo(self):
        planner, applier = self.random.choice([(OLDER, OLDER), (OLDER, NEWER), (NEWER, NEWER)])
        at, then = self.random.choice(self.moments[:-1])
        self.restores += 1
        plan = str(self.account.path / f"plan-{self.restores}")
        scope = ["--all", "--at", str(at), "--delete-newer=9", "--no-stamp"]
        self.account.run(planner, "restore", *scope, "--dry-run", "--plan-out", plan)
        if self.random.random() < 0.5:
            killed = self.account.start(applier, "restore", "--plan", plan, "--yes", "--concurrency", "1")
            time.sleep(self.random.uniform(0, 0.2))
            killed.kill()
            killed.communicate()
        else:
            self.account.run(applier, "restore", "--plan", plan, "--yes")
            differs(f"restored by {name(applier)}, planned by {name(planner)}", self.account.live(), then)
        self.follow()
        listed = json.loads(self.account.run(NEWER, "undo", "--list", "--format", "json"))
        for restore in sorted((entry["restore"] for entry in listed), reverse=True):
            if self.account.live() == self.log:
                break
            self.account.run(self.either(), "undo", restore, "--yes")
            self.follow()
        differs(f"undone, planned by {name(planner)}, applied by {name(applier)}", self.account.live(), self.log)

    def live_through(self):
        self.account.run(OLDER, "follow", *self.follow_arguments)
        for _ in range(PHASES):
            self.write()
            self.moment()
            self.follow()
            if len(self.moments) % 2 == 0:
                self.restore_and_undo()
        for at, then in self.moments:
            for program in BOTH:
                self.judge(program, at, then)
        self.account.run(NEWER, "verify")

    def judge(self, program, at, then):
        who = f"{name(program)}-{at}{'' if OLDER != NEWER else time.monotonic_ns()}"
        file = self.account.path / who
        self.account.run(program, "backup", "--all", "--at", str(at), "--out", str(file))
        documents = [json.loads(line) for line in file.read_text().splitlines()]
        differs(f"history, {who}", {d["id"]: content(d) for d in documents if "id" in d}, then)
        self.account.database.create_container(who, PartitionKey(path="/pk"))
        archive = ["--from-archive", str(self.account.path / "archive")]
        self.account.run(program, "restore", *archive, "--all", "--at", str(at), "--into", who, "--no-stamp", "--yes")
        differs(f"archive, {who}", self.account.live(who), then)


def deliver(account, program, changes, batches):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "FUNCTIONS_CUSTOMHANDLER_PORT": str(port),
        "CosmosDB": f"AccountEndpoint={account.endpoint};AccountKey={account.key};",
        "COSMOS_CHANGES_CONTAINER": changes,
    }
    # In the repository's folder, where host.json and the function are.
    handler = subprocess.Popen(
        [program, "serve"],
        cwd=ROOT,
        env=ENVIRONMENT | settings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for batch in batches:
            for attempt in range(200):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                try:
                    connection.request("POST", "/CaptureChanges", batch, {"Content-Type": "application/json"})
                    answer = connection.getresponse()
                    break
                except ConnectionRefusedError:
                    time.sleep(0.05)
            differs(f"answer of {name(program)} to a recorded batch: {answer.read()[:300]}, status", answer.status, 200)
    finally:
        handler.terminate()
        handler.wait()


def records(account, container):
    found = {}
    for record in account.database.get_container_client(container).read_all_items():
        facts = {k: v for k, v in record["_change"].items() if k != "at"}
        found[record["id"]] = content(record) | {"_originalId": record["_originalId"], "_change": facts}
    return found


def redeliver(account):
    folders = sorted((ROOT / "tests/fixtures/host-payloads").glob("*/"))
    for folder in folders:
        batches = [batch.read_bytes() for batch in sorted(folder.glob("batch-*.json"))]
        for first, second in ((OLDER, NEWER), (NEWER, OLDER)):
            changes = f"changes-{folder.name}-{first == OLDER}-{time.monotonic_ns()}"
            key = PartitionKey(path=["/pk", "/_originalId"], kind="MultiHash")
            account.database.create_container(changes, key)
            deliver(account, first, changes, batches)
            before = records(account, changes)
            differs(f"{folder.name} was captured", bool(before), True)
            deliver(account, second, changes, batches)
            differs(f"{folder.name}, again by {name(second)}", records(account, changes), before)
    return len(folders)


for seed in range(SEED, SEED + LIVES):
    with Account() as account:
        life = Life(account, seed)
        life.live_through()
        print(f"life {seed}: {len(life.moments)} moments, {life.restores} restores, {differences} differences", flush=True)
with Account() as account:
    print(f"recorded batches: {redeliver(account)} folders delivered twice, {differences} differences")
sys.exit(differences > 0)
