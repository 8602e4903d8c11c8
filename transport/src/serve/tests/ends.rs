//! The server's end: with the calls in flight, or at once.

use super::*;
use crate::stats::Counter;

#[tokio::test]
async fn an_abort_answers_what_waits_and_closes_everything() {
    let (running, address, service) = started(Config::default());
    let client = connected(address).await;
    call(&client, "Echo", b"").await.unwrap();
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { call(&client, "Later", b"").await }
    });
    let gate = service.methods.gate.clone();
    until(|| gate.has_waiters()).await;
    let mut http1 = TcpStream::connect(address).await.unwrap();
    http1.write_all(b"GET / HTTP/1.1").await.unwrap();
    let mut back = [0; 14];
    http1.read_exact(&mut back).await.unwrap();
    // One that says nothing.
    let mut silent = TcpStream::connect(address).await.unwrap();
    until(|| running.stats().of(Counter::Accepted) == 3).await;
    running.abort();
    soon(running.ended()).await;
    let answer = soon(waiting).await.unwrap().unwrap();
    assert_eq!(answer.status.as_deref(), Some("14"));
    assert_eq!(
        *service.methods.refused.lock().unwrap(),
        ["waiting Draining"]
    );
    for io in [&mut http1, &mut silent] {
        let mut nothing = Vec::new();
        // It may be reset instead of closed.
        let _ = soon(io.read_to_end(&mut nothing)).await;
        assert!(nothing.is_empty());
    }
    assert_eq!(running.stats().of(Counter::Aborted), 2);
    assert_eq!(running.stats().of(Counter::CallsDraining), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_holds_up_an_abort_for_a_second() {
    let (near, far) = tokio::io::duplex(100);
    let (course, driver) = drive(far, Methods::default(), Limits::default());
    // The greeting of the server does not fit, and is not read.
    tokio::task::yield_now().await;
    let before = tokio::time::Instant::now();
    course.send_replace(Course::Ending);
    let failure = driver.await.unwrap().unwrap();
    assert_eq!(failure.why, "the server ends");
    let took = before.elapsed().as_millis();
    assert!((1000..1010).contains(&took), "{took}");
    drop(near);
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_does_not_come_to_its_end_is_ended() {
    let (near, far) = tokio::io::duplex(1 << 16);
    let methods = Methods::default();
    let gate = methods.gate.clone();
    let (course, driver) = drive(far, methods, Limits::default());
    let client = greeted(near).await;
    let waiting = tokio::spawn(async move { call(&client, "Later", b"").await });
    while !gate.has_waiters() {
        tokio::task::yield_now().await;
    }
    let before = tokio::time::Instant::now();
    course.send_replace(Course::Draining);
    let answer = waiting.await.unwrap().unwrap();
    assert_eq!(answer.status.as_deref(), Some("14"));
    let took = before.elapsed().as_secs();
    assert_eq!(took, 30);
    let failure = driver.await.unwrap().unwrap();
    assert_eq!(failure.why, "the grace of the drain is over");
}
