//! What a connection holds and how it goes on when its server makes the most of what HTTP/2
//! allows: long streams, limits that move, and silence.

use super::*;
use crate::frame::write_window_update;

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_never_quite_sent_holds_only_what_has_not_left() {
    let (connection, mut peer, _driven) = greeted(Config::default(), &[]).await;
    let (mut sending, _receiving) = connection.stream(&head(), None).unwrap();
    peer.frame().await;
    let (mut came, mut allowed) = (0, 65_535);
    for number in 0..400 {
        // There is always something left when the next message is added.
        sending
            .send(|out| out.resize(out.len() + 20_000, 7))
            .await
            .unwrap();
        let held: usize = {
            let mut core = connection.0.shared.lock();
            let held = core.calls.all().map(|(_, call)| call.sending.bytes.len());
            held.sum()
        };
        assert!(held < 200_000, "{held} bytes are held");
        if number >= 5 {
            write_window_update(&mut peer.out, 0, 20_005);
            write_window_update(&mut peer.out, 1, 20_005);
            peer.flush().await;
            allowed += 20_005;
            while came < allowed {
                came += peer.frame().await.payload.len();
            }
        }
    }
    sending.finish();
    write_window_update(&mut peer.out, 0, 1 << 20);
    write_window_update(&mut peer.out, 1, 1 << 20);
    peer.flush().await;
    loop {
        let frame = peer.frame().await;
        came += frame.payload.len();
        if frame.flags == flag::END_STREAM {
            break;
        }
    }
    assert_eq!(came, 400 * 20_005);
}

#[tokio::test(start_paused = true)]
async fn a_slot_keeps_no_memory_of_a_stream_of_many_messages() {
    let (connection, mut peer, _driven) = greeted(Config::default(), &[]).await;
    let (sending, receiving) = connection.stream(&head(), None).unwrap();
    peer.frame().await;
    peer.head(1);
    for _ in 0..30 {
        peer.data(1, &framed(b"").repeat(3000));
    }
    peer.flush().await;
    let room = || {
        let slots = &connection.0.shared.lock().calls;
        slots.room_for_messages()
    };
    while room() < 90_000 {
        settle().await;
    }
    drop((sending, receiving));
    assert!(room() < 16, "room for {} messages", room());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_gone_is_missed_by_calls_that_are_short_and_few() {
    let (connection, mut peer, driven) = greeted(Config::default(), &[]).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    let start = now();
    let mut pings = 0;
    let mut calls = 0;
    // Each is over long before the interval; between them nothing is asked for.
    let why = loop {
        let call = connection.unary(&head(), |_| {}, within(Duration::from_secs(2)));
        match call.await {
            Err(Failed::Deadline { .. }) => calls += 1,
            Err(Failed::NotSent(NotSent::Closed(why))) => break why,
            other => panic!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_secs(14)).await;
        assert!(calls < 10, "nobody finds out");
    };
    assert_eq!(why, driven.await.unwrap());
    assert!(matches!(why, Closed::Silent(_)), "{why}");
    // 30 s after the first, and 10 s for an answer: whether or not a call is under way then.
    assert!(
        now() - start <= Duration::from_secs(60),
        "{:?}",
        now() - start
    );
    while let Some(came) = peer.next().await {
        pings += usize::from(came.kind == Kind::PING);
    }
    assert_eq!(pings, 1);

    // One that answers is asked no more often than before.
    let (connection, mut peer, _driven) = greeted(Config::default(), &[]).await;
    for _ in 0..20 {
        let call = ask(&connection, b"");
        let asked = peer.asked().await;
        peer.answer(asked.stream, b"").flush().await;
        call.await.unwrap();
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    assert_eq!(connection.activity().keepalives_sent, 0);
}

#[tokio::test(start_paused = true)]
async fn calls_wait_while_a_server_allows_none_and_go_on_when_it_does() {
    let streams = |count| [(SettingId::MAX_CONCURRENT_STREAMS, count)];
    let (connection, mut peer, _driven) = greeted(Config::default(), &streams(2)).await;
    let first = ask(&connection, b"1");
    let asked = peer.asked().await;
    write_settings(&mut peer.out, &streams(0));
    peer.flush().await;
    assert_eq!(peer.frame().await.flags, flag::ACK);
    assert_eq!(connection.readiness(), Readiness::Full);
    // What is under way goes on; the others wait, each within its deadline.
    let calls: Vec<_> = (0..5u8).map(|number| ask(&connection, &[number])).collect();
    let hasty = connection.unary(&head(), |_| {}, within(Duration::from_secs(1)));
    peer.answer(asked.stream, b"").flush().await;
    first.await.unwrap();
    assert_eq!(hasty.await, Err(Failed::Deadline { sent: false }));
    assert_eq!(connection.in_flight(), 5);
    write_settings(&mut peer.out, &streams(2));
    peer.flush().await;
    let mut calls = calls.into_iter();
    // The acknowledgement and the calls leave in one write.
    assert_eq!(peer.frame().await.flags, flag::ACK);
    for number in 0..5 {
        let asked = peer.asked().await;
        assert_eq!(asked.content, framed(&[number]));
        peer.answer(asked.stream, &[number]).flush().await;
        let answer = calls.next().unwrap().await.unwrap();
        assert_eq!(answer.message[..], [number]);
    }
    assert_eq!(connection.readiness(), Readiness::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_window_that_shrinks_below_what_was_sent_opens_again() {
    let window = |bytes| [(SettingId::INITIAL_WINDOW_SIZE, bytes)];
    let (connection, mut peer, _driven) = greeted(Config::default(), &window(1000)).await;
    let call = ask(&connection, &[7; 3000]);
    peer.frame().await;
    assert_eq!(peer.frame().await.payload.len(), 1000);
    // The window is now 900 below nothing (section 6.9.2).
    write_settings(&mut peer.out, &window(100));
    write_window_update(&mut peer.out, 1, 900);
    peer.flush().await;
    assert_eq!(peer.frame().await.flags, flag::ACK);
    settle().await;
    write_window_update(&mut peer.out, 1, 5);
    peer.flush().await;
    let part = peer.frame().await;
    assert_eq!((part.kind, part.payload.len()), (Kind::DATA, 5));
    write_settings(&mut peer.out, &window(10_000));
    peer.flush().await;
    let mut rest = vec![peer.frame().await, peer.frame().await];
    rest.retain(|frame| frame.kind == Kind::DATA);
    assert_eq!(rest[0].payload.len(), 2000);
    assert_eq!(rest[0].flags, flag::END_STREAM);
    peer.answer(1, b"").flush().await;
    call.await.unwrap();
}

/// An answer that HTTP/2 and gRPC allow, however odd.
type Odd = (&'static str, fn(&mut Peer));

#[tokio::test(start_paused = true)]
async fn an_answer_in_odd_frames_is_the_same_answer() {
    const PADDED: u8 = 0x8;
    let table: [Odd; 4] = [
        ("interim heads", |p| {
            for _ in 0..100 {
                p.block(1, &[(":status", "103"), ("link", "</x>")], false);
            }
            p.answer(1, b"abc");
        }),
        ("padded frames", |p| {
            p.head(1);
            let padded = [&[200][..], &framed(b"abc"), &[0; 200]].concat();
            p.put(Kind::DATA, PADDED, 1, &padded);
            p.put(Kind::DATA, PADDED, 1, &[4, 0, 0, 0, 0]);
            p.status(1, "0");
        }),
        ("a head in pieces", |p| {
            let mut block = Vec::new();
            for (name, value) in HEAD {
                write_literal(&mut block, name.as_bytes(), value.as_bytes());
            }
            p.put(Kind::HEADERS, 0, 1, &[]);
            for byte in &block {
                p.put(Kind::CONTINUATION, 0, 1, &[*byte]);
            }
            p.put(Kind::CONTINUATION, flag::END_HEADERS, 1, &[]);
            p.data(1, &framed(b"abc")).status(1, "0");
        }),
        ("bytes one by one", |p| {
            p.head(1);
            for byte in framed(b"abc") {
                p.data(1, &[]).data(1, &[byte]);
            }
            p.status(1, "0");
        }),
    ];
    for (name, answer) in table {
        let (connection, mut peer, _driven) = greeted(Config::default(), &[]).await;
        let call = connection.unary(&head(), |_| {}, within(Duration::from_secs(5)));
        peer.asked().await;
        answer(&mut peer);
        peer.flush().await;
        let answer = call
            .await
            .unwrap_or_else(|failed| panic!("{name}: {failed}"));
        assert_eq!(&answer.message[..], b"abc", "{name}");
        assert_eq!(connection.0.shared.lock().calls.held(), 0, "{name}");
    }
}

/// Calls are given up at every stage at once, streams by halves: nothing stays behind.
#[tokio::test(start_paused = true)]
async fn calls_that_are_given_up_at_any_stage_leave_nothing_behind() {
    for seed in 0..100 {
        let mut random = crate::testing::Random::new(seed);
        let streams = u32::try_from(1 + random.below(6)).unwrap();
        let settings = [
            (SettingId::MAX_CONCURRENT_STREAMS, streams),
            (SettingId::INITIAL_WINDOW_SIZE, 100),
        ];
        let (connection, mut peer, _driven) = greeted(Config::default(), &settings).await;
        let mut calls = Vec::new();
        let mut halves = Vec::new();
        for _ in 0..200 {
            match random.below(6) {
                0 | 1 => calls.push(ask(&connection, &vec![0; random.below(300)])),
                2 => halves.push(connection.stream(&head(), within(Duration::from_secs(9)))),
                3 if !calls.is_empty() => drop(calls.swap_remove(random.below(calls.len()))),
                4 if !halves.is_empty() => {
                    let at = random.below(halves.len());
                    if let Ok((sending, receiving)) = halves.swap_remove(at) {
                        match random.below(3) {
                            0 => drop(sending),
                            1 => drop(receiving),
                            _ => sending.finish(),
                        }
                    }
                }
                _ => {
                    let stream = u32::try_from(1 + 2 * random.below(40)).unwrap();
                    let opened = connection.0.shared.lock().next_stream;
                    if stream < opened {
                        peer.answer(stream, b"abc").flush().await;
                    }
                    settle().await;
                }
            }
        }
        drop((calls, halves));
        settle().await;
        {
            let core = connection.0.shared.lock();
            assert_eq!(core.calls.held(), 0, "seed {seed}");
            assert_eq!(
                (core.calls.open(), core.waiting_calls),
                (0, 0),
                "seed {seed}"
            );
            assert!(core.waiting.len() <= 64 && core.told == 0, "seed {seed}");
        }
        // It is still good.
        let call = ask(&connection, b"x");
        let stream = connection.0.shared.lock().next_stream - 2;
        peer.answer(stream, b"y").flush().await;
        call.await.unwrap();
    }
}
