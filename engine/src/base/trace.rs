//! Lifecycle events for the feature `tracing`: starts and ends, never an event of a topic. A `tracing` subscriber is
//! user code, so events under a lock are emitted after its release.

/// Emits one lifecycle event, with the target `slipring`. Without the feature it compiles to nothing.
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
