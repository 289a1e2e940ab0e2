//! What `tracing` is told, with the feature of that name: beginnings and ends, never an event of a topic. A subscriber of
//! `tracing` is the user's code: what is said under a lock is told when that was let go.

/// One lifecycle event, at target `slipring`. Without the feature it is nothing at all.
macro_rules! lifecycle {
    ($level:ident, $what:literal $(, $name:ident = $value:expr)*) => {
        {
            #[cfg(feature = "tracing")]
            {
                $(let $name = crate::text::line(&$value).to_string();)*
                slipring_ring::internal::outside(move || tracing::$level!(target: "slipring", $($name = %$name,)* $what));
            }
        }
    };
}
pub(crate) use lifecycle;
