// What is Node's own: numbers that are no numbers, a pool of the caller's.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Client, derivedId, JsonNumber, parse, stringify } from "eventstream-client";

test("a number that JavaScript prints otherwise is kept as its text", () => {
  for (const text of ["1400.50", "-0", "0.1234567890123456789", "9007199254740993", "-9007199254740992", "1e400", "1E5", "12345678901234567890.10"]) {
    assert.ok(parse(text) instanceof JsonNumber, text);
    assert.equal(stringify(parse(text)), text);
    assert.equal(`${parse(text)}`, text);
  }
  for (const text of ["0", "12.5", "-1", "9007199254740991", "0.1"]) assert.equal(typeof parse(text), "number", text);
});

test("an exact number takes part in no arithmetic", () => {
  const amount = new JsonNumber("12.50");
  for (const wrong of [() => amount + 1, () => amount * 2, () => amount > 5, () => amount == 12.5, () => "" + amount]) assert.throws(wrong, /12\.50 is an exact number/);
  assert.equal(Number(amount.text), 12.5);
  for (const text of ["", "1.", ".5", "01", "+1", "NaN", "0x1", "1 ", "1,5"]) assert.throws(() => new JsonNumber(text), TypeError);
  assert.throws(() => new JsonNumber(1.5), TypeError);
});

test("JSON.stringify loses no digit", () => {
  const text = JSON.stringify({ amount: new JsonNumber("12.50") });
  assert.equal(text, JSON.rawJSON ? '{"amount":12.50}' : '{"amount":"12.50"}');
});

test("what is sent is what was meant", () => {
  assert.equal(stringify({ a: 9007199254740993n, b: new JsonNumber("1.50"), c: undefined, d: new Date(0), e: new String("n5"), f: new Number(5) }), '{"a":9007199254740993,"b":1.50,"d":"1970-01-01T00:00:00.000Z","e":"n5","f":5}');
  for (const wrong of [NaN, Infinity, 2 ** 53, 1e21]) assert.throws(() => stringify({ wrong }), /wrong is .*no exact number/);
  assert.throws(() => stringify(undefined), TypeError);
});

test("strings and keys are left alone, whatever they look like", () => {
  for (const value of ["n1", "s", "snn", '"n1"', "1.50", ':"', '":', "\\", '\\"', "__proto__"]) {
    const whole = JSON.parse(JSON.stringify({ [value]: value, list: [value, { [value]: 1.5 }] }));
    assert.deepEqual(parse(stringify(whole)), whole);
    assert.equal(stringify(whole), JSON.stringify(whole));
  }
  assert.deepEqual(parse(' { "a" : "x" , "b" :1.50 } ').b.text, "1.50");
  assert.equal(Object.getPrototypeOf(parse('{"__proto__": {"x": 1}}')), Object.prototype);
  for (const wrong of ["", "{", "[1.50,]", "1.50.5", '"a', "nul", "-", "1e"]) assert.throws(() => parse(wrong), Error, wrong);
});

test("a pool of the caller's is used and left open", async () => {
  const asked = [];
  const connection = { on() {}, removeListener() {}, release: (broken) => asked.push(broken), query: (exchange) => exchange.handleDataRow({ fields: ["7"] }) ?? exchange.handleCommandComplete() ?? exchange.handleReadyForQuery() };
  const pool = { connect: async () => connection, end: () => assert.fail("it is not ours") };
  const client = new Client(pool);
  assert.equal(await client.horizon(), 7);
  await client.close();
  assert.deepEqual(asked, [false]);
});

test("a connection of which nobody knows what it does does not go back to its pool", async () => {
  const released = [];
  const query = (exchange) => exchange.handleError(new Error("Query read timeout")); // of pg's query_timeout: the server still works, perhaps within a transaction
  const connection = { on() {}, removeListener() {}, release: (broken) => released.push(broken), query };
  const client = new Client({ connect: async () => connection }, { patience: 0 });
  await assert.rejects(client.horizon(), /read timeout/);
  await assert.rejects(client.transaction(async (transaction) => transaction.horizon()), /read timeout/);
  assert.deepEqual(released, [true, true]);
});

test("a token that cannot be had is told at once", async () => {
  const client = new Client({ connect: () => assert.fail("nothing is asked") }).acting({ token: async () => { throw new Error("the issuer is away"); } });
  await assert.rejects(client.horizon(), /issuer is away/);
});

test("ids are derived as in the other languages", () => {
  assert.equal(derivedId("account-1", "order-1", 1), "ea7288ef-7ebd-587f-858b-224706dbefc7");
});

test("a command without a key says so", async () => {
  await assert.rejects(new Client({ host: "/nowhere" }).command("account-1", "Open", {}), /a key, or null/);
});
