//! Servers and resolvers that misbehave: each gives a clear error within the deadline, and nothing
//! is done in a loop. Connections and look-ups are counted.

use std::io;
use std::sync::Mutex;

use larder_transport::gzip;

use super::*;

/// Makes 50 calls, one after the other, none of which goes well; the last error.
async fn failing_calls(caller: &Caller) -> String {
    for _ in 1..50 {
        caller.answer().await.unwrap_err();
    }
    caller.answer().await.unwrap_err()
}

fn hasty(server: &Server) -> Caller {
    Caller::new(config(&[server]).with_connect_timeout(Duration::from_millis(60)))
}

#[tokio::test]
async fn servers_that_take_connections_and_no_calls_are_not_called_in_a_loop() {
    for (manner, words) in [
        (Manner::Mute, "no connection within"),
        (Manner::GoesAway, "went away"),
        (Manner::Closes, "clos"),
    ] {
        let server = Server::start(manner, |_, _| Reply::Silence).await;
        let caller = hasty(&server);
        let error = failing_calls(&caller).await;
        assert!(error.contains(words), "{manner:?}: {error}");
        // The first backoff is 0.8 s at least, and calls do not wait for it.
        assert!(
            server.connections() <= 2,
            "{manner:?}: {}",
            server.connections()
        );
        assert!(server.calls().is_empty());
    }
}

#[tokio::test]
async fn a_reset_of_every_call_ends_in_the_status_that_it_stands_for() {
    for (reason, words, calls) in [
        // Transparent once, and then as often as the policy has it.
        (h2::Reason::REFUSED_STREAM, "did not take the call", 4),
        (h2::Reason::CANCEL, "CANCEL", 1),
        (h2::Reason::ENHANCE_YOUR_CALM, "ENHANCE_YOUR_CALM", 1),
    ] {
        let server = Server::start(Manner::Speaks(9), move |_, _| Reply::Reset(reason)).await;
        let caller = Caller::to(&[&server]);
        let error = caller.answer().await.unwrap_err();
        assert!(error.contains(words), "{error}");
        assert_eq!(server.calls().len(), calls, "{words}");
        assert_eq!(server.connections(), 1);
    }
}

#[tokio::test]
async fn statuses_beyond_the_table_are_unknown_and_final() {
    let server = Server::start(Manner::Speaks(9), |_, _| Reply::Status(99, vec![])).await;
    let caller = Caller::to(&[&server]);
    assert_eq!(caller.answer().await.unwrap_err(), "UNKNOWN");
    assert_eq!(server.calls().len(), 1);
}

#[tokio::test]
async fn a_compressed_answer_that_is_none_is_an_internal_error_and_final() {
    let flagged = |flag, message: &[u8]| {
        let mut content = vec![flag];
        content.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        content.extend_from_slice(message);
        content
    };
    let zip = gzip::compress(&[b'a'; 500]).unwrap();
    let bomb = gzip::compress(&vec![0; 8 << 20]).unwrap();
    let mut humble = bomb.clone();
    let end = humble.len();
    humble[end - 4..].copy_from_slice(&900_u32.to_le_bytes());
    let limit = "8388608 bytes; at most 1048576 are taken";
    for (encoding, content, code, words) in [
        (
            "gzip",
            flagged(1, b"no gzip at all"),
            Code::Internal,
            "no gzip",
        ),
        (
            "gzip",
            flagged(1, &zip[..zip.len() - 8]),
            Code::Internal,
            "not whole",
        ),
        ("gzip", flagged(1, &humble), Code::Internal, "not whole"),
        ("gzip", flagged(3, &zip), Code::Internal, "neither 0 nor 1"),
        (
            "identity",
            flagged(1, &zip),
            Code::Internal,
            "without grpc-encoding",
        ),
        ("zstd", flagged(1, &zip), Code::Internal, "was not offered"),
        ("gzip", flagged(1, &bomb), Code::ResourceExhausted, limit),
    ] {
        let reply = Reply::Content(encoding, content);
        let server = Server::start(Manner::Speaks(9), move |_, _| reply.clone()).await;
        let config = config(&[&server]).with_compression_above(1000);
        let caller = Caller::new(config.with_max_reply_bytes(1 << 20));
        let Outcome::Ended(Err(failed)) = caller.call(USUAL).await.outcome else {
            panic!("{words}: no failure");
        };
        assert_eq!(crate::status::code_of_failure(&failed), code, "{words}");
        assert!(failed.to_string().contains(words), "{failed}");
        assert_eq!(server.calls().len(), 1, "{words}");
        assert_eq!(server.calls()[0].headers["grpc-accept-encoding"], "gzip");
    }
}

#[tokio::test]
async fn a_server_that_is_silent_is_left_at_the_deadline() {
    let server = Server::start(Manner::Speaks(9), |_, _| Reply::Silence).await;
    let caller = Caller::to(&[&server]);
    let short = How {
        within: Duration::from_millis(50),
        ..USUAL
    };
    let error = answer_of(caller.call(short).await).unwrap_err();
    assert_eq!(error, "the deadline passed");
    until("the server is told", || server.cancelled() == 1).await;
    assert_eq!(caller.counts(), (1, 1, 0));
}

#[tokio::test]
async fn a_call_that_is_dropped_is_cancelled_and_its_end_is_told() {
    let server = Server::start(Manner::Speaks(9), |_, _| Reply::Silence).await;
    let caller = Arc::new(Caller::to(&[&server]));
    let call = tokio::spawn({
        let caller = Arc::clone(&caller);
        async move { caller.call(USUAL).await }
    });
    until("it is there", || server.calls().len() == 1).await;
    call.abort();
    until("the server is told", || server.cancelled() == 1).await;
    assert_eq!(caller.counts(), (1, 0, 1));
}

/// Time is that of the test.
#[tokio::test(start_paused = true)]
async fn no_pause_is_longer_than_its_call() {
    // One that a server asks for, once no hedge is under way.
    let later = vec![("grpc-retry-pushback-ms", "3600000")];
    let server = Server::start(Manner::Speaks(9), move |_, _| {
        Reply::Status(14, later.clone())
    })
    .await;
    let caller = Caller::to(&[&server]);
    for path in ["/a.H/C", PATH] {
        let begun = Instant::now();
        let done = caller.call(How { path, ..USUAL }).await;
        assert_eq!(answer_of(done).unwrap_err(), "UNAVAILABLE");
        assert!(begun.elapsed() < USUAL.within, "{path}");
    }
    // Those between the attempts of a call that never leaves.
    let server = Server::start(Manner::GoesAway, |_, _| Reply::Silence).await;
    let caller = Caller::to(&[&server]);
    for within in (50..1500).step_by(50).map(Duration::from_millis) {
        for wait in [Wait::ForReady, Wait::FailFast] {
            let begun = Instant::now();
            let how = How {
                within,
                wait,
                ..USUAL
            };
            answer_of(caller.call(how).await).unwrap_err();
            let late = begun.elapsed().saturating_sub(within);
            assert!(late <= Duration::from_millis(2), "{late:?} late");
        }
    }
}

/// Gives one answer after the other, and counts.
struct Scripted {
    answers: Mutex<Vec<io::Result<Vec<SocketAddr>>>>,
    asked: Arc<AtomicUsize>,
}

impl Resolver for Scripted {
    fn resolve<'a>(&'a self, _: &'a str, _: u16) -> Addresses<'a> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let next = self.answers.lock().unwrap().pop();
        Box::pin(async move {
            match next {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        })
    }
}

/// A caller of `dns:///cache:1` by a resolver with these answers, and how often that was asked.
fn resolved(mut answers: Vec<io::Result<Vec<SocketAddr>>>) -> (Caller, Arc<AtomicUsize>) {
    answers.reverse();
    let asked = Arc::<AtomicUsize>::default();
    let resolver = Scripted {
        answers: Mutex::new(answers),
        asked: Arc::clone(&asked),
    };
    let config = ClientConfig::new("dns:///cache:1").unwrap();
    (Caller::new(config.with_resolver(resolver)), asked)
}

#[tokio::test]
async fn a_resolver_that_fails_is_asked_again_with_backoff_and_says_why() {
    let no_such_name = || Err(io::Error::other("no such name"));
    for (answer, words) in [
        (no_such_name(), "cache cannot be resolved: no such name"),
        (Ok(vec![]), "the name has no addresses"),
    ] {
        let (caller, asked) = resolved(vec![answer]);
        let error = failing_calls(&caller).await;
        assert!(error.contains(words), "{error}");
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn a_resolver_that_never_answers_ends_with_the_deadline() {
    let (caller, asked) = resolved(vec![]);
    let short = How {
        within: Duration::from_millis(40),
        ..USUAL
    };
    let done = caller.call(short).await;
    assert!(
        matches!(done.outcome, Outcome::Unreached(Unreached::TimedOut(None))),
        "{done:?}"
    );
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_name_is_looked_up_again_when_its_server_is_gone() {
    let mut first = Server::echo().await;
    let second = Server::echo().await;
    let (caller, asked) = resolved(vec![
        Err(io::Error::other("not yet")),
        Ok(vec![first.address]),
        Ok(vec![]),
        Ok(vec![second.address]),
    ]);
    let patient = How {
        wait: Wait::ForReady,
        within: Duration::from_secs(300),
        ..USUAL
    };
    answer_of(caller.call(patient).await).unwrap();
    assert_eq!(first.calls()[0].authority, "cache:1");
    first.kill().await;
    // From here on time is that of the test: half a minute between two answers is not waited for.
    tokio::time::pause();
    answer_of(caller.call(patient).await).unwrap();
    assert_eq!(second.calls().len(), 1);
    assert_eq!(asked.load(Ordering::SeqCst), 4);
}

/// Time is that of the test, and passes whenever nothing else happens.
#[tokio::test(start_paused = true)]
async fn an_hour_without_a_server_takes_few_attempts_and_few_wake_ups() {
    for (manner, balancing) in [
        (Manner::Mute, Balancing::round_robin()),
        (Manner::Closes, Balancing::round_robin()),
        (Manner::Mute, Balancing::pick_first()),
    ] {
        let server = Server::start(manner, |_, _| Reply::Silence).await;
        let caller = Caller::new(
            config(&[&server])
                .with_balancing(balancing.clone())
                .with_connect_timeout(Duration::from_millis(60)),
        );
        caller.answer().await.unwrap_err();
        let parked = || {
            tokio::runtime::Handle::current()
                .metrics()
                .worker_park_count(0)
        };
        let before = parked();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        // 1 s, 1.6 s and so on to 120 s, each a fifth more or less: 38 without the jitter.
        let attempts = server.connections();
        assert!((28..=52).contains(&attempts), "{balancing:?}: {attempts}");
        let wake_ups = parked() - before;
        assert!(wake_ups < 1500, "{manner:?} {balancing:?}: {wake_ups}");
        drop(caller);
    }
}

/// A channel that nobody uses does nothing at all, connected or not.
#[tokio::test]
async fn a_channel_at_rest_is_not_woken() {
    let server = Server::echo().await;
    let caller = Caller::new(config(&[&server]).with_balancing(Balancing::round_robin()));
    caller.answer().await.unwrap();
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let parked = || {
        tokio::runtime::Handle::current()
            .metrics()
            .worker_park_count(0)
    };
    let before = parked();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(parked() - before < 50, "{}", parked() - before);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_channel_that_is_dropped_leaves_nothing_behind() {
    let alive = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = alive();
    let short = How {
        within: Duration::from_millis(20),
        wait: Wait::ForReady,
        ..USUAL
    };
    // Connected, with health watched; on the way to a connection; in backoff.
    let health = r#"{"healthCheckConfig": {"serviceName": ""}}"#;
    for (manner, goes_well) in [
        (Manner::Speaks(9), true),
        (Manner::Mute, false),
        (Manner::Closes, false),
    ] {
        let mut server = Server::start(manner, |_, seen| match seen.path.as_str() {
            crate::channel::health::WATCH => Reply::Stream(vec![vec![8, 1]]),
            _ => Reply::Ok(seen.body.clone()),
        })
        .await;
        let config = config(&[&server]).with_balancing(Balancing::round_robin());
        let caller = Caller::with(config.with_service_config(health).unwrap());
        let how = if goes_well { USUAL } else { short };
        let answer = answer_of(caller.call(how).await);
        assert_eq!(answer.is_ok(), goes_well, "{manner:?}: {answer:?}");
        assert!(alive() > before);
        drop(caller);
        if goes_well {
            // The server's own task of the connection ends because the client closed it.
            until("all but the listener are gone", || alive() == before + 1).await;
        }
        server.kill().await;
        until("all are gone", || alive() == before).await;
    }
    let (caller, _) = resolved(vec![]);
    answer_of(caller.call(short).await).unwrap_err();
    drop(caller);
    until("the look-up is given up", || alive() == before).await;
}
