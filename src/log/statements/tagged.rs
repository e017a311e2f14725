//! Tags of events against the rows by which they are looked for, for verification.
use super::definition::{Definition, RANGE};
use pgrx::pg_sys::{INT8OID, Oid};

const RANGE_OF_PARTITION: &[Oid] = &[INT8OID, INT8OID, INT8OID, INT8OID];

pub const TAGS_WITHIN: Definition = (
    "select x.tenant_id, x.global_position, x.tag from {tags} x \
                 where x.global_position >= $1 and x.global_position <= $2 and ($3 is null or x.tenant_id = $3)",
    RANGE,
);

/// What else than its tags an event `e` is to be found by ([`super::super::tags::of_correlation`]): an array of one, or NULL.
macro_rules! correlation {
    () => {
        "case when jsonb_typeof(e.metadata -> 'correlation_id') = 'string' and octet_length(e.metadata ->> 'correlation_id') between 1 and 255 \
              then array[chr(1) || (e.metadata ->> 'correlation_id')] end"
    };
}

/// Events with tags that are not looked for; how many of them.
macro_rules! lost {
    ($which:literal) => {
        concat!(
            "select (select s.name from _eventstream.streams s where s.id = e.stream_id), e.version, e.global_position, count(*) \
                 from {events} e cross join lateral unnest(e.tags || ",
            correlation!(),
            ") t (tag) where ",
            $which,
            " and not exists (select from {tags} x where x.tenant_id = e.tenant_id and x.tag = t.tag and x.global_position = e.global_position) \
                 group by e.stream_id, e.version, e.global_position order by e.global_position"
        )
    };
}

pub const LOST_TAGS: Definition =
    (lost!("e.global_position >= $1 and e.global_position <= $2 and ($3 is null or e.tenant_id = $3)"), RANGE);

pub const LOST_TAGS_OF_STREAM: Definition =
    (lost!("e.stream_id = $3 and e.global_position + 0 >= $1 and e.global_position + 0 <= $2"), RANGE);

/// Rows of tags that no event bears there.
pub const STRAY_TAGS: Definition = (
    concat!(
        "select null::text, null::bigint, x.global_position, count(*) from {tags} x \
                 where x.global_position >= $1 and x.global_position <= $2 and ($3 is null or x.tenant_id = $3) \
                 and not exists (select from {events} e where e.global_position = x.global_position and e.tenant_id = x.tenant_id and x.tag = any (e.tags || ",
        correlation!(),
        ")) group by x.global_position order by x.global_position"
    ),
    RANGE,
);

/// Tags that are not looked for in the partition from $4; where the first event of each is.
pub const UNLISTED_TAGS: Definition = (
    "select null::text, null::bigint, min(x.global_position), count(*) from {tags} x \
                 where x.global_position >= $1 and x.global_position <= $2 and ($3 is null or x.tenant_id = $3) \
                 and not exists (select from _eventstream.tag_partitions p where p.tenant_id = x.tenant_id and p.tag = x.tag and p.partition = $4) \
                 group by x.tenant_id, x.tag order by 3",
    RANGE_OF_PARTITION,
);

/// One of the events at an end of the partition from $1 that bears a tag which is not looked for.
macro_rules! lost_at_end {
    ($order:literal) => {
        concat!(
            "select e.global_position from (select e.tenant_id, e.global_position, e.tags || ",
            correlation!(),
            " as tags from (select tenant_id, global_position, tags, metadata from {events} order by global_position ",
            $order,
            " limit 100) e where e.tags is not null or e.metadata ? 'correlation_id' limit 4) e \
                 where exists (select from unnest(e.tags) t (tag) where \
                      not exists (select from {tags} x where x.tenant_id = e.tenant_id and x.tag = t.tag and x.global_position = e.global_position) \
                      or not exists (select from _eventstream.tag_partitions p \
                                     where p.tenant_id = e.tenant_id and p.tag = t.tag and p.partition = $1)) limit 1"
        )
    };
}

pub const FIRST_TAG_LOST: Definition = (lost_at_end!(""), &[INT8OID]);
pub const LAST_TAG_LOST: Definition = (lost_at_end!("desc"), &[INT8OID]);
