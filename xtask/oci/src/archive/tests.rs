use std::{
    collections::BTreeMap,
    io::{Cursor, Read},
};

use serde_json::Value;

use super::{Compression, Image, digest};
use crate::Layer;

fn image(compression: Compression) -> Image {
    let mut layer = Layer::default();
    layer.file("/usr/bin/weft", b"program".to_vec(), 0o755).unwrap();
    layer.directory("/tmp").unwrap();
    layer.directory("/usr").unwrap();
    layer.link("/usr/bin/other", "weft").unwrap();
    Image {
        name: "registry.example/weft:1".into(),
        architecture: "amd64".into(),
        entrypoint: vec!["/usr/bin/weft".into()],
        environment: BTreeMap::from([("PATH".into(), "/usr/bin".into())]),
        labels: BTreeMap::new(),
        layer,
        compression,
    }
}

fn written(image: &Image) -> Vec<u8> {
    let mut bytes = Vec::new();
    image.write(&mut bytes).unwrap();
    bytes
}

fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(Cursor::new(archive));
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (path, content)
    });
    entries.collect()
}

#[test]
fn the_same_content_gives_the_same_bytes() {
    for compression in [Compression::None, Compression::Gzip] {
        assert_eq!(written(&image(compression)), written(&image(compression)));
    }
}

#[test]
fn every_part_is_found_by_its_digest() {
    for compression in [Compression::None, Compression::Gzip] {
        let files = files(&written(&image(compression)));
        let blob = |descriptor: &Value| {
            let name = descriptor["digest"].as_str().unwrap();
            let content = &files[&format!("blobs/{}", name.replace(':', "/"))];
            assert_eq!((digest(content).as_str(), content.len() as u64), (name, descriptor["size"].as_u64().unwrap()));
            content.clone()
        };
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        assert_eq!(index["manifests"][0]["annotations"]["io.containerd.image.name"], "registry.example/weft:1");
        let manifest: Value = serde_json::from_slice(&blob(&index["manifests"][0])).unwrap();
        let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        let mut layer = blob(&manifest["layers"][0]);
        if compression == Compression::Gzip {
            let packed = std::mem::take(&mut layer);
            flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut layer).unwrap();
        }
        assert_eq!(config["rootfs"]["diff_ids"][0], digest(&layer));
        assert_eq!(config["config"]["Entrypoint"][0], "/usr/bin/weft");
    }
}

#[test]
fn a_layer_has_every_directory_before_what_is_in_it() {
    let mut bytes = Vec::new();
    image(Compression::None).layer.write(&mut bytes).unwrap();
    let mut archive = tar::Archive::new(Cursor::new(bytes));
    let paths: Vec<_> =
        archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
    assert_eq!(paths, ["tmp/", "usr/", "usr/bin/", "usr/bin/other", "usr/bin/weft"]);
}

#[test]
fn a_path_is_given_once_and_absolute() {
    let mut layer = Layer::default();
    layer.file("/a", Vec::new(), 0o644).unwrap();
    assert!(layer.file("/a", Vec::new(), 0o644).is_err());
    assert!(layer.file("/a/b", Vec::new(), 0o644).is_err());
    assert!(layer.file("b", Vec::new(), 0o644).is_err());
}
