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
