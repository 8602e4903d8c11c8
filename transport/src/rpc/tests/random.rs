//! Calls with errors in their bytes: no panic of the transport, and no more
//! memory than the limits say.

use super::*;
use crate::testing::Random;

fn conversation(random: &mut Random) -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    write_settings(&mut bytes, &[]);
    write_settings_ack(&mut bytes);
    for number in 0..20 {
        let stream = 2 * number + 1;
        let method = ["Echo", "Later", "Stream", "Unknown"][random.below(4)];
        let path = format!("/t.T/{method}");
        let head = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", &path[..]),
            ("content-type", "application/grpc"),
            ("grpc-timeout", ["1S", "10m", "1H", "x"][random.below(4)]),
        ];
        let mut block = Vec::new();
        for (name, value) in head {
            write_literal(&mut block, name.as_bytes(), value.as_bytes());
        }
        bytes.extend(frame(Kind::HEADERS, 4, stream, &block));
        let length = 2 + random.below(300);
        let message = prefixed(&random.bytes(length));
        let (one, two) = message.split_at(random.below(message.len()));
        bytes.extend(frame(Kind::DATA, 0, stream, one));
        bytes.extend(frame(Kind::DATA, 1, stream, two));
    }
    bytes
}

#[test]
fn calls_with_errors() {
    for seed in 0..1000 {
        let mut random = Random::new(seed);
        let mut bytes = conversation(&mut random);
        for _ in 0..random.below(6) {
            let place = PREFACE.len() + random.below(bytes.len() - PREFACE.len());
            match random.below(3) {
                0 => bytes[place] = random.byte(),
                1 => drop(bytes.remove(place)),
                _ => bytes.insert(place, random.byte()),
            }
        }
        let mut client = Client::new(Limits::default());
        let rpc = Rpc::new(client.methods.clone(), Mirror);
        let limits = Arc::new(Limits::default());
        client.connection = Connection::new(rpc, limits, shared(), start(), 0);
        let mut held: Vec<u8> = Vec::new();
        for part in bytes.chunks(1 + random.below(500)) {
            held.extend_from_slice(part);
            client.now += Duration::from_millis(1);
            let now = start() + client.now;
            let received = client.connection.receive(&held, now);
            held.drain(..received.consumed);
            client.connection.with_app(now, |app, core| {
                app.on_time(core);
                app.poll(core, Waker::noop());
            });
            assert!(client.connection.on_time(now));
            assert!(client.connection.output().len() < 1 << 20);
        }
        client.methods.gate.open();
        client.connection.lost();
        assert_eq!(client.connection.streams(), 0);
        assert!(!client.connection.app().is_waiting());
    }
}
