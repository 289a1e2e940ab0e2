//! Streams of a topic for which there is no partition here: without `partitions` in the file a new topic has one, and the records of
//! the other streams would be missing in silence.

use slipring_bridge::Remote as _;
use slipring_bridge::jetstream::Stream;
use std::time::{Duration, Instant};

/// How long after an error the servers are asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// What is wrong if the stream behind the last partition's one, `next`, exists. `None` if it does not, or if the servers do not
/// answer within `limit`.
pub(crate) fn left_out(topic: &str, partitions: usize, next: &Stream, limit: Duration) -> Option<String> {
    let until = Instant::now() + limit;
    loop {
        match next.exists() {
            Ok(false) => return None,
            Ok(true) => {
                let name = next.name();
                return Some(format!(
                    "topic {topic:?}: the number of partitions here is {partitions}, and there is a {name}: set `partitions` to the other machine's number"
                ));
            }
            Err(_) if Instant::now() < until => std::thread::sleep(PAUSE),
            Err(_) => return None,
        }
    }
}
