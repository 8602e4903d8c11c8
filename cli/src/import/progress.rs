//! Progress on standard error: a bar for a terminal, a line now and then for a log.

use std::io::{self, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::tally::Tally;
use crate::output::Format;

/// How often the bar is drawn.
const TICK: Duration = Duration::from_millis(100);

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// One line at the bottom of a terminal, or lines in a log.
pub(super) struct Progress {
    bar: ProgressBar,
    lines: Option<Lines>,
}

/// What the next line needs to know.
struct Lines {
    total: Option<u64>,
    last: Instant,
    scanned: u64,
}

impl Progress {
    /// A bar if it is known how many keys there are. Programs that asked for JSON are told
    /// nothing before the end.
    pub(super) fn new(total: Option<u64>, format: Format) -> Self {
        let bar = match (format, total) {
            (Format::Json, _) => ProgressBar::hidden(),
            (Format::Text, Some(total)) => {
                ProgressBar::new(total).with_style(style("{bar:30} {percent}%, {msg}, {eta} left"))
            }
            (Format::Text, None) => ProgressBar::new_spinner().with_style(style("{spinner} {msg}")),
        };
        let lines = (format == Format::Text && bar.is_hidden()).then(|| Lines {
            total,
            last: Instant::now(),
            scanned: 0,
        });
        bar.enable_steady_tick(TICK);
        Self { bar, lines }
    }

    pub(super) fn show(&mut self, tally: &Tally) {
        self.bar.set_position(tally.scanned);
        if !self.bar.is_hidden() {
            self.bar.set_message(format!(
                "{} keys, {} stored, {:.0} a second",
                tally.scanned,
                tally.stored,
                self.bar.per_sec()
            ));
        }
        let Some(lines) = &mut self.lines else { return };
        let passed = lines.last.elapsed();
        if passed >= LINE_EVERY {
            // Whoever closed standard error is not told.
            let _ = writeln!(io::stderr(), "{}", lines.next(tally, passed));
            lines.last = Instant::now();
        }
    }

    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Lines {
    /// The line about what was done since the one before.
    fn next(&mut self, tally: &Tally, passed: Duration) -> String {
        let done = tally.scanned - self.scanned;
        self.scanned = tally.scanned;
        let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = done.saturating_mul(1000) / millis;
        let mut line = format!(
            "{} keys, {} stored, {rate} a second",
            tally.scanned, tally.stored
        );
        if let Some(total) = self.total {
            let left = total.saturating_sub(tally.scanned);
            if let Some(seconds) = left.checked_div(rate) {
                line.push_str(&format!(", {seconds} s left"));
            }
        }
        line
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates of this file are well-formed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(total: Option<u64>, scanned: u64, passed_ms: u64, expected: &str) {
        let tally = Tally {
            scanned,
            stored: scanned - 1,
            ..Tally::default()
        };
        let mut lines = Lines {
            total,
            last: Instant::now(),
            scanned: 100,
        };
        let line = lines.next(&tally, Duration::from_millis(passed_ms));
        assert_eq!(line, expected);
    }

    #[test]
    fn a_line_says_the_rate_since_the_one_before_and_what_is_left() {
        check(
            None,
            20_100,
            10_000,
            "20100 keys, 20099 stored, 2000 a second",
        );
        check(
            Some(40_100),
            20_100,
            10_000,
            "20100 keys, 20099 stored, 2000 a second, 10 s left",
        );
        // The walk met more than there were at first.
        check(
            Some(7),
            20_100,
            10_000,
            "20100 keys, 20099 stored, 2000 a second, 0 s left",
        );
        // Nothing moves: no time is made up.
        check(Some(200), 100, 10_000, "100 keys, 99 stored, 0 a second");
        check(
            Some(200),
            150,
            0,
            "150 keys, 149 stored, 50000 a second, 0 s left",
        );
    }
}
