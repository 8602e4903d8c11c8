//! Callers of a client's connection. They run when they are woken, and at no other time:
//! a wake-up that is lost shows as a call that hangs.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use larder_transport::client::{Failed, Receiving, Sending, Trailers, Unary};
use tokio::time::Instant;

/// Whether somebody is to run.
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// Something that runs when it is woken; at first it is.
pub(crate) struct Task {
    flag: Arc<Flag>,
    waker: Waker,
}

impl Default for Task {
    fn default() -> Self {
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&flag));
        Self { flag, waker }
    }
}

impl Task {
    /// True if it was woken since the last time.
    pub(crate) fn is_due(&self) -> bool {
        self.flag.0.swap(false, Ordering::AcqRel)
    }

    /// Runs it once.
    pub(crate) fn poll<F: Future + ?Sized>(&self, future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(&self.waker))
    }
}

/// How a call ended.
pub type Ended = Result<Trailers, Failed>;

enum Call {
    Unary(Unary),
    Stream(Option<Sending>, Receiving),
    /// Given up, or over.
    None,
}

/// One caller, and what it was told.
pub struct Caller {
    call: Call,
    reading: Task,
    sending: Task,
    /// Messages that the connection has not taken.
    unsent: VecDeque<Vec<u8>>,
    finishes: bool,
    /// It takes what comes as it comes.
    pub reads: bool,
    /// By when it wants to know.
    pub deadline: Option<Instant>,
    /// What came.
    pub messages: Vec<Bytes>,
    /// How it ended, once it was told.
    pub end: Option<Ended>,
    /// It went away before.
    pub gave_up: bool,
    /// It let go of its sending half, before it had said that no more comes.
    pub cut: bool,
}

impl Caller {
    fn new(call: Call, deadline: Option<Instant>) -> Self {
        Self {
            call,
            reading: Task::default(),
            sending: Task::default(),
            unsent: VecDeque::new(),
            finishes: false,
            reads: true,
            deadline,
            messages: Vec::new(),
            end: None,
            gave_up: false,
            cut: false,
        }
    }

    pub(super) fn unary(call: Unary, deadline: Option<Instant>) -> Self {
        Self::new(Call::Unary(call), deadline)
    }

    pub(super) fn stream(
        begun: Result<(Sending, Receiving), Failed>,
        deadline: Option<Instant>,
    ) -> Self {
        match begun {
            Ok((sending, receiving)) => Self::new(Call::Stream(Some(sending), receiving), deadline),
            Err(failed) => Self {
                end: Some(Err(failed)),
                ..Self::new(Call::None, deadline)
            },
        }
    }

    /// True if it waits for something.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.end.is_none() && !self.gave_up
    }

    /// True if it is a stream that goes on in the client's direction.
    #[must_use]
    pub const fn can_send(&self) -> bool {
        matches!(self.call, Call::Stream(Some(_), _)) && !self.finishes
    }

    /// Has it send a message.
    pub fn send(&mut self, message: Vec<u8>) {
        if self.can_send() {
            self.unsent.push_back(message);
            self.sending = Task::default();
        }
    }

    /// Has it say that no more comes.
    pub fn finish(&mut self) {
        self.finishes = true;
        self.sending = Task::default();
    }

    /// It lets go of its sending half, in the middle perhaps.
    pub fn cut(&mut self) {
        if let Call::Stream(sending @ Some(_), _) = &mut self.call {
            *sending = None;
            self.cut = true;
        }
    }

    /// It goes away.
    pub fn give_up(&mut self) {
        if self.is_open() {
            self.gave_up = true;
            self.call = Call::None;
        }
    }

    /// From now on it takes what comes; it has to look, as it may have been woken
    /// while it did not.
    pub fn read_on(&mut self) {
        if !self.reads {
            self.reads = true;
            self.reading = Task::default();
        }
    }

    /// Runs it, as often as it is woken. How often that was.
    pub(super) fn run(&mut self) -> usize {
        let mut runs = 0;
        if self.reads && self.reading.is_due() {
            runs += 1;
            self.read();
        }
        if self.sending.is_due() {
            runs += 1;
            self.write();
        }
        runs
    }

    fn read(&mut self) {
        match &mut self.call {
            Call::None => {}
            Call::Unary(unary) => {
                if let Poll::Ready(answer) = self.reading.poll(Pin::new(unary)) {
                    self.end = Some(answer.map(|response| {
                        self.messages.push(response.message);
                        response.trailers
                    }));
                    self.call = Call::None;
                }
            }
            Call::Stream(_, receiving) => loop {
                let next = self.reading.poll(pin!(receiving.message()));
                match next {
                    Poll::Pending => return,
                    Poll::Ready(Ok(Some(message))) => self.messages.push(message),
                    Poll::Ready(Ok(None)) => {
                        let trailers = receiving.trailers().expect("the end has trailers");
                        self.end = Some(Ok(trailers.clone()));
                        return;
                    }
                    Poll::Ready(Err(failed)) => {
                        let known = self.end.get_or_insert_with(|| Err(failed.clone()));
                        assert_eq!(known.as_ref().err(), Some(&failed), "it ends twice");
                        return;
                    }
                }
            },
        }
    }

    fn write(&mut self) {
        let Call::Stream(place, _) = &mut self.call else {
            return;
        };
        let Some(sending) = place else {
            return;
        };
        while let Some(message) = self.unsent.front() {
            let sent = {
                let send = sending.send(|out| out.extend_from_slice(message));
                self.sending.poll(pin!(send))
            };
            match sent {
                Poll::Pending => return,
                Poll::Ready(Ok(())) => drop(self.unsent.pop_front()),
                Poll::Ready(Err(_)) => self.unsent.clear(),
            }
        }
        if self.finishes
            && let Some(sending) = place.take()
        {
            sending.finish();
        }
    }
}
