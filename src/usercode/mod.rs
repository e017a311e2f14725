//! Functions of users (folds, upcasters, handlers): what they must be, whose rights they run with, and that nobody takes them away while they are used.
pub mod handler;
pub mod in_use;

/// SQL that joins the registrant of a row under that alias as `r` of pg_roles; nobody where the role is gone.
macro_rules! registrant_of {
    ($row:literal) => {
        concat!(
            " left join pg_roles r on r.oid = _eventstream.role_of(",
            $row,
            ".registrant, ",
            $row,
            ".registrant_oid, (select _eventstream.is_home())) "
        )
    };
}
pub(crate) use registrant_of;
