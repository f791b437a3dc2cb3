//! Images on this host.

use serde::Serialize;
use shoal_proto::pb;

use super::{ago, time};
use crate::units;

/// A row of `image ls`: each of an image's names has one.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Row {
    pub(crate) repository: String,
    pub(crate) tag: String,
    pub(crate) digest: String,
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) created_at: String,
    pub(crate) created_since: String,
    pub(crate) size: String,
}

const NONE: &str = "<none>";

/// Whole ids, or their first twelve digits.
pub(crate) fn rows(i: &pb::Image, is_whole: bool, now_ms: u64) -> Vec<Row> {
    let short = i.id.strip_prefix("sha256:").and_then(|id| id.get(..12)).filter(|_| !is_whole);
    let (created_at, created_since) = match i.created_ms {
        0 => ("N/A".to_owned(), "N/A".to_owned()),
        ms => (time(ms), ago(ms, now_ms)),
    };
    let names: Vec<(&str, &str, &str)> = match i.references.as_slice() {
        [] => vec![(NONE, NONE, NONE)],
        references => references.iter().map(|r| split(r)).collect(),
    };
    let row = |(repository, tag, digest): (&str, &str, &str)| Row {
        repository: repository.to_owned(),
        tag: tag.to_owned(),
        digest: digest.to_owned(),
        id: short.unwrap_or(&i.id).to_owned(),
        created_at: created_at.clone(),
        created_since: created_since.clone(),
        size: units::size(i.size_bytes),
    };
    names.into_iter().map(row).collect()
}

/// Repository, tag and digest: a colon before the last slash is a port's.
fn split(reference: &str) -> (&str, &str, &str) {
    if let Some((repository, digest)) = reference.split_once('@') {
        return (repository, NONE, digest);
    }
    match reference.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag, NONE),
        Some(_) | None => (reference, "latest", NONE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_reference_is_split_at_its_tag_and_not_at_its_port() {
        assert_eq!(split("nginx:1.27"), ("nginx", "1.27", NONE));
        assert_eq!(split("registry:5000/team/app:v2"), ("registry:5000/team/app", "v2", NONE));
        assert_eq!(split("registry:5000/team/app"), ("registry:5000/team/app", "latest", NONE));
        assert_eq!(split("web@sha256:abc"), ("web", NONE, "sha256:abc"));
    }

    #[test]
    fn each_name_has_a_row_with_dockers_names() {
        let image = pb::Image {
            id: "sha256:0123456789abcdef".into(),
            references: vec!["demo:1".into(), "demo:2".into()],
            size_bytes: 5_000_000,
            created_ms: 1_000,
        };
        let shown: Vec<_> = rows(&image, false, 61_000).iter().map(super::super::value).collect();
        let want = |tag: &str| {
            json!({
                "Repository": "demo", "Tag": tag, "Digest": "<none>", "ID": "0123456789ab",
                "CreatedAt": "1970-01-01T00:00:01.000Z", "CreatedSince": ago(1_000, 61_000),
                "Size": units::size(5_000_000),
            })
        };
        assert_eq!(shown, [want("1"), want("2")]);
        assert_eq!(rows(&image, true, 0)[0].id, image.id);
        let nameless = pb::Image { references: vec![], ..image };
        assert_eq!(rows(&nameless, false, 0)[0].repository, "<none>");
    }
}
