// What goes in and comes out: events, and their ids.
import { createHash, randomUUID } from "node:crypto";
import { parse } from "./exact.js";

/** As expectedVersion: the stream has no events yet. */
export const NO_STREAM = 0;

/** What derived event ids are made in: uuid5(this, "stream\nkey\nnumber"), in every language's client. */
const IDS = Buffer.from("2f1d5e0a7c555c0b9f636f1f0c1b7a10", "hex");

/** The id of the number-th event (from 1) that is appended to the stream under a key. */
export function derivedId(stream, key, number) {
  const hash = createHash("sha1").update(IDS).update(`${stream}\n${key}\n${number}`).digest();
  hash[6] = (hash[6] & 0x0f) | 0x50;
  hash[8] = (hash[8] & 0x3f) | 0x80;
  return hash.toString("hex", 0, 16).replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

export const camel = (row) => Object.fromEntries(Object.entries(row).map(([name, value]) => [name.replace(/_(.)/g, (_, letter) => letter.toUpperCase()), value]));
export const snake = (row) => Object.fromEntries(Object.entries(row).map(([name, value]) => [name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), value]));

/** An event of a row that has it as JSON, and its chain hash. */
export function event([text, chainHash], read = parse(text)) {
  const { salt, ...fields } = camel(read);
  return { ...fields, chainHash };
}

/** As es_append_events takes them. Each has its id by now: the same events sent again are recognised. */
export function written(stream, given, key) {
  return [...given].map((one, index) => snake({ ...one, eventId: one.eventId ?? (key == null ? randomUUID() : derivedId(stream, key, index + 1)) }));
}
