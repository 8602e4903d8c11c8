//! What the rounds come to: medians, and ratios that are taken within a round.

use super::measure::Figure;
use super::scenarios::{Goal, Measure, Scenario};

/// Every figure, by scenario, case and round.
pub(super) struct Results(Vec<Vec<Vec<Figure>>>);

/// A median, and how far the rounds are apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Median {
    pub(super) value: f64,
    /// The smallest of the rounds.
    pub(super) least: f64,
    /// The largest.
    pub(super) most: f64,
}

impl Median {
    /// Of at least one value.
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self {
            value: low.midpoint(high),
            least,
            most,
        })
    }
}

impl Results {
    pub(super) fn new(scenarios: &[Scenario]) -> Self {
        let empty = |scenario: &Scenario| vec![Vec::new(); scenario.cases.len()];
        Self(scenarios.iter().map(empty).collect())
    }

    /// Adds what a round has found, if anything.
    pub(super) fn add(&mut self, scenario: usize, case: usize, figure: Option<Figure>) {
        self.0[scenario][case].extend(figure);
    }

    /// The median of something over the rounds; `None` if nothing was measured.
    pub(super) fn median(
        &self,
        scenario: usize,
        case: usize,
        what: impl Fn(&Figure) -> Option<f64>,
    ) -> Option<Median> {
        Median::of(self.0[scenario][case].iter().filter_map(what).collect())
    }

    /// The cost of the first case in that of another, round by round.
    pub(super) fn ratio(&self, scenario: usize, case: usize) -> Option<Median> {
        let cases = &self.0[scenario];
        let rounds = cases[0].iter().zip(&cases[case]);
        let ratios = rounds.map(|(first, other)| first.cost() / other.cost());
        Median::of(ratios.filter(|ratio| ratio.is_finite()).collect())
    }

    /// What a goal is about, as it was measured.
    pub(super) fn reached(&self, at: usize, scenario: &Scenario, goal: Goal) -> Option<Median> {
        match goal.measure {
            Measure::Against(subject) => {
                let mut cases = scenario.cases.iter();
                let case = cases.position(|case| case.subject == subject)?;
                self.ratio(at, case)
            }
            Measure::Kib => self.median(at, 0, |figure| Some(figure.cost() / 1024.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let median = |values: &[f64]| Median::of(values.to_vec()).map(|m| m.value);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let memory = |bytes| Figure::Memory { bytes };
        // The machine is four times as slow in the second round.
        let first = [10.0, 40.0, 10.0].map(memory).to_vec();
        let other = [20.0, 80.0, 5.0].map(memory).to_vec();
        let results = Results(vec![vec![first, other, Vec::new()]]);
        let ratio = results.ratio(0, 1);
        assert_eq!(
            ratio.map(|ratio| (ratio.value, ratio.most)),
            Some((0.5, 2.0))
        );
        assert_eq!(results.ratio(0, 2), None);
    }
}
