// JSON whose numbers are what they say. What JavaScript would print differently is kept as its text, and written as its text.

const BRAND = Symbol.for("eventstream-client.JsonNumber");
const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;

/** A number that a JavaScript number would change: 1400.50, 0.1234567890123456789. It does not take part in arithmetic by accident: `String(it)` is its text, for a decimal library. */
export class JsonNumber {
  constructor(text) {
    if (typeof text !== "string" || !NUMBER.test(text)) throw new TypeError(`${String(text)} is not the text of a JSON number`);
    this.text = text;
    Object.freeze(this);
  }

  get [BRAND]() {
    return true;
  }

  toString() {
    return this.text;
  }

  /** A number in JSON.stringify where it can write one (Node 22), else the text: no digit is lost. */
  toJSON() {
    return JSON.rawJSON ? JSON.rawJSON(this.text) : this.text;
  }

  [Symbol.toPrimitive](hint) {
    if (hint === "string") return this.text;
    throw new TypeError(`${this.text} is an exact number: compute with String(it) and a decimal library, or with Number(it.text), which rounds`);
  }
}

// Strings are marked with an s and numbers that are kept as text with an n, so that JSON's own reader and writer do the rest. A string before a colon is a key.
const TOKENS = /"[^"\\]*(?:\\.[^"\\]*)*"(\s*:)?|-?\d[\d.eE+-]*/g;

/** Beyond 2^53 a JavaScript number may stand for another one, which was rounded to it. */
const isExact = (number) => (Number.isInteger(number) ? Number.isSafeInteger(number) : Number.isFinite(number));

export function parse(text) {
  const marked = text.replace(TOKENS, (token, colon) => {
    if (colon) return token;
    if (token[0] === '"') return `"s${token.slice(1)}`;
    return String(Number(token)) === token && isExact(Number(token)) ? token : `"n${token}"`;
  });
  return JSON.parse(marked, (_, value) => {
    if (typeof value !== "string") return value;
    return value[0] === "s" ? value.slice(1) : new JsonNumber(value.slice(1));
  });
}

export function stringify(value) {
  const marked = JSON.stringify(value, function (key, after) {
    const given = this[key];
    if (given?.[BRAND]) return `n${given.text}`;
    if (typeof given === "bigint") return `n${given}`;
    const plain = after instanceof String || after instanceof Number ? after.valueOf() : after;
    if (typeof plain === "number" && !isExact(plain))
      throw new RangeError(`${key || "the value"} is ${plain}, which is no exact number: send a BigInt or a JsonNumber`);
    return typeof plain === "string" ? `s${plain}` : plain;
  });
  if (marked === undefined) throw new TypeError(`${String(value)} is no JSON`);
  return marked.replace(TOKENS, (token, colon) => {
    if (colon || token[0] !== '"') return token;
    return token[1] === "s" ? `"${token.slice(2)}` : token.slice(2, -1);
  });
}
