//! One producer used from two threads at once: it takes an exclusive borrow, and a multi producer is cloned instead.
use slipring_ring::Builder;

fn main() {
    let (producer, _ring) = Builder::multi(8, u64::default).build().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| producer.publish(|event| *event = 1));
        scope.spawn(|| producer.publish(|event| *event = 2));
    });
}
