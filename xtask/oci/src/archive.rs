//! An image of one layer, and its archive.

use std::{collections::BTreeMap, io::Write};

use anyhow::{Context, Result};
use data_encoding::HEXLOWER;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, Header};

use crate::Layer;

/// How the layer is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As it is: quick to make.
    None,
    /// As registries expect it.
    Gzip,
}

/// An image: one layer, and how to run it.
#[derive(Clone, Debug)]
pub struct Image {
    /// Full name with tag, such as `registry.example/weft:0.1.0`.
    pub name: String,
    /// Architecture by its Go name: `amd64`, `arm64`.
    pub architecture: String,
    /// Program and arguments that always come first.
    pub entrypoint: Vec<String>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// Labels, by the names of image-spec's annotations.md.
    pub labels: BTreeMap<String, String>,
    /// Files.
    pub layer: Layer,
    /// How the layer is stored.
    pub compression: Compression,
}

/// A content-addressed part of the archive.
struct Blob {
    media_type: &'static str,
    digest: String,
    content: Vec<u8>,
}

impl Image {
    /// Writes the archive.
    ///
    /// # Errors
    /// The layer holds a path or a link that tar cannot express, or `out` fails.
    pub fn write(&self, out: impl Write) -> Result<()> {
        let (layer, layer_digest) = self.packed_layer()?;
        let environment: Vec<_> = self.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let config = Blob::json(
            "application/vnd.oci.image.config.v1+json",
            &json!({
                "architecture": self.architecture,
                "os": "linux",
                "config": {
                    "Entrypoint": self.entrypoint,
                    "Env": environment,
                    "Labels": self.labels,
                },
                "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
            }),
        );
        let manifest = Blob::json(
            "application/vnd.oci.image.manifest.v1+json",
            &json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": config.descriptor(),
                "layers": [layer.descriptor()],
            }),
        );
        let index = self.index(&manifest);
        let mut files = BTreeMap::from([
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json".to_owned(), index.to_string().into_bytes()),
        ]);
        for blob in [layer, config, manifest] {
            files.insert(format!("blobs/{}", blob.digest.replace(':', "/")), blob.content);
        }
        let mut tar = Builder::new(out);
        for (path, content) in files {
            let mut header = Header::new_gnu();
            header.set_mtime(0);
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, &path, content.as_slice()).with_context(|| format!("archive: {path}"))?;
        }
        tar.finish().context("end the archive")
    }

    /// The layer as it is stored, and the digest of what is in it.
    fn packed_layer(&self) -> Result<(Blob, String)> {
        let mut plain = Vec::new();
        self.layer.write(&mut plain)?;
        let digest = digest(&plain);
        let blob = match self.compression {
            Compression::None => Blob::new("application/vnd.oci.image.layer.v1.tar", plain),
            Compression::Gzip => {
                let mut packer = GzEncoder::new(Vec::new(), flate2::Compression::best());
                packer.write_all(&plain).context("compress the layer")?;
                let packed = packer.finish().context("compress the layer")?;
                Blob::new("application/vnd.oci.image.layer.v1.tar+gzip", packed)
            }
        };
        Ok((blob, digest))
    }

    /// Names the image in both ways in use: containerd's, for the full name, and the layout's, for the tag.
    fn index(&self, manifest: &Blob) -> Value {
        let tag = self.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        let mut descriptor = manifest.descriptor();
        descriptor["platform"] = json!({"architecture": self.architecture, "os": "linux"});
        descriptor["annotations"] =
            json!({"io.containerd.image.name": self.name, "org.opencontainers.image.ref.name": tag});
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [descriptor],
        })
    }
}

impl Blob {
    fn new(media_type: &'static str, content: Vec<u8>) -> Self {
        Self { media_type, digest: digest(&content), content }
    }

    fn json(media_type: &'static str, value: &Value) -> Self {
        Self::new(media_type, value.to_string().into_bytes())
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.content.len()})
    }
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", HEXLOWER.encode(&Sha256::digest(content)))
}

#[cfg(test)]
mod tests;
