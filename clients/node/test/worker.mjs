// The client for Node, driven by lines: what clients/tests asks of every client. clients/python/tests/worker.py is its like.
import readline from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import * as es from "eventstream-client";

const say = (what) => process.stdout.write(`${es.stringify(what)}\n`);
const client = new es.Client({ host: process.env.PGHOST, max: 10 }, { patience: 30 });
const camel = (object) => Object.fromEntries(Object.entries(object).map(([name, value]) => [name.replace(/_(.)/g, (_, letter) => letter.toUpperCase()), value]));
const events = (given) => given.map(camel);
/** As the suite reads it, which has one spelling for all clients. The content of events is left alone. */
const plain = (value, isContent = false) => {
  if (Array.isArray(value)) return value.map((one) => plain(one, isContent));
  if (isContent || value === null || typeof value !== "object" || value instanceof es.JsonNumber) return value;
  const content = ["payload", "metadata", "state", "result", "error", "versions"];
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), plain(one, content.includes(name))]));
};

// Which of the options stand as arguments of their own, in order.
const POSITIONAL = {
  append: ["stream", "events"], append_streams: ["appends"], condition: ["query"], read: ["stream"], read_all: ["after_position"], load: ["stream"], state: ["stream"],
  query: ["criteria"], query_page: ["criteria"], reveal: ["stream", "reason"], command: ["stream", "command_type", "payload", "key"],
  begin_command: ["operation", "key", "request"], complete_command: ["attempt_token", "result"], fail_command: ["attempt_token", "error"],
  extend_command: ["attempt_token", "seconds"], command_event_id: ["attempt_token", "number"], horizon: [], log_info: [],
};
const RAW = ["state", "condition"];

async function call(target, name, { anew, ...given }) {
  if (given.events) given.events = events(given.events);
  if (given.appends) given.appends = given.appends.map((one) => ({ ...camel(one), events: events(one.events ?? []) }));
  const again = given.events ?? given.payload;
  const positional = POSITIONAL[name].map((argument) => given[argument]);
  const options = camel(Object.fromEntries(Object.entries(given).filter(([key]) => !POSITIONAL[name].includes(key))));
  if (anew) options.anew = async (conflict) => [again, conflict.actual];
  const method = name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
  let answer = target[method](...positional, options);
  if (answer[Symbol.asyncIterator]) {
    const all = [];
    for await (const one of answer) all.push(one);
    return plain(all);
  }
  answer = (await answer) ?? null;
  return plain(answer, RAW.includes(name));
}

const transaction = (acting, { calls, breaks }) =>
  acting.transaction(async (within) => {
    const answers = [];
    for (const [name, given] of calls) answers.push(await call(within, name, given));
    if (breaks) throw new Error("it breaks");
    return answers;
  });

async function consume(acting, { subscription, work_seconds: seconds = 0, takes_all: takesAll = false, takes_none: takesNone = false, ...more }) {
  const handler = async (batch) => {
    if (takesNone) return;
    for (const delivery of takesAll ? [...batch] : batch) {
      const { event, attempt } = delivery;
      if (event.payload?.fails && attempt === 1) {
        if (event.payload.fails === "dead") throw new es.Reject("for good", { deadLetter: true, event: takesAll ? delivery : null });
        if (event.payload.fails === "later") throw new es.Reject("later", { retryAfter: 1 });
        if (event.payload.fails === "unsaid") throw new es.Reject("");
        throw new Error("it fails the first time \udc80");
      }
      say({ event: [event.globalPosition, event.stream, event.version, attempt] });
      await sleep(1000 * seconds);
    }
  };
  const stop = new AbortController();
  process.once("SIGTERM", () => stop.abort());
  await acting.consumer(subscription, handler, camel(more)).run({ signal: stop.signal });
  return null;
}

async function answer({ call: name, acting, given }) {
  const as = acting ? client.acting(acting) : client;
  try {
    if (name === "transaction") return { ok: await transaction(as, given) };
    if (name === "consume") return { ok: await consume(as, given) };
    return { ok: await call(as, name, given) };
  } catch (error) {
    if (error instanceof es.EventstreamError) {
      const { sqlstate, message, detail, hint, stream, expected, actual, code } = error;
      return { error: { kind: error.name, sqlstate, message, detail, hint, stream, expected, actual, code } };
    }
    if (error.severity || !(error instanceof TypeError || error instanceof RangeError || /it breaks|none of its events/.test(error.message)))
      return { error: { kind: "driver", sqlstate: error.code ?? null, message: error.message } };
    return { error: { kind: "mistake", message: error.message } };
  }
}

for await (const line of readline.createInterface({ input: process.stdin })) say(await answer(es.parse(line)));
await client.close();
