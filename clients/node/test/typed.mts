// What tsc sees of a program: the right is let through, and each wrong one is an error.
import { Client, type CommandAnswer, type Delivery, type Event, JsonNumber, NO_STREAM, Reject, VersionConflict } from "eventstream-client";

const client = new Client({ host: "/tmp", max: 3 }, { patience: 5 });
const version: number = await client.append("account-1", [{ type: "Added", payload: { amount: new JsonNumber("1.50") } }], {
  expectedVersion: NO_STREAM,
  anew: (conflict: VersionConflict) => [[{ type: "Added", payload: 1 }], conflict.actual],
});
const answer: CommandAnswer = await client.acting({ token: async () => "…" }).command("account-1", "Add", { amount: 1n }, null);
for await (const event of client.read("account-1", { fromVersion: version })) {
  const one: Event = event;
  console.log(one.payload, answer.eventIds);
}
const balance = await client.state<{ balance: number | JsonNumber }>("account-1", { asOf: new Date() });
const both: [number, string] = await client.transaction(async (transaction) => {
  // @ts-expect-error: a transaction has no consumers
  transaction.consumer;
  return [await transaction.horizon(), String(balance.balance)];
});
const stopping = new AbortController();
await client
  .consumer("mailer", async (events: IterableIterator<Delivery>) => {
    for (const { event, attempt } of events) if (attempt > 3) throw new Reject(event.stream, { deadLetter: true });
  })
  .run({ signal: stopping.signal });
// @ts-expect-error: an event has a type
await client.append("account-1", [{ payload: {} }]);
// @ts-expect-error: a command has a key, or null
await client.command("account-1", "Add", {});
// @ts-expect-error: an option that is not there
await client.read("account-1", { fromversion: 1 });
console.log(both);
