//! The columns that a statement selects, by name: one list writes them into the SQL and numbers them, so that neither can be changed without the
//! other.

/// `columns! { mod NAME, LIST; COLUMN = "sql", … }` makes the module NAME, with the place of each column, and the macro `LIST!()`, their SQL with
/// commas between: `concat!("select ", LIST!(), " from …")`, and then `row.text(NAME::COLUMN)`.
macro_rules! columns {
    ($(#[$about:meta])* $vis:vis mod $module:ident, $list:ident; $first:ident = $first_sql:literal $(, $column:ident = $sql:literal)* $(,)?) => {
        $(#[$about])*
        $vis mod $module {
            #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
            enum Column { $first $(, $column)* }
            pub const $first: usize = Column::$first as usize;
            $(pub const $column: usize = Column::$column as usize;)*
        }

        macro_rules! $list {
            () => { concat!($first_sql $(, ", ", $sql)*) };
        }
    };
}
pub(crate) use columns;

/// `table! { mod NAME; COLUMN, … }` makes the module NAME, with the place of each column of a table of ours in a row of it, from 0, and COLUMNS, the names
/// of all. pg_test/border.rs compares them with the table's own.
macro_rules! table {
    ($(#[$about:meta])* $vis:vis mod $module:ident; $($column:ident),* $(,)?) => {
        $(#[$about])*
        #[allow(dead_code, reason = "not every column is read by its place")]
        $vis mod $module {
            #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
            enum Column { $($column),* }
            $(pub const $column: usize = Column::$column as usize;)*
            pub const COLUMNS: &[&str] = &[$(stringify!($column)),*];
        }
    };
}
pub(crate) use table;

/// The number that PostgreSQL gives a column, by its place from 0.
pub const fn number(place: usize) -> i16 {
    place as i16 + 1
}
