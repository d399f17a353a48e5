//! Any bytes as a network configuration on standard input of `weft-cni`: refusing is fine, a panic is not.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|stdin: &[u8]| {
    let _ = weft_cni::input::network_configuration(stdin);
});
