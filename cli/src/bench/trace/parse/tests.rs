//! Good traces and bad ones.

use super::*;

/// The keys of a trace, or its error, after the keys before it.
fn read(format: TraceFormat, bytes: &[u8]) -> (Vec<u64>, Option<String>) {
    let parser = match Parser::new(format, bytes) {
        Ok(parser) => parser,
        Err(error) => return (Vec::new(), Some(error.to_string())),
    };
    let (mut keys, mut failed) = (Vec::new(), None);
    for item in parser {
        match item {
            Ok(request) => keys.push(request.key),
            Err(error) => failed = Some(error.to_string()),
        }
    }
    (keys, failed)
}

#[test]
fn good_traces() {
    for (format, bytes, keys) in [
        (
            TraceFormat::Lis,
            &b"5 3 0 1\n9 1 0 2\n"[..],
            &[5, 6, 7, 9][..],
        ),
        (TraceFormat::Lis, b"5 0 0 1\n\n 9  1\t0 2", &[9]),
        (TraceFormat::Lis, b"", &[]),
        (TraceFormat::Ids, b"1\n*\n2\r\n\n1", &[1, 2, 1]),
        (TraceFormat::Ids, b"18446744073709551615\n", &[u64::MAX]),
        (
            TraceFormat::I32be,
            b"\0\0\0\x01\xff\xff\xff\xff",
            &[1, 0xffff_ffff],
        ),
        (TraceFormat::I32be, b"", &[]),
        (
            TraceFormat::Csv,
            b"version,time,op,size,lbn\n1,5,2a,512,77\n1,6,28,0,78\n",
            &[77, 78],
        ),
        (TraceFormat::Csv, b"lbn\n3\n", &[3]),
    ] {
        assert_eq!(
            read(format, bytes),
            (keys.to_vec(), None),
            "{format}: {bytes:?}"
        );
    }
}

#[test]
fn malformed_lines_say_where() {
    check_malformed(&[
        (
            TraceFormat::Lis,
            &b"1 1 0 0\n2 1\n"[..],
            1,
            "line 2: `2 1` is not four numbers",
        ),
        (
            TraceFormat::Lis,
            b"1 x 0 0\n",
            0,
            "line 1: `x` is no number of 64 bits",
        ),
        (
            TraceFormat::Lis,
            b"18446744073709551615 2 0 0",
            0,
            "line 1: the keys of this line go past 64 bits",
        ),
        (
            TraceFormat::Ids,
            b"1\n\n-2\n3\n",
            1,
            "line 3: `-2` is no number of 64 bits",
        ),
        (
            TraceFormat::Ids,
            b"+2\n",
            0,
            "line 1: `+2` is no number of 64 bits",
        ),
        (
            TraceFormat::Ids,
            b"1 2\n",
            0,
            "line 1: `1 2` is no number of 64 bits",
        ),
        (
            TraceFormat::Ids,
            b"18446744073709551616\n",
            0,
            "line 1: `18446744073709551616` is no number of 64 bits",
        ),
        (TraceFormat::Ids, b"\xff\n", 0, "line 1: is no text"),
    ]);
}

#[test]
fn malformed_records_and_columns_say_where() {
    check_malformed(&[
        (
            TraceFormat::I32be,
            b"\0\0\0\x01\0",
            1,
            "record 2: the file ends after 1 of 4 bytes",
        ),
        (TraceFormat::Csv, b"", 0, "line 1: there is no header"),
        (
            TraceFormat::Csv,
            b"1,5,2a,512,77\n",
            0,
            "line 1: the header names no column `lbn`",
        ),
        (
            TraceFormat::Csv,
            b"size,lbn\n1,2\n1\n",
            1,
            "line 3: has 1 fields, and the header 2",
        ),
        (
            TraceFormat::Csv,
            b"size,lbn\n1,2,3\n",
            0,
            "line 2: has 3 fields, and the header 2",
        ),
        (
            TraceFormat::Csv,
            b"size,lbn\n,2\n",
            0,
            "line 2: `` is no number of 64 bits",
        ),
    ]);
}

/// Format, bytes, how many requests come before the error, and the error.
type Malformed<'a> = (TraceFormat, &'a [u8], usize, &'a str);

fn check_malformed(traces: &[Malformed<'_>]) {
    for &(format, bytes, before, error) in traces {
        let (keys, failed) = read(format, bytes);
        assert_eq!(failed.as_deref(), Some(error), "{format}: {bytes:?}");
        assert_eq!(keys.len(), before, "{format}: {bytes:?}");
    }
}

#[test]
fn endless_lines_are_cut_and_endless_runs_are_not_held() {
    let long = vec![b'1'; 1 << 20];
    let (_, failed) = read(TraceFormat::Ids, &long);
    assert_eq!(failed.as_deref(), Some("line 1: longer than 4096 bytes"));
    let text = format!("{} 1", "ä".repeat(100));
    let (_, failed) = read(TraceFormat::Ids, text.as_bytes());
    assert!(failed.is_some_and(|failed| failed.contains("…` is no number")));
    let run = Parser::new(TraceFormat::Lis, &b"0 18446744073709551615 0 0"[..]).unwrap();
    assert_eq!(run.take(3).count(), 3);
}

#[test]
fn sizes_come_with_csv() {
    let mut parser = Parser::new(TraceFormat::Csv, &b"lbn,size\n7,512\n"[..]).unwrap();
    assert_eq!(
        parser.next().unwrap().unwrap(),
        Request {
            key: 7,
            size: Some(512)
        }
    );
    let mut parser = Parser::new(TraceFormat::Csv, &b"lbn\n7\n"[..]).unwrap();
    assert_eq!(
        parser.next().unwrap().unwrap(),
        Request { key: 7, size: None }
    );
}
