// What the database refuses, in classes of what a program does about it. Other codes stay errors of the driver.
import { parse } from "./exact.js";

/** `sqlstate`, `message`, `detail` (an object, its numbers exact; {} where there is none) and `hint`, as the database said them; the driver's error is its `cause`. */
export class EventstreamError extends Error {
  constructor(cause) {
    super(cause.message, { cause });
    this.name = this.constructor.name;
    this.sqlstate = cause.code;
    this.detail = object(cause.detail);
    this.hint = cause.hint ?? null;
  }
}

/** Somebody was faster: `stream` was expected at the version `expected`, and is at `actual`. */
export class VersionConflict extends EventstreamError {
  constructor(cause) {
    super(cause);
    ({ stream: this.stream, expected_version: this.expected, actual_version: this.actual } = this.detail);
  }
}

/** The decider says no: `code` is its reason for programs, the message the one for people. */
export class CommandRefused extends EventstreamError {
  constructor(cause) {
    super(cause);
    this.code = this.detail.code;
  }
}

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

const CODES = [
  [VersionConflict, "ES001"],
  [CommandRefused, "ES033"],
  [ConditionFailed, "ES015"],
  [KeyReused, "ES006 ES030"],
  [NotFound, "ES002 ES010 ES012 ES020 ES036 ES040"],
  [Invalid, "ES004 ES005 ES007 ES011 ES032 ES035"],
  [Closed, "ES003 ES018 ES045"],
  [RuleBroken, "ES016 ES017 ES019"],
  [LeaseLost, "ES024"],
  [AttemptLost, "ES031"],
  [NotNow, "ES008 ES009 ES022 ES023 ES026 ES070"],
  [PositionAhead, "ES025"],
  [UserCodeFailed, "ES013 ES014 ES021 ES034 ES037 ES038"],
  [TenantRefused, "ES041 ES042 ES043 ES044"],
  [Guarded, "ES050 ES051 ES052"],
];
/** The class of each code. */
export const BY_CODE = Object.fromEntries(CODES.flatMap(([kind, codes]) => codes.split(" ").map((code) => [code, kind])));

/** Raised by a handler: the event (the one that it took last, unless another is named) goes back, and comes again after `retryAfter` seconds, or ends as a dead letter. */
export class Reject extends Error {
  constructor(reason, { event = null, retryAfter = null, deadLetter = false } = {}) {
    super(reason);
    Object.assign(this, { name: "Reject", event, retryAfter, deadLetter });
  }
}

/** The error as ours where the database refused, else as it is. */
export const told = (error) => (isSaid(error) && Object.hasOwn(BY_CODE, error.code) ? new BY_CODE[error.code](error) : error);

/** Whether the server said it; else it is the network's, or the program's. */
const isSaid = (error) => error?.severity !== undefined;

/** Whether the connection broke, or cannot be had now: what was asked may have been done or not. */
export const isLost = (error) =>
  isSaid(error) ? /^(08|53|25006|57P0[1235])/.test(error.code) : error instanceof Error && !(error instanceof EventstreamError || error instanceof TypeError || error instanceof RangeError);

/** Whether the transaction was rolled back for the sake of others, and is worth another try. */
export const isUndone = (error) => isSaid(error) && ["40001", "40P01", "55P03"].includes(error.code);

/** Users' code may raise our codes with a DETAIL of its own. */
function object(detail) {
  try {
    const read = parse(detail ?? "{}");
    return typeof read === "object" && read !== null && !Array.isArray(read) ? read : {};
  } catch {
    return {};
  }
}
