"""What `bench/run` measures, in the order it runs. Each takes a Bench, and adds rows to its report."""
from . import append, batch, boundaries, category_rules, command, consume, event_types, filtered, follow, hot_stream, invariants, live, message_db, partitions, protect, query, read, rebuild, scheduled, state, tags, tokens, type_index, verify

MEASURES = {
    "append": append.measure,
    "event_types": event_types.measure,
    "category_rules": category_rules.measure,
    "protect": protect.measure,
    "invariants": invariants.measure,
    "message_db": message_db.measure,
    "batch": batch.measure,
    "read": read.measure,
    "hot_stream": hot_stream.measure,
    "state": state.measure,
    "live": live.measure,
    "consume": consume.measure,
    "filtered": filtered.measure,
    "query": query.measure,
    "tags": tags.measure,
    "boundaries": boundaries.measure,
    "tokens": tokens.measure,
    "command": command.measure,
    "scheduled": scheduled.measure,
    "type_index": type_index.measure,
    "follow": follow.measure,
    "rebuild": rebuild.measure,
    "verify": verify.measure,
    "partitions": partitions.measure,
}
