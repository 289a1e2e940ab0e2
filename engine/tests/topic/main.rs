//! What a topic is and promises: how it is made, filled and ended, what user code in it may do.

mod calls_back;
mod closing;
mod contradictions;
mod ends;
mod engine;
#[path = "../common/listener.rs"]
mod listener;
mod overload;
mod policies;
#[path = "../common/sleeps.rs"]
mod sleeps;
#[path = "../common/soon.rs"]
mod soon;
mod text;
mod topics;
mod user_code;
