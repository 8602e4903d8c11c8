//! Header blocks that differ from one before in a few values: whatever a client
//! makes of its fields, the heads are those that it meant.

use std::collections::VecDeque;

use super::*;
use crate::hpack::ENTRY_OVERHEAD_BYTES;
use crate::testing::Random;

type Field = (String, String);

fn field(name: &str, value: &str) -> Field {
    (name.to_owned(), value.to_owned())
}

/// A client's encoder, with every representation that there is.
struct Client {
    table: VecDeque<Field>,
    max_bytes: usize,
    /// Of ten fields that are not in the table, how many are inserted.
    inserts: usize,
}

impl Client {
    fn size(&self) -> usize {
        let size = |(name, value): &Field| name.len() + value.len() + ENTRY_OVERHEAD_BYTES;
        self.table.iter().map(size).sum()
    }

    fn evict_to(&mut self, most: usize) {
        while self.size() > most {
            self.table.pop_back();
        }
    }

    fn write(&mut self, out: &mut Vec<u8>, it: &Field, random: &mut Random) {
        let at = self.table.iter().position(|known| known == it);
        if let Some(at) = at
            && random.below(50) > 0
        {
            return crate::hpack::write_indexed(out, 62 + at);
        }
        let name = self.table.iter().position(|(name, _)| *name == it.0);
        let is_inserted = random.below(10) < self.inserts;
        let (pattern, most) = match (is_inserted, random.below(2)) {
            (true, _) => (0x40, 0x3f),
            (false, 0) => (0x10, 0x0f),
            (false, _) => (0x00, 0x0f),
        };
        match name.map(|at| 62 + at) {
            Some(index) if random.below(20) > 0 => match index.checked_sub(usize::from(most)) {
                Some(rest) => {
                    out.push(pattern | most);
                    assert!(rest < 128, "the table of a test is small");
                    out.push(u8::try_from(rest).unwrap());
                }
                None => out.push(pattern | u8::try_from(index).unwrap()),
            },
            _ => {
                out.push(pattern);
                string(out, &it.0);
            }
        }
        string(out, &it.1);
        if is_inserted {
            let size = it.0.len() + it.1.len() + ENTRY_OVERHEAD_BYTES;
            self.evict_to(self.max_bytes.saturating_sub(size));
            if size <= self.max_bytes {
                self.table.push_front(it.clone());
            }
        }
    }

    fn resize(&mut self, out: &mut Vec<u8>, bytes: usize) {
        self.max_bytes = bytes;
        self.evict_to(bytes);
        crate::hpack::write_table_size(out, bytes);
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.push(u8::try_from(text.len()).unwrap());
    out.extend_from_slice(text.as_bytes());
}

/// The fields of a call, of which some differ from call to call.
fn call(random: &mut Random) -> Vec<Field> {
    let mut fields = vec![
        field(":method", "POST"),
        field(":scheme", "http"),
        field(":path", ["/a.B/Get", "/a.B/Set"][random.below(2)]),
        field(":authority", "cache:5051"),
        field("content-type", "application/grpc"),
    ];
    if random.below(20) > 0 {
        let timeout = random.next() % [100, 100_000][random.below(2)];
        fields.push(field("grpc-timeout", &format!("{timeout}u")));
    }
    if random.below(30) == 0 {
        let bytes = ["9", "99"][random.below(2)];
        fields.push(field("tracestate", &format!("a={bytes}")));
    }
    fields.push(field(
        "authorization",
        ["Bearer a", "Bearer bcd"][random.below(40) / 39],
    ));
    let trace = match random.below(40) {
        0 => " blank".to_owned(),
        1 => "line\n".to_owned(),
        other => format!("00-{:016x}-01", random.next() >> other),
    };
    fields.push(field("traceparent", &trace));
    fields
}

fn is_good((_, value): &Field) -> bool {
    value.trim() == value
}

fn check(seed: u64) -> usize {
    let mut random = Random::new(seed);
    let mut client = Client {
        table: VecDeque::new(),
        max_bytes: 4096,
        inserts: [0, 3, 10, 10][random.below(4)],
    };
    if random.below(2) == 0 {
        client.max_bytes = 100 + random.below(600);
    }
    let mut connection = greeted(Limits {
        header_table_bytes: u32::try_from(client.max_bytes).unwrap(),
        ..Limits::default()
    });
    client.max_bytes = connection.core.limits.header_table_bytes as usize;
    let limit = client.max_bytes;
    for turn in 0..200 {
        let fields = call(&mut random);
        let mut block = Vec::new();
        if random.below(60) == 0 {
            client.resize(&mut block, random.below(limit + 1));
        }
        for it in &fields {
            client.write(&mut block, it, &mut random);
        }
        connection.app().fields.clear();
        receive(
            &mut connection,
            &raw(Kind::HEADERS, 5, 2 * turn + 1, &block),
        );
        let seen: Vec<Field> = connection
            .app()
            .fields
            .iter()
            .map(|(name, value)| {
                let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).unwrap();
                (text(name), text(value))
            })
            .collect();
        let expected = match fields.iter().all(is_good) {
            true => fields,
            false => Vec::new(),
        };
        assert_eq!(seen, expected, "seed {seed}, turn {turn}");
        assert!(connection.is_alive(), "seed {seed}, turn {turn}");
        output(&mut connection);
    }
    connection.app().rerouted
}

#[test]
fn every_head_is_what_its_client_meant() {
    let like: usize = (0..300).map(check).sum();
    // Of 60,000, so that the test is one of patterns.
    assert!(like > 10_000, "{like} heads were like one before");
}

/// A client that inserts each deadline, as one of the stock clients does.
#[test]
fn a_deadline_that_is_inserted_each_time_moves_every_index_and_nothing_else() {
    let mut connection = greeted(Limits::default());
    let mut client = Client {
        table: VecDeque::new(),
        max_bytes: 4096,
        inserts: 10,
    };
    let mut random = Random::new(1);
    let mut fields: Vec<Field> = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/p"),
        ("content-type", "application/grpc"),
        ("grpc-timeout", ""),
        ("authorization", "Bearer secret"),
    ]
    .map(|(name, value)| field(name, value))
    .into();
    const CALLS: u32 = 500;
    for call in 0..CALLS {
        fields[4].1 = format!("{}u", 4_999_999 - call);
        let mut block = Vec::new();
        for it in &fields {
            client.write(&mut block, it, &mut random);
        }
        receive(
            &mut connection,
            &raw(Kind::HEADERS, 5, 2 * call + 1, &block),
        );
        output(&mut connection);
    }
    let app = connection.app();
    // All but those whose fields were evicted, and inserted again.
    assert!(app.rerouted > 400, "{} of {CALLS}", app.rerouted);
}
