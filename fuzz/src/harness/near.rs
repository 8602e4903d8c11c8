//! The client's end: a connection with its driver and its callers, on a stopped clock.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use larder_transport::client::{
    Closed, Config, Connection, Inspection, Keepalive, RequestHead, Scheme,
};
use tokio::time::Instant;

use super::caller::{Caller, Task};
use super::pipe::Pipe;
use crate::features::{note, note_size};

/// Calls that may wait for a stream.
const MAX_WAITING: usize = 8;
/// Largest message.
const MAX_MESSAGE_BYTES: usize = 32 * 1024;
/// Largest request that a target has a caller send.
pub const MAX_REQUEST_BYTES: usize = 40_000;
/// What the client's timer may be late by: it counts in milliseconds.
const TICK: Duration = Duration::from_millis(2);

/// One connection in the client's role.
pub struct Near {
    connection: Option<Connection>,
    driver: Option<Pin<Box<dyn Future<Output = Closed> + Send>>>,
    driving: Task,
    /// Why it ended.
    pub closed: Option<Closed>,
    /// Everybody who called.
    pub callers: Vec<Caller>,
    /// The byte stream.
    pub pipe: Pipe,
    /// Bytes that came since it rested last.
    came: usize,
}

/// Limits that small inputs can reach.
fn small_config() -> Config {
    Config {
        stream_window_bytes: 65_535,
        connection_window_bytes: 100_000,
        max_message_bytes: MAX_MESSAGE_BYTES,
        max_header_list_bytes: 4096,
        max_waiting_calls: MAX_WAITING,
        takes_gzip: true,
        max_output_bytes: 16 * 1024,
        greeting_timeout: Duration::from_secs(20),
        keepalive: Some(Keepalive {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            without_calls: false,
        }),
    }
}

/// Runs a target on a clock that stands still until it is told to go on.
pub fn on_a_stopped_clock(target: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.expect("it needs nothing").block_on(target);
}

impl Default for Near {
    fn default() -> Self {
        let pipe = Pipe::default();
        let (connection, driver) = Connection::start(pipe.clone(), small_config());
        Self {
            connection: Some(connection),
            driver: Some(Box::pin(driver)),
            driving: Task::default(),
            closed: None,
            callers: Vec::new(),
            pipe,
            came: 0,
        }
    }
}

impl Near {
    /// A unary call. Its path is its number among the callers.
    pub fn unary(&mut self, message: &[u8], within: Option<Duration>) {
        let deadline = within.map(|within| Instant::now() + within);
        let (head, until) = (self.next_head(), deadline.map(Instant::into_std));
        let Some(connection) = &self.connection else {
            return;
        };
        let call = connection.unary(&head, |out| out.extend_from_slice(message), until);
        self.callers.push(Caller::unary(call, deadline));
    }

    /// A call with streams.
    pub fn stream(&mut self, within: Option<Duration>) {
        let deadline = within.map(|within| Instant::now() + within);
        let (head, until) = (self.next_head(), deadline.map(Instant::into_std));
        let Some(connection) = &self.connection else {
            return;
        };
        let begun = connection.stream(&head, until);
        self.callers.push(Caller::stream(begun, deadline));
    }

    fn next_head(&self) -> RequestHead {
        let path = format!("/{}", self.callers.len());
        RequestHead::new(Scheme::Http, "host", &path).expect("it is a path")
    }

    /// The server's bytes come, and everything goes on that can.
    pub fn deliver(&mut self, bytes: &[u8]) {
        self.came += bytes.len();
        self.pipe.deliver(bytes);
        self.run();
    }

    /// No more calls; those under way go on.
    pub fn drain(&self) {
        if let Some(connection) = &self.connection {
            connection.drain();
        }
    }

    /// Nobody holds the connection any more but its callers.
    pub fn let_go(&mut self) {
        self.connection = None;
    }

    /// The driver is dropped, as the end of its runtime does.
    pub fn drop_driver(&mut self) {
        if self.driver.take().is_some() {
            self.closed = Some(Closed::Dropped);
        }
    }

    /// Time goes on, and what it asks for is done.
    pub async fn advance(&mut self, by: Duration) {
        tokio::time::advance(by).await;
        self.run();
        let now = Instant::now();
        for caller in self.callers.iter().filter(|it| it.reads && it.is_open()) {
            let is_late = caller.deadline.is_some_and(|at| at + TICK <= now);
            assert!(!is_late, "a deadline that passed ends a call");
        }
    }

    /// Everybody runs who was woken, until nobody is.
    pub fn run(&mut self) {
        // What one byte may cost, and each caller, and the end of a connection.
        let asked = self.pipe.asked();
        let most = 64 + 2 * std::mem::take(&mut self.came) + 32 * (1 + self.callers.len());
        let mut runs = 0;
        loop {
            let before = runs;
            if self.driving.is_due()
                && let Some(driver) = &mut self.driver
            {
                runs += 1;
                if let Poll::Ready(why) = self.driving.poll(driver.as_mut()) {
                    self.closed = Some(why);
                    self.driver = None;
                }
            }
            runs += self.callers.iter_mut().map(Caller::run).sum::<usize>();
            assert!(runs <= most, "it never rests");
            if runs == before {
                break;
            }
        }
        assert!(self.pipe.asked() - asked <= 16 * most, "the socket's rest");
        self.check();
    }

    /// What holds at any time.
    fn check(&self) {
        let Some(connection) = &self.connection else {
            return;
        };
        let held = connection.inspect();
        note_size("output", held.output_bytes);
        note_size("unread", held.unread_bytes);
        note_size("waiting", held.waiting);
        note_size("blocked", held.blocked);
        note(connection.readiness() as u8);
        if let Some(why) = connection.why_closed() {
            note(match why {
                Closed::Fault(code, why) => (code.0, why),
                Closed::Silent(what) => (0, what),
                Closed::GoAway { code, .. } => (code.0.min(16), "gone"),
                Closed::Io { .. } => (0, "io"),
                _ => (0, "closed"),
            });
        }
        bounds(&held, self.callers.len());
        let all_read = self.callers.iter().all(|caller| caller.reads);
        let unread = held.unread_of_streams;
        assert!(
            !all_read || unread == 0,
            "{unread} messages wait for nobody"
        );
    }

    /// Everybody has been told how its call ended.
    pub fn expect_ends(&self) {
        for (number, caller) in self.callers.iter().enumerate() {
            assert!(!caller.is_open(), "call {number} hangs");
        }
    }

    /// Everybody reads on, and has been told how its call ended; nothing is held.
    pub fn finish(mut self) {
        self.callers.iter_mut().for_each(Caller::read_on);
        self.run();
        self.expect_ends();
        assert!(self.closed.is_some(), "a connection that does not end");
        self.callers.clear();
        let left = self.connection.as_ref().map(Connection::inspect);
        assert_eq!(left.map_or(0, |left| left.calls), 0, "calls are left");
        assert_eq!(
            left.map_or(0, |left| left.told),
            0,
            "callers are waited for"
        );
    }
}

fn bounds(held: &Inspection, callers: usize) {
    assert!(held.calls <= callers, "{held:?} of {callers}");
    assert!(held.told <= held.calls, "{held:?}");
    assert!(held.waiting <= 3 * MAX_WAITING + 64, "{held:?}");
    assert!(held.blocked <= 1024, "{held:?}");
    // What is taken before calls have to wait, a request that was begun before, and
    // acknowledgements.
    let most = 16 * 1024 + MAX_REQUEST_BYTES + (64 << 10) + (16 << 10);
    assert!(held.output_bytes <= most, "{held:?}");
    assert!(
        held.unread_bytes <= 65_535 + MAX_MESSAGE_BYTES + 16,
        "{held:?}"
    );
    assert!(held.assembly_bytes <= 2 * MAX_MESSAGE_BYTES, "{held:?}");
    assert!(held.block_bytes <= 2 * (2 * 4096 + 16_384), "{held:?}");
    assert!(held.decoder_bytes <= 2 * 4096 + (192 << 10), "{held:?}");
}
