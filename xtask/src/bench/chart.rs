//! `docs/performance.svg`: bars, plain enough to be written by hand, and with
//! colours for light and dark.

/// Scenarios that are drawn.
pub(super) const SHOWN: [&str; 5] = [
    "get-8x32",
    "get-64x1",
    "set-8x32",
    "set-64x1",
    "go-client-8x32",
];

const WIDTH: f64 = 760.0;
const MARGIN: f64 = 24.0;
/// Where bars begin: to the left stand the names.
const BARS: f64 = 150.0;
/// Room for the figure behind a bar.
const FIGURES: f64 = 80.0;
const BAR: f64 = 16.0;
const STEP: f64 = 22.0;
const TITLE: f64 = 34.0;

/// Bars in groups; each group has a scale of its own.
#[derive(Default)]
pub(super) struct Chart {
    groups: Vec<(String, Vec<(String, f64)>)>,
}

const STYLE: &str = "\
    svg { background: #ffffff; font: 13px system-ui, sans-serif }
    text { fill: #24292f }
    .quiet { fill: #57606a }
    .head { font-weight: 600 }
    rect { fill: #9aa4af }
    .ours { fill: #0b7a75 }
    @media (prefers-color-scheme: dark) {
      svg { background: #0d1117 }
      text { fill: #e6edf3 }
      .quiet { fill: #9198a1 }
      rect { fill: #59636e }
      .ours { fill: #2cc5bc }
    }";

impl Chart {
    pub(super) fn add(&mut self, title: &str, bars: Vec<(String, f64)>) {
        self.groups.push((title.to_owned(), bars));
    }

    /// The picture. The first bar of each group is larder's.
    pub(super) fn svg(&self) -> String {
        let mut body = String::new();
        let mut y = MARGIN + 14.0;
        body += &text(
            MARGIN,
            y,
            "head",
            "Server CPU a request, microseconds: less is better",
        );
        for (title, bars) in &self.groups {
            y += TITLE;
            body += &text(MARGIN, y, "quiet", title);
            y += 10.0;
            let largest = bars.iter().map(|bar| bar.1).fold(0.0, f64::max);
            for (place, (name, value)) in bars.iter().enumerate() {
                let class = if place == 0 { "ours" } else { "peer" };
                let room = WIDTH - MARGIN - FIGURES - BARS;
                let length = if largest > 0.0 {
                    room * value / largest
                } else {
                    0.0
                };
                body += &text(MARGIN, y + BAR - 3.0, "", name);
                body += &format!(
                    "  <rect class=\"{class}\" x=\"{BARS}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{BAR}\" rx=\"2\"/>\n"
                );
                let figure = format!("{value:.2}");
                body += &text(BARS + length + 8.0, y + BAR - 3.0, "", &figure);
                y += STEP;
            }
        }
        let height = y + MARGIN;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" height=\"{height:.0}\" \
             role=\"img\" aria-label=\"Server CPU a request, larder beside other servers\">\n\
             \x20 <style>\n{STYLE}\n  </style>\n{body}</svg>\n"
        )
    }
}

fn text(x: f64, y: f64, class: &str, what: &str) -> String {
    let what = what.replace('&', "&amp;").replace('<', "&lt;");
    format!("  <text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{what}</text>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_fills_the_room_and_none_leaves_it() {
        let mut chart = Chart::default();
        chart.add("a < b", vec![("larder".into(), 1.0), ("x".into(), 10.0)]);
        chart.add("nothing", vec![("larder".into(), 0.0)]);
        let svg = chart.svg();
        assert!(svg.contains("a &lt; b"));
        let widths: Vec<f64> = svg
            .split("width=\"")
            .skip(2)
            .filter_map(|part| part.split('"').next()?.parse().ok())
            .collect();
        assert_eq!(widths, [50.6, 506.0, 0.0]);
    }
}
