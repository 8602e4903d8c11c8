//! Prometheus' text format, version 0.0.4.

use std::fmt::{Display, Write as _};

use super::histogram::{Scale, Total};

/// A page of metrics.
#[derive(Debug, Default)]
pub(crate) struct Page(String);

/// Names and values of labels.
pub(crate) type Labels<'a> = &'a [(&'static str, &'a str)];

/// A metric, and what is written of it.
pub(crate) struct Family<'p> {
    page: &'p mut String,
    name: &'p str,
}

impl Page {
    pub(crate) fn into_text(self) -> String {
        self.0
    }

    pub(crate) fn counter<'p>(&'p mut self, name: &'p str, help: &str) -> Family<'p> {
        self.family(name, "counter", help)
    }

    pub(crate) fn gauge<'p>(&'p mut self, name: &'p str, help: &str) -> Family<'p> {
        self.family(name, "gauge", help)
    }

    pub(crate) fn histogram<'p>(&'p mut self, name: &'p str, help: &str) -> Family<'p> {
        self.family(name, "histogram", help)
    }

    fn family<'p>(&'p mut self, name: &'p str, kind: &str, help: &str) -> Family<'p> {
        let page = &mut self.0;
        // Writing to a string does not fail, here and below.
        let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { page, name }
    }
}

impl Family<'_> {
    /// A value without labels.
    pub(crate) fn value(&mut self, value: impl Display) {
        self.sample(&[], value);
    }

    pub(crate) fn sample(&mut self, labels: Labels<'_>, value: impl Display) {
        let name = self.name;
        self.line(name, "", labels, None, value);
    }

    /// The buckets of a histogram, its sum and its count.
    pub(crate) fn distribution<S: Scale>(&mut self, labels: Labels<'_>, total: &Total) {
        let name = self.name;
        let mut below = 0;
        for (bound, count) in S::BOUNDS.iter().zip(&total.buckets) {
            below += count;
            let bound = quotient(*bound, S::UNIT).to_string();
            self.line(name, "_bucket", labels, Some(&bound), below);
        }
        let count = total.count();
        self.line(name, "_bucket", labels, Some("+Inf"), count);
        self.line(name, "_sum", labels, None, quotient(total.sum, S::UNIT));
        self.line(name, "_count", labels, None, count);
    }

    fn line(
        &mut self,
        name: &str,
        suffix: &str,
        labels: Labels<'_>,
        bound: Option<&str>,
        value: impl Display,
    ) {
        let page = &mut *self.page;
        let _ = write!(page, "{name}{suffix}");
        let bound = bound.map(|bound| ("le", bound));
        for (at, (label, text)) in labels.iter().copied().chain(bound).enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            let _ = write!(page, "{before}{label}=\"{}\"", Escaped(text));
        }
        let close = if labels.is_empty() && bound.is_none() {
            ""
        } else {
            "}"
        };
        let _ = writeln!(page, "{close} {value}");
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus knows no other numbers"
)]
fn quotient(number: u64, unit: u64) -> f64 {
    number as f64 / unit as f64
}

/// The value of a label, between its quotes.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for each in self.0.chars() {
            match each {
                '\\' | '"' => write!(f, "\\{each}")?,
                '\n' => f.write_str("\\n")?,
                _ => f.write_char(each)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::histogram::{Histogram, Seconds};
    use super::*;

    #[test]
    fn a_page_is_written_as_the_format_has_it() {
        let mut page = Page::default();
        page.gauge("up", "Whether it is.").value(1);
        let mut calls = page.counter("calls_total", "Calls.");
        calls.sample(&[("name", "a\"b\\c\nd"), ("other", "x")], 7);
        let histogram = Histogram::<Seconds>::default();
        histogram.record(20_000);
        histogram.record(1_500_000_000_000);
        let mut total = Total::default();
        histogram.add_to(&mut total);
        page.histogram("took_seconds", "Time.")
            .distribution::<Seconds>(&[("of", "x")], &total);
        let text = page.into_text();
        let start = "# HELP up Whether it is.\n# TYPE up gauge\nup 1\n\
            # HELP calls_total Calls.\n# TYPE calls_total counter\n\
            calls_total{name=\"a\\\"b\\\\c\\nd\",other=\"x\"} 7\n\
            # HELP took_seconds Time.\n# TYPE took_seconds histogram\n\
            took_seconds_bucket{of=\"x\",le=\"0\"} 0\n\
            took_seconds_bucket{of=\"x\",le=\"0.00001\"} 0\n\
            took_seconds_bucket{of=\"x\",le=\"0.00005\"} 1\n";
        assert!(text.starts_with(start), "{text}");
        let end = "took_seconds_bucket{of=\"x\",le=\"100\"} 1\n\
            took_seconds_bucket{of=\"x\",le=\"+Inf\"} 2\n\
            took_seconds_sum{of=\"x\"} 1500.00002\n\
            took_seconds_count{of=\"x\"} 2\n";
        assert!(text.ends_with(end), "{text}");
    }
}
