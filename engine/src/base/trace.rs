//! Events of the feature `tracing`, for the starts, ends and failures of components and never for an event of a topic.
//! A `tracing` subscriber is user code, so an event that arises under a lock is emitted after the lock is released.

/// Emits one `tracing` event with the target `slipring`. Without the feature it compiles to nothing.
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
