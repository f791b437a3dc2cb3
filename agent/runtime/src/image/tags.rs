//! The table of images: names to ids. What it holds was checked when it was read, so nothing later can fail on it.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::layer;
use crate::{Error, aside, json};
use shoal_common::Reference;

/// What an image whose names were lost is called, before its digest.
const RECOVERED: &str = "recovered";

/// Digits by which an image may be called, at the least.
const DIGITS_MIN: usize = 12;

/// `sha256:` and 64 digits: the digest of an image's configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ImageId(String);

impl ImageId {
    const PREFIX: &str = "sha256:";

    pub(super) fn of(config: &[u8]) -> Self {
        Self(layer::digest(config))
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(Self::PREFIX)?;
        let fits = digits.len() == 64 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        fits.then(|| Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether somebody who gives these digits may mean it.
    fn begins(&self, digits: &str) -> bool {
        digits.len() >= DIGITS_MIN && self.0.strip_prefix(Self::PREFIX).is_some_and(|own| own.starts_with(digits))
    }
}

/// Canonical names to ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tags(BTreeMap<String, ImageId>);

/// A table as it was read.
struct Read {
    tags: Tags,
    /// What is wrong with the rest of it.
    wrong: Vec<String>,
}

impl Tags {
    /// Out of `tags.json` in `dir`. A line that is of no use is left out, the file as it was is set aside in `aside`, and
    /// an image that has lost its names gets one by which it is found: nothing is swept for a damaged table's sake.
    /// `is_whole` says what is wrong with an image, if anything.
    pub(super) fn open(
        dir: &Path,
        aside: &Path,
        is_whole: impl Fn(&ImageId) -> Result<(), String>,
    ) -> Result<Self, Error> {
        let path = file(dir);
        let text = match fs::read(&path) {
            Ok(text) => Some(text),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(Error::file("read", path)(e)),
        };
        let Read { mut tags, mut wrong } = text.as_deref().map_or(Read { tags: Tags::default(), wrong: vec![] }, read);
        tags.0.retain(|name, id| {
            is_whole(id).map_err(|why| wrong.push(format!("image {name} ({}): {why}", id.as_str()))).is_ok()
        });
        if wrong.is_empty() {
            return Ok(tags);
        }
        let to = aside::file(aside, &path, &wrong.join("; "))?;
        for id in nameless(dir, &tags)?.into_iter().filter(|id| is_whole(id).is_ok()) {
            let name = format!("{RECOVERED}@{}", id.as_str());
            match name.parse::<Reference>() {
                Ok(name) => drop(tags.0.insert(name.canonical(), id)),
                Err(e) => tracing::error!(image = id.as_str(), error = %e, "an image has lost its name"),
            }
        }
        tags.write(dir)?;
        tracing::warn!(was = %to.display(), images = tags.0.len(), "the table of images was written again from what can be read");
        Ok(tags)
    }

    pub(super) fn write(&self, dir: &Path) -> Result<(), Error> {
        let table: BTreeMap<&str, &str> = self.0.iter().map(|(name, id)| (name.as_str(), id.as_str())).collect();
        json::write(&file(dir), &table)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &ImageId)> {
        self.0.iter().map(|(name, id)| (name.as_str(), id))
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &ImageId> {
        self.0.values()
    }

    pub(super) fn has_name(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// By its canonical name, or by the beginning of its id.
    pub(super) fn find(&self, name: Option<&str>, digits: &str) -> Option<&ImageId> {
        name.and_then(|name| self.0.get(name)).or_else(|| self.0.values().find(|id| id.begins(digits)))
    }

    pub(super) fn set(&mut self, name: String, id: ImageId) {
        self.0.insert(name, id);
    }

    pub(super) fn remove_name(&mut self, name: &str) {
        self.0.remove(name);
    }

    pub(super) fn remove_names_of(&mut self, id: &str) {
        self.0.retain(|_, own| own.as_str() != id);
    }
}

fn file(dir: &Path) -> PathBuf {
    dir.join("tags.json")
}

fn read(text: &[u8]) -> Read {
    let lines: BTreeMap<String, serde_json::Value> = match serde_json::from_slice(text) {
        Ok(lines) => lines,
        Err(e) => return Read { tags: Tags::default(), wrong: vec![format!("it is damaged: {e}")] },
    };
    let mut read = Read { tags: Tags::default(), wrong: vec![] };
    for (name, id) in lines {
        let known = id.as_str().and_then(ImageId::parse);
        match (name.parse::<Reference>(), known) {
            (Ok(reference), Some(id)) if reference.canonical() == name => drop(read.tags.0.insert(name, id)),
            (Ok(_), Some(_)) => read.wrong.push(format!("{name:?} is not the whole name of an image")),
            (Ok(_), None) => read.wrong.push(format!("{name}: {id} is not sha256: and 64 hexadecimal digits")),
            (Err(e), _) => read.wrong.push(e.to_string()),
        }
    }
    read
}

/// The images whose configurations are here and that no name leads to.
fn nameless(dir: &Path, tags: &Tags) -> Result<Vec<ImageId>, Error> {
    let configs = dir.join("configs");
    let mut out = Vec::new();
    for entry in fs::read_dir(&configs).map_err(Error::file("read", &configs))? {
        let entry = entry.map_err(Error::file("read", &configs))?;
        let id = entry.file_name().to_str().and_then(ImageId::parse);
        out.extend(id.filter(|id| !tags.0.values().any(|named| named == id)));
    }
    out.sort();
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> String {
        format!("sha256:{}", format!("{n:02x}").repeat(32))
    }

    fn is_whole(id: &ImageId) -> Result<(), String> {
        if id.as_str() == self::id(9) { Err("its configuration is damaged".to_owned()) } else { Ok(()) }
    }

    #[test]
    fn a_damaged_line_costs_a_name_and_no_image() {
        let host = tempfile::tempdir().unwrap();
        let (dir, aside) = (host.path().join("images"), host.path().join("aside"));
        fs::create_dir_all(dir.join("configs")).unwrap();
        for n in [1, 2, 3, 9] {
            fs::write(dir.join("configs").join(id(n)), "").unwrap();
        }
        let good = format!("\"docker.io/library/good:latest\": \"{}\"", id(1));
        for (bad, why) in [
            ("\"docker.io/library/bad:latest\": \"ab\"".to_owned(), "is not sha256:"),
            (format!("\"docker.io/library/bad:latest\": \"sha256:\u{e9}{}\"", "0".repeat(62)), "is not sha256:"),
            ("\"docker.io/library/bad:latest\": 7".to_owned(), "is not sha256:"),
            (format!("\"../../x\": \"{}\"", id(2)), "../../x"),
            (format!("\"bad\": \"{}\"", id(2)), "whole name"),
            (format!("\"docker.io/library/bad:latest\": \"{}\"", id(9)), "damaged"),
        ] {
            let text = format!("{{{good}, {bad}}}");
            fs::write(dir.join("tags.json"), &text).unwrap();
            assert!(read(text.as_bytes()).wrong.iter().all(|w| w.contains(why)), "{bad}");
            let tags = Tags::open(&dir, &aside, is_whole).unwrap();
            let names: Vec<&str> = tags.iter().map(|(name, _)| name).collect();
            assert_eq!(names.len(), 3, "{names:?}");
            assert_eq!(tags.find(Some("docker.io/library/good:latest"), "").map(ImageId::as_str), Some(id(1).as_str()));
            for n in [2, 3] {
                let name: Reference = format!("recovered@{}", id(n)).parse().unwrap();
                assert_eq!(tags.find(Some(&name.canonical()), "").map(ImageId::as_str), Some(id(n).as_str()), "{bad}");
            }
            assert_eq!(Tags::open(&dir, &aside, is_whole).unwrap(), tags, "what was written can be read");
            // As it was.
            let kept: Vec<PathBuf> = fs::read_dir(&aside).unwrap().map(|e| e.unwrap().path()).collect();
            assert_eq!(fs::read_to_string(&kept[0]).unwrap(), text);
            fs::remove_dir_all(&aside).unwrap();
        }
        fs::write(dir.join("tags.json"), "{\"docker").unwrap();
        assert_eq!(Tags::open(&dir, &aside, is_whole).unwrap().ids().count(), 3, "all are found again");
    }

    #[test]
    fn an_image_is_called_by_twelve_digits_or_more() {
        let mut tags = Tags::default();
        tags.set("docker.io/library/a:latest".to_owned(), ImageId::parse(&id(1)).unwrap());
        for (digits, found) in [("010101010101", true), ("01010101010", false), ("020202020202", false), ("", false)] {
            assert_eq!(tags.find(None, digits).is_some(), found, "{digits}");
        }
    }
}
