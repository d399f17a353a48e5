//! Any text as manifests: reading, checking and planning them must not panic, and what is planned must make sense.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_fuzz::invariants::Checked;

fuzz_target!(|text: &str| {
    let mut checked = Checked::default();
    for document in text.split("\n---") {
        if let Ok(object) = serde_saphyr::from_str(document) {
            checked.apply(object);
        }
    }
    checked.finish(false);
});
