//! The table on standard output, and `docs/performance.md`.

use std::path::Path;
use std::process::Command;

use super::chart;
use super::machine::{self, Cores, first_line};
use super::measure::Figure;
use super::programs::Programs;
use super::results::{Median, Results};
use super::scenarios::{KEYS, Measure, Scenario};
use super::{Times, chart::Chart};

/// A run, and all that is to be said about it.
pub(super) struct Report<'a> {
    /// The command that measured.
    pub(super) command: String,
    pub(super) cores: &'a Cores,
    pub(super) times: Times,
    pub(super) rounds: usize,
    pub(super) programs: &'a Programs,
    pub(super) scenarios: &'a [Scenario],
    pub(super) results: &'a Results,
}

const HEAD: [&str; 8] = [
    "server",
    "requests/s",
    "server CPU a request",
    "(rounds)",
    "load CPU",
    "p50",
    "p99",
    "first ÷ this",
];

impl Report<'_> {
    /// Every scenario, for a terminal.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        for (at, scenario) in self.scenarios.iter().enumerate() {
            text += &format!("{} ({})\n", scenario.title, scenario.name);
            let rows: Vec<Vec<String>> = std::iter::once(HEAD.map(str::to_owned).to_vec())
                .chain(self.rows(at, scenario))
                .collect();
            let width = |column: usize| {
                let cells = rows.iter().map(|row| row[column].chars().count());
                cells.max().unwrap_or(0)
            };
            let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
            for row in &rows {
                let cells = row.iter().zip(&widths).enumerate();
                let line: Vec<String> = cells
                    .map(|(column, (cell, width))| match column {
                        0 => format!("{cell:<width$}"),
                        _ => format!("{cell:>width$}"),
                    })
                    .collect();
                text += &format!("  {}\n", line.join("  ").trim_end());
            }
            for line in self.goals(at, scenario) {
                text += &format!("  {line}\n");
            }
            text.push('\n');
        }
        text + &self.cores.told() + "\n"
    }

    /// A row for each case that was measured.
    fn rows(&self, at: usize, scenario: &Scenario) -> Vec<Vec<String>> {
        let mut rows = Vec::new();
        for (place, case) in scenario.cases.iter().enumerate() {
            let median = |what: fn(&Figure) -> Option<f64>| self.results.median(at, place, what);
            let Some(cost) = median(|figure| Some(figure.cost())) else {
                continue;
            };
            let ratio = self.results.ratio(at, place).filter(|_| place > 0);
            let is_memory = median(per_second).is_none();
            let cell = |median: Option<Median>, show: fn(f64) -> String| {
                median.map_or_else(|| "–".into(), |median| show(median.value))
            };
            let show = if is_memory { show_kib } else { show_us };
            rows.push(vec![
                case.subject.clone(),
                cell(median(per_second), thousands),
                show(cost.value),
                format!("{} – {}", show(cost.least), show(cost.most)),
                cell(median(own_cpu), show_us),
                cell(median(p50), show_latency),
                cell(median(p99), show_latency),
                cell(ratio, |ratio| format!("{ratio:.3}")),
            ]);
        }
        rows
    }

    /// A line for each goal of a scenario.
    fn goals(&self, at: usize, scenario: &Scenario) -> Vec<String> {
        let row = |row: [String; 5]| {
            let [what, goal, measured, rounds, verdict] = row;
            format!("goal: {what} {goal}; measured {measured} ({rounds}): {verdict}")
        };
        self.goal_rows(at, scenario).map(row).collect()
    }

    /// What, at the most how much, how much it is, in which rounds, and whether
    /// that is enough.
    fn goal_rows(&self, at: usize, scenario: &Scenario) -> impl Iterator<Item = [String; 5]> {
        let first = &scenario.cases[0].subject;
        scenario.goals.iter().filter_map(move |goal| {
            let reached = self.results.reached(at, scenario, *goal)?;
            let (what, unit) = match goal.measure {
                Measure::Against(subject) => (format!("{first} ÷ {subject}"), ""),
                Measure::Kib => (first.clone(), " KiB"),
            };
            let verdict = match reached.value <= goal.at_most {
                true => "reached",
                false => "not reached",
            };
            Some([
                what,
                format!("≤ {:.3}{unit}", goal.at_most),
                format!("{:.3}{unit}", reached.value),
                format!("{:.3} – {:.3}", reached.least, reached.most),
                verdict.to_owned(),
            ])
        })
    }

    /// Writes `docs/performance.md` and `docs/performance.svg`.
    ///
    /// # Errors
    /// When they cannot be written, or the machine cannot be described.
    pub(super) fn write(&self, root: &Path) -> anyhow::Result<()> {
        let docs = root.join("docs");
        std::fs::write(docs.join("performance.md"), self.page()?)?;
        std::fs::write(docs.join("performance.svg"), self.chart().svg())?;
        println!("wrote docs/performance.md and docs/performance.svg");
        Ok(())
    }

    fn page(&self) -> anyhow::Result<String> {
        let date = first_line(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
        let mut page = String::from(
            "# Performance\n\n<!-- Written by `cargo xtask bench`; do not edit. -->\n\n\
             ![Server CPU a request, larder beside others](performance.svg)\n\n",
        );
        page += &format!(
            "Measured on {date} by `{}`. The figures are of one machine: {}. {} \
             With another machine compare ratios, not figures.\n\n",
            self.command,
            machine::description()?,
            self.cores.told()
        );
        page += "| program | version |\n|---|---|\n";
        for (name, version) in &self.programs.versions {
            page += &format!("| {name} | {version} |\n");
        }
        page += "\n## Goals\n\nCost is the server's CPU a request. Ratios are taken within a round; \
            the median counts, and the smallest and the largest are beside it.\n\n\
            | scenario | ratio | goal | measured | rounds | |\n|---|---|---|---|---|---|\n";
        for (at, scenario) in self.scenarios.iter().enumerate() {
            for [what, goal, measured, rounds, verdict] in self.goal_rows(at, scenario) {
                page += &format!(
                    "| {} | {what} | {goal} | **{measured}** | {rounds} | {verdict} |\n",
                    scenario.title
                );
            }
        }
        page += "\n## Figures\n";
        for (at, scenario) in self.scenarios.iter().enumerate() {
            let rows = self.rows(at, scenario);
            if rows.is_empty() {
                continue;
            }
            page += &format!("\n### {}\n\n| {} |\n", scenario.title, HEAD.join(" | "));
            page += &format!("|---|{}\n", "---:|".repeat(HEAD.len() - 1));
            for row in rows {
                page += &format!("| {} |\n", row.join(" | "));
            }
        }
        Ok(page + &self.method())
    }

    fn method(&self) -> String {
        format!(
            "\n## How it was measured\n\n\
             - {} rounds. In each, the servers of a scenario take turns: {} ms of load that does not count, then {} ms \
             that do. What stands in the tables is the median over the rounds.\n\
             - Server CPU is the time of the processor in the server's process, its own code and the kernel's \
             (`/proc/PID/stat`, in steps of 10 ms), over the requests that ended meanwhile. Load CPU is the same of the load generator.\n\
             - Every server holds {} keys of 16 bytes with values of 100 bytes, written by calls, in the same contract, `rpc.Cache`; \
             Redis its own protocol, pipelined as deep as calls are in flight. Keys are chosen alike. Every answer is checked: \
             its status, and of a read that the value has its length.\n\
             - All gRPC servers get the same bytes: a token and a `grpc-timeout` that differs from call to call. larder looks at \
             both: the calls are of an account with a key quota and a rate limit, far above the load. The peers do no more than \
             store and find.\n\
             - larder's access log is as it comes (`log_format` text), and goes to `/dev/null`. Nothing else is configured but the \
             number of threads, and `max_memory` for ten million keys.\n\
             - *tonic* is built and run as its guides have it: cargo's release profile, one runtime of many threads. *tonic tuned* \
             has a runtime and a socket for each thread, link-time optimisation and mimalloc.\n\
             - The load generator is `larder bench`: a closed loop that makes the next call as soon as one is answered, and \
             writes all calls that are due at once. h2load measures one scenario again, with a single key.\n\
             - An idle connection is the growth of the server's resident memory from none to 1,000 connections, divided.\n",
            self.rounds,
            self.times.warmup.as_millis(),
            self.times.measured.as_millis(),
            thousands(KEYS as f64),
        )
    }

    /// The scenarios that were measured beside peers.
    fn chart(&self) -> Chart {
        let mut chart = Chart::default();
        for (at, scenario) in self.scenarios.iter().enumerate() {
            if !chart::SHOWN.contains(&scenario.name) {
                continue;
            }
            let bars = scenario
                .cases
                .iter()
                .enumerate()
                .filter_map(|(place, case)| {
                    let cost = self.results.median(at, place, |figure| Some(figure.cost()));
                    Some((case.subject.clone(), cost?.value))
                });
            chart.add(&scenario.title, bars.collect());
        }
        chart
    }
}

fn per_second(figure: &Figure) -> Option<f64> {
    match figure {
        Figure::Calls { per_second, .. } => Some(*per_second),
        Figure::Memory { .. } => None,
    }
}

fn own_cpu(figure: &Figure) -> Option<f64> {
    match figure {
        Figure::Calls { own_cpu_us, .. } => *own_cpu_us,
        Figure::Memory { .. } => None,
    }
}

fn p50(figure: &Figure) -> Option<f64> {
    match figure {
        Figure::Calls { p50_us, .. } => *p50_us,
        Figure::Memory { .. } => None,
    }
}

fn p99(figure: &Figure) -> Option<f64> {
    match figure {
        Figure::Calls { p99_us, .. } => *p99_us,
        Figure::Memory { .. } => None,
    }
}

fn show_us(us: f64) -> String {
    format!("{us:.2} µs")
}

fn show_kib(bytes: f64) -> String {
    format!("{:.1} KiB", bytes / 1024.0)
}

fn show_latency(us: f64) -> String {
    match us {
        ..1_000.0 => format!("{us:.0} µs"),
        _ => format!("{:.2} ms", us / 1_000.0),
    }
}

/// A whole number with commas.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut shown = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        for (number, shown) in [
            (0.0, "0"),
            (999.4, "999"),
            (1_000.0, "1,000"),
            (1_234_567.8, "1,234,568"),
        ] {
            assert_eq!(thousands(number), shown);
        }
        assert_eq!(show_latency(1_234.0), "1.23 ms");
        assert_eq!(show_kib(2_560.0), "2.5 KiB");
    }
}
