// larder from a browser, with Connect-ES and nothing between: the server allows
// the page's origin (`--cors-origin`). Each function is one thing that a client
// meets. Where the servers are stands in scene.json; clients/README.md says more.

import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";

import { ErrorInfoSchema, QuotaFailureSchema } from "./gen/google/rpc/error_details_pb";
import { Cache } from "./gen/rpc_pb";

type Scene = Record<"TOUR_SERVER" | "TOUR_SLOW_SERVER" | "TOUR_TOKEN" | "TOUR_ENTRIES", string>;

const scene: Scene = await (await fetch("scene.json")).json();
const accountToken = scene.TOUR_TOKEN;

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (value: Uint8Array) => new TextDecoder().decode(value);

let fetches = 0;

function connect(server: string): Client<typeof Cache> {
  const transport = createConnectTransport({
    baseUrl: `http://${server}`,
    fetch: (...request) => {
      fetches += 1;
      return fetch(...request);
    },
  });
  return createClient(Cache, transport);
}

// Stores a value and reads it back, as an account's token.
async function talk(cache: Client<typeof Cache>) {
  const options = { headers: { authorization: `Bearer ${accountToken}` }, timeoutMs: 10_000 };
  await cache.store({ key: "gopher", val: bytes("con") }, options);
  const { val } = await cache.get({ key: "gopher" }, options);
  check(text(val) === "con", `got ${text(val)}`);
}

// Stores more keys than the account may have, and reads why not.
async function quota(cache: Client<typeof Cache>) {
  await cache.store({ key: "second", accountToken });
  const error = await errorOf(cache.store({ key: "third", accountToken }));
  check(error.code === Code.FailedPrecondition, error.message);

  const [info] = error.findDetails(ErrorInfoSchema);
  check(info?.domain === "larder" && info.reason === "KEY_QUOTA_EXCEEDED", "no such ErrorInfo");
  const [failure] = error.findDetails(QuotaFailureSchema);
  check(failure?.violations[0]?.subject.includes("tour") === true, "no such QuotaFailure");
}

// Gives up on a slow server, which then leaves the call undone.
async function deadline() {
  const slow = connect(scene.TOUR_SLOW_SERVER);
  const late = { key: "late", accountToken };
  const error = await errorOf(slow.store(late, { timeoutMs: 1000 }));
  check(error.code === Code.DeadlineExceeded, error.message);
  // Nothing later: it was not stored behind the caller's back.
  const absent = await errorOf(slow.get(late, { timeoutMs: 10_000 }));
  check(absent.code === Code.NotFound, absent.message);
}

// Has a store checked but not carried out.
async function dryRun(cache: Client<typeof Cache>) {
  let echoed: string | null = null;
  await cache.store(
    { key: "gopher", val: bytes("phercon"), accountToken },
    {
      headers: { "dry-run": "1" },
      onHeader: (headers) => {
        echoed = headers.get("dry-run");
      },
    },
  );
  check(echoed === "1", `echoed ${echoed}`);
  const { val } = await cache.get({ key: "gopher", accountToken });
  check(text(val) === "con", `stored ${text(val)}`);
}

// Streams every entry.
async function dump(cache: Client<typeof Cache>) {
  const keys = new Set<string>();
  for await (const { key, val } of cache.dump({}, { timeoutMs: 30_000 })) {
    check(text(val) === `value of ${key}`, `${key} has ${text(val)}`);
    keys.add(key);
  }
  check(keys.size === Number(scene.TOUR_ENTRIES), `${keys.size} entries`);
}

// Is told at once what another attempt would not change.
async function once(cache: Client<typeof Cache>) {
  const before = fetches;
  const absent = await errorOf(cache.get({ key: "nothing", accountToken }));
  check(absent.code === Code.NotFound, absent.message);
  const refused = await errorOf(cache.store({ key: "third", accountToken }));
  check(refused.code === Code.FailedPrecondition, refused.message);
  check(fetches - before === 2, `${fetches - before} requests for two calls`);
}

async function errorOf(call: Promise<unknown>): Promise<ConnectError> {
  try {
    await call;
  } catch (error) {
    return ConnectError.from(error);
  }
  throw new Error("the call went well");
}

function check(holds: boolean, otherwise: string) {
  if (!holds) {
    throw new Error(otherwise);
  }
}

async function report(behaviour: string, outcome: string, why = "") {
  const body = JSON.stringify({ behaviour, outcome, why });
  await fetch("report", { method: "POST", body });
}

async function run(behaviour: string, make: () => Promise<void>, note = "") {
  try {
    await make();
    await report(behaviour, "passed", note);
  } catch (error) {
    await report(behaviour, "failed", String(error));
  }
}

const cache = connect(scene.TOUR_SERVER);
await run("talk", () => talk(cache));
await run("quota", () => quota(cache));
await run("deadline", deadline);
await run("dry-run", () => dryRun(cache));
await run("dump", () => dump(cache));
await report("retry", "unsupported", "Connect-ES has no retries and reads no service configuration");
await run("once", () => once(cache), "counted in the page");
await report("failover", "unsupported", "Connect-ES has one base URL: what stands before the servers chooses");
await fetch("report", { method: "POST", body: "end" });
