-- A posting touches several streams: all or nothing, answered in the order given.
select stream, version from es_append_streams('[
    {"stream": "ledger-cash", "expected_version": 0, "events": [{"type": "Debited", "payload": {"amount": 100.00}}]},
    {"stream": "ledger-bank", "expected_version": 0, "events": [{"type": "Credited", "payload": {"amount": 100.00}}]}
]');
select stream, event_type, payload from eventstream.events where category = 'ledger' order by global_position;

select stream, version from es_append_streams('[
    {"stream": "ledger-cash", "expected_version": 1, "events": [{"type": "Debited", "payload": {"amount": 5.00}}]},
    {"stream": "ledger-bank", "expected_version": 0, "events": [{"type": "Credited", "payload": {"amount": 5.00}}]}
]');
\echo :SQLSTATE
select stream, version from es_append_streams('[
    {"stream": "ledger-cash", "events": [{"type": "Debited", "payload": {}}]},
    {"stream": "ledger-cash", "events": [{"type": "Credited", "payload": {}}]}
]');
select stream, version from es_append_streams('[{"stream": "ledger-cash", "version": 1, "events": [{"type": "Debited", "payload": {}}]}]');
select stream, version from es_append_streams('[{"events": [{"type": "Debited", "payload": {}}]}]');
select stream, version from es_append_streams('[{"stream": "ledger-cash"}]');
select stream, version from es_append_streams('[{"stream": "ledger-cash", "events": []}]');
select stream, version from es_append_streams('[{"stream": "ledger", "events": [{"type": "Debited", "payload": {}}]}]');
select stream, version from es_append_streams('[]');
select es_stream_version('ledger-cash'), es_stream_version('ledger-bank');

-- Half a retry is no retry.
select stream, version from es_append_streams('[
    {"stream": "ledger-fees", "events": [{"type": "Debited", "payload": {}, "event_id": "0192d1c8-0000-7000-8000-000000000041"}]}]');
select stream, version from es_append_streams('[
    {"stream": "ledger-fees", "events": [{"type": "Debited", "payload": {}, "event_id": "0192d1c8-0000-7000-8000-000000000041"}]},
    {"stream": "ledger-cash", "events": [{"type": "Credited", "payload": {}, "event_id": "0192d1c8-0000-7000-8000-000000000042"}]}]');
\echo :SQLSTATE

-- Closing a stream.
select es_close_stream('ledger-fees', 'merged into ledger-cash');
select version, event_type, payload from es_read('ledger-fees', from_version => 2);
select es_append('ledger-fees', 'Debited', '{}');
\echo :SQLSTATE
select es_close_stream('ledger-fees', 'again');
select es_close_stream('ledger-none', 'never was');
\echo :SQLSTATE
select es_append('ledger-cash', 'StreamClosed', '{}');
\echo :SQLSTATE
select stream, version, closed from eventstream.streams where category = 'ledger' order by stream collate "C";
