#!/usr/bin/env node
// Tests the local account with the JavaScript SDK (npm install @azure/cosmos).
//
// Usage: node node_sdk.mjs ENDPOINT KEY [--splits]
// Prints "ok <n> checks", or the differences and exits with 1. With --splits it also prints lines "split DATABASE
// CONTAINER RANGE", and waits after each for a line on its standard input that confirms the split.
// @azure/cosmos is resolved from the current directory.

import { createRequire } from "node:module";
import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline";

const [endpoint, key, splits] = process.argv.slice(2);
if (!key) {
  console.error("usage: node node_sdk.mjs ENDPOINT KEY");
  process.exit(2);
}
const require = createRequire(`${process.cwd()}/package.json`);
const { BulkOperationType, ChangeFeedMode, ChangeFeedStartFrom, CosmosClient, PartitionKeyKind, StatusCodes } =
  require("@azure/cosmos");

let checks = 0;

function check(what, found, expected = true) {
  checks += 1;
  if (JSON.stringify(found) !== JSON.stringify(expected)) {
    console.log(`failed: ${what}: expected ${JSON.stringify(expected)}, found ${JSON.stringify(found)}`);
    process.exit(1);
  }
}

async function refused(what, status, promise) {
  const found = await promise.then((answer) => answer.statusCode ?? "no error", (error) => error.code);
  check(what, found, status);
}

const ids = (items) => items.map((item) => item.id).sort();

async function crud(container) {
  const { resource: made } = await container.items.create({ id: "a", pk: "x", n: 1, text: "Köln 😀" });
  check("create returns the document", made.n, 1);
  check("read", (await container.item("a", "x").read()).resource.text, "Köln 😀");
  await refused("create twice", 409, container.items.create({ id: "a", pk: "x" }));
  check("upsert", (await container.items.upsert({ id: "a", pk: "x", n: 2 })).resource.n, 2);
  check("replace", (await container.item("a", "x").replace({ id: "a", pk: "x", n: 3, text: "old" })).resource.n, 3);
  const stale = { accessCondition: { type: "IfMatch", condition: made._etag } };
  await refused("a stale etag", 412, container.item("a", "x").replace({ id: "a", pk: "x" }, stale));
  const operations = [
    { op: "incr", path: "/n", value: 4 },
    { op: "add", path: "/tags", value: ["t"] },
    { op: "replace", path: "/text", value: "new" },
    { op: "remove", path: "/tags" },
  ];
  const { resource: patched } = await container.item("a", "x").patch(operations);
  check("patch", [patched.n, patched.text, patched.tags === undefined], [7, "new", true]);
  const conditional = container.item("a", "x").patch({ condition: "from c where c.n = 1", operations });
  await refused("a patch whose condition is not met", 412, conditional);
  const fitting = { condition: 'from c where c["text"] = "new"', operations: [{ op: "incr", path: "/n", value: 1 }] };
  check("a patch whose condition is met", (await container.item("a", "x").patch(fitting)).resource.n, 8);
  await container.item("a", "x").delete();
  await refused("read after delete", 404, container.item("a", "x").read());
  await refused("too large", 413, container.items.create({ id: "big", pk: "x", s: "s".repeat(2 * 1024 * 1024) }));
}

async function queries(container) {
  for (let n = 0; n < 60; n += 1) {
    await container.items.upsert({ id: `q${String(n).padStart(2, "0")}`, pk: `p${n % 7}`, n });
  }
  const all = async (query, options) => (await container.items.query(query, options).fetchAll()).resources;
  const top = await all("SELECT VALUE c.n FROM c WHERE c.n >= 55 ORDER BY c.n DESC");
  check("order by across partitions", top, [59, 58, 57, 56, 55]);
  const small = await all("SELECT VALUE c.n FROM c ORDER BY c.n", { maxItemCount: 4 });
  check("order by in small pages", small, Array.from({ length: 60 }, (_, n) => n));
  check("everything in small pages", (await all("SELECT * FROM c", { maxItemCount: 7 })).length, 60);
  const query = { query: "SELECT c.id FROM c WHERE c.n < @n", parameters: [{ name: "@n", value: 10 }] };
  check("in one partition", ids(await all(query, { partitionKey: "p3" })), ["q03"]);
  check("count in one partition", await all("SELECT VALUE COUNT(1) FROM c", { partitionKey: "p0" }), [9]);
  check("count across partitions", await all("SELECT VALUE COUNT(1) FROM c"), [60]);
  check("a property in brackets", await all('SELECT VALUE c["n"] FROM c WHERE c["id"] = "q07"'), [7]);
  check("distinct", (await all("SELECT DISTINCT VALUE c.pk FROM c")).sort(), ["p0", "p1", "p2", "p3", "p4", "p5", "p6"]);
  check("average", await all("SELECT VALUE AVG(c.n) FROM c"), [29.5]);
  check("sum", await all("SELECT VALUE SUM(c.n) FROM c WHERE c.n > 57"), [117]);
  check("minimum and maximum", [await all("SELECT VALUE MIN(c.n) FROM c"), await all("SELECT VALUE MAX(c.n) FROM c")], [[0], [59]]);
  const groups = await all("SELECT c.pk, COUNT(1) AS n, MAX(c.n) AS top FROM c GROUP BY c.pk");
  groups.sort((left, right) => (left.pk < right.pk ? -1 : 1));
  check("groups", [groups.length, groups[0]], [7, { pk: "p0", n: 9, top: 56 }]);
  check("undefined is left out", await all("SELECT VALUE c.missing FROM c"), []);
  check("a subquery", await all("SELECT VALUE c.id FROM c WHERE EXISTS(SELECT VALUE 1 FROM c WHERE c.n = 3)"), ["q03"]);
  const unknown = container.items.query("SELECT VALUE ST_DISTANCE(c.a, c.b) FROM c").fetchAll();
  await refused("an unknown function", 400, unknown);
  check("read all", (await container.items.readAll().fetchAll()).resources.length, 60);
  const first = await container.items.query("SELECT * FROM c", { partitionKey: "p1", maxItemCount: 4 }).fetchNext();
  const options = { partitionKey: "p1", continuationToken: first.continuationToken };
  const rest = await container.items.query("SELECT * FROM c", options).fetchAll();
  check("a continuation in another iterator", first.resources.length + rest.resources.length, 9);
}

async function batches(container) {
  await container.items.upsert({ id: "old", pk: "b", n: 1 });
  const { result } = await container.items.batch(
    [
      { operationType: "Create", resourceBody: { id: "new", pk: "b" } },
      { operationType: "Upsert", resourceBody: { id: "old", pk: "b", n: 2 } },
      { operationType: "Patch", id: "old", resourceBody: { operations: [{ op: "incr", path: "/n", value: 5 }] } },
      { operationType: "Read", id: "old" },
      { operationType: "Delete", id: "new" },
    ],
    "b",
  );
  check("batch statuses", result.map((one) => one.statusCode), [201, 200, 200, 200, 204]);
  check("a batch reads what it wrote", result[3].resourceBody.n, 7);
  const failing = await container.items.batch(
    [
      { operationType: "Create", resourceBody: { id: "x1", pk: "b" } },
      { operationType: "Create", resourceBody: { id: "old", pk: "b" } },
    ],
    "b",
  );
  check("a failing batch", failing.result.map((one) => one.statusCode), [424, 409]);
  await refused("nothing of a failed batch stays", 404, container.item("x1", "b").read());
  const operations = Array.from({ length: 150 }, (_, n) => ({
    operationType: BulkOperationType.Create,
    partitionKey: `k${n % 10}`,
    resourceBody: { id: `bulk${n}`, pk: `k${n % 10}`, n },
  }));
  operations.push({ operationType: BulkOperationType.Read, partitionKey: "b", id: "old" });
  operations.push({ operationType: BulkOperationType.Delete, partitionKey: "b", id: "missing" });
  const bulk = await container.items.executeBulkOperations(operations);
  check("bulk: all created", bulk.slice(0, 150).every((one) => one.response?.statusCode === 201));
  check("bulk: read", bulk[150].response?.resourceBody?.n, 7);
  check("bulk: a failure is its own", bulk[151].response?.statusCode ?? bulk[151].error?.code, 404);
  const stored = await container.items.query("SELECT VALUE c.id FROM c WHERE STARTSWITH(c.id, 'bulk')").fetchAll();
  check("bulk: stored", stored.resources.length, 150);
}

async function bulkFailures(container) {
  const { resource: before } = await container.items.upsert({ id: "kept", pk: "f1", n: 1 });
  const { resource: after } = await container.items.upsert({ id: "kept", pk: "f1", n: 2 });
  await container.items.upsert({ id: "dropped", pk: "f2" });
  const replace = (ifMatch, n) => ({
    operationType: BulkOperationType.Replace,
    partitionKey: "f1",
    id: "kept",
    ifMatch,
    resourceBody: { id: "kept", pk: "f1", n },
  });
  const create = (id, pk) => ({ operationType: BulkOperationType.Create, partitionKey: pk, resourceBody: { id, pk } });
  const read = { operationType: BulkOperationType.Read, partitionKey: "f1", id: "kept" };
  const remove = (id) => ({ operationType: BulkOperationType.Delete, partitionKey: "f2", id });
  const operations = [
    create("kept", "f1"),
    replace(before._etag, 3),
    remove("missing"),
    read,
    remove("dropped"),
    replace(after._etag, 4),
    read,
    create("fresh", "f3"),
    { operationType: BulkOperationType.Upsert, partitionKey: "f3", resourceBody: { id: "other", pk: "f3" } },
    // A key that the document does not have.
    { ...create("stray", "f4"), partitionKey: "f5" },
  ];
  const expected = [409, 412, 404, 200, 204, 200, 200, 201, 201, 400];
  const results = await container.items.executeBulkOperations(operations);
  check("bulk: each has its own status", results.map((one) => one.response?.statusCode ?? one.error?.code), expected);
  check("bulk: reads see what came before", [3, 6].map((at) => results[at].response.resourceBody.n), [2, 4]);
  const etags = [5, 6].map((at) => results[at].response.eTag);
  check("bulk: the etag of a write is the read's", etags[0], etags[1]);
  check("bulk: every result has its charge", results.every((one) => Number.isFinite((one.response ?? one.error).requestCharge)));
  check("bulk: it is the operation that was sent", results.map((one) => one.operationInput.operationType),
    operations.map((one) => one.operationType));
  const again = await container.items.bulk([create("kept", "f1"), remove("missing"), create("late", "f3"), read]);
  check("bulk of the older kind", again.map((one) => one.statusCode), [409, 404, 201, 200]);
  const { resources } = await container.items.query("SELECT VALUE c.id FROM c WHERE STARTSWITH(c.pk, 'f')").fetchAll();
  check("bulk: what failed left nothing", resources.sort(), ["fresh", "kept", "late", "other"]);
}

/** Counts bulk requests, and holds one of them back until its partition key range is split. */
async function bulkSplits() {
  const input = createInterface({ input: process.stdin });
  const lines = input[Symbol.asyncIterator]();
  const seen = { requests: 0, gone: 0 };
  const inFlight = new Set();
  let splitBefore = Infinity;
  let splitting;
  // Only while no other request is in flight. During a split the account answers 410 with sub-status 1007, like the
  // service. If this SDK then still reads the same ranges, its bulk run never ends.
  const split = async (range) => {
    await Promise.allSettled(inFlight);
    console.log(`split ${database.id} busy ${range}`);
    check("a split is confirmed", (await lines.next()).value, "done");
  };
  const plugin = async (context, diagnostics, next) => {
    const range = context.headers["x-ms-documentdb-partitionkeyrangeid"];
    if (!context.headers["x-ms-cosmos-is-batch-request"]) {
      return next(context, diagnostics);
    }
    seen.requests += 1;
    if (seen.requests === splitBefore) {
      splitting = split(range);
    }
    await splitting;
    const sent = next(context, diagnostics);
    inFlight.add(sent);
    try {
      return await sent;
    } catch (error) {
      seen.gone += error.code === 410 && error.substatus === 1002 ? 1 : 0;
      throw error;
    } finally {
      inFlight.delete(sent);
    }
  };
  const client = new CosmosClient({ endpoint, key, plugins: [{ on: "request", plugin }] });
  const { container } = await client
    .database(database.id)
    .containers.create({ id: "busy", partitionKey: { paths: ["/pk"], version: 2 } });
  const creations = (name, count) =>
    Array.from({ length: count }, (_, n) => ({
      operationType: BulkOperationType.Create,
      partitionKey: `${name}${n}`,
      resourceBody: { id: `${name}${n}`, pk: `${name}${n}` },
    }));
  const ranges = async () => (await container.readPartitionKeyRanges().fetchAll()).resources.length;
  const before = await ranges();
  const latest = container.items.getChangeFeedIterator({
    changeFeedStartFrom: ChangeFeedStartFrom.Now(),
    changeFeedMode: ChangeFeedMode.AllVersionsAndDeletes,
  });
  const { token } = await drain(latest);
  // In the middle of a run, when some of its requests have been applied.
  splitBefore = 4;
  const results = await container.items.executeBulkOperations(creations("m", 1200));
  const created = (one) => (one.response?.statusCode ?? one.error?.code ?? one.statusCode) === 201;
  check("bulk over a split: all created, none twice", results.filter(created).length, 1200);
  check("bulk over a split: it was refused once", seen.gone, 1);
  check("bulk over a split: there is a partition more", await ranges(), before + 1);
  // The older bulk method gets its ranges from the same cache.
  splitBefore = seen.requests + 1;
  const older = await container.items.bulk(creations("o", 60));
  check("bulk of the older kind over a split", [older.filter(created).length, seen.gone], [60, 2]);
  check("bulk of the older kind: there is a partition more", await ranges(), before + 2);
  const stored = await container.items.query("SELECT VALUE COUNT(1) FROM c").fetchAll();
  check("bulk over splits: all stored", stored.resources, [1260]);
  const feed = container.items.getChangeFeedIterator({
    changeFeedStartFrom: ChangeFeedStartFrom.Continuation(token),
    changeFeedMode: ChangeFeedMode.AllVersionsAndDeletes,
  });
  const changes = (await drain(feed)).items;
  check("bulk over splits: one change each", [changes.length, new Set(changes.map((one) => one.current.id)).size], [1260, 1260]);
  client.dispose();
  // Otherwise the process would wait for another line.
  input.close();
}

/** Reads until as many consecutive pages were empty as there may be partitions. */
async function drain(iterator) {
  const items = [];
  let token;
  for (let empty = 0; empty < 6; ) {
    const page = await iterator.readNext();
    token = page.continuationToken;
    if (page.statusCode === StatusCodes.NotModified || page.result.length === 0) {
      empty += 1;
    } else {
      empty = 0;
      items.push(...page.result);
    }
  }
  return { items, token };
}

async function changeFeeds(container) {
  const feed = (changeFeedStartFrom, changeFeedMode, maxItemCount) =>
    container.items.getChangeFeedIterator({ changeFeedStartFrom, changeFeedMode, maxItemCount });
  const latest = await drain(feed(ChangeFeedStartFrom.Now()));
  const all = feed(ChangeFeedStartFrom.Now(), ChangeFeedMode.AllVersionsAndDeletes);
  await drain(all);
  for (let n = 0; n < 3; n += 1) {
    await container.items.upsert({ id: "f", pk: "f", n });
  }
  await container.items.upsert({ id: "g", pk: "g" });
  await container.item("g", "g").delete();
  const { items } = await drain(feed(ChangeFeedStartFrom.Continuation(latest.token)));
  check("latest: once, newest", items.map((item) => [item.id, item.n]), [["f", 2]]);
  check("latest: with its lsn", Number.isInteger(items[0]._lsn));
  const changes = (await drain(all)).items;
  const kinds = changes.map((change) => change.metadata.operationType).sort();
  check("all versions", kinds, ["create", "create", "delete", "replace", "replace"]);
  const replaced = changes.filter((change) => change.metadata.operationType === "replace");
  check("previous images", replaced.map((change) => change.previous.n), [0, 1]);
  const whole = await drain(feed(ChangeFeedStartFrom.Beginning(), undefined, 9));
  const stored = (await container.items.readAll().fetchAll()).resources;
  check("from the beginning", ids(whole.items), ids(stored));
  const one = await drain(feed(ChangeFeedStartFrom.Beginning("p3")));
  check("one key's feed", [...new Set(one.items.map((item) => item.pk))], ["p3"]);
  const since = await drain(feed(ChangeFeedStartFrom.Time(new Date("2100-01-01T00:00:00Z"))));
  check("from a time to come", since.items, []);
}

async function hierarchical(database) {
  const partitionKey = { paths: ["/a", "/b"], kind: PartitionKeyKind.MultiHash, version: 2 };
  const { container } = await database.containers.create({ id: "tree", partitionKey });
  for (let n = 0; n < 12; n += 1) {
    await container.items.create({ id: `t${n}`, a: `a${n % 3}`, b: n });
  }
  check("a full key", (await container.item("t4", ["a1", 4]).read()).resource.b, 4);
  const query = container.items.query("SELECT * FROM c WHERE c.a = 'a1'", { maxItemCount: 2 });
  check("a predicate over a part of the key", ids((await query.fetchAll()).resources), ["t1", "t10", "t4", "t7"]);
}

const client = new CosmosClient({ endpoint, key });
const { database } = await client.databases.create({ id: `node-${randomUUID().slice(0, 8)}` });
const { container } = await database.containers.create({ id: "items", partitionKey: { paths: ["/pk"] } });
await crud(container);
await queries(container);
await batches(container);
await bulkFailures(container);
await changeFeeds(container);
await hierarchical(database);
if (splits === "--splits") {
  await bulkSplits();
}
await database.delete();
client.dispose();
console.log(`ok ${checks} checks`);
