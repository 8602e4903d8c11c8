use super::*;
use crate::testing::{Random, hex};

const MAX_LIST: usize = 16 * 1024;

fn list(fields: &Fields) -> Vec<(String, String)> {
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    fields.iter().map(|(n, v)| (text(n), text(v))).collect()
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String)>, HpackError> {
    let mut fields = Fields::default();
    decoder
        .decode(block, &mut fields, MAX_LIST)
        .map(|_| list(&fields))
}

/// Blocks of one connection, the list of each, and the table's size after it.
type Example<'a> = &'a [(&'a str, &'a [(&'a str, &'a str)], usize)];

fn check(table_bytes: usize, example: Example<'_>) {
    let mut decoder = Decoder::new(table_bytes);
    for (block, expected, size) in example {
        let got = decode(&mut decoder, &hex(block)).unwrap();
        let got: Vec<(&str, &str)> = got.iter().map(|(n, v)| (&n[..], &v[..])).collect();
        assert_eq!(got, *expected);
        assert_eq!(decoder.table_size(), *size);
    }
}

#[test]
fn the_examples_of_appendix_c_2() {
    let custom = "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572";
    check(4096, &[(custom, &[("custom-key", "custom-header")], 55)]);
    let path = "040c 2f73 616d 706c 652f 7061 7468";
    check(4096, &[(path, &[(":path", "/sample/path")], 0)]);
    let secret = "1008 7061 7373 776f 7264 0673 6563 7265 74";
    check(4096, &[(secret, &[("password", "secret")], 0)]);
    check(4096, &[("82", &[(":method", "GET")], 0)]);
}

const REQUEST_1: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "www.example.com"),
];
const REQUEST_2: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "www.example.com"),
    ("cache-control", "no-cache"),
];
const REQUEST_3: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "https"),
    (":path", "/index.html"),
    (":authority", "www.example.com"),
    ("custom-key", "custom-value"),
];

#[test]
fn the_requests_of_appendices_c_3_and_c_4() {
    let plain = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    let huffman = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    for [first, second, third] in [plain, huffman] {
        let example: Example<'_> = &[
            (first, REQUEST_1, 57),
            (second, REQUEST_2, 110),
            (third, REQUEST_3, 164),
        ];
        check(4096, example);
    }
}

#[test]
fn the_responses_of_appendices_c_5_and_c_6() {
    let plain = [
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133
         2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70
         6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d
         54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049
         5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e
         3d31",
    ];
    let huffman = [
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6
         2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab
         77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f
         9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ];
    let location = ("location", "https://www.example.com");
    let private = ("cache-control", "private");
    let date = ("date", "Mon, 21 Oct 2013 20:13:21 GMT");
    let later = ("date", "Mon, 21 Oct 2013 20:13:22 GMT");
    let gzip = ("content-encoding", "gzip");
    let cookie = (
        "set-cookie",
        "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
    );
    for [first, second, third] in [plain, huffman] {
        let example: Example<'_> = &[
            (first, &[(":status", "302"), private, date, location], 222),
            (second, &[(":status", "307"), private, date, location], 222),
            (
                third,
                &[(":status", "200"), private, later, location, gzip, cookie],
                215,
            ),
        ];
        check(256, example);
    }
}

#[test]
fn every_truncation_is_an_error_or_a_shorter_list() {
    let block = hex("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf");
    let before = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
    ];
    for cut in 0..=block.len() {
        let mut decoder = Decoder::new(4096);
        for block in before {
            decode(&mut decoder, &hex(block)).unwrap();
        }
        let got = decode(&mut decoder, &block[..cut]);
        match cut {
            0..=4 | 24 => assert_eq!(got.unwrap().len(), cut.min(5)),
            _ => assert_eq!(got, Err(HpackError::Truncated), "{cut}"),
        }
    }
}

#[test]
fn what_the_rfc_forbids_is_refused() {
    let check = |block: &str, expected| {
        let got = decode(&mut Decoder::new(4096), &hex(block));
        assert_eq!(got, Err(expected), "{block}");
    };
    check("80", HpackError::Index); // index 0
    check("be", HpackError::Index); // 62 in an empty table
    check("7f00 0161", HpackError::Index); // name 63 of an empty table
    check("ff ffff ffff ff", HpackError::IntegerTooLarge);
    check("3fe2 1f", HpackError::TableSize); // 4,097
    check("82 20", HpackError::TableSize); // not at the beginning
    check("00 81 00 0161", HpackError::Huffman); // a name of zero bits
    check("00 01", HpackError::Truncated);
    check("00 0161 7f", HpackError::Truncated);
}

#[test]
fn a_size_update_evicts_and_may_come_twice() {
    let mut decoder = Decoder::new(4096);
    decode(&mut decoder, &hex("4001610162")).unwrap();
    let before = decoder.generation();
    assert_eq!(decoder.table_size(), 34);
    assert_eq!(decode(&mut decoder, &hex("20 3fe11f 82")).unwrap().len(), 1);
    assert_eq!(decoder.table_size(), 0);
    assert_ne!(decoder.generation(), before);
    assert_eq!(decode(&mut decoder, &hex("be")), Err(HpackError::Index));
}

#[test]
fn a_list_too_large_leaves_the_table_in_step() {
    let mut decoder = Decoder::new(4096);
    let mut fields = Fields::default();
    // 0x61:62 inserted, then 200 times the same by index, then c:d inserted.
    let mut block = hex("4001610162");
    block.extend([0xbe; 200]);
    block.extend(hex("4001630164"));
    let decoded = decoder.decode(&block, &mut fields, 1000).unwrap();
    assert!(decoded.oversize && fields.is_empty());
    let decoded = decoder.decode(&hex("bebf"), &mut fields, 1000).unwrap();
    assert!(!decoded.oversize && decoded.repeatable);
    let expected = [("c", "d"), ("a", "b")].map(|(n, v)| (n.to_owned(), v.to_owned()));
    assert_eq!(list(&fields), expected);
}

#[test]
fn a_bomb_holds_no_more_than_the_limit() {
    let mut decoder = Decoder::new(4096);
    let mut fields = Fields::default();
    let mut block = vec![0x40, 1, b'n'];
    integer::encode(&mut block, 4000, 7, 0);
    block.extend([b'v'; 4000]);
    block.extend(vec![0xbe; 16_000]); // 64 MB, were it believed
    let decoded = decoder.decode(&block, &mut fields, MAX_LIST);
    assert_eq!(decoded, Err(HpackError::Bomb));
    // As far as it is a list, it is decoded.
    block.truncate(4000 + 5 + 60);
    let decoded = decoder.decode(&block, &mut fields, MAX_LIST).unwrap();
    assert!(decoded.oversize);
    assert!(
        fields.held_bytes() < 3 * MAX_LIST,
        "{}",
        fields.held_bytes()
    );
}

#[test]
fn random_lists_survive_every_representation() {
    let mut random = Random::new(11);
    let mut decoder = Decoder::new(4096);
    for _ in 0..3000 {
        let mut block = Vec::new();
        let mut expected = Vec::new();
        for _ in 0..random.below(8) {
            let (n, v) = (random.below(40), random.below(90));
            let (name, value) = (random.bytes(n), random.bytes(v));
            block.push([0x00, 0x10, 0x40][random.below(3)]);
            for octets in [&name, &value] {
                if random.below(2) == 0 {
                    string::write(&mut block, octets);
                } else {
                    let coded = huffman::encode(octets);
                    integer::encode(&mut block, coded.len(), 7, 0x80);
                    block.extend(coded);
                }
            }
            expected.push((name, value));
        }
        let mut fields = Fields::default();
        decoder.decode(&block, &mut fields, MAX_LIST).unwrap();
        let got: Vec<_> = fields.iter().map(|(n, v)| (n.into(), v.into())).collect();
        assert_eq!(got, expected);
    }
}

#[test]
fn random_bytes_never_panic() {
    let mut random = Random::new(13);
    for _ in 0..30_000 {
        let length = random.below(60);
        let block = random.bytes(length);
        let mut decoder = Decoder::new(300);
        for _ in 0..3 {
            let mut fields = Fields::default();
            if decoder.decode(&block, &mut fields, 500).is_err() {
                break;
            }
            assert!(fields.list_bytes() <= 500);
        }
    }
}

#[test]
fn repeated_fields_are_one_byte_the_second_time() {
    let mut encoder = Encoder::default();
    let mut decoder = Decoder::new(4096);
    let mut sizes = Vec::new();
    for turn in 0..4 {
        if turn == 3 {
            encoder.set_table_limit(0);
        }
        for field in [Repeated::GrpcStatusOk, Repeated::ContentTypeGrpc] {
            let mut block = Vec::new();
            encoder.begin_block(&mut block);
            encoder.write_repeated(&mut block, field);
            sizes.push(block.len());
            let (name, value) = match field {
                Repeated::GrpcStatusOk => ("grpc-status", "0"),
                Repeated::ContentTypeGrpc => ("content-type", "application/grpc"),
            };
            let got = decode(&mut decoder, &block).unwrap();
            assert_eq!(got, [(name.to_owned(), value.to_owned())]);
        }
    }
    assert_eq!(sizes, [15, 18, 1, 1, 1, 1, 16, 31]);
}
