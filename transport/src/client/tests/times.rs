//! Deadlines, keepalive and the greeting, in time that a test has stopped.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_a_call_and_says_whether_it_was_sent() {
    let one = [(SettingId::MAX_CONCURRENT_STREAMS, 1)];
    let (connection, mut peer, _driven) = greeted(Config::default(), &one).await;
    let start = now();
    let ask = |after: u64| connection.unary(&head(), |_| {}, within(Duration::from_millis(after)));
    let late = ask(0);
    let (second, first, third) = (ask(200), ask(100), ask(300));
    assert_eq!(late.await, Err(Failed::Deadline { sent: false }));
    assert_eq!(first.await, Err(Failed::Deadline { sent: false }));
    assert_eq!(now() - start, Duration::from_millis(100));
    assert_eq!(second.await, Err(Failed::Deadline { sent: true }));
    assert_eq!(now() - start, Duration::from_millis(200));
    assert_eq!(peer.asked().await.stream, 1);
    let reset = peer.frame().await;
    assert_eq!((reset.kind, reset.stream), (Kind::RST_STREAM, 1));
    // The next has had its stream since then, and what is left of its time.
    let asked = peer.asked().await;
    assert_eq!(asked.stream, 3);
    assert!(
        asked
            .fields
            .contains(&("grpc-timeout".into(), "100m".into()))
    );
    assert_eq!(third.await, Err(Failed::Deadline { sent: true }));
    assert_eq!(now() - start, Duration::from_millis(300));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_bounds_a_stream_whatever_comes_on_it() {
    let (connection, mut peer, _driven) = greeted(Config::default(), &[]).await;
    let deadline = within(Duration::from_millis(100));
    let (mut sending, mut receiving) = connection.stream(&head(), deadline).unwrap();
    peer.frame().await;
    peer.head(1).data(1, &framed(b"one")).flush().await;
    assert!(receiving.message().await.unwrap().is_some());
    let failed = receiving.message().await.unwrap_err();
    assert_eq!(failed, Failed::Deadline { sent: true });
    assert_eq!(sending.send(|_| {}).await, Err(SendClosed));
    assert_eq!(peer.frame().await.kind, Kind::RST_STREAM);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_accepts_and_never_speaks_gets_no_call() {
    let (connection, mut peer, driven) = silent(Config::default()).await;
    let start = now();
    assert_eq!(connection.readiness(), Readiness::Connecting);
    let hasty = connection.unary(&head(), |_| {}, within(Duration::from_secs(1)));
    let patient = ask(&connection, b"");
    assert_eq!(hasty.await, Err(Failed::Deadline { sent: false }));
    let why = Closed::Silent("settings");
    let failed = patient.await.unwrap_err();
    assert_eq!(failed, Failed::NotSent(NotSent::Closed(why.clone())));
    assert_eq!(now() - start, Duration::from_secs(20));
    assert_eq!(connection.ready().await, Err(why.clone()));
    assert_eq!(driven.await.unwrap(), why);
    assert_eq!(peer.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn silence_under_a_call_is_found_out() {
    let (connection, mut peer, _driven) = greeted(Config::default(), &[]).await;
    // A8: none is asked for while there is no call.
    tokio::time::sleep(Duration::from_secs(300)).await;
    let start = now();
    let call = ask(&connection, b"");
    peer.asked().await;
    let ping = peer.frame().await;
    assert_eq!((ping.kind, ping.flags), (Kind::PING, 0));
    assert_eq!(now() - start, Duration::from_secs(30));
    let payload = ping.payload;
    peer.put(Kind::PING, flag::ACK, 0, &payload).flush().await;
    let second = peer.frame().await;
    assert_eq!(second.kind, Kind::PING);
    assert_eq!(now() - start, Duration::from_secs(60));
    assert!(matches!(call.await, Err(Failed::Lost(Closed::Silent(_)))));
    assert_eq!(now() - start, Duration::from_secs(70));
    assert_eq!(connection.activity().keepalives_sent, 2);
}

#[tokio::test(start_paused = true)]
async fn silence_is_found_out_while_calls_wait_for_a_stream() {
    let settings = [(SettingId::MAX_CONCURRENT_STREAMS, 0)];
    let (connection, mut peer, _driven) = greeted(Config::default(), &settings).await;
    let start = now();
    let call = ask(&connection, b"");
    let ping = peer.frame().await;
    assert_eq!((ping.kind, ping.flags), (Kind::PING, 0));
    assert_eq!(now() - start, Duration::from_secs(30));
    let silent = Closed::Silent("answer to a sign of life that was asked for");
    let expected = Failed::NotSent(NotSent::Closed(silent));
    assert_eq!(call.await, Err(expected));
    assert_eq!(now() - start, Duration::from_secs(40));
}

#[tokio::test(start_paused = true)]
async fn silence_is_found_out_under_calls_that_are_given_up_one_after_the_other() {
    let (connection, mut peer, _driven) = greeted(Config::default(), &[]).await;
    let start = now();
    loop {
        let call = connection.unary(&head(), |_| {}, within(Duration::from_secs(1)));
        match call.await {
            Err(Failed::Deadline { sent: true }) => {}
            other => {
                assert!(
                    matches!(other, Err(Failed::Lost(Closed::Silent(_)))),
                    "{other:?}"
                );
                break;
            }
        }
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    assert!(
        now() - start <= Duration::from_secs(45),
        "{:?}",
        now() - start
    );
    let mut pings = 0;
    while let Some(came) = peer.next().await {
        pings += usize::from(came.kind == Kind::PING);
    }
    assert_eq!(pings, 1);
}
