//! Any name and content as a file in the directory of addresses. Whoever a file is said to be reserved for must be
//! said to hold it again when that is written down as `weft-cni` writes it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_cni::input::reservation;

fuzz_target!(|file: (&str, &str)| {
    let (name, content) = file;
    let Some((address, id, ifname)) = reservation(name, content) else { return };
    let Some(ifname) = ifname else { return };
    let again = reservation(&address.to_string(), &format!("{id}\r\n{ifname}"));
    assert_eq!(again, Some((address, id, Some(ifname))));
});
