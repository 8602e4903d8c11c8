//! Progress on standard error, if that is a terminal and read by a person.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::Format;

/// How often the progress is drawn.
pub(super) const TICK: Duration = Duration::from_millis(200);

/// One line, gone when it is dropped.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// A bar if it is known how much there is to do, in whatever unit.
    pub(super) fn new(total: Option<u64>, format: Format) -> Self {
        let bar = match (format, total) {
            (Format::Json, _) => ProgressBar::hidden(),
            (Format::Text, Some(total)) => {
                ProgressBar::new(total).with_style(style("{bar:30} {percent}%, {msg}"))
            }
            (Format::Text, None) => ProgressBar::new_spinner().with_style(style("{spinner} {msg}")),
        };
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// Nobody sees it, so there is no need to make up words.
    pub(super) fn is_hidden(&self) -> bool {
        self.0.is_hidden()
    }

    pub(super) fn show(&self, done: u64, message: String) {
        self.0.set_position(done);
        self.0.set_message(message);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates of this file are well-formed")
}
