//! gRPC's `compression.md`: what is sent compressed, and answers that are, rightly and
//! wrongly.

use super::*;
use crate::gzip::compress;

/// Smaller than what is taken, and larger when it is not compressed.
const MAX_BYTES: usize = 1000;

fn taking() -> Config {
    Config {
        max_message_bytes: MAX_BYTES,
        takes_gzip: true,
        ..Config::default()
    }
}

fn flagged(message: &[u8]) -> Vec<u8> {
    let mut out = framed(message);
    out[0] = 1;
    out
}

fn zipped(bytes: usize) -> Vec<u8> {
    compress(&vec![b'a'; bytes]).unwrap()
}

fn head_of(peer: &mut Peer, encoding: &str) {
    let [status, content_type] = [HEAD[0], HEAD[1]];
    peer.block(
        1,
        &[status, content_type, ("grpc-encoding", encoding)],
        false,
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_is_flagged_if_its_head_says_so() {
    for waits in [false, true] {
        // One that waits for the server's settings is kept with its prefix.
        let (connection, mut peer, _driven) = match waits {
            true => silent(taking()).await,
            false => greeted(taking(), &[]).await,
        };
        let packed = zipped(500);
        let write = |out: &mut Vec<u8>| out.extend_from_slice(&packed);
        let head = head().with("grpc-accept-encoding", b"gzip").unwrap();
        let zip = connection.unary(&head.clone().compressed(), write, None);
        let plain = connection.unary(&head, |out| out.push(7), None);
        if waits {
            write_settings(&mut peer.out, &[]);
            peer.flush().await;
            assert_eq!(peer.frame().await.kind, Kind::SETTINGS);
        }
        let encoding = |asked: &Asked| {
            let found = asked
                .fields
                .iter()
                .find(|(name, _)| name == "grpc-encoding");
            found.map(|(_, value)| value.clone())
        };
        let asked = peer.asked().await;
        assert_eq!(encoding(&asked).as_deref(), Some("gzip"));
        assert_eq!(asked.content, flagged(&packed));
        let asked = peer.asked().await;
        assert_eq!(encoding(&asked), None);
        assert_eq!(asked.content, framed(&[7]));
        peer.answer(1, b"x").answer(3, b"y").flush().await;
        assert_eq!(zip.await.unwrap().message, "x");
        assert_eq!(plain.await.unwrap().message, "y");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_compressed_message_by_message_in_both_directions() {
    let (connection, mut peer, _driven) = greeted(taking(), &[]).await;
    let (mut sending, mut receiving) = connection.stream(&head().compressed(), None).unwrap();
    let packed = zipped(500);
    sending.send(|out| out.push(1)).await.unwrap();
    sending.send_compressed(&packed).await.unwrap();
    sending.finish();
    let expected = [framed(&[1]), flagged(&packed)].concat();
    assert_eq!(peer.asked().await.content, expected);
    head_of(&mut peer, "gzip");
    peer.data(1, &[flagged(&packed), framed(b"z")].concat());
    peer.data(1, &flagged(&zipped(MAX_BYTES))).status(1, "0");
    peer.flush().await;
    for (bytes, came) in [
        (500, packed.len()),
        (1, 1),
        (MAX_BYTES, zipped(MAX_BYTES).len()),
    ] {
        let message = receiving.message().await.unwrap().unwrap();
        assert_eq!((message.len(), receiving.message_bytes()), (bytes, came));
    }
    assert_eq!(receiving.message().await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn an_answer_says_how_large_it_was_as_it_came() {
    let (connection, mut peer, _driven) = greeted(taking(), &[]).await;
    let call = ask(&connection, b"");
    peer.asked().await;
    let packed = zipped(MAX_BYTES);
    head_of(&mut peer, "gzip");
    // In pieces, the first of which ends within the prefix.
    let content = flagged(&packed);
    peer.data(1, &content[..3])
        .data(1, &content[3..])
        .status(1, "0");
    peer.flush().await;
    let answer = call.await.unwrap();
    assert_eq!(answer.message, vec![b'a'; MAX_BYTES]);
    assert_eq!(answer.message_bytes, packed.len());
}

/// Has a server answer with `content` under an encoding, and gives out how a unary call
/// and a stream end by it. The connection is sound after that.
async fn check(name: &str, config: Config, encoding: &str, content: &[u8], expected: Failed) {
    let (connection, mut peer, _driven) = greeted(config, &[]).await;
    let call = ask(&connection, b"");
    peer.asked().await;
    head_of(&mut peer, encoding);
    peer.data(1, content).status(1, "0").flush().await;
    assert_eq!(call.await, Err(expected.clone()), "{name}");
    let (sending, mut receiving) = connection.stream(&head(), None).unwrap();
    sending.finish();
    while peer.frame().await.flags & flag::END_STREAM == 0 {}
    let fields = [HEAD[0], HEAD[1], ("grpc-encoding", encoding)];
    peer.block(3, &fields, false).data(3, content).flush().await;
    for _ in 0..2 {
        assert_eq!(receiving.message().await, Err(expected.clone()), "{name}");
    }
    settle().await;
    assert_eq!(connection.in_flight(), 0, "{name}: its server is told");
    drop(receiving);
    assert_eq!(connection.0.shared.lock().calls.held(), 0, "{name}");
    assert_eq!(connection.readiness(), Readiness::Ready, "{name}");
}

#[tokio::test(start_paused = true)]
async fn compressed_answers_that_are_none_end_their_calls_alone() {
    let malformed = || Failed::Protocol(crate::gzip::MALFORMED);
    let zip = zipped(500);
    let too_large = |bytes, max| Failed::TooLarge { bytes, max };
    let bomb = zipped(8 << 20);
    let large = || Config {
        max_message_bytes: 1 << 20,
        ..taking()
    };
    let mut humble = bomb.clone();
    let end = humble.len();
    humble[end - 4..].copy_from_slice(&900_u32.to_le_bytes());
    let gzip = |name, content: &[u8], expected| (name, "gzip", flagged(content), expected);
    for (name, encoding, content, expected) in [
        gzip(
            "a byte too many",
            &zipped(MAX_BYTES + 1),
            too_large(MAX_BYTES + 1, MAX_BYTES),
        ),
        gzip("no gzip", b"no gzip at all", malformed()),
        gzip("nothing", b"", malformed()),
        gzip("cut short", &zip[..zip.len() - 9], malformed()),
        gzip("without its end", &zip[..zip.len() - 8], malformed()),
        gzip("more after it", &[&zip[..], b"x"].concat(), malformed()),
        (
            "no encoding",
            "identity",
            flagged(&zip),
            Failed::Protocol("a compressed message without grpc-encoding"),
        ),
        (
            "another encoding",
            "br",
            flagged(&zip),
            Failed::Protocol("a message compressed by an encoding that was not offered"),
        ),
        (
            "a flag of 2",
            "gzip",
            [&[2][..], &framed(&zip)[1..]].concat(),
            Failed::Protocol("a message whose compressed flag is neither 0 nor 1"),
        ),
        gzip(
            "large as it comes",
            &[0; MAX_BYTES + 1],
            too_large(MAX_BYTES + 1, MAX_BYTES),
        ),
    ] {
        check(name, taking(), encoding, &content, expected).await;
    }
    let bomb = flagged(&bomb);
    check(
        "a bomb",
        large(),
        "gzip",
        &bomb,
        too_large(8 << 20, 1 << 20),
    )
    .await;
    let humble = flagged(&humble);
    check(
        "a bomb that says less",
        large(),
        "gzip",
        &humble,
        malformed(),
    )
    .await;
    let unasked = Failed::Protocol("a compressed message, which was not asked for");
    check(
        "unasked",
        Config::default(),
        "gzip",
        &flagged(&zip),
        unasked,
    )
    .await;
}
