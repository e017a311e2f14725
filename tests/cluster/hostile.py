"""Every setting that a session may change, with a value that would show if anything of ours depended on it. Those left out are named
with the reason, so that a new major version's settings are looked at."""

from __future__ import annotations

import re

#: What the code of users, and our own statements, could give other answers, or none, under.
HOSTILE = {
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "iso_8601",
    "TimeZone": "Asia/Tokyo",
    "array_nulls": "off",
    "backslash_quote": "on",
    "bytea_output": "escape",
    "check_function_bodies": "off",
    "client_encoding": "LATIN1",
    "client_min_messages": "error",
    "constraint_exclusion": "on",
    "cursor_tuple_fraction": "0",
    "debug_parallel_query": "on",
    "default_text_search_config": "pg_catalog.german",
    "default_toast_compression": "pglz",
    "enable_bitmapscan": "off",
    "enable_hashagg": "off",
    "enable_hashjoin": "off",
    "enable_indexonlyscan": "off",
    "enable_indexscan": "off",
    "enable_material": "off",
    "enable_memoize": "off",
    "enable_mergejoin": "off",
    "enable_nestloop": "off",
    "enable_partition_pruning": "off",
    "enable_seqscan": "off",
    "enable_sort": "off",
    "escape_string_warning": "off",
    "eventstream.as_of": "2001-01-01 00:00Z",
    "eventstream.known_at": "2001-01-01 00:00Z",
    "eventstream.metadata": '{"actor": "hostile"}',
    "extra_float_digits": "-15",
    "force_parallel_mode": "on",
    "from_collapse_limit": "1",
    "geqo_threshold": "2",
    "gin_fuzzy_search_limit": "1",
    "jit_above_cost": "0",
    "join_collapse_limit": "1",
    "lc_messages": "C.utf8",
    "lc_monetary": "C.utf8",
    "lc_numeric": "C.utf8",
    "lc_time": "C.utf8",
    "parallel_setup_cost": "0",
    "parallel_tuple_cost": "0",
    "min_parallel_table_scan_size": "0",
    "min_parallel_index_scan_size": "0",
    "plan_cache_mode": "force_custom_plan",
    "plpgsql.check_asserts": "off",
    "plpgsql.extra_errors": "all",
    "plpgsql.extra_warnings": "all",
    "plpgsql.print_strict_params": "on",
    "plpgsql.variable_conflict": "use_column",
    "quote_all_identifiers": "on",
    "random_page_cost": "0",
    "restrict_nonsystem_relation_kind": "view, foreign-table",
    "row_security": "off",
    "search_path": "planted, public",
    "seq_page_cost": "1000",
    "session_replication_role": "replica",
    "standard_conforming_strings": "off",
    "timezone_abbreviations": "Australia",
    "transform_null_equals": "on",
    "work_mem": "64",
    "xmlbinary": "hex",
    "xmloption": "document",
}

#: Settings that no answer can depend on, by the reason; patterns.
HARMLESS = {
    "logging, statistics and tracing": r"log_.*|track_.*|trace_.*|debug_(print|pretty|logical|copy|write|raw|io|deadlocks).*|debug_discard_caches|"
    r"compute_query_id|update_process_title|backtrace_functions|application_name|stats_fetch_consistency|jit_(dump|debug|prof).*|"
    r"default_statistics_target|log_.*",
    "time and space that a statement may take": r".*_timeout|.*_mem|temp_.*|max_.*|hash_mem_multiplier|effective_.*|.*_io_.*|tcp_.*|"
    r"client_connection_check_interval|wal_.*|backend_flush_after|commit_.*|vacuum_.*|gin_pending_list_limit|autovacuum.*|file_.*|"
    r"idle_.*|synchronize_seqscans|io_.*",
    "costs, and ways to plan that the rest stands for": r"cpu_.*|geqo.*|jit.*|enable_.*|parallel_.*|recursive_worktable_factor|.*_page_cost",
    "where things are put and who they belong to": r"default_table.*|allow_.*|createrole_self_grant|password_encryption|lo_compat_privileges|"
    r"dynamic_library_path|.*_preload_libraries|extension_.*|output_plugin_libraries|md5_password_warnings|icu_validation_level|scram_iterations",
    "the transaction's own, tried by the tests of transactions": r"(default_)?transaction_.*|synchronous_commit|exit_on_error|event_triggers|event_source",
    "a superuser's ways around damage": r"ignore_checksum_failure|zero_damaged_pages|composite_type_mismatch|restrict_relation_kind|"
    r"ssl_renegotiation_limit|.*_toast_compression",
    "ours, which say what to do": r"eventstream\..*",
    "plpgsql's, which are tried above": r"plpgsql\..*",
}


def settings_of(session) -> dict[str, str]:
    """The hostile values for what this server has, those of PL/pgSQL included."""
    session.execute("do $$ begin end $$")
    there = {name for (name,) in session.execute("select name from pg_settings where context in ('user', 'superuser')")}
    return {name: value for name, value in HOSTILE.items() if name in there}


def unknown(session) -> list[str]:
    """Settings that nobody has looked at."""
    found = session.execute("select name from pg_settings where context in ('user', 'superuser')").fetchall()
    harmless = re.compile("|".join(HARMLESS.values()))
    return sorted(name for (name,) in found if name not in HOSTILE and not harmless.fullmatch(name))


def set_to(session, settings: dict[str, str]) -> None:
    for name, value in settings.items():
        session.execute("select set_config(%s, %s, false)", (name, value))


def together(settings: dict[str, str]) -> dict[str, str]:
    """All that hide nothing of what the others do: those left out refuse much."""
    return {name: value for name, value in settings.items() if name not in ("standard_conforming_strings", "restrict_nonsystem_relation_kind")}
