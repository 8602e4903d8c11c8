//! RFC 9113, section 5.4: error handling.

use super::goaway::Phase;
use super::streams::{Ending, StreamKey};
use super::{Application, Connection, Failure};
use std::time::Instant;

use crate::abuse::Abuse;
use crate::error_codes::{ErrorCode, Fault};
use crate::frame::{write_goaway, write_reset};
use crate::stats::Counter;

impl<A: Application> Connection<A> {
    /// Section 5.4.
    #[cold]
    pub(super) fn on_fault(&mut self, fault: Fault) {
        let (code, why) = match fault {
            Fault::Connection(code, why) => (code, why),
            Fault::Stream(id, code, _) => match self.reset_for(id, code) {
                Ok(()) => return,
                Err(Fault::Connection(code, why) | Fault::Stream(_, code, why)) => (code, why),
            },
        };
        self.fail(code, why);
    }

    /// Section 5.4.2. A stream that is idle or closed is reset all the same.
    fn reset_for(&mut self, id: u32, code: ErrorCode) -> Result<(), Fault> {
        self.core.spend(Abuse::ServerResets)?;
        match self.core.streams.find(id) {
            Some(key) => {
                self.core.reset(key, code);
                self.app.gone(&mut self.core, key);
            }
            None => {
                write_reset(&mut self.core.out, id, code);
                if !self.core.streams.reset_after(id, Ending::ServerReset) {
                    self.core.streams.remember(id, Ending::ServerReset);
                }
            }
        }
        Ok(())
    }

    /// Section 5.4.1: the connection ends here. All streams are gone.
    pub(super) fn fail(&mut self, code: ErrorCode, why: &'static str) {
        // Section 6.8: what was told before is not increased.
        let last = match self.phase {
            Phase::Draining { last } => last,
            _ => self.core.streams.last_id(),
        };
        self.failure = Some(Failure { code, why });
        self.core.shared.stats().failed(code, why);
        self.end();
        // Last: calls that end may open windows.
        write_goaway(&mut self.core.out, last, code, why);
    }

    /// Ends the connection before its time, for no fault of the client's: calls
    /// in flight are answered as far as the application has an answer.
    pub fn cut(&mut self, now: Instant, counter: Counter, why: &'static str) {
        if !self.is_alive() {
            return;
        }
        self.core.now = now;
        self.core.count(counter);
        self.app.ending(&mut self.core);
        self.fail(ErrorCode::NO_ERROR, why);
    }

    /// The same without answers: nothing that matters is in flight.
    pub fn close(&mut self, now: Instant, counter: Counter, why: &'static str) {
        if self.is_alive() {
            self.core.now = now;
            self.core.count(counter);
            self.fail(ErrorCode::NO_ERROR, why);
        }
    }

    /// Drops every stream, and reads nothing more.
    fn end(&mut self) {
        self.phase = Phase::Closed;
        let keys: Vec<StreamKey> = self.core.streams.keys().collect();
        for key in keys {
            self.core.close(key, Ending::ServerReset);
            self.app.gone(&mut self.core, key);
        }
        self.partial = None;
    }

    /// The socket has ended or failed: nothing comes any more, and nothing
    /// leaves.
    pub fn lost(&mut self) {
        self.core.took(usize::MAX);
        self.end();
    }
}
