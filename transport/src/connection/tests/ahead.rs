//! What an application is told of requests that have come and were not read yet.

use super::*;

/// Four requests come at once, and then one more; what is told, and how often, to an application
/// that looks at so many.
fn check(looks_at: usize, expected: &[&str], told: usize) {
    let mut connection = greeted(Limits::default());
    connection.app().looks_at = looks_at;
    connection.app().told = 0;
    let request = |stream: u32, content: &[u8]| {
        let content = data(stream, content, End::Stream);
        [headers(stream, End::Open), content].concat()
    };
    let together = [
        request(1, b"a"),
        request(3, b"b"),
        headers(5, End::Stream),
        request(7, b"c"),
    ];
    receive(&mut connection, &together.concat());
    receive(&mut connection, &request(9, b"d"));
    assert_eq!(connection.app().events, expected, "it looks at {looks_at}");
    assert_eq!(connection.app().told, told, "it looks at {looks_at}");
}

#[test]
fn it_is_told_after_the_first_and_again_when_those_it_looked_at_are_through() {
    // One that does not look is asked once for each read that has more than one request.
    let untold = [
        "1 /p Open",
        "3 /p Open",
        "5 /p Stream",
        "7 /p Open",
        "9 /p Open",
    ];
    check(0, &untold, 1);
    let one_by_one = [
        "1 /p Open",
        "expects b",
        "3 /p Open",
        "expects c",
        "5 /p Stream",
        "7 /p Open",
        "9 /p Open",
    ];
    check(1, &one_by_one, 2);
    let together = [
        "1 /p Open",
        "expects b",
        "expects c",
        "3 /p Open",
        "5 /p Stream",
        "7 /p Open",
        "9 /p Open",
    ];
    check(16, &together, 1);
}
