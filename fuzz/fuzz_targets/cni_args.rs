//! Any text as `CNI_ARGS`, and as flannel's `subnet.env`, which is of the same make.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = weft_cni::input::cni_args(text);
    let _ = weft_cni::input::subnet_file(text);
});
