/** A number that a JavaScript number would change (1400.50), as its text. It takes part in no arithmetic by accident: `String(it)` is for a decimal library. */
export class JsonNumber {
  constructor(text: string);
  readonly text: string;
  toString(): string;
  toJSON(): unknown;
}
/** JSON as it is read: what JavaScript prints as the same text is a number, any other a JsonNumber. */
export type Json = null | boolean | number | JsonNumber | string | Json[] | { [key: string]: Json };
/** JSON as it is sent: numbers that are exact, BigInt, JsonNumber. Anything else goes by its toJSON. */
export type Sent = unknown;
export function parse(text: string): Json;
export function stringify(value: Sent): string;

/** Positions and versions are numbers: no log comes to 2^53. Moments are text as the database writes it, to the microsecond: a Date would cut it. */
export interface Event {
  globalPosition: number; stream: string; version: number; eventId: string; eventType: string; schemaVersion: number; payload: Json; metadata: { [key: string]: Json };
  subject: string | null; occurredAt: string; recordedAt: string; category: string; tenant: string; recordedBy: string; chainHash: string; tags: string[] | null;
}
export interface NewEvent {
  type: string; payload: Sent; metadata?: object | null; eventId?: string | null; occurredAt?: Date | string | null; schemaVersion?: number | null; subject?: string | null;
  tags?: readonly string[] | null;
}
export interface Append { stream: string; events?: readonly NewEvent[]; expectedVersion?: number | null }
export interface Appended { stream: string; version: number; positions: number[] }
export interface Loaded<S = Json> { state: S; version: number }
/** `next` goes on after the last of `events`; without events it is the page that was asked for. */
export interface Page { events: Event[]; next: string | null }
export interface Delivery { event: Event; attempt: number; leaseId: string }
export interface CommandAnswer {
  stream: string; version: number; versions: { [stream: string]: number }; globalPosition: number | null; eventIds: string[] | null; result: Json;
  /** It was executed before, and this is the answer of then. */
  replayed: boolean;
}
export interface Begun {
  outcome: "execute" | "replay" | "in_progress"; attempt: number | null; attemptToken: string | null; leaseUntil: string | null; result: Json; error: Json;
}
export interface LogInfo { logId: string; timeline: number; lastPosition: number; horizon: number }
type Moment = Date | string | null;
type Names = readonly string[] | null;
/** What to do instead where somebody was faster: [events or payload, expected version], or null: the conflict is thrown. */
export type Anew<T> = (conflict: VersionConflict) => Promise<[T, number | null] | null> | [T, number | null] | null;

/** What a client, and a transaction, can be asked. */
declare class Calls {
  /** The new version. The same `key` makes the same event ids, so that the same events are recorded once, however often and by whichever process they are sent. */
  append(stream: string, events: Iterable<NewEvent>, options?: { expectedVersion?: number | null; mustExist?: boolean; key?: string | null; anew?: Anew<Iterable<NewEvent>> | null }): Promise<number>;
  /** All or nothing; one without events checks that its stream is at expectedVersion. ConditionFailed where what the condition saw has changed. */
  appendStreams(appends: readonly Append[], options?: { mustExist?: boolean; condition?: Json; key?: string | null }): Promise<Appended[]>;
  /** Taken before reading, given to appendStreams. */
  condition(query: object): Promise<Json>;
  read(stream: string, options?: { fromVersion?: number | null; toVersion?: number | null; backward?: boolean; eventTypes?: Names; raw?: boolean; pageSize?: number }): AsyncGenerator<Event, void>;
  /** The log in order, up to the horizon. Read by a filter, take `upTo` from horizon() first: it is the new checkpoint. */
  readAll(afterPosition?: number, options?: { upTo?: number | null; categories?: Names; eventTypes?: Names; tags?: Names; logId?: string | null; timeline?: number | null; pageSize?: number }): AsyncGenerator<Event, void>;
  /** Each page is on record, with the reason, before it is shown. */
  reveal(stream: string, reason: string, options?: { fromVersion?: number; pageSize?: number }): AsyncGenerator<Event, void>;
  queryPage(criteria: object, options?: { maxCount?: number; page?: string | null; skip?: number }): Promise<Page>;
  query(criteria: object, options?: { pageSize?: number }): AsyncGenerator<Event, void>;
  horizon(): Promise<number>;
  logInfo(): Promise<LogInfo>;
  load<S = Json>(stream: string, options?: { fold?: string | null; forUpdate?: boolean }): Promise<Loaded<S>>;
  state<S = Json>(stream: string, options?: { asOf?: Moment; knownAt?: Moment; version?: number | null; fold?: string | null }): Promise<S>;
  /** Executed once for each key: make it before, and send the same again after whatever happens. With null nothing is sent again where nobody knows whether it was done. */
  command(stream: string, commandType: string, payload: Sent, key: string | null, options?: {
    expectedVersion?: number | null; metadata?: object; occurredAt?: Moment; decider?: string | null; subject?: string | null; anew?: Anew<Sent> | null;
  }): Promise<CommandAnswer>;
  /** Times are seconds. */
  beginCommand(operation: string, key: string, request: Sent, options?: { lease?: number; wait?: number; keep?: number | null; subject?: string | null }): Promise<Begun>;
  completeCommand(attemptToken: string, result: Sent): Promise<void>;
  failCommand(attemptToken: string, error: Sent, options?: { retryable?: boolean }): Promise<void>;
  extendCommand(attemptToken: string, seconds: number): Promise<void>;
  commandEventId(attemptToken: string, number: number): Promise<string>;
}

/** Several calls in one transaction. `connection` is pg's, for statements of your own in it. */
export class Transaction extends Calls {
  private constructor();
  readonly connection: unknown;
}

/** `config` is pg's for a pool, a connection string, or a pg.Pool of yours. Calls that were rolled back for others' sake, or whose connection broke, are sent again for `patience` seconds. */
export class Client extends Calls {
  constructor(config?: object | string, options?: { patience?: number });
  close(): Promise<void>;
  /** The same connections, on which each transaction begins with the token (or what the function says is the token by now), or with the tenant, and whose events have these metadata by default. */
  acting(who: { token?: string | (() => string | Promise<string>) | null; tenant?: string | null; metadata?: object | null }): Client;
  /** Nothing in it is sent again: where it breaks, do all of it again, with the same keys and event ids. */
  transaction<T>(work: (transaction: Transaction) => Promise<T>): Promise<T>;
  /** Times are seconds; `retryAfter` has one for each attempt, the last one for all further ones. */
  consumer(subscription: string, handler: (events: IterableIterator<Delivery>) => Promise<void>, options?: {
    name?: string; maxCount?: number; lease?: number; wait?: number; retryAfter?: readonly number[]; log?: (...words: unknown[]) => void;
  }): Consumer;
}

/** The handler goes through the events that it is given with `for`, and throws where it cannot process one: that event's stream is put aside, and the handler is called again with the
 *  rest. One that took them all before it threw gets them again one by one, unless it threw Reject with the event. The lease is made longer while it works. */
export class Consumer {
  private constructor();
  /** Until the signal: it ends after the batch that it has, or the wait that it is in. */
  run(options?: { signal?: AbortSignal }): Promise<void>;
}

export class Reject extends Error {
  constructor(reason: string, options?: { event?: Delivery | null; retryAfter?: number | null; deadLetter?: boolean });
}
export class EventstreamError extends Error { sqlstate: string; detail: { [key: string]: Json }; hint: string | null }
export class VersionConflict extends EventstreamError { stream: string; expected: number | null; actual: number }
export class CommandRefused extends EventstreamError { code: string }
export class ConditionFailed extends EventstreamError {}
export class KeyReused extends EventstreamError {}
export class NotFound extends EventstreamError {}
export class Invalid extends EventstreamError {}
export class Closed extends EventstreamError {}
export class RuleBroken extends EventstreamError {}
export class LeaseLost extends EventstreamError {}
export class AttemptLost extends EventstreamError {}
export class NotNow extends EventstreamError {}
export class PositionAhead extends EventstreamError {}
export class UserCodeFailed extends EventstreamError {}
export class TenantRefused extends EventstreamError {}
export class Guarded extends EventstreamError {}
export const BY_CODE: { readonly [sqlstate: string]: new (cause: Error) => EventstreamError };
/** The id of the number-th event (from 1) that is appended to the stream under a key. */
export function derivedId(stream: string, key: string, number: number): string;
/** As expectedVersion: the stream has no events yet. */
export const NO_STREAM: 0;
