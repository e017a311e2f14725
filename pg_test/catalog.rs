//! What the extension puts into a database: every object explained, every function marked rightly, every public object listed as stable
//! or experimental.
use crate::pg::function::types_of;
use crate::pg_test::sql::{rows, value};

/// Name, arguments with their defaults, result, volatility and parallel mark of every public function.
const FUNCTIONS: &str = include_str!("functions.txt");
/// Which public objects are stable, and which are experimental.
const STABILITY: &str = include_str!("../docs/stability.md");

/// Everything public, one a line, as docs/stability.md writes it.
fn public_objects() -> Vec<String> {
    let list = value(
        "select string_agg(object, E'\\n' order by object collate \"C\") from ( \
             select 'function ' || proname as object \
             from pg_proc where proname ~ '^es_' and pronamespace = 'public'::regnamespace \
             union all \
             select 'view eventstream.' || relname from pg_class where relnamespace = 'eventstream'::regnamespace and relkind = 'v' \
             union all \
             select 'type eventstream.' || relname from pg_class where relnamespace = 'eventstream'::regnamespace and relkind = 'c' \
             union all \
             select 'setting ' || name from pg_settings where name ~ '^eventstream\\.' \
         ) objects",
    );
    list.lines().map(str::to_owned).collect()
}

/// The objects listed under a heading.
fn listed(heading: &str) -> Vec<String> {
    STABILITY
        .split("\n## ")
        .filter(|section| section.starts_with(heading))
        .flat_map(str::lines)
        .filter_map(|line| line.strip_prefix("- `")?.strip_suffix('`'))
        .map(str::to_owned)
        .collect()
}

#[pgrx::pg_schema]
mod tests {
    use super::*;
    use pgrx::pg_test;

    #[pg_test]
    fn every_object_has_a_comment() {
        let bare = rows(
            "select object from ( \
                 select 'pg_namespace'::regclass as class, oid, nspname::text as object from pg_namespace where nspname ~ '^_?eventstream$' \
                 union all \
                 select 'pg_class', oid, oid::regclass::text from pg_class \
                 where relnamespace in ('eventstream'::regnamespace, '_eventstream'::regnamespace) \
                 union all \
                 select 'pg_type', t.oid, t.oid::regtype::text from pg_type t left join pg_class c on c.oid = t.typrelid \
                 where t.typnamespace in ('eventstream'::regnamespace, '_eventstream'::regnamespace) \
                   and (t.typrelid = 0 or c.relkind = 'c') and t.typcategory <> 'A' \
                 union all \
                 select 'pg_proc', oid, oid::regprocedure::text from pg_proc \
                 where pronamespace in ('eventstream'::regnamespace, '_eventstream'::regnamespace) \
                    or pronamespace = 'public'::regnamespace and proname ~ '^es_' \
                 union all \
                 select 'pg_trigger', t.oid, t.tgname || ' on ' || t.tgrelid::regclass from pg_trigger t join pg_class c on c.oid = t.tgrelid \
                 where c.relnamespace = '_eventstream'::regnamespace and not t.tgisinternal and t.tgparentid = 0 \
                 union all \
                 select 'pg_constraint', n.oid, n.conname || ' on ' || n.conrelid::regclass from pg_constraint n \
                 where n.connamespace in ('eventstream'::regnamespace, '_eventstream'::regnamespace) and n.contype <> 'n' and n.conindid = 0 \
                 union all \
                 select 'pg_extension', oid, extname::text from pg_extension where extname = 'eventstream' \
             ) objects where not exists (select from pg_description d where d.classoid = class and d.objoid = oid and d.objsubid = 0 \
                                         and length(trim(d.description)) > 5) \
                         and not (class = 'pg_class'::regclass and exists (select from pg_type t join pg_description d on d.objoid = t.oid \
                                  where t.typrelid = objects.oid and d.classoid = 'pg_type'::regclass)) \
             order by 1",
        );
        assert_eq!(bare, "");
    }

    #[pg_test]
    fn every_column_of_a_view_has_a_comment() {
        let bare = rows(
            "select c.relname || '.' || a.attname from pg_class c join pg_attribute a on a.attrelid = c.oid \
             where c.relnamespace = 'eventstream'::regnamespace and c.relkind = 'v' and a.attnum > 0 \
               and coalesce(length(col_description(c.oid, a.attnum)), 0) < 5 \
             order by c.relname, a.attnum",
        );
        assert_eq!(bare, "");
    }

    #[pg_test]
    fn every_comment_on_a_function_has_an_example_that_names_it() {
        let without = rows(
            "select proname from pg_proc where proname ~ '^es_' and pronamespace = 'public'::regnamespace \
             and coalesce(obj_description(oid, 'pg_proc'), '') !~ ('Example: .*' || proname || '\\(')",
        );
        assert_eq!(without, "");
    }

    #[pg_test]
    fn every_function_is_marked_as_listed() {
        let found = value(
            "select string_agg(proname || '(' || pg_get_function_arguments(oid) || ') returns ' || pg_get_function_result(oid) || ' ' || \
                 case provolatile when 'i' then 'immutable' when 's' then 'stable' else 'volatile' end || ' parallel ' || \
                 case proparallel when 's' then 'safe' when 'r' then 'restricted' else 'unsafe' end, E'\\n' order by proname collate \"C\") \
             from pg_proc where proname ~ '^es_' and pronamespace = 'public'::regnamespace",
        );
        let (found, listed): (Vec<_>, Vec<_>) = (found.lines().collect(), FUNCTIONS.lines().collect());
        let unlisted: Vec<_> = found.iter().filter(|function| !listed.contains(function)).collect();
        let missing: Vec<_> = listed.iter().filter(|function| !found.contains(function)).collect();
        assert!(unlisted.is_empty() && missing.is_empty(), "not as listed: {unlisted:#?}\nlisted: {missing:#?}");
    }

    #[pg_test]
    fn every_function_in_c_is_declared_with_the_types_that_its_code_reads() {
        let declared = value(
            "select string_agg(prosrc || '|' || oidvectortypes(proargtypes), E'\\n') from pg_proc \
             where prolang = (select oid from pg_language where lanname = 'c') and probin = '$libdir/eventstream' and prosrc ~ '^eventstream_'",
        );
        let mut functions = 0;
        for function in declared.lines() {
            let (symbol, types) = function.split_once('|').unwrap();
            assert_eq!(types_of(symbol).unwrap(), types, "{symbol}");
            functions += 1;
        }
        assert!(functions >= 89, "{functions}");
    }

    #[pg_test]
    fn no_function_is_strict_overloaded_variadic_or_void_and_every_argument_has_a_name() {
        assert_eq!(
            rows(
                "select proname from pg_proc p where proname ~ '^es_' and pronamespace = 'public'::regnamespace \
                 and (proisstrict or provariadic <> 0 or prorettype = 'void'::regtype or prokind <> 'f' or prosecdef \
                      or pronargs > 0 and (proargnames is null or '' = any (proargnames)) or 'position' = any (proargnames) \
                      or (select count(*) from pg_proc o where o.proname = p.proname and o.pronamespace = p.pronamespace) > 1)"
            ),
            ""
        );
    }

    #[pg_test]
    fn every_public_object_is_listed_as_stable_or_as_experimental() {
        let (stable, experimental) = (listed("Stable"), listed("Experimental"));
        let objects = public_objects();
        let unlisted: Vec<_> =
            objects.iter().filter(|object| !stable.contains(object) && !experimental.contains(object)).collect();
        assert!(unlisted.is_empty(), "in neither list of docs/stability.md: {unlisted:#?}");
        let gone: Vec<_> = stable.iter().chain(&experimental).filter(|object| !objects.contains(object)).collect();
        assert!(gone.is_empty(), "listed, but not there: {gone:#?}");
        let both: Vec<_> = stable.iter().filter(|object| experimental.contains(object)).collect();
        assert!(both.is_empty(), "in both lists: {both:#?}");
    }

    #[pg_test]
    fn views_are_security_barriers_that_do_not_ask_for_privileges_on_the_tables() {
        assert_eq!(
            rows(
                "select relname from pg_class where relnamespace = 'eventstream'::regnamespace and relkind = 'v' \
                 and not coalesce(reloptions @> '{security_barrier=true}', false)"
            ),
            ""
        );
    }

    #[pg_test]
    fn the_view_events_has_the_columns_of_the_type_event() {
        let columns = |relation: &str| {
            rows(&format!(
                "select attname, atttypid::regtype from pg_attribute where attrelid = '{relation}'::regclass and attnum > 0 and not attisdropped order by attnum"
            ))
        };
        assert_eq!(columns("eventstream.events"), columns("eventstream.event"));
    }

    #[pg_test]
    fn every_table_and_sequence_is_registered_for_dumps() {
        // The parent has no rows of its own, and partitions made later are ordinary tables that pg_dump takes whole. A restored copy
        // has not appended: where a row says that it has, no others come in; and it counts its events anew.
        assert_eq!(
            rows(
                "select c.relname from pg_class c, pg_extension e where e.extname = 'eventstream' \
                 and c.relnamespace = '_eventstream'::regnamespace and c.relkind in ('r', 'S') \
                 and exists (select from pg_depend d where d.objid = c.oid and d.refobjid = e.oid and d.deptype = 'e') \
                 and not c.oid = any (e.extconfig) order by c.relname"
            ),
            "(event_count_progress) (event_counts) (first_appends) (page_keys)"
        );
    }

    #[pg_test]
    fn no_table_holds_a_type_that_pg_upgrade_or_a_restore_refuses() {
        assert_eq!(
            rows(
                "select c.relname, a.attname from pg_class c join pg_attribute a on a.attrelid = c.oid \
                 where c.relnamespace = '_eventstream'::regnamespace and c.relkind in ('r', 'p') and a.attnum > 0 \
                 and a.atttypid::regtype::text ~ '^reg'"
            ),
            ""
        );
    }
}
