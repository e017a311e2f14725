//! Where an append goes.

/// The tenant that an append goes to.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    pub id: i64,
    pub name: &'a str,
}
