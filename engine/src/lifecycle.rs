//! What `tracing` is told, with the feature of that name: beginnings and ends, never an event of a topic.

/// One lifecycle event, at target `slipring`. Without the feature it is nothing at all.
macro_rules! lifecycle {
    ($level:ident, $what:literal $(, $name:ident = $value:expr)*) => {
        {
            #[cfg(feature = "tracing")]
            tracing::$level!(target: "slipring", $($name = %crate::text::line(&$value),)* $what);
        }
    };
}
pub(crate) use lifecycle;
