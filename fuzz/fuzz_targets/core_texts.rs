//! What people type and what an export holds: names, ranges, moments, lifetimes, log lines.
#![no_main]

use daypass_core::{chain, names::*, net::Range, time::*};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(ranges) = Range::list(text) {
        for range in ranges {
            // what is shown is what is meant
            assert_eq!(range.to_string().parse::<Range>().map(|again| again.to_string()), Ok(range.to_string()));
            assert!(range.blocks().len() <= 256);
        }
    }
    if let Ok(at) = text.parse::<Time>() {
        assert_eq!(at.to_string().parse::<Time>(), Ok(at));
    }
    let _ = (text.parse::<Ttl>(), text.parse::<Name>(), text.parse::<UserName>(), text.parse::<Reason>(), text.parse::<Host>());
    assert!(!shown(text).chars().any(char::is_control));
    let _ = chain::verify(text.lines(), None);
});
