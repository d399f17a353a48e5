//! The files of an image.

use std::{collections::BTreeMap, io::Write};

use anyhow::{Context, Result, ensure};
use tar::{Builder, EntryType, Header};

/// Files, directories and links of an image, sorted by path.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug)]
enum Entry {
    Directory,
    File { content: Vec<u8>, mode: u32 },
    Link { target: String },
}

impl Layer {
    /// Adds a file, and the directories above it. `path` is absolute; `mode` as of chmod(2).
    ///
    /// # Errors
    /// The path is relative or taken.
    pub fn file(&mut self, path: &str, content: Vec<u8>, mode: u32) -> Result<()> {
        self.add(path, Entry::File { content, mode })
    }

    /// Adds an empty directory, and those above it; there already is fine.
    ///
    /// # Errors
    /// The path is relative, or something else has it.
    pub fn directory(&mut self, path: &str) -> Result<()> {
        self.add(path, Entry::Directory)
    }

    /// Adds a symbolic link, and the directories above it.
    ///
    /// # Errors
    /// The path is relative or taken.
    pub fn link(&mut self, path: &str, target: &str) -> Result<()> {
        self.add(path, Entry::Link { target: target.to_owned() })
    }

    /// Sum of the files' sizes in bytes.
    pub fn size(&self) -> u64 {
        let sizes = self.entries.values().map(|entry| match entry {
            Entry::File { content, .. } => content.len() as u64,
            Entry::Directory | Entry::Link { .. } => 0,
        });
        sizes.sum()
    }

    fn add(&mut self, path: &str, entry: Entry) -> Result<()> {
        let relative = path.strip_prefix('/').with_context(|| format!("{path} is not absolute"))?;
        for (end, _) in relative.match_indices('/') {
            let parent = self.entries.entry(relative[..end].to_owned()).or_insert(Entry::Directory);
            ensure!(matches!(parent, Entry::Directory), "/{} is no directory, so {path} cannot be", &relative[..end]);
        }
        let directory = matches!(entry, Entry::Directory);
        let previous = self.entries.insert(relative.to_owned(), entry);
        ensure!(
            previous.is_none_or(|previous| directory && matches!(previous, Entry::Directory)),
            "{path} is there twice"
        );
        Ok(())
    }

    /// Writes it as a tar file.
    pub(crate) fn write(&self, out: impl Write) -> Result<()> {
        let mut tar = Builder::new(out);
        for (path, entry) in &self.entries {
            let mut header = Header::new_gnu();
            header.set_mtime(0);
            match entry {
                Entry::Directory => {
                    header.set_entry_type(EntryType::Directory);
                    header.set_mode(0o755);
                    header.set_size(0);
                    tar.append_data(&mut header, format!("{path}/"), &[][..])
                }
                Entry::File { content, mode } => {
                    header.set_mode(*mode);
                    header.set_size(content.len() as u64);
                    tar.append_data(&mut header, path, content.as_slice())
                }
                Entry::Link { target } => {
                    header.set_entry_type(EntryType::Symlink);
                    header.set_mode(0o777);
                    header.set_size(0);
                    tar.append_link(&mut header, path, target)
                }
            }
            .with_context(|| format!("layer: {path}"))?;
        }
        tar.finish().context("end the layer")
    }
}
