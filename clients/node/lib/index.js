// The client of eventstream for Node. README.md begins with a program.
export { Client, Transaction } from "./client.js";
export { Consumer } from "./consumer.js";
export { AttemptLost, BY_CODE, Closed, CommandRefused, ConditionFailed, EventstreamError, Guarded, Invalid, KeyReused, LeaseLost } from "./errors.js";
export { NotFound, NotNow, PositionAhead, Reject, RuleBroken, TenantRefused, UserCodeFailed, VersionConflict } from "./errors.js";
export { JsonNumber, parse, stringify } from "./exact.js";
export { derivedId, NO_STREAM } from "./records.js";
