//! A handler keeps an event beyond its call.
use slipring_ring::{Builder, Handler, Sequence};
use std::convert::Infallible;

struct Keeper<'e>(Option<&'e u64>);

impl<'e> Handler<u64> for Keeper<'e> {
    type Error = Infallible;
    fn on_event(&mut self, event: &u64, _: Sequence, _: bool) -> Result<(), Infallible> {
        self.0 = Some(event);
        Ok(())
    }
}

fn main() {
    let mut builder = Builder::single(8, u64::default);
    builder.run("keeper", || Keeper(None));
    let _ = builder.build();
}
