//! Statement tables: every SQL text has a name, and a test prepares each of them on SQLite and on PostgreSQL.

/// Defines named statements and `ALL`, their list. Use it once per module.
macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $text:expr;)+) => {
        $($(#[$doc])* pub(crate) const $name: &str = $text;)+

        /// Every statement of this table with its name.
        #[cfg(test)]
        pub(crate) const ALL: &[(&str, &str)] = &[$((stringify!($name), $name)),+];
    };
}

pub(crate) use statements;
