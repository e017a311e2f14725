// Statements that go out together and come back together: one round trip, and, without a BEGIN among them, one transaction.

/** As pg's client takes it (its Query is one): the last statement's rows, as the texts that the server sent. */
export class Exchange {
  constructor(statements) {
    this.statements = statements;
    this.rows = [];
    this.done = new Promise((resolve, reject) => {
      this.callback = (error, rows) => (error ? reject(error) : resolve(rows));
    });
  }

  submit(connection) {
    connection.stream.cork?.();
    for (const [text, values] of this.statements) {
      connection.parse({ text });
      connection.bind({ values });
      connection.execute({});
    }
    connection.sync();
    connection.stream.uncork?.();
  }

  handleDataRow({ fields }) {
    this.rows.push(fields);
  }

  handleCommandComplete() {
    this.last = this.rows;
    this.rows = [];
  }

  // Not before the server is ready again is it committed.
  handleReadyForQuery() {
    this.callback(null, this.last);
  }

  handleError(error) {
    this.callback(error);
  }

  handleRowDescription() {}
  handleEmptyQuery() {}
  handlePortalSuspended() {}
}

/** A value as the text that the server reads. */
export function bound(value) {
  if (value === null || value === undefined) return null;
  if (value instanceof Date) return value.toISOString();
  if (Array.isArray(value)) return `{${value.map((one) => `"${bound(String(one)).replace(/["\\]/g, "\\$&")}"`).join(",")}}`;
  const text = String(value);
  // Which UTF-8 has no bytes for: it would arrive as another text.
  if (/\p{Surrogate}/u.test(text)) throw new TypeError(`${JSON.stringify(text)} has half of a character in it`);
  return text;
}
