#!/usr/bin/env node
// A capture handler as typically written in Node with the official SDK, as a baseline for the benchmark
// (docs/performance.md).
//
// A custom handler of Azure Functions: receives an invocation, builds a record for each document, writes the records,
// and answers 200 only when all of them are written. Its records have the format of `serve`, but without what makes
// those exact (original text, re-reads, dead letters), so it does less work.
//
// Usage: FUNCTIONS_CUSTOMHANDLER_PORT=PORT CosmosDB=CONNECTION-STRING [REWIND_BULK=auto|off] [NODE_BULK=older] node
// handler.mjs
// With REWIND_BULK=auto, records of several keys are written with the SDK's bulk operations, otherwise one by one. The
// SDK has two kinds: executeBulkOperations, and with NODE_BULK=older the deprecated bulk, which takes 100 operations
// for each partition key range.
// @azure/cosmos is resolved from the folder in TEST_PEERS_NODE (scripts/install-test-peers.sh installs it), otherwise
// from here.

import http from "node:http";
import { createRequire } from "node:module";
import process from "node:process";

const folder = process.env.TEST_PEERS_NODE;
const require = createRequire(folder ? `${folder}/package.json` : import.meta.url);
const { CosmosClient } = require("@azure/cosmos");

const BATCH_RECORDS = 100;
const BATCH_BYTES = 2 * 1024 * 1024 - 64 * 1024;
const MAX_WRITES = 64;
const BULK = process.env.REWIND_BULK === "auto";
const OLDER_BULK = process.env.NODE_BULK === "older";

// The SDK's own agent uses keep-alive connections.
const client = new CosmosClient({
  connectionString: process.env.CosmosDB,
  connectionPolicy: { enableBackgroundEndpointRefreshing: false },
});
const container = client
  .database(process.env.COSMOS_DATABASE ?? "dev")
  .container(process.env.COSMOS_CHANGES_CONTAINER ?? "changes");
const NO_CONTENT = { contentResponseOnWriteEnabled: false };

/** Limits the number of concurrent calls across all invocations. */
let free = MAX_WRITES;
const waiting = [];
async function limited(work) {
  if (free > 0) {
    free -= 1;
  } else {
    await new Promise((resolve) => waiting.push(resolve));
  }
  try {
    return await work();
  } finally {
    const next = waiting.shift();
    if (next) {
      next();
    } else {
      free += 1;
    }
  }
}

/** The documents of an invocation: an array in a string in a string, as sent by the host. */
function documentsOf(body) {
  let documents = Object.values(JSON.parse(body).Data)[0];
  while (typeof documents === "string") {
    documents = JSON.parse(documents);
  }
  if (!Array.isArray(documents)) {
    throw new Error("the invocation carries no list of documents");
  }
  return documents;
}

function recordOf(document, at) {
  const { id, _rid, _self, _etag, _attachments, _ts, _lsn, ...own } = document;
  return {
    id: `${id}~${_lsn}-${_ts}`,
    ...own,
    _originalId: id,
    _change: { v: 1, op: "upsert", ts: _ts, lsn: _lsn, etag: _etag, rid: _rid, via: "trigger", at },
  };
}

/** Groups records for transactional batches: one key, at most 100 records, less than 2 MB. */
function* batchesOf(records, large) {
  if (!large) {
    for (let i = 0; i < records.length; i += BATCH_RECORDS) {
      yield records.slice(i, i + BATCH_RECORDS);
    }
    return;
  }
  let batch = [];
  let bytes = 0;
  for (const record of records) {
    const size = Buffer.byteLength(JSON.stringify(record)) + 64;
    if (batch.length > 0 && (batch.length === BATCH_RECORDS || bytes + size > BATCH_BYTES)) {
      yield batch;
      batch = [];
      bytes = 0;
    }
    batch.push(record);
    bytes += size;
  }
  if (batch.length > 0) {
    yield batch;
  }
}

// The SDK always returns the document of a single write; only batches can omit it.
function upsert(record) {
  return limited(() => container.items.upsert(record));
}

async function writeBatch(records) {
  if (records.length === 1) {
    await upsert(records[0]);
    return;
  }
  const operations = records.map((resourceBody) => ({ operationType: "Upsert", resourceBody }));
  const answer = await limited(() => container.items.batch(operations, records[0].pk, NO_CONTENT));
  const failed = answer.result?.find((one) => one.statusCode >= 400);
  if (answer.code === 207 || failed) {
    throw new Error(`the batch was not stored: ${failed?.statusCode ?? answer.code}`);
  }
}

/** Writes records of several keys. The SDK groups them by range, splits requests and retries by itself. */
async function writeBulk(records) {
  const operations = records.map((resourceBody) => ({
    operationType: "Upsert",
    partitionKey: resourceBody.pk,
    resourceBody,
  }));
  let statuses;
  if (OLDER_BULK) {
    const results = await limited(() => container.items.bulk(operations, { continueOnError: true }, NO_CONTENT));
    statuses = results.map((one) => one.statusCode);
  } else {
    const results = await limited(() => container.items.executeBulkOperations(operations, NO_CONTENT));
    statuses = results.map((one) => one.response?.statusCode ?? one.error?.code);
  }
  const failed = statuses.findIndex((status) => !(status < 400));
  if (failed >= 0 || statuses.length !== records.length) {
    throw new Error(`a record was not stored: ${statuses[failed]}`);
  }
}

async function capture(body) {
  const at = new Date().toISOString();
  const records = documentsOf(body).map((document) => recordOf(document, at));
  const first = records[0]?.pk;
  if (records.length > 1 && records.every((record) => record.pk === first)) {
    // A small body does not need a check of the sizes.
    const large = body.length > BATCH_BYTES / 2;
    await Promise.all(Array.from(batchesOf(records, large), writeBatch));
  } else if (BULK && records.length > 1) {
    const parts = OLDER_BULK ? batchesOf(records, false) : [records];
    await Promise.all(Array.from(parts, writeBulk));
  } else {
    await Promise.all(records.map(upsert));
  }
  return records.length;
}

function answer(response, status, value) {
  const text = JSON.stringify(value);
  response.writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(text) });
  response.end(text);
}

const server = http.createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", async () => {
    if (request.method !== "POST") {
      answer(response, 200, {});
      return;
    }
    try {
      const written = await capture(Buffer.concat(chunks).toString("utf8"));
      answer(response, 200, { Outputs: {}, Logs: [`${written} records`], ReturnValue: null });
    } catch (error) {
      console.error(`not stored, to be delivered again: ${error.message}`);
      answer(response, 500, { error: error.message });
    }
  });
});
server.keepAliveTimeout = 120_000;
server.listen(Number(process.env.FUNCTIONS_CUSTOMHANDLER_PORT), "127.0.0.1");
process.on("SIGTERM", () => server.close(() => process.exit(0)));
