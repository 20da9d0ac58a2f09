// Prints what the JavaScript SDK reads from an account of the past as JSON: `node past.mjs ENDPOINT KEY`.
import { createRequire } from "node:module";

// Resolved from the current directory.
const { CosmosClient } = createRequire(`${process.cwd()}/`)("@azure/cosmos");
const [endpoint, key] = process.argv.slice(2);
const container = new CosmosClient({ endpoint, key }).database("dev").container("events");
const { resources: queried } = await container.items.query("SELECT * FROM c").fetchAll();
const read = [];
for (const document of queried.filter((document) => document.id !== "..")) {
  read.push((await container.item(document.id, document.pk).read()).resource);
}
const missing = (await container.item("never", "never").read()).statusCode;
const write = await container.items.upsert({ id: "new", pk: "new" }).then(
  () => null,
  (error) => error.code,
);
console.log(JSON.stringify({ queried, read, missing, write }));
