//! Whether all that a shard's lock protects agrees.

use std::collections::BTreeMap;

use super::entries::{Core, charge_of, hash_of};
use super::slab::U48;
use crate::ledger::Amount;

impl Core {
    /// Checks every invariant, and adds what each owner has here to `sums`.
    pub(crate) fn check(&self, sums: &mut BTreeMap<u32, Amount>) -> Result<(), String> {
        self.policy.check(&self.slab)?;
        let (mut timed, mut charged, mut large) = (0, 0, 0);
        for at in 0..self.slab.end() {
            let Some(slot) = self.slab.entry(at) else {
                continue;
            };
            let hash = hash_of(&self.hasher, slot);
            if self.index.find(hash, |it| it == at) != Some(at) {
                return Err(format!("slot {at} is not in the index"));
            }
            let present = self.present(at, slot);
            if slot.parts.is_large() {
                large += 1;
                if present.large.map(|value| value.len()) != Some(present.record.value_len()) {
                    return Err(format!("slot {at} has lost its value"));
                }
            }
            timed += u32::from(slot.expiry_ms.get() != U48::MAX);
            charged += charge_of(slot);
            let sum = sums.entry(present.record.owner).or_default();
            sum.keys += 1;
            sum.bytes += present.meta.size_bytes;
        }
        let agree = self.index.len() == self.slab.live() as usize
            && self.wheel.check(&self.slab)? == timed
            && self.charged == charged
            && self.large.len() == large;
        if agree {
            Ok(())
        } else {
            Err("index, wheel, charge or large values disagree with the slab".to_owned())
        }
    }
}
