//! What stands between calls and connections: names, subchannels, balancing, retries, hedging,
//! health.
//!
//! | file | |
//! |---|---|
//! | `open.rs` | from a configuration to a channel |
//! | `call.rs` | calls: to which server, how often, how long they wait for one |
//! | `retry.rs`, `throttle.rs`, `hedge.rs` | gRFC A6: decisions, without the calls |
//! | `service_config/` | gRFC A2: what the JSON says |
//! | `balancer.rs` | the channel without its sockets: events in, actions and a view out |
//! | `subchannel.rs`, `backoff.rs`, `pick_first.rs`, `outlier.rs`, `address.rs` | its parts: connectivity semantics, connection backoff, A62 and A61, A50 |
//! | `pick/` | what a policy comes to for a call: round robin, A48, A42 |
//! | `driver.rs` | the task that carries out what the balancer wants |
//! | `resolver.rs`, `resolve_schedule.rs`, `dial.rs`, `health.rs` | what it does: names, connections, A17 |
//! | `homes.rs` | the servers of a ring, for calls that are about no one key |
//! | `lane.rs`, `attempt.rs`, `ends.rs` | a subchannel and an attempt as calls see them |
//!
//! All that decides takes time, randomness and events as arguments, and is tested without a
//! socket; `driver.rs` and `call.rs` are where they meet tokio.

mod address;
mod attempt;
mod backoff;
mod balancer;
mod balancing;
mod call;
mod dial;
mod driver;
mod ends;
mod health;
mod hedge;
mod homes;
mod lane;
mod open;
mod outlier;
mod pick;
mod pick_first;
mod resolve_schedule;
mod resolver;
mod retry;
mod service_config;
mod subchannel;
#[cfg(test)]
mod tests;
mod throttle;

pub use balancing::{Balancing, OutlierEjection, RingHash};
pub(crate) use call::{Balanced, Call, Done, Heads, Outcome, Unreached, Wait};
pub(crate) use homes::Homes;
pub(crate) use open::{head, open};
pub(crate) use pick::To;
pub(crate) use resolver::SystemResolver;
pub use resolver::{Addresses, Resolver};
pub(crate) use retry::Safety;
pub(crate) use service_config::{MethodConfig, ServiceConfig, Tries};
