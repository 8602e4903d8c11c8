//! Header blocks that were seen before: which of them need not be decoded.

use super::*;

/// Sends blocks in turn, each as a request; how many of them were decoded.
fn decoded(blocks: &[&[u8]]) -> Vec<usize> {
    let mut connection = greeted(Limits::default());
    let mut id = 1;
    blocks
        .iter()
        .map(|block| {
            let before = connection.app().routed;
            receive(&mut connection, &raw(Kind::HEADERS, 5, id, block));
            assert_eq!(output(&mut connection).len(), 2, "{block:?}");
            id += 2;
            connection.app().routed - before
        })
        .collect()
}

/// `:method: POST`, `:scheme: http` and `:path: /`, from the static table.
const STATIC: &[u8] = b"\x83\x86\x84";

/// The same, and more.
fn and(more: &[u8]) -> Vec<u8> {
    [STATIC, more].concat()
}

#[test]
fn a_client_that_indexes_its_fields_is_known_from_its_second_call_on() {
    // A field that is inserted, then the index of it.
    let first = and(b"\x40\x01a\x01b");
    let then = and(b"\xbe");
    let check = decoded(&[&first, &then, &then, &then]);
    assert_eq!(check, [1, 0, 0, 0]);
    // Two methods with fields of their own, and one field in common.
    let one = and(b"\x40\x01a\x01b\x40\x01c\x011");
    let two = and(b"\xbf\x40\x01c\x012");
    // The common field is the third now.
    let (one_then, two_then) = (and(b"\xc0\xbf"), and(b"\xc0\xbe"));
    let turns = [&one[..], &two, &one_then, &two_then, &one_then, &two_then];
    assert_eq!(decoded(&turns), [1, 1, 0, 0, 0, 0]);
}

#[test]
fn an_insertion_leaves_blocks_that_do_not_refer_to_the_table() {
    let inserts = and(b"\x40\x01x\x01y");
    let literal = and(b"\x00\x01a\x01b");
    let refers = and(b"\xbe");
    let named = and(b"\x0f\x2f\x01b");
    let turns: [&[u8]; 11] = [
        STATIC, &literal, &inserts, &refers, &named, STATIC, &literal, &refers, &named, &inserts,
        &literal,
    ];
    assert_eq!(decoded(&turns), [1, 1, 1, 0, 1, 0, 0, 0, 0, 1, 0]);
    // What refers to it means something else now.
    let turns: [&[u8]; 4] = [&inserts, &refers, &inserts, &refers];
    assert_eq!(decoded(&turns), [1, 0, 1, 0]);
}

#[test]
fn a_table_that_is_resized_forgets() {
    let inserts = and(b"\x40\x01x\x01y");
    let refers = and(b"\xbe");
    // To nothing and back again; what is inserted then is something else.
    let resized = [&b"\x20\x3f\xe1\x1f"[..], &and(b"\x40\x01p\x01q")].concat();
    let mut connection = greeted(Limits::default());
    let turns: [&[u8]; 4] = [&inserts, &refers, &resized, &refers];
    for (turn, block) in turns.iter().enumerate() {
        let id = u32::try_from(2 * turn + 1).unwrap();
        receive(&mut connection, &raw(Kind::HEADERS, 5, id, block));
    }
    // All but the second, which refers to what the first inserted.
    assert_eq!(connection.app().routed, 3);
    assert!(connection.is_alive());
}
