//! What a program or library needs to start: its loader and its libraries, by name.

use anyhow::{Context, Result};
use object::{
    Endianness,
    elf::{DT_NEEDED, FileHeader64, PT_INTERP},
    read::elf::{Dyn, ElfFile64, FileHeader, ProgramHeader},
};

/// Needs of one file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Path of the loader; none for a library.
    pub(crate) loader: Option<String>,
    /// Names of the libraries.
    pub(crate) libraries: Vec<String>,
}

/// Reads them out of the file; ldd would have to run it, which a program for another processor cannot.
pub(crate) fn needs(content: &[u8]) -> Result<Needs> {
    let file = ElfFile64::<Endianness>::parse(content).context("no 64-bit ELF file")?;
    let endian = file.endian();
    let header: &FileHeader64<Endianness> = file.elf_header();
    let mut needs = Needs::default();
    for segment in header.program_headers(endian, content)? {
        if segment.p_type(endian) == PT_INTERP
            && let Some(path) = segment.interpreter(endian, content)?
        {
            needs.loader = Some(String::from_utf8_lossy(path).into_owned());
        }
    }
    let sections = file.elf_section_table();
    if let Some((entries, strings)) = sections.dynamic(endian, content)? {
        let strings = sections.strings(endian, content, strings)?;
        for entry in entries.iter().filter(|entry| entry.tag(endian) == DT_NEEDED) {
            let name = entry.string(endian, strings).context("name of a library")?;
            needs.libraries.push(String::from_utf8_lossy(name).into_owned());
        }
    }
    Ok(needs)
}

#[cfg(test)]
mod tests {
    use super::needs;

    #[test]
    fn this_test_needs_the_c_library() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let needs = needs(&own).unwrap();
        assert!(needs.loader.unwrap().contains("ld-linux"));
        assert!(needs.libraries.iter().any(|name| name == "libc.so.6"), "{:?}", needs.libraries);
    }

    #[test]
    fn text_is_no_program() {
        assert!(needs(b"#!/bin/sh\n").is_err());
    }
}
