// Starts the server under test, as `cargo build` makes it or as LARDER_BIN names
// it, and ends it with the test.
"use strict";

const { execFile, spawn } = require("node:child_process");
const { mkdtemp, rm, writeFile } = require("node:fs/promises");
const { once } = require("node:events");
const { tmpdir } = require("node:os");
const path = require("node:path");
const readline = require("node:readline");
const { promisify } = require("node:util");

const grpc = require("@grpc/grpc-js");
const protoLoader = require("@grpc/proto-loader");

const ROOT = path.resolve(__dirname, "../..");
const LARDER = path.resolve(process.env.LARDER_BIN ?? path.join(ROOT, "target/debug/larder"));

// Bounds every wait; nothing waits that long unless it is broken.
const PATIENCE_MS = 30_000;

// The contract of the talk.
const { rpc } = grpc.loadPackageDefinition(
  protoLoader.loadSync("rpc.proto", { includeDirs: [path.join(ROOT, "proto")] }),
);

// Without what would point larder at another server.
function environment() {
  const kept = Object.entries(process.env).filter(([name]) => !name.startsWith("LARDER_"));
  return Object.fromEntries(kept);
}

// A `larder serve` on a free port, with a data directory of its own. It must end
// with exit status 0.
async function startLarder(t, ...args) {
  const home = await mkdtemp(path.join(tmpdir(), "larder-"));
  const dataDir = path.join(home, "data");
  const command = ["serve", "--listen", "127.0.0.1:0", "--data-dir", dataDir, ...args];
  const child = spawn(LARDER, command, {
    env: { ...environment(), HOME: home },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let stderr = "";
  child.stderr.on("data", (text) => (stderr += text));
  const ended = once(child, "exit");
  t.after(async () => {
    child.kill("SIGTERM");
    const overdue = setTimeout(() => child.kill("SIGKILL"), PATIENCE_MS);
    const [status] = await ended;
    clearTimeout(overdue);
    await rm(home, { recursive: true });
    if (status !== 0) {
      throw new Error(`larder ended with ${status}:\n${stderr}`);
    }
  });
  const address = await listening(child, ended);
  if (address === undefined) {
    throw new Error(`larder did not listen:\n${stderr}`);
  }
  return { address, dataDir, home };
}

// Where the server says that it listens.
async function listening(child, ended) {
  const lines = readline.createInterface({ input: child.stdout });
  const said = new Promise((resolve) => {
    lines.on("line", (line) => {
      const found = /^listening on (.*)$/.exec(line);
      if (found !== null) {
        resolve(found[1]);
      }
    });
  });
  const overdue = AbortSignal.timeout(PATIENCE_MS);
  const late = once(overdue, "abort").then(() => undefined);
  return Promise.race([said, ended.then(() => undefined), late]);
}

// Makes an account whose token is `secret`.
async function importToken(larder, account, secret) {
  const file = path.join(larder.home, "secret");
  await writeFile(file, secret, { mode: 0o600 });
  const server = ["--server", `http://${larder.address}`];
  const token = ["--token-file", path.join(larder.dataDir, "admin-token")];
  const run = (...args) =>
    promisify(execFile)(LARDER, [...args, ...server, ...token], { env: environment() });
  await run("account", "create", account, "--max-keys", "1000000");
  await run("token", "create", account, "--secret-file", file);
}

// Metadata that shows a credential.
function bearer(secret) {
  const metadata = new grpc.Metadata();
  metadata.set("authorization", `Bearer ${secret}`);
  return metadata;
}

module.exports = { PATIENCE_MS, bearer, grpc, importToken, rpc, startLarder };
