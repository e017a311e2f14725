//! Which events of the log a reader wants, by category and by type. A type is the one that the event has when it is read: what older names
//! upcasters turn into it is said by whoever knows the upcasters.
use super::statements::column;
use crate::pg::error::failure::Result;
use crate::pg::query::row::Row;
use crate::pg::value::datum::{Nullable, text_array_of};
use eventstream_core::command::tags::tag_set;
use eventstream_core::name::{Category, EventType, is_reserved};

/// Which events of the log.
#[derive(Clone, Default)]
pub struct Filter {
    /// None = every category.
    pub categories: Option<Vec<String>>,
    pub event_types: Option<Vec<String>>,
    /// All of which an event must bear: a set. Asked for by readers of the log alone.
    pub tags: Vec<String>,
    /// Event types and schema versions as stored that upcasters turn into one of `event_types`.
    pub older: Vec<(String, i32)>,
}

impl Filter {
    /// By the names as they are asked for; None: all.
    pub fn of(categories: Option<Vec<String>>, event_types: Option<Vec<String>>) -> Self {
        Self { categories, event_types, tags: Vec::new(), older: Vec::new() }
    }

    /// The same of events that bear all of these tags. Errors: ES005 for what cannot be an event's tags.
    pub fn bearing(self, tags: Option<&[String]>) -> Result<Self> {
        let tags = tag_set("tags", tags.unwrap_or_default().iter().map(String::as_str))?;
        Ok(Self { tags: tags.into_iter().map(ToOwned::to_owned).collect(), ..self })
    }

    /// Errors: ES005 for what no category of users' or event type can be.
    pub fn check(&self) -> Result<()> {
        for category in self.categories.iter().flatten() {
            Category::parse("categories", category)?;
        }
        self.check_types()
    }

    /// The same of a reader, who may ask for reserved categories.
    pub fn check_to_read(&self) -> Result<()> {
        for category in self.categories.iter().flatten().filter(|category| !is_reserved(category)) {
            Category::parse("categories", category)?;
        }
        self.check_types()
    }

    fn check_types(&self) -> Result<()> {
        for event_type in self.event_types.iter().flatten() {
            EventType::parse_as("event_types", event_type)?;
        }
        Ok(())
    }

    /// Whether it lets an event through that is stored with this type and schema version. The statements say the same in SQL.
    pub fn lets_through(&self, event_type: &str, schema_version: i32) -> bool {
        let Some(types) = &self.event_types else { return true };
        types.iter().any(|wanted| wanted == event_type)
            || self.older.iter().any(|(older, version)| *version == schema_version && older == event_type)
    }

    /// The same of a row of events.
    pub fn wants(&self, row: &Row) -> Result<bool> {
        Ok(self.event_types.is_none()
            || self.lets_through(row.text(column::EVENT_TYPE)?, row.int4(column::SCHEMA_VERSION)?))
    }

    /// The types as statements take them: those asked for, and what is stored under older names (NULL where there is none).
    pub fn types(&self) -> Result<[Nullable; 2]> {
        let older: Vec<String> =
            self.older.iter().map(|(event_type, version)| format!("{version}:{event_type}")).collect();
        let older = if older.is_empty() { None } else { Some(text_array_of(&older)?) };
        Ok([self.event_types.as_deref().map(text_array_of).transpose()?, older])
    }
}
