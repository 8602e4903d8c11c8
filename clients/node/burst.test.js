// Many calls at once on one connection, from a stock Node client.
"use strict";

const assert = require("node:assert/strict");
const test = require("node:test");

const { PATIENCE_MS, bearer, grpc, importToken, rpc, startLarder } = require("./harness");

const CALLS = 1000;
const ROUNDS = 5;
const TOKEN = "inconshreveable";

test("bursts on one connection all succeed", { timeout: 4 * PATIENCE_MS }, async (t) => {
  const larder = await startLarder(t);
  await importToken(larder, "burst", TOKEN);
  const cache = new rpc.Cache(larder.address, grpc.credentials.createInsecure(), {
    "grpc.enable_http_proxy": 0,
  });
  t.after(() => cache.close());

  const call = (method, request) =>
    new Promise((resolve, reject) => {
      const options = { deadline: Date.now() + PATIENCE_MS };
      cache[method](request, bearer(TOKEN), options, (error, answer) =>
        error === null ? resolve(answer) : reject(error),
      );
    });
  const keys = Array.from({ length: CALLS }, (_, number) => `key-${number}`);

  await Promise.all(keys.map((key) => call("Store", { key, val: Buffer.from(key) })));
  for (let round = 1; round < ROUNDS; round += 1) {
    const answers = await Promise.all(keys.map((key) => call("Get", { key })));
    assert.deepEqual(
      answers.map((answer) => answer.val.toString()),
      keys,
    );
  }
});
