//! Any bytes as JSON of the API, one object a line: the same as with manifests, and faster to fuzz.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_fuzz::invariants::Checked;

fuzz_target!(|bytes: &[u8]| {
    let mut checked = Checked::default();
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Ok(object) = serde_json::from_slice(line) {
            checked.apply(object);
        }
    }
    checked.finish(false);
});
