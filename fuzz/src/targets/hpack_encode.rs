//! RFC 7541 as a sender: what the encoder writes is what a decoder reads, whatever
//! size the receiver gives its table in between (section 4.2).

use larder_transport::hpack::{Decoder, Encoder, Fields, Repeated, write_literal};

use crate::features::note;
use crate::input::Input;

/// Blocks, and changes of `SETTINGS_HEADER_TABLE_SIZE` between them.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut encoder = Encoder::default();
    // A receiver starts with 4,096, and this sender never uses more.
    let mut decoder = Decoder::new(4096);
    let mut fields = Fields::default();
    // What the table is, the least that it was allowed to be since the last
    // block, and what it is allowed to be now.
    let (mut table, mut least, mut limit) = (4096, 4096, 4096);
    let mut block = Vec::new();
    while !input.is_empty() {
        for _ in 0..input.below(4) {
            let size = match input.below(6) {
                0 => 0,
                1 => u32::from(input.byte()),
                2 => u32::from(input.word()),
                3 => input.long(),
                4 => 256,
                _ => 4096,
            };
            encoder.set_table_limit(size);
            least = least.min(size);
            limit = size;
        }
        block.clear();
        let expected = write_block(&mut input, &mut encoder, &mut block);
        if let Some(size) = size_update(&block) {
            assert!(size <= least, "{size}, although {least} is allowed");
            table = size;
        }
        assert!(
            table <= least,
            "the table has {table}, and {least} is allowed"
        );
        let decoded = decoder.decode(&block, &mut fields, 1 << 20);
        assert!(decoded.is_ok(), "{decoded:?} of {block:02x?}");
        let expected = expected.iter().map(|(name, value)| (&name[..], &value[..]));
        assert!(fields.iter().eq(expected), "{fields:?}");
        note((table.min(300), block.first().copied()));
        least = limit;
    }
}

fn write_block(
    input: &mut Input<'_>,
    encoder: &mut Encoder,
    block: &mut Vec<u8>,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut expected = Vec::new();
    encoder.begin_block(block);
    for _ in 0..input.below(6) {
        let own = |name: &str, value: &str| (name.into(), value.into());
        match input.below(3) {
            0 => {
                encoder.write_repeated(block, Repeated::ContentTypeGrpc);
                expected.push(own("content-type", "application/grpc"));
            }
            1 => {
                encoder.write_repeated(block, Repeated::GrpcStatusOk);
                expected.push(own("grpc-status", "0"));
            }
            _ => {
                let lengths = [input.below(40), usize::from(input.word() & 0x1ff)];
                let [name, value] = lengths.map(|length| input.take(length).to_vec());
                write_literal(block, &name, &value);
                expected.push((name, value));
            }
        }
    }
    expected
}

/// The size update at a block's beginning (section 6.3).
fn size_update(block: &[u8]) -> Option<u32> {
    let (&first, rest) = block.split_first()?;
    if first & 0xe0 != 0x20 {
        return None;
    }
    let mut size = u32::from(first & 0x1f);
    if size == 0x1f {
        for (place, byte) in rest.iter().enumerate() {
            size += u32::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    Some(size)
}
