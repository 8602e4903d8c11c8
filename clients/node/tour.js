// larder from Node, with grpc-js: each function is one thing that a client meets.
// The servers are named by the environment; clients/README.md says how.
"use strict";

const assert = require("node:assert/strict");
const { once: event } = require("node:events");
const { readFileSync } = require("node:fs");
const path = require("node:path");

const grpc = require("@grpc/grpc-js");
const protoLoader = require("@grpc/proto-loader");
const protobuf = require("protobufjs");

const {
  TOUR_ENTRIES,
  TOUR_FAULTY_SERVER,
  TOUR_PAIR,
  TOUR_SERVER,
  TOUR_SERVICE_CONFIG,
  TOUR_SLOW_SERVER,
  TOUR_TOKEN: TOKEN,
} = process.env;

const PROTO = path.resolve(__dirname, "../../proto");
const CONTRACT = ["rpc.proto", "larder/cache/v1/cache_service.proto"];
const { rpc, larder } = grpc.loadPackageDefinition(
  protoLoader.loadSync(CONTRACT, { includeDirs: [PROTO] }),
);

// What errors carry. grpc-js hands them out as bytes.
const details = new protobuf.Root();
details.resolvePath = (_, name) => protobuf.util.path.resolve(`${PROTO}/`, name, true);
details.loadSync(["google/rpc/status.proto", "google/rpc/error_details.proto"]);

// Opens a channel that retries as the service configuration says.
function connect(Client, target, options = {}) {
  return new Client(target, grpc.credentials.createInsecure(), {
    "grpc.service_config": readFileSync(TOUR_SERVICE_CONFIG, "utf8"),
    "grpc.enable_http_proxy": 0,
    ...options,
  });
}

// Makes a unary call; resolves to its answer.
function call(client, method, request, { metadata = new grpc.Metadata(), timeoutMs = 10_000 } = {}) {
  const options = { deadline: Date.now() + timeoutMs };
  return new Promise((resolve, reject) => {
    client[method](request, metadata, options, (error, answer) =>
      error === null ? resolve(answer) : reject(error),
    );
  });
}

// Stores a value and reads it back, as an account's token.
async function talk(cache) {
  const metadata = new grpc.Metadata();
  metadata.set("authorization", `Bearer ${TOKEN}`);
  const options = { metadata };
  await call(cache, "Store", { key: "gopher", val: Buffer.from("con") }, options);
  const { val } = await call(cache, "Get", { key: "gopher" }, options);
  assert.equal(val.toString(), "con");
}

// Stores more keys than the account may have, and reads why not.
async function quota(cache) {
  await call(cache, "Store", { key: "second", accountToken: TOKEN });
  const error = await call(cache, "Store", { key: "third", accountToken: TOKEN }).catch((e) => e);
  assert.equal(error.code, grpc.status.FAILED_PRECONDITION);

  const [bytes] = error.metadata.get("grpc-status-details-bin");
  const found = {};
  for (const { type_url: url, value } of details.lookupType("google.rpc.Status").decode(bytes).details) {
    const name = url.split("/").pop();
    found[name] = details.lookupType(name).decode(value);
  }
  const info = found["google.rpc.ErrorInfo"];
  assert.deepEqual([info.domain, info.reason], ["larder", "KEY_QUOTA_EXCEEDED"]);
  const [violation] = found["google.rpc.QuotaFailure"].violations;
  assert.match(violation.subject, /tour/);
}

// Gives up on a slow server, which then leaves the call undone.
async function deadline() {
  const slow = connect(rpc.Cache, TOUR_SLOW_SERVER);
  try {
    const late = { key: "late", accountToken: TOKEN };
    await fails("DEADLINE_EXCEEDED", call(slow, "Store", late, { timeoutMs: 1000 }));
    // Nothing later: it was not stored behind the caller's back.
    await fails("NOT_FOUND", call(slow, "Get", late));
  } finally {
    slow.close();
  }
}

// Has a store checked but not carried out.
async function dryRun(cache) {
  const metadata = new grpc.Metadata();
  metadata.set("dry-run", "1");
  const request = { key: "gopher", val: Buffer.from("phercon"), accountToken: TOKEN };
  const echoed = [];
  await new Promise((resolve, reject) => {
    const started = cache.Store(request, metadata, (error) => (error ? reject(error) : undefined));
    started.on("metadata", (headers) => echoed.push(...headers.get("dry-run")));
    started.on("status", ({ metadata: trailers }) => resolve(echoed.push(...trailers.get("dry-run"))));
  });
  assert.deepEqual(echoed, ["1"]);

  const { val } = await call(cache, "Get", { key: "gopher", accountToken: TOKEN });
  assert.equal(val.toString(), "con");
}

// Streams every entry.
async function dump(cache) {
  const keys = new Set();
  for await (const { key, val } of cache.Dump({}, { deadline: Date.now() + 30_000 })) {
    assert.equal(val.toString(), `value of ${key}`);
    keys.add(key);
  }
  assert.equal(keys.size, Number(TOUR_ENTRIES));
}

// Reads from a server that fails twice, and does not notice.
async function retry(faulty) {
  const { hit } = await call(faulty, "Get", { key: Buffer.from("unavailable-twice") });
  assert.equal(hit.value.toString(), "value of unavailable-twice");
}

// Is told at once what another attempt would not change, or might do twice.
async function once(faulty) {
  const get = (key) => call(faulty, "Get", { key: Buffer.from(key) });
  await fails("NOT_FOUND", get("not-found"));
  await fails("FAILED_PRECONDITION", get("failed-precondition"));
  const increment = { key: Buffer.from("unavailable-twice"), delta: 1 };
  await fails("UNAVAILABLE", call(faulty, "Increment", increment));
}

// Goes on with the second server when the first one dies.
async function failover() {
  // A list of addresses is no name of a server: it needs one.
  const pair = connect(larder.cache.v1.CacheService, `ipv4:${TOUR_PAIR}`, {
    "grpc.default_authority": "localhost",
  });
  try {
    await call(pair, "Set", { key: Buffer.from("before") });
    report("failover", "waiting");
    await event(process.stdin, "data");
    await call(pair, "Set", { key: Buffer.from("after") });
  } finally {
    pair.close();
  }
}

async function fails(code, promise) {
  const error = await promise.then(() => undefined, (e) => e);
  assert.equal(grpc.status[error?.code], code, String(error));
}

function report(behaviour, outcome, why = "") {
  console.log(JSON.stringify({ behaviour, outcome, why }));
}

async function main() {
  const cache = connect(rpc.Cache, TOUR_SERVER);
  const faulty = connect(larder.cache.v1.CacheService, TOUR_FAULTY_SERVER);
  const tour = {
    talk: () => talk(cache),
    quota: () => quota(cache),
    deadline,
    "dry-run": () => dryRun(cache),
    dump: () => dump(cache),
    retry: () => retry(faulty),
    once: () => once(faulty),
    failover,
  };
  for (const [behaviour, run] of Object.entries(tour)) {
    try {
      await run();
      report(behaviour, "passed");
    } catch (error) {
      report(behaviour, "failed", String(error));
    }
  }
  cache.close();
  faulty.close();
  process.stdin.destroy();
}

main();
