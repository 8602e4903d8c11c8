//! Counters: values that are decimal text.

use larder_model::{Increment, Incremented, StoreError};

/// Longest text of a 64-bit number: `-9223372036854775808`.
pub(crate) const TEXT_BYTES: usize = 20;

/// Reads a counter. Only the one text that [`write()`] would give is a number:
/// no sign before a positive one, no zeros in front, no blanks.
pub(crate) fn parse(value: &[u8]) -> Result<i64, StoreError> {
    let text = std::str::from_utf8(value).ok();
    let number = text.and_then(|text| text.parse().ok());
    let number = number.ok_or(StoreError::NotANumber)?;
    if write(number, &mut [0; TEXT_BYTES]) == value {
        Ok(number)
    } else {
        Err(StoreError::NotANumber)
    }
}

/// Writes a counter into `text`, from the right.
pub(crate) fn write(number: i64, text: &mut [u8; TEXT_BYTES]) -> &[u8] {
    let mut rest = number.unsigned_abs();
    let mut at = TEXT_BYTES;
    loop {
        at -= 1;
        text[at] = b'0' + (rest % 10).to_le_bytes()[0];
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        at -= 1;
        text[at] = b'-';
    }
    &text[at..]
}

/// Adds within bounds, in 128 bits: the sum before bounds may be past 64.
pub(crate) fn add(before: i64, increment: &Increment<'_>) -> Result<Incremented, StoreError> {
    let (before, delta) = (i128::from(before), i128::from(increment.delta));
    let sum = before + delta;
    let after = if delta > 0 {
        // A counter already above the bound stays where it is.
        let most = increment.upper_bound.map(|upper| before.max(upper.into()));
        most.map_or(sum, |most| sum.min(most))
    } else {
        let least = increment.lower_bound.map(|lower| before.min(lower.into()));
        least.map_or(sum, |least| sum.max(least))
    };
    let narrow = |n: i128| i64::try_from(n).map_err(|_| StoreError::Overflow);
    Ok(Incremented {
        value: narrow(after)?,
        applied_delta: narrow(after - before)?,
    })
}
