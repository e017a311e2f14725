//! Values that are written as one word, in arguments, tables and texts: each word stands once, here, in privilege.rs or in audit.rs. tests/word.rs compares them with the
//! CHECKs of the tables.

/// A value that is written as one word.
pub trait Word: Copy + 'static {
    /// All of them, in the order in which they are told.
    const ALL: &'static [Self];

    /// Its word.
    fn as_str(self) -> &'static str;

    /// The one that a word means.
    #[must_use]
    fn named(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|one| one.as_str() == word)
    }
}

macro_rules! words {
    ($($(#[$about:meta])* $name:ident { $($(#[$of:meta])* $value:ident = $word:literal),+ $(,)? })+) => { $(
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$of])* $value),+ }

        impl $name {
            /// All of them, in the order in which they are told.
            pub const ALL: &[Self] = &[$(Self::$value),+];

            /// Its word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$value => $word),+ }
            }
        }

        impl $crate::word::Word for $name {
            const ALL: &'static [Self] = Self::ALL;

            fn as_str(self) -> &'static str {
                Self::as_str(self)
            }
        }
    )+ };
}
pub(crate) use words;

words! {
    /// Which events of an answer come first.
    Sequence {
        /// The oldest.
        Forward = "forward",
        /// The newest.
        Backward = "backward",
    }

    /// In which order a fold folds events.
    Order {
        /// As they came.
        Version = "version",
        /// By valid time, late events in their place.
        OccurredAt = "occurred_at",
    }

    /// What becomes of a category's states of which some cannot be folded.
    Unfoldable {
        /// The call fails.
        Fail = "fail",
        /// Each is told in its stream's place.
        Report = "report",
    }

    /// Whose documents a rule protects.
    Protects {
        /// Events of a type.
        Event = "event",
        /// Commands of a type, and operations outside of a name: what was asked, and what came of it.
        Command = "command",
    }

    /// What a projection is.
    ProjectionKind {
        /// A handler for one event.
        Event = "event",
        /// A handler for a batch of events.
        Batch = "batch",
        /// A state table.
        Table = "table",
    }

    /// Who moves a projection.
    Mode {
        /// Workers.
        Async = "async",
        /// The append.
        Inline = "inline",
    }

    /// What comes after the last retry of an event that a projection fails on.
    OnError {
        /// The projection stops.
        Stop = "stop",
        /// The event becomes a dead letter, and the others go on.
        Skip = "skip",
    }

    /// How a projection stands in its table.
    Status {
        /// It is moved.
        Running = "running",
        /// By a person.
        Paused = "paused",
        /// By a failure.
        Stopped = "stopped",
        /// Its state table is filled.
        Rebuilding = "rebuilding",
    }

    /// How a projection stands, as the view shows it.
    Standing {
        /// It is moved.
        Running = "running",
        /// Its state table is filled.
        Rebuilding = "rebuilding",
        /// An event failed, and is tried again.
        Retrying = "retrying",
        /// The database is a copy.
        Waiting = "waiting for activation",
        /// By a person.
        Paused = "paused",
        /// By a failure.
        Stopped = "stopped",
    }

    /// Which event types a category takes.
    TypesTaken {
        /// Whatever comes.
        Any = "any",
        /// Those that are declared.
        Declared = "declared",
    }

    /// Whether something must be given, or hold.
    Needed {
        #[allow(missing_docs)]
        Optional = "optional",
        #[allow(missing_docs)]
        Required = "required",
    }

    /// What becomes of names that look like personal data.
    PersonalNames {
        /// They are taken as others are.
        Any = "any",
        #[allow(missing_docs)]
        Refused = "refused",
    }

    /// The rules that a category can have, as its settings name them.
    CategoryRule {
        #[allow(missing_docs)]
        EventTypes = "event_types",
        #[allow(missing_docs)]
        ExpectedVersion = "expected_version",
        #[allow(missing_docs)]
        Actor = "actor",
        #[allow(missing_docs)]
        EventId = "event_id",
        #[allow(missing_docs)]
        IdPattern = "id_pattern",
        #[allow(missing_docs)]
        Foldable = "foldable",
        #[allow(missing_docs)]
        MaxFuture = "max_future",
        #[allow(missing_docs)]
        PersonalData = "personal_data",
    }
}
