//! What there is to weaken: read by the runner.

use slipring_ring::ordering::{FAULTS, SITES};

#[test]
fn print() {
    for site in SITES {
        let weaker: Vec<String> = site.weaker.iter().map(|order| format!("{order:?}")).collect();
        println!("\nsite | {} | {:?} | {} | {}", site.name, site.order, weaker.join(","), site.partner);
    }
    for fault in FAULTS {
        println!("\nfault | {fault}");
    }
}
