//! Section 10.5: what a client may overdo, and what it may not.

use super::*;
use crate::frame::flag;

/// Repeats `what` with a new stream each time until the connection ends; how
/// often it was taken, and why it ended.
fn until_the_end(
    limit: usize,
    mut what: impl FnMut(u32) -> Vec<u8>,
) -> (usize, Option<&'static str>) {
    let mut connection = greeted(Limits::default());
    connection.app().silent = true;
    for count in 0..limit {
        receive(
            &mut connection,
            &what(u32::try_from(2 * count + 1).unwrap()),
        );
        let _ = output(&mut connection);
        if let Some(failure) = connection.failure() {
            assert_eq!(failure.code, ErrorCode::ENHANCE_YOUR_CALM);
            return (count, Some(failure.why));
        }
    }
    (limit, None)
}

#[test]
fn every_flood_has_an_end() {
    let check = |what: fn(u32) -> Vec<u8>, expected: (usize, &'static str)| {
        let got = until_the_end(200_000, what);
        assert_eq!(got, (expected.0, Some(expected.1)));
    };
    let rapid_reset = |id| [headers(id, End::Stream), reset(id)].concat();
    check(rapid_reset, (4096, "client_resets"));
    let made_by_the_server = |id| {
        let zero = raw(Kind::WINDOW_UPDATE, 0, id, &[0; 4]);
        [headers(id, End::Stream), zero].concat()
    };
    check(made_by_the_server, (200, "server_resets"));
    check(|_| raw(Kind::PING, 0, 0, &[0; 8]), (1000, "pings"));
    // The greeting had one of the hundred.
    check(|_| raw(Kind::SETTINGS, 0, 0, &[]), (99, "settings"));
    let update = |_| raw(Kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
    check(update, (4096, "window_updates"));
    check(|_| raw(Kind::PRIORITY, 0, 9, &[0; 5]), (1000, "priorities"));
    check(|_| raw(Kind(0x77), 0, 0, &[]), (1000, "unknown_frames"));
    // Calls that stay open fill the connection, then are refused.
    check(
        |id| headers(id, End::Stream),
        (1024 + 4096, "refused_streams"),
    );
    let opened = |id| {
        if id == 1 {
            headers(1, End::Open)
        } else {
            data(1, &[], End::Open)
        }
    };
    check(opened, (201, "empty_data"));
    check(|id| raw(Kind::HEADERS, 5, id, &[]), (100, "empty_headers"));
}

#[test]
fn a_block_without_end_ends_the_connection() {
    for payload in [vec![], vec![0; 16_384]] {
        let mut connection = greeted(Limits::default());
        receive(&mut connection, &raw(Kind::HEADERS, 1, 1, &payload));
        for _ in 0..17 {
            receive(&mut connection, &raw(Kind::CONTINUATION, 0, 1, &payload));
        }
        let failure = connection.failure().unwrap();
        assert_eq!(failure.why, "continuations");
    }
}

#[test]
fn a_paced_flood_is_no_better() {
    let mut connection = greeted(Limits::default());
    connection.app().silent = true;
    // 1,000 resets a second.
    for count in 0..20_000_u32 {
        let id = 2 * count + 1;
        let both = [headers(id, End::Stream), reset(id)].concat();
        receive_at(
            &mut connection,
            &both,
            Duration::from_millis(u64::from(count)),
        );
        if !connection.is_alive() {
            assert!((4500..4600).contains(&count), "{count}");
            return;
        }
    }
    panic!("20,000 resets were free");
}

#[test]
fn calls_that_pass_their_deadlines_together_are_ordinary() {
    let mut connection = greeted(Limits::default());
    connection.app().silent = true;
    let mut next = 1;
    for second in 0..4 {
        let ids: Vec<u32> = (0..1000).map(|i| next + 2 * i).collect();
        next += 2000;
        let opened: Vec<u8> = ids
            .iter()
            .flat_map(|&id| headers(id, End::Stream))
            .collect();
        receive_at(&mut connection, &opened, Duration::from_secs(second));
        let resets: Vec<u8> = ids.iter().flat_map(|&id| reset(id)).collect();
        receive_at(&mut connection, &resets, Duration::from_secs(second));
        assert!(connection.is_alive());
        assert_eq!(connection.streams(), 0);
    }
}

#[test]
fn ordinary_traffic_is_free() {
    let mut connection = greeted(Limits::default());
    // As tonic ends a request, and with the pings and window updates of clients
    // that measure their bandwidth; a third of the calls is taken back too late.
    for count in 0..30_000 {
        let id = 2 * count + 1;
        let mut bytes = headers(id, End::Open);
        bytes.extend(data(id, b"abc", End::Open));
        bytes.extend(data(id, b"", End::Stream));
        bytes.extend(raw(Kind::PING, 0, 0, &[0; 8]));
        bytes.extend(raw(Kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 3]));
        bytes.extend(raw(Kind::WINDOW_UPDATE, 0, id, &[0, 0, 0, 3]));
        if count % 3 == 0 {
            bytes.extend(reset(id));
        }
        receive(&mut connection, &bytes);
        assert!(connection.is_alive(), "{count} {:?}", connection.failure());
        connection.output_mut().clear();
    }
}

#[test]
fn a_burst_as_large_as_allowed_succeeds_at_once() {
    let mut connection = greeted(Limits::default());
    let opened = (0..1000).flat_map(|i| headers(2 * i + 1, End::Open));
    let content = (0..1000).flat_map(|i| data(2 * i + 1, b"x", End::Open));
    let ends = (0..1000).flat_map(|i| data(2 * i + 1, b"", End::Stream));
    let burst: Vec<u8> = opened.chain(content).chain(ends).collect();
    receive(&mut connection, &burst);
    let out = output(&mut connection);
    let ended = out.iter().filter(|frame| frame.contains("headers true"));
    assert_eq!(ended.count(), 1000);
    assert_eq!(out.len(), 3000);
}

#[test]
fn windows_that_stay_shut_hold_a_bounded_amount() {
    let mut connection = greeted(Limits {
        max_unsent_bytes: 100_000,
        ..Limits::default()
    });
    let mut shut = Vec::new();
    write_settings(&mut shut, &[(SettingId::INITIAL_WINDOW_SIZE, 0)]);
    receive(&mut connection, &shut);
    let mut id = 1;
    while !connection.core.is_clogged() {
        let call = [headers(id, End::Open), data(id, &[1; 16_000], End::Stream)].concat();
        receive(&mut connection, &call);
        id += 2;
        assert!(id < 20);
    }
    receive(&mut connection, &reset(1));
    assert!(!connection.core.is_clogged());
}

#[test]
fn a_settings_flood_with_a_table_game_leaves_a_correct_encoder() {
    let mut connection = greeted(Limits::default());
    for size in [0, 4096, 100, 1 << 30, 0] {
        let mut bytes = Vec::new();
        write_settings(&mut bytes, &[(SettingId::HEADER_TABLE_SIZE, size)]);
        receive(&mut connection, &bytes);
    }
    let _ = output(&mut connection);
    receive(&mut connection, &headers(1, End::Stream));
    let out = std::mem::take(connection.output_mut());
    let head = FrameHead::parse(&out).unwrap();
    assert!(head.has(flag::END_HEADERS));
    // A size update to 0, then `:status 200`.
    assert_eq!(out[FrameHead::BYTES..][..2], [0x20, 0x88]);
}

#[test]
fn a_list_far_over_its_limit_is_decoded_no_further() {
    let mut connection = greeted(Limits::default());
    let mut insert = block(REQUEST);
    // An entry of 3,968 octets: 127 + 1 + 30 * 128.
    insert.extend_from_slice(b"\x40\x01x\x7f\x81\x1e");
    insert.resize(insert.len() + 3968, b'v');
    receive(&mut connection, &raw(Kind::HEADERS, 5, 1, &insert));
    let _ = output(&mut connection);
    // A list that is too large is answered; one of 15 times its limit, too.
    let large = [block(REQUEST), vec![0xbe; 60]].concat();
    receive(&mut connection, &raw(Kind::HEADERS, 5, 3, &large));
    assert_eq!(output(&mut connection), ["3 headers true"]);
    let bomb = [block(REQUEST), vec![0xbe; 16_000]].concat();
    receive(&mut connection, &raw(Kind::HEADERS, 5, 5, &bomb));
    assert_eq!(output(&mut connection), ["goaway 5 ENHANCE_YOUR_CALM"]);
    assert_eq!(connection.failure().map(|f| f.why), Some("header_list"));
}
