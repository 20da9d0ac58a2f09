// What the JavaScript SDK reads from an account that shows the past: `node past.mjs ENDPOINT KEY` prints it as JSON.
import { createRequire } from "node:module";

// From the folder that it is started in.
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
