#![no_main]

#[path = "../../crates/wire/tests/drive/mod.rs"]
#[allow(dead_code, reason = "one driver of six")]
mod drive;

libfuzzer_sys::fuzz_target!(|data: &[u8]| drive::tds_observe(data));
