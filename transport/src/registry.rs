//! What there is to be seen of each connection while it lasts: gRFC A14, "sockets".
//!
//! A connection counts for itself, in numbers that nobody else sees. At the end of each turn the
//! thread that serves it publishes them here, in a few plain stores; whoever looks reads them
//! without holding it up.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::serve::{ConnectionInfo, Protocol};

/// What a connection has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Activity {
    /// Streams that its client opened.
    pub streams_started: u64,
    /// Streams that both ends ended.
    pub streams_succeeded: u64,
    /// Streams that either end reset.
    pub streams_failed: u64,
    /// Whole messages of requests, on the typed lane.
    pub messages_received: u64,
    /// Messages of responses, on the typed lane.
    pub messages_sent: u64,
    /// `PING`s sent to learn whether the client is there.
    pub keepalives_sent: u64,
}

/// When a connection last did something; `None`: never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LastActivity {
    /// Its client opened a stream.
    pub stream_started: Option<Instant>,
    /// A whole message of a request came, on the typed lane.
    pub message_received: Option<Instant>,
    /// A message of a response was written, on the typed lane.
    pub message_sent: Option<Instant>,
}

/// A connection that lasts.
#[derive(Debug)]
pub struct Socket {
    /// Its number: never given twice by a server.
    pub id: u64,
    /// The listener's number.
    pub listener: u64,
    /// This end, where it has an address.
    pub local: Option<SocketAddr>,
    /// The other end, and what its handshake came to.
    pub who: ConnectionInfo,
    /// What is spoken on it.
    pub protocol: Protocol,
    began: Instant,
    published: Published,
}

/// A socket that connections are taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenSocket {
    /// Its number, among those of the connections.
    pub id: u64,
    /// Where it listens; `None` for a Unix socket.
    pub local: Option<SocketAddr>,
}

/// In the order of [`Activity`] and [`LastActivity`]. One thread writes.
#[derive(Debug, Default)]
struct Published {
    counts: [AtomicU64; 6],
    /// Nanoseconds since the connection began, and one; 0: never.
    times: [AtomicU64; 3],
}

impl Socket {
    /// What it has done, as of its last turn.
    #[must_use]
    pub fn activity(&self) -> Activity {
        let [a, b, c, d, e, f] = &self.published.counts;
        let [a, b, c, d, e, f] = [a, b, c, d, e, f].map(|count| count.load(Ordering::Relaxed));
        Activity {
            streams_started: a,
            streams_succeeded: b,
            streams_failed: c,
            messages_received: d,
            messages_sent: e,
            keepalives_sent: f,
        }
    }

    /// When it last did something, to the turn.
    #[must_use]
    pub fn last_activity(&self) -> LastActivity {
        let at = |time: &AtomicU64| {
            let nanos = time.load(Ordering::Relaxed).checked_sub(1)?;
            self.began.checked_add(Duration::from_nanos(nanos))
        };
        let [stream, received, sent] = &self.published.times;
        LastActivity {
            stream_started: at(stream),
            message_received: at(received),
            message_sent: at(sent),
        }
    }
}

/// The sockets of a server, by their numbers.
#[derive(Debug, Default)]
pub struct Registry {
    /// The last number given.
    last_id: AtomicU64,
    sockets: Mutex<BTreeMap<u64, Arc<Socket>>>,
    listeners: Mutex<Vec<ListenSocket>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is locked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    /// Up to `most` connections whose numbers are `from` or above, in their order; and whether
    /// those are the last. Holds up whoever comes or goes, and no one else.
    #[must_use]
    pub fn sockets(&self, from: u64, most: usize) -> (Vec<Arc<Socket>>, bool) {
        let sockets = lock(&self.sockets);
        let mut rest = sockets.range(from..);
        let page = rest.by_ref().take(most).map(|(_, it)| Arc::clone(it));
        (page.collect(), rest.next().is_none())
    }

    /// The connection of a number, if it lasts.
    #[must_use]
    pub fn socket(&self, id: u64) -> Option<Arc<Socket>> {
        lock(&self.sockets).get(&id).cloned()
    }

    /// Connections that last: those of which it is known what they speak.
    #[must_use]
    pub fn connections(&self) -> usize {
        lock(&self.sockets).len()
    }

    /// Where connections come from.
    #[must_use]
    pub fn listeners(&self) -> Vec<ListenSocket> {
        lock(&self.listeners).clone()
    }

    /// A number for something else of the same server, so that none is given twice.
    pub fn take_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn listen(&self, local: Option<SocketAddr>) -> u64 {
        let id = self.take_id();
        lock(&self.listeners).push(ListenSocket { id, local });
        id
    }
}

/// A connection's place in the registry, until it is dropped.
#[derive(Debug)]
pub(crate) struct Registered {
    shared: Arc<crate::shared::Shared>,
    socket: Arc<Socket>,
    told: Activity,
}

impl Registered {
    pub(crate) fn new(
        shared: Arc<crate::shared::Shared>,
        listener: u64,
        local: Option<SocketAddr>,
        who: ConnectionInfo,
        protocol: Protocol,
        began: Instant,
    ) -> Self {
        let registry = shared.registry();
        let id = registry.take_id();
        let socket = Arc::new(Socket {
            id,
            listener,
            local,
            who,
            protocol,
            began,
            published: Published::default(),
        });
        lock(&registry.sockets).insert(id, Arc::clone(&socket));
        Self {
            shared,
            socket,
            told: Activity::default(),
        }
    }

    /// What the connection has done by the end of a turn.
    #[inline]
    pub(crate) fn publish(&mut self, now: Activity, at: Instant) {
        if now == self.told {
            return;
        }
        let before = std::mem::replace(&mut self.told, now);
        let Socket {
            published, began, ..
        } = &*self.socket;
        let passed = at.saturating_duration_since(*began).as_nanos();
        let time = u64::try_from(passed).unwrap_or(u64::MAX).saturating_add(1);
        let changed = [
            now.streams_started != before.streams_started,
            now.messages_received != before.messages_received,
            now.messages_sent != before.messages_sent,
        ];
        for (cell, changed) in published.times.iter().zip(changed) {
            if changed {
                cell.store(time, Ordering::Relaxed);
            }
        }
        let counts = [
            now.streams_started,
            now.streams_succeeded,
            now.streams_failed,
            now.messages_received,
            now.messages_sent,
            now.keepalives_sent,
        ];
        for (cell, count) in published.counts.iter().zip(counts) {
            cell.store(count, Ordering::Relaxed);
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        lock(&self.shared.registry().sockets).remove(&self.socket.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::Peer;
    use crate::shared::Shared;

    fn registered(shared: &Arc<Shared>, began: Instant) -> Registered {
        let who = ConnectionInfo {
            peer: Peer::Unix,
            tls: None,
        };
        Registered::new(Arc::clone(shared), 1, None, who, Protocol::Http2, began)
    }

    #[test]
    fn sockets_are_told_in_pages_while_they_last() {
        let shared = Arc::new(Shared::new(0));
        let registry = shared.registry();
        let now = tokio::time::Instant::now().into_std();
        let mut all: Vec<Registered> = (0..5).map(|_| registered(&shared, now)).collect();
        let check = |from: u64, most: usize, expected: &[u64], is_end: bool| {
            let (page, end) = registry.sockets(from, most);
            let ids: Vec<u64> = page.iter().map(|socket| socket.id).collect();
            assert_eq!((&ids[..], end), (expected, is_end), "{most} from {from}");
        };
        check(0, 10, &[1, 2, 3, 4, 5], true);
        check(0, 2, &[1, 2], false);
        check(3, 3, &[3, 4, 5], true);
        check(6, 3, &[], true);
        all.remove(1);
        check(2, 2, &[3, 4], false);
        assert!(registry.socket(2).is_none());
        drop(all);
        check(0, 10, &[], true);
        assert_eq!(registry.connections(), 0);
    }

    #[test]
    fn what_changed_is_published_with_its_time() {
        let shared = Arc::new(Shared::new(0));
        let began = tokio::time::Instant::now().into_std();
        let mut registered = registered(&shared, began);
        let socket = shared.registry().socket(1).expect("a socket");
        assert_eq!(socket.last_activity(), LastActivity::default());
        let at = |ms| began + Duration::from_millis(ms);
        let mut activity = Activity {
            streams_started: 1,
            messages_received: 1,
            ..Activity::default()
        };
        registered.publish(activity, at(5));
        registered.publish(activity, at(6));
        activity.messages_sent = 1;
        activity.streams_succeeded = 1;
        registered.publish(activity, at(7));
        assert_eq!(socket.activity(), activity);
        let last = LastActivity {
            stream_started: Some(at(5)),
            message_received: Some(at(5)),
            message_sent: Some(at(7)),
        };
        assert_eq!(socket.last_activity(), last);
    }
}
