//! What a change with a request id leaves behind beside itself: its answer, durable
//! in the same transaction, so that no end of the process comes between the two.

use std::collections::VecDeque;

use larder_model::Mode;

use crate::account::Account;
use crate::limits::MAX_RECEIPTS;
use crate::state::Change;
use crate::time::UnixMillis;
use crate::token::Token;

/// The answer to a request with an id. What its parts mean is the caller's affair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The id; unique among receipts.
    pub id: String,
    /// What was asked for.
    pub fingerprint: [u8; 16],
    /// When the change was made.
    pub made_at: UnixMillis,
    /// When the receipt is of no use any more.
    pub until: UnixMillis,
    /// The answer, at most [`MAX_RECEIPT_BYTES`](crate::limits::MAX_RECEIPT_BYTES); a
    /// longer one is not kept.
    pub answer: Vec<u8>,
}

/// What a change has made, changed or removed.
#[derive(Debug, Clone, Copy)]
pub enum Made<'a> {
    /// An account.
    Account(&'a Account),
    /// A token; its secret is not told.
    Token(&'a Token),
}

/// Makes the receipt of a change, just before it is made durable.
pub type MakeReceipt<'a> = &'a (dyn Fn(Made<'_>) -> Receipt + 'a);

/// Whether a change takes place, and what it leaves behind if it does.
#[derive(Clone, Copy)]
pub struct Effect<'a> {
    /// Whether it takes place.
    pub mode: Mode,
    /// Its receipt, if it leaves one.
    pub receipt: Option<MakeReceipt<'a>>,
}

impl From<Mode> for Effect<'_> {
    fn from(mode: Mode) -> Self {
        Self {
            mode,
            receipt: None,
        }
    }
}

impl Effect<'_> {
    pub(crate) fn receipt_of(&self, made: Made<'_>) -> Option<Receipt> {
        self.receipt.map(|make| make(made))
    }
}

/// The receipts in the database, those that go first at the front.
#[derive(Debug, Default)]
pub(crate) struct Receipts(VecDeque<(UnixMillis, String)>);

impl Receipts {
    /// Of a database that was read.
    pub(crate) fn of(found: &[Receipt]) -> Self {
        let found = found.iter().map(|it| (it.until, it.id.clone()));
        Self(found.collect())
    }

    /// The changes that add a receipt: those that are over go, and at the limit the
    /// oldest.
    pub(crate) fn add(&mut self, receipt: Receipt) -> Vec<Change> {
        let mut changes = Vec::new();
        self.0.retain(|(_, id)| *id != receipt.id);
        let is_over = |until: UnixMillis| until <= receipt.made_at;
        while let Some((until, _)) = self.0.front()
            && (is_over(*until) || self.0.len() >= MAX_RECEIPTS)
            && let Some((_, id)) = self.0.pop_front()
        {
            changes.push(Change::DropReceipt(id));
        }
        self.0.push_back((receipt.until, receipt.id.clone()));
        changes.push(Change::PutReceipt(receipt));
        changes
    }
}

pub(crate) fn encode(receipt: &Receipt) -> Vec<u8> {
    let times = [receipt.made_at, receipt.until].map(|time| time.get().to_le_bytes());
    let parts = [&receipt.fingerprint[..], &times[0], &times[1]];
    [&parts.concat()[..], &receipt.answer].concat()
}

/// The receipt under the row's key, or what is wrong with the row.
pub(crate) fn decode(key: &str, value: &[u8]) -> Result<Receipt, String> {
    let short = || "a receipt is too short".to_owned();
    let (fingerprint, rest) = value.split_first_chunk::<16>().ok_or_else(short)?;
    let (made_at, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
    let (until, answer) = rest.split_first_chunk::<8>().ok_or_else(short)?;
    Ok(Receipt {
        id: key.to_owned(),
        fingerprint: *fingerprint,
        made_at: UnixMillis::new(u64::from_le_bytes(*made_at)),
        until: UnixMillis::new(u64::from_le_bytes(*until)),
        answer: answer.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(id: &str, made_at: u64) -> Receipt {
        Receipt {
            id: id.to_owned(),
            fingerprint: [3; 16],
            made_at: UnixMillis::new(made_at),
            until: UnixMillis::new(made_at + 1_000_000),
            answer: b"answer".to_vec(),
        }
    }

    fn dropped(changes: &[Change]) -> Vec<&str> {
        let ids = changes.iter().filter_map(|change| match change {
            Change::DropReceipt(id) => Some(id.as_str()),
            _ => None,
        });
        ids.collect()
    }

    #[test]
    fn they_are_bounded_and_the_oldest_make_room() {
        let mut receipts = Receipts::default();
        for number in 0..MAX_RECEIPTS {
            let added = receipts.add(receipt(&number.to_string(), number as u64));
            assert_eq!(dropped(&added), [""; 0], "{number}");
        }
        let now = MAX_RECEIPTS as u64;
        assert_eq!(dropped(&receipts.add(receipt("new", now))), ["0"]);
        // One that is written over takes no other's place.
        assert_eq!(dropped(&receipts.add(receipt("7", now))), [""; 0]);
        assert_eq!(dropped(&receipts.add(receipt("newer", now))), ["1"]);
        let all_over = receipts.add(receipt("last", now + 2_000_000));
        assert_eq!(dropped(&all_over).len(), MAX_RECEIPTS);
    }

    #[test]
    fn a_row_is_read_as_it_was_written_and_no_part_of_its_head() {
        let written = receipt("id", 5);
        let row = encode(&written);
        assert_eq!(decode("id", &row), Ok(written));
        for length in 0..32 {
            assert!(decode("id", &row[..length]).is_err(), "{length}");
        }
    }
}
