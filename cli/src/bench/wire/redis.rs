//! Redis' protocol (RESP2) as a client, without a socket. Commands are answered
//! in their order, so that a slot is a place in the pipeline.

use std::collections::VecDeque;
use std::sync::Arc;

use super::super::mix::Operation;
use super::super::stats::{ErrorKind, Outcome};
use super::api::{Calls, write_decimal};
use super::{Broken, Ended, Request, message};

/// Longest line of an answer, bytes.
const MAX_LINE_BYTES: usize = 64 << 10;

/// One connection.
pub(in crate::bench) struct Redis {
    calls: Arc<Calls>,
    out: Vec<u8>,
    /// The commands that were not answered, the oldest first: slot, what it is,
    /// and bytes of its key.
    asked: VecDeque<(usize, Operation, usize)>,
}

/// An answer.
enum Reply {
    /// `+` and `:`.
    Done,
    /// `-`.
    Error(ErrorKind),
    /// `$`: the length of the value.
    Value(usize),
    /// `$-1`.
    Nothing,
}

impl Redis {
    pub(super) const fn new(calls: Arc<Calls>) -> Self {
        Self {
            calls,
            out: Vec::new(),
            asked: VecDeque::new(),
        }
    }

    pub(super) const fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    pub(super) fn begin(&mut self, slot: usize, request: Request<'_>) {
        let (name, value): (&[u8], Option<&[u8]>) = match request.operation {
            Operation::Get => (b"GET", None),
            Operation::Set => (b"SET", Some(&self.calls.value)),
            Operation::Del => (b"DEL", None),
            Operation::Incr => (b"INCR", None),
        };
        self.out.extend_from_slice(match value {
            None => b"*2\r\n",
            Some(_) => b"*3\r\n",
        });
        for part in [Some(name), Some(request.key), value].into_iter().flatten() {
            self.out.push(b'$');
            write_decimal(u64::try_from(part.len()).unwrap_or(u64::MAX), &mut self.out);
            self.out.extend_from_slice(b"\r\n");
            self.out.extend_from_slice(part);
            self.out.extend_from_slice(b"\r\n");
        }
        self.asked
            .push_back((slot, request.operation, request.key.len()));
    }

    pub(super) fn receive(
        &mut self,
        input: &[u8],
        ended: &mut Vec<Ended>,
    ) -> Result<usize, Broken> {
        let mut used = 0;
        while let Some((reply, bytes)) = parse(&input[used..])? {
            used += bytes;
            let (slot, operation, key_bytes) = self
                .asked
                .pop_front()
                .ok_or_else(|| Broken::protocol("ANSWER_TO_NOTHING"))?;
            let result = match (reply, operation) {
                (Reply::Error(kind), _) => Err(kind),
                (Reply::Value(bytes), Operation::Get) => message::read(&self.calls, bytes),
                (Reply::Nothing, Operation::Get) => Ok(Outcome::Miss),
                (Reply::Done, Operation::Set) => {
                    Ok(Outcome::Written(key_bytes + self.calls.value.len()))
                }
                (Reply::Done, Operation::Del | Operation::Incr) => Ok(Outcome::Done),
                _ => return Err(Broken::protocol("ANSWER_OF_ANOTHER_KIND")),
            };
            ended.push(Ended { slot, result });
        }
        Ok(used)
    }
}

/// Reads one answer, if all of it is there, and how many bytes it has.
fn parse(input: &[u8]) -> Result<Option<(Reply, usize)>, Broken> {
    let Some(&kind) = input.first() else {
        return Ok(None);
    };
    let Some(end) = input.iter().take(MAX_LINE_BYTES).position(|&b| b == b'\r') else {
        return match input.len() {
            MAX_LINE_BYTES.. => Err(Broken::protocol("LINE_TOO_LONG")),
            _ => Ok(None),
        };
    };
    let (line, after) = (&input[1..end], end + 2);
    if input.len() < after {
        return Ok(None);
    }
    let reply = match kind {
        b'+' | b':' => Reply::Done,
        b'-' => {
            let word = line.split(|&b| b == b' ').next().unwrap_or_default();
            let word = String::from_utf8_lossy(word).into_owned();
            Reply::Error(("UNKNOWN", Some(word)))
        }
        b'$' if line == b"-1" => Reply::Nothing,
        b'$' => {
            let length = std::str::from_utf8(line)
                .ok()
                .and_then(|text| text.parse::<u32>().ok())
                .ok_or_else(|| Broken::protocol("LENGTH_MALFORMED"))?
                as usize;
            let whole = after + length + 2;
            return Ok((input.len() >= whole).then_some((Reply::Value(length), whole)));
        }
        _ => return Err(Broken::protocol("ANSWER_OF_UNKNOWN_KIND")),
    };
    Ok(Some((reply, after)))
}

#[cfg(test)]
mod tests {
    use super::super::api::Api;
    use super::super::api::tests::calls;
    use super::*;

    fn asked(operations: &[Operation]) -> Redis {
        let calls = Calls {
            value: vec![b'v'; 3].into(),
            ..calls(Api::Redis)
        };
        let mut redis = Redis::new(Arc::new(calls));
        for (slot, &operation) in operations.iter().enumerate() {
            redis.begin(
                slot,
                Request {
                    operation,
                    key: b"k1",
                    index: 1,
                },
            );
        }
        redis
    }

    #[test]
    fn commands() {
        let mut redis = asked(&[Operation::Get, Operation::Set, Operation::Incr]);
        let expected = "*2\r\n$3\r\nGET\r\n$2\r\nk1\r\n\
            *3\r\n$3\r\nSET\r\n$2\r\nk1\r\n$3\r\nvvv\r\n\
            *2\r\n$4\r\nINCR\r\n$2\r\nk1\r\n";
        assert_eq!(redis.out(), expected.as_bytes());
    }

    /// However the bytes come, each answer is counted once.
    #[test]
    fn answers_in_pieces_of_any_size() {
        use Operation::{Get, Incr, Set};
        let answers = b"$3\r\nabc\r\n$-1\r\n+OK\r\n-ERR no\r\n:7\r\n$2\r\n\r\n\r\n";
        for size in 1..=answers.len() {
            let mut redis = asked(&[Get, Get, Set, Get, Incr, Get]);
            let (mut rest, mut ended) = (Vec::new(), Vec::new());
            for piece in answers.chunks(size) {
                rest.extend_from_slice(piece);
                let used = redis.receive(&rest, &mut ended).unwrap();
                rest.drain(..used);
            }
            let results: Vec<_> = ended.iter().map(|e| (e.slot, e.result.clone())).collect();
            let expected = [
                (0, Ok(Outcome::Hit(3))),
                (1, Ok(Outcome::Miss)),
                (2, Ok(Outcome::Written(5))),
                (3, Err(("UNKNOWN", Some("ERR".to_owned())))),
                (4, Ok(Outcome::Done)),
                (5, Err(("DATA_LOSS", Some("VALUE_LENGTH".to_owned())))),
            ];
            assert_eq!(results, expected, "{size}");
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn what_is_no_answer_ends_the_connection() {
        for input in [&b"+OK\r\n"[..], b"hello\r\n", b"$x\r\n"] {
            let mut redis = asked(&[]);
            assert!(redis.receive(input, &mut Vec::new()).is_err(), "{input:?}");
        }
        let mut redis = asked(&[Operation::Set]);
        assert!(redis.receive(b"$-1\r\n", &mut Vec::new()).is_err());
    }
}
