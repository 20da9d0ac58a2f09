#!/usr/bin/env node
// A second opinion on the local account by the JavaScript SDK (npm install @azure/cosmos).
//
// Usage: node node_sdk.mjs ENDPOINT KEY
// Prints "ok <n> checks", or what differs and exits with 1.
// @azure/cosmos is looked for from the current directory.

import { createRequire } from "node:module";
import { randomUUID } from "node:crypto";

const [endpoint, key] = process.argv.slice(2);
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

/** Reads until as many pages in a row were empty as there may be partitions. */
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
await changeFeeds(container);
await hierarchical(database);
await database.delete();
client.dispose();
console.log(`ok ${checks} checks`);
