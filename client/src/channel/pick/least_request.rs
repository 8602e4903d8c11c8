//! Least request, gRFC A48: of a few lanes taken at random the one with the fewest calls under way
//! ("The Power of Two Choices in Randomized Load Balancing", Mitzenmacher 2001).

use super::{Lane, Pick, Room, below, first_open, next_draw};

#[derive(Debug)]
pub(crate) struct LeastRequest<L> {
    /// At least one.
    lanes: Vec<L>,
    choices: u32,
}

impl<L: Lane> LeastRequest<L> {
    /// `lanes` must not be empty.
    pub(crate) fn new(lanes: Vec<L>, choices: u32) -> Self {
        Self { lanes, choices }
    }

    /// A lane may be drawn twice, as A48 has it.
    pub(super) fn pick(&self, mut draw: u64) -> Pick<'_, L> {
        let mut best: Option<(u32, &L)> = None;
        for _ in 0..self.choices {
            let lane = &self.lanes[below(draw, self.lanes.len())];
            draw = next_draw(draw);
            let load = lane.in_flight();
            let is_better = best.is_none_or(|(least, _)| load < least);
            if is_better && lane.room() == Room::Open {
                best = Some((load, lane));
            }
        }
        match best {
            Some((_, lane)) => Pick::To(lane),
            None => first_open(&self.lanes, below(draw, self.lanes.len())),
        }
    }
}
