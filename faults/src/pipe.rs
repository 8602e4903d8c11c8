//! One direction of a connection.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};

use crate::plan::Fault;

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 16 << 10;

/// How a direction ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Its sender closed it, or a fault says so; the other may go on.
    Closed,
    /// Both directions end at once, with a reset.
    Reset,
}

/// What the faults of a direction come to.
#[derive(Debug, Default)]
struct Course {
    delay: Duration,
    rate: Option<u32>,
    bytewise: bool,
    reset: Option<u64>,
    close: Option<u64>,
    black_hole: Option<u64>,
    corrupt: Option<u64>,
}

impl Course {
    fn of(faults: &[Fault]) -> Self {
        let mut course = Self::default();
        // Of two of a kind, the one that comes first.
        let first = |known: Option<u64>, at: u64| Some(known.map_or(at, |known| known.min(at)));
        for fault in faults {
            match *fault {
                Fault::Delay(delay) => course.delay = course.delay.max(delay),
                Fault::Rate(rate) => course.rate = Some(rate),
                Fault::Bytewise => course.bytewise = true,
                Fault::Reset(at) => course.reset = first(course.reset, at),
                Fault::HalfClose(at) => course.close = first(course.close, at),
                Fault::BlackHole(at) => course.black_hole = first(course.black_hole, at),
                Fault::Corrupt(at) => course.corrupt = first(course.corrupt, at),
            }
        }
        course
    }

    /// How many bytes may be passed on before something happens.
    fn room(&self, passed: u64) -> usize {
        let ends = [self.reset, self.close, self.black_hole]
            .into_iter()
            .flatten();
        let next = ends
            .map(|at| at.saturating_sub(passed))
            .min()
            .unwrap_or(u64::MAX);
        usize::try_from(next).unwrap_or(usize::MAX)
    }

    /// How long a piece of so many bytes is held.
    fn wait(&self, bytes: usize) -> Duration {
        let by_rate = self.rate.map_or(Duration::ZERO, |rate| {
            Duration::from_secs(1) * u32::try_from(bytes).unwrap_or(u32::MAX) / rate.max(1)
        });
        self.delay + by_rate
    }
}

/// Passes bytes on until the end of the direction; `passed` counts them.
pub(crate) async fn pipe(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    faults: &[Fault],
    passed: &mut u64,
) -> io::Result<End> {
    let course = Course::of(faults);
    let mut buffer = vec![0; if course.bytewise { 1 } else { PIECE_BYTES }];
    loop {
        if course.reset.is_some_and(|at| at <= *passed) {
            return Ok(End::Reset);
        }
        if course.black_hole.is_some_and(|at| at <= *passed) {
            // Until the sender gives up, or the proxy ends.
            while from.read(&mut buffer).await? > 0 {}
            return std::future::pending().await;
        }
        if course.close.is_some_and(|at| at <= *passed) {
            to.shutdown().await?;
            return Ok(End::Closed);
        }
        let room = buffer.len().min(course.room(*passed));
        let read = from.read(&mut buffer[..room]).await?;
        if read == 0 {
            to.shutdown().await?;
            return Ok(End::Closed);
        }
        let wait = course.wait(read);
        if wait > Duration::ZERO {
            tokio::time::sleep(wait).await;
        }
        if let Some(at) = course.corrupt.and_then(|at| at.checked_sub(*passed))
            && let Some(byte) = usize::try_from(at)
                .ok()
                .and_then(|at| buffer[..read].get_mut(at))
        {
            *byte ^= 0x55;
        }
        to.write_all(&buffer[..read]).await?;
        *passed += read as u64;
    }
}
