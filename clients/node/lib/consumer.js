// The loop of a consumer: fetch, have the handler process, acknowledge; again when the server was away.
import { setTimeout as sleep } from "node:timers/promises";
import { Invalid, isLost, isUndone, LeaseLost, Reject } from "./errors.js";
import { parse } from "./exact.js";
import { event } from "./records.js";

const FETCH = `select row_to_json(d)::text, encode((d.event).chain_hash, 'hex')
  from es_fetch($1, $2, $3::bigint, make_interval(secs => $4::float8), make_interval(secs => $5::float8)) d`;

function delivery([text, chainHash]) {
  const read = parse(text);
  return { event: event([null, chainHash], read.event), attempt: read.attempt, leaseId: read.lease_id };
}

/** The events that a handler is given: what it takes from it, and does not throw at, is processed. */
class Batch {
  constructor(deliveries, beat) {
    Object.assign(this, { deliveries, beat, taken: 0, isEnded: false });
  }

  [Symbol.iterator]() {
    return this;
  }

  next() {
    if (this.beat.lost) throw this.beat.lost;
    this.isEnded = this.taken === this.deliveries.length;
    return this.isEnded ? { done: true, value: undefined } : { done: false, value: this.deliveries[this.taken++] };
  }
}

export class Consumer {
  constructor(client, handler, fetch, retryAfter, log) {
    Object.assign(this, { _client: client, _once: client._with({ _patience: 0 }), _handler: handler, _fetch: fetch, _retryAfter: retryAfter, _log: log });
  }

  async run({ signal } = {}) {
    for (let pause = 100; !signal?.aborted; ) {
      try {
        await this._consume();
        pause = 100;
      } catch (error) {
        if (error instanceof LeaseLost) {
          this._log(error.message); // what it held comes again
        } else {
          if (!isLost(error) && !isUndone(error)) throw error;
          this._log(`${error.message}; again in ${pause} ms`);
          await sleep(pause * (0.5 + Math.random() / 2), undefined, { signal }).catch(() => {});
          pause = Math.min(2 * pause, 30_000);
        }
      }
    }
  }

  async _consume() {
    const deliveries = (await this._once._ask(FETCH, this._fetch)).map(delivery);
    if (deliveries.length === 0) return;
    const { leaseId } = deliveries[0];
    const beat = this._beat(leaseId, this._fetch[3]);
    let isAnyLeft;
    try {
      isAnyLeft = await this._process(deliveries, beat);
    } finally {
      clearInterval(beat.timer);
    }
    if (isAnyLeft) await this._client._one("select es_ack($1::uuid)", [leaseId]);
  }

  /** Makes the lease longer while the handler works. The first one of a consumer is a minute at most, whatever it asks for. */
  _beat(leaseId, lease) {
    const beat = { lost: null };
    const extend = () =>
      this._once._one("select es_extend_lease($1::uuid, make_interval(secs => $2::float8))", [leaseId, lease]).catch((error) => {
        if (error instanceof LeaseLost) beat.lost = error;
        else this._log(`the lease was not made longer: ${error.message}`);
      });
    beat.timer = setInterval(extend, (Math.min(lease, 60) * 1000) / 3);
    return beat;
  }

  /** Whether there is something to acknowledge. */
  async _process(left, beat) {
    let processed = 0;
    for (let atOnce = left.length; left.length > 0; ) {
      const batch = new Batch(left.slice(0, atOnce), beat);
      let place, failure;
      try {
        await this._handler(batch);
        place = batch.taken;
      } catch (error) {
        if (error === beat.lost) throw error;
        const named = error instanceof Reject ? error.event : null;
        if (batch.isEnded && batch.taken > 1 && !named) {
          atOnce = 1;
          continue;
        }
        place = named ? left.indexOf(named) : Math.max(batch.taken - 1, 0);
        if (place < 0) throw new RangeError("Reject names an event that the handler does not have", { cause: error });
        failure = { error };
      }
      if (!failure && place === 0) throw new RangeError("the handler took none of its events");
      processed += place;
      left = failure ? await this._putAside(left.slice(place), failure.error) : left.slice(place);
    }
    return processed > 0;
  }

  /** Gives the first back; what is left without its stream. */
  async _putAside([{ event, attempt, leaseId }, ...rest], failure) {
    const isAsked = failure instanceof Reject;
    const pause = (isAsked ? failure.retryAfter : null) ?? this._retryAfter[Math.min(attempt, this._retryAfter.length) - 1];
    this._log(`${event.stream}, version ${event.version}, attempt ${attempt}:`, isAsked ? failure.message : failure);
    const reason = String(isAsked ? failure.message : failure).replaceAll("\0", "").replace(/\p{Surrogate}/gu, "\ufffd");
    const nack = "select es_nack($1::uuid, $2::bigint, $3, make_interval(secs => $4::float8), $5)";
    try {
      await this._client._one(nack, [leaseId, event.globalPosition, reason, pause, isAsked && failure.deadLetter]);
    } catch (error) {
      if (!(error instanceof Invalid && error.detail.argument === "global_position")) throw error;
      this._log(error.message); // the lease does not hold it any more, after a nack whose answer was lost
    }
    return rest.filter((one) => one.event.stream !== event.stream);
  }
}
