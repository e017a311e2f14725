//! Whose fault an error is: an event's own, which other events do not share, or that of what surrounds it, which every event would meet.
//! Only the first may be passed over (`on_error => 'skip'`, dead letters); the second is tried again, and then everything waits.
//! Classes are those of PostgreSQL's appendix A and of the SQL standard.

/// Whether an error with this SQLSTATE is the event's own: it fails because of what the event says, and would fail anywhere.
///
/// What nobody has defined is what a handler's author raises about an event, and so are most of our own errors about what is appended. Where
/// a code may mean both, it is not the event's: an event that waits is not lost.
#[must_use]
pub fn is_of_event(sqlstate: &str) -> bool {
    let class = sqlstate.get(..2).unwrap_or_default();
    match class {
        // Ours: refused for what was to be appended (conflict, no such stream, closed, name, argument, retry, limit).
        "ES" => matches!(sqlstate, "ES001" | "ES002" | "ES003" | "ES004" | "ES005" | "ES006" | "ES007"),
        // Connections and foreign servers, resources, locks and states of objects, operators, the system, PostgreSQL itself.
        "08" | "53" | "55" | "57" | "58" | "72" | "F0" | "HV" | "XX" => false,
        // Transactions: serialization, deadlock, read-only, and statements that a function may not use.
        "0B" | "24" | "25" | "26" | "2D" | "34" | "3B" | "40" => false,
        // Rights, roles, catalogs and schemas.
        "0L" | "0P" | "28" | "2B" | "3D" | "3F" => false,
        // The code itself: syntax, missing tables and functions, types (42); features (0A); how functions are written and called.
        "03" | "07" | "0A" | "0F" | "0Z" | "10" | "27" | "2F" | "33" | "39" | "42" => false,
        // How deep calls were nested already when it was processed (statement_too_complex).
        "54" => sqlstate != "54001",
        // Data and constraints (21, 22, 23, 44), what is too large for an index or a row (54), what handlers raise (P0; 38 by other
        // languages; 09, 01, 02, 20), and codes of their own.
        _ => true,
    }
}

impl crate::Error {
    /// From `first` on events are not written.
    #[must_use]
    pub fn on_unwritten(self, first: i64) -> Self {
        match self {
            Self::FoldFailed { fold, stream, version, reason } if version >= first => {
                Self::UnwrittenFailed { fold, stream, version, reason }
            }
            other => other,
        }
    }

    /// Whether it is an event's own: see this module. It knows more than its SQLSTATE says.
    #[must_use]
    pub fn is_of_event(&self) -> bool {
        match self {
            Self::FoldFailed { .. } | Self::UnwrittenFailed { .. } => true,
            Self::UpcastFailed { is_unusable, .. } => !is_unusable,
            Self::InvariantBroken(violation) => violation.fault == crate::violation::Fault::Broken,
            other => is_of_event(other.sqlstate()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_of_event;

    /// Every class of PostgreSQL's errcodes.txt, and of people's own.
    const OF_EVENTS: [&str; 14] = ["01", "02", "09", "20", "21", "22", "23", "38", "44", "54", "P0", "GL", "I9", "99"];
    const OF_OTHERS: [&str; 35] = [
        "03", "07", "08", "0A", "0B", "0F", "0L", "0P", "0Z", "10", "24", "25", "26", "27", "28", "2B", "2D", "2F",
        "33", "34", "39", "3B", "3D", "3F", "40", "42", "53", "55", "57", "58", "72", "F0", "HV", "XX", "ES",
    ];

    #[test]
    fn each_class_is_an_events_own_or_not() {
        for class in OF_EVENTS {
            for rest in ["000", "002", "P01", "ZZZ"] {
                assert!(is_of_event(&format!("{class}{rest}")), "{class}{rest}");
            }
        }
        for class in OF_OTHERS {
            for rest in ["000", "P01", "ZZZ"] {
                assert!(!is_of_event(&format!("{class}{rest}")), "{class}{rest}");
            }
        }
    }

    #[test]
    fn what_a_missing_table_a_right_or_a_full_disk_raises_is_nobodys_event() {
        for sqlstate in
            ["42P01", "42501", "42883", "53100", "53200", "57014", "57P01", "08006", "40001", "40P01", "55P03", "54001"]
        {
            assert!(!is_of_event(sqlstate), "{sqlstate}");
        }
        for sqlstate in ["22012", "22P02", "23505", "23503", "23514", "P0001", "P0002", "54000", "21000", "GL042"] {
            assert!(is_of_event(sqlstate), "{sqlstate}");
        }
    }

    #[test]
    fn our_own_errors_are_an_events_where_they_are_about_what_is_appended() {
        let ours: Vec<String> = (0..100).map(|number| format!("ES0{number:02}")).collect();
        let of_events: Vec<&str> = ours.iter().map(String::as_str).filter(|sqlstate| is_of_event(sqlstate)).collect();
        assert_eq!(of_events, ["ES001", "ES002", "ES003", "ES004", "ES005", "ES006", "ES007"]);
    }
}
