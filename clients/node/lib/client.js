// The client: what a database can be asked, by itself and within a transaction.
import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { Consumer } from "./consumer.js";
import { isLost, isUndone, told, VersionConflict } from "./errors.js";
import { parse, stringify } from "./exact.js";
import { bound, Exchange } from "./exchange.js";
import { camel, event, snake, written } from "./records.js";

const events = (from) => `select row_to_json(e)::text, encode(e.chain_hash, 'hex') from ${from} e`;
const READ = events("es_read($1, $2::bigint, $3::bigint, $4, raw => $5, to_version => $6::bigint, event_types => $7::text[])");
const READ_ALL = events("es_read_all($1::bigint, $2::bigint, $3::text[], $4::text[], $5::bigint, $6::uuid, $7::int, $8::text[])");
const REVEAL = events("es_reveal($1, $2, $3::bigint, $4::bigint)");
const QUERY = "select row_to_json(q.event)::text, encode((q.event).chain_hash, 'hex'), page from es_query($1::jsonb, $2::int, $3, $4::bigint) q";
const COMMAND = `select es_command($1, $2, $3::jsonb, expected_version => $4::bigint, metadata => $5::jsonb, command_key => $6,
  occurred_at => $7::timestamptz, decider => $8, subject => $9)::text`;
const BEGIN = `select es_begin_command($1, $2, $3::jsonb, make_interval(secs => $4::float8), make_interval(secs => $5::float8),
  make_interval(secs => $6::float8), $7)::text`;

const json = (value) => (value == null ? null : stringify(value));

class Calls {
  async _one(sql, values, again = true) {
    return (await this._ask(sql, values, again))[0][0];
  }

  async _decided(send, given, expected, anew) {
    for (;;) {
      try {
        return await send(given, expected);
      } catch (conflict) {
        const decided = conflict instanceof VersionConflict && anew && this instanceof Client ? await anew(conflict) : null;
        if (!decided) throw conflict;
        [given, expected] = decided;
      }
    }
  }

  async append(stream, events, { expectedVersion = null, mustExist = false, key = null, anew = null } = {}) {
    const send = (given, expected) => {
      const text = stringify(written(stream, given, key));
      return this._one("select es_append_events($1, $2::jsonb, $3::bigint, $4)", [stream, text, expected, mustExist]);
    };
    return parse(await this._decided(send, events, expectedVersion, anew));
  }

  async appendStreams(appends, { mustExist = false, condition = null, key = null } = {}) {
    const sql = "select row_to_json(a)::text from es_append_streams($1::jsonb, $2, $3::jsonb) a";
    const text = stringify(appends.map((one) => snake({ ...one, events: written(one.stream, one.events ?? [], key) })));
    return (await this._ask(sql, [text, mustExist, json(condition)])).map(([row]) => parse(row));
  }

  async condition(query) {
    return parse(await this._one("select es_condition($1::jsonb)::text", [stringify(query)]));
  }

  async *_pages(pageSize, ask, after) {
    for (let rows; rows === undefined || rows.length === pageSize; ) {
      rows = await ask();
      for (const row of rows) {
        const one = event(row);
        yield one;
        after(one);
      }
    }
  }

  async *read(stream, { fromVersion = null, toVersion = null, backward = false, eventTypes = null, raw = false, pageSize = 500 } = {}) {
    const ask = () => (fromVersion === 0 ? [] : this._ask(READ, [stream, fromVersion, pageSize, backward, raw, toVersion, eventTypes]));
    yield* this._pages(pageSize, ask, ({ version }) => (fromVersion = version + (backward ? -1 : 1)));
  }

  async *readAll(afterPosition = 0, { upTo = null, categories = null, eventTypes = null, tags = null, logId = null, timeline = null, pageSize = 1000 } = {}) {
    const ask = () => this._ask(READ_ALL, [afterPosition, pageSize, categories, eventTypes, upTo, logId, timeline, tags]);
    yield* this._pages(pageSize, ask, ({ globalPosition }) => (afterPosition = globalPosition));
  }

  async *reveal(stream, reason, { fromVersion = 1, pageSize = 100 } = {}) {
    yield* this._pages(pageSize, () => this._ask(REVEAL, [stream, reason, fromVersion, pageSize]), ({ version }) => (fromVersion = version + 1));
  }

  async queryPage(criteria, { maxCount = 100, page = null, skip = 0 } = {}) {
    const rows = await this._ask(QUERY, [stringify(criteria), maxCount, page, skip]);
    return { events: rows.map((row) => event(row)), next: rows.at(-1)?.[2] ?? page };
  }

  async *query(criteria, { pageSize = 100 } = {}) {
    for (let page = null, found; found === undefined || found.events.length === pageSize; page = found.next) {
      found = await this.queryPage(criteria, { maxCount: pageSize, page });
      yield* found.events;
    }
  }

  async horizon() {
    return parse(await this._one("select es_horizon()", []));
  }

  async logInfo() {
    return camel(parse(await this._one("select row_to_json(i)::text from (select log_id, timeline, last_position, horizon from es_log_info()) i", [])));
  }

  async load(stream, { fold = null, forUpdate = false } = {}) {
    const [[state, version]] = await this._ask("select state::text, version from es_load($1, $2, $3)", [stream, fold, forUpdate]);
    return { state: parse(state), version: parse(version) };
  }

  async state(stream, { asOf = null, knownAt = null, version = null, fold = null } = {}) {
    if (version !== null && (asOf || knownAt)) throw new TypeError("a state is asked for by version or by moment, not by both");
    if (version !== null) return parse(await this._one("select es_state_at_version($1, $2::bigint, $3)::text", [stream, version, fold]));
    if (asOf || knownAt) return parse(await this._one("select es_state_at($1, $2::timestamptz, $3::timestamptz, $4)::text", [stream, asOf ?? "infinity", knownAt, fold]));
    return parse(await this._one("select es_state($1, $2)::text", [stream, fold]));
  }

  async command(stream, commandType, payload, key, { expectedVersion = null, metadata = {}, occurredAt = null, decider = null, subject = null, anew = null } = {}) {
    if (key === undefined) throw new TypeError("a command has a key, or null for none");
    const more = [stringify(metadata), key, occurredAt, decider, subject];
    const send = (given, expected) => this._one(COMMAND, [stream, commandType, stringify(given), expected, ...more], key !== null);
    return camel(parse(await this._decided(send, payload, expectedVersion, anew)));
  }

  async beginCommand(operation, key, request, { lease = 300, wait = 0, keep = null, subject = null } = {}) {
    return camel(parse(await this._one(BEGIN, [operation, key, stringify(request), lease, wait, keep, subject])));
  }

  async completeCommand(attemptToken, result) {
    await this._one("select es_complete_command($1::uuid, $2::jsonb)", [attemptToken, stringify(result)]);
  }

  async failCommand(attemptToken, error, { retryable = true } = {}) {
    await this._one("select es_fail_command($1::uuid, $2::jsonb, $3)", [attemptToken, stringify(error), retryable]);
  }

  async extendCommand(attemptToken, seconds) {
    await this._one("select es_extend_command($1::uuid, make_interval(secs => $2::float8))", [attemptToken, seconds]);
  }

  async commandEventId(attemptToken, number) {
    return this._one("select es_command_event_id($1::uuid, $2::bigint)", [attemptToken, number]);
  }
}

const broken = new WeakSet();

/** Has a connection of the pool do something; one that broke does not go back. */
async function lent(pool, work) {
  const connection = await pool.connect();
  const ignored = () => {}; // the statement that is under way is told of it
  connection.on("error", ignored);
  try {
    return await work(connection);
  } finally {
    connection.removeListener("error", ignored);
    connection.release(broken.has(connection));
  }
}

async function send(connection, statements) {
  const exchange = new Exchange(statements.map(([sql, values]) => [sql, values.map(bound)]));
  connection.query(exchange);
  return exchange.done.catch((error) => {
    if (isLost(error)) broken.add(connection);
    throw error;
  });
}

export class Transaction extends Calls {
  constructor(connection) {
    super();
    this.connection = connection;
  }

  async _ask(sql, values) {
    try {
      return await send(this.connection, [[sql, values]]);
    } catch (error) {
      throw told(error);
    }
  }
}

export class Client extends Calls {
  constructor(config = {}, { patience = 30 } = {}) {
    super();
    this._isOwn = typeof config.connect !== "function";
    this._pool = this._isOwn ? new pg.Pool({ connectionTimeoutMillis: 10_000, keepAlive: true, ...(typeof config === "string" ? { connectionString: config } : config) }) : config;
    if (this._isOwn) this._pool.on("error", () => {}); // a connection that breaks while it is idle: the pool makes another
    Object.assign(this, { _patience: patience, _first: async () => [] });
  }

  async close() {
    if (this._isOwn) await this._pool.end();
  }

  _with(changes) {
    return Object.assign(Object.create(Client.prototype), this, changes);
  }

  acting({ token = null, tenant = null, metadata = null } = {}) {
    const first = async () =>
      [
        ["select es_use_token($1)", typeof token === "function" ? await token() : token],
        ["select set_config('eventstream.tenant', $1, true)", tenant],
        ["select set_config('eventstream.metadata', $1, true)", json(metadata)],
      ].flatMap(([sql, value]) => (value == null ? [] : [[sql, [value]]]));
    return this._with({ _first: first });
  }

  async _ask(sql, values, again = true) {
    const end = Date.now() + 1000 * this._patience;
    for (let pause = 50; ; pause = Math.min(2 * pause, 2000)) {
      const statements = [...(await this._first()), [sql, values]];
      try {
        return await lent(this._pool, (connection) => send(connection, statements));
      } catch (error) {
        const isWorthwhile = isUndone(error) || (again && isLost(error) && !this._pool.ended);
        if (!isWorthwhile || Date.now() + pause > end) throw told(error);
      }
      await sleep(pause * (0.5 + Math.random() / 2));
    }
  }

  async transaction(work) {
    return lent(this._pool, async (connection) => {
      try {
        await send(connection, [["begin", []], ...(await this._first())]);
        const result = await work(new Transaction(connection));
        await send(connection, [["commit", []]]);
        return result;
      } catch (error) {
        await send(connection, [["rollback", []]]).catch(() => {}); // the first error is the one to tell
        throw told(error);
      }
    });
  }

  consumer(subscription, handler, { name = `${hostname()}-${process.pid}-${randomUUID().slice(0, 6)}`, maxCount = 100, lease = 30, wait = 5, retryAfter = [], log = console.warn } = {}) {
    return new Consumer(this, handler, [subscription, name, maxCount, lease, wait], retryAfter, log);
  }
}
