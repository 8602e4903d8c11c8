//! What the calls of a connection hold, for the fuzz targets to compare with its
//! limits.

use super::{Handler, Rpc};
use crate::general::GeneralLane;

/// What the calls of a connection hold at one moment.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inspection {
    /// Calls that there are.
    pub calls: usize,
    /// Those of them that wait, stream, or are with the general lane.
    pub waiting: usize,
    /// Calls to be polled without being woken; one may be there twice.
    pub ready: usize,
    /// Bytes of requests that are not complete.
    pub assembled_bytes: usize,
}

impl<H: Handler, L: GeneralLane> Rpc<H, L> {
    /// What they hold now.
    #[doc(hidden)]
    #[must_use]
    pub fn inspect(&self) -> Inspection {
        Inspection {
            calls: self.calls.iter().flatten().count(),
            waiting: self.waiting,
            ready: self.ready.len(),
            assembled_bytes: self.assembled,
        }
    }
}
