//! See `larder_fuzz::TARGETS`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some(target) = larder_fuzz::target("client_bytes") {
        (target.run)(data);
    }
});
