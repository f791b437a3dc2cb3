//! What a container is made of: what its user says, and what its image says where the user says nothing, as Docker
//! merges the two (`merge` of moby's `daemon/commit.go`).

use shoal_proto::pb;
use std::collections::BTreeMap;

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Made {
    pub(crate) entrypoint: Vec<String>,
    pub(crate) cmd: Vec<String>,
    /// `KEY=VALUE`, the user's first.
    pub(crate) env: Vec<String>,
    pub(crate) user: String,
    pub(crate) workdir: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) exposed_ports: Vec<String>,
    pub(crate) health: pb::HealthCheck,
    pub(crate) stop_signal: String,
    /// The whole command is known: there is an image, or the user named an entrypoint.
    pub(crate) is_whole: bool,
}

impl Made {
    /// `image`: absent if its host does not say.
    pub(crate) fn of(container: &pb::ContainerSpec, image: Option<&pb::InspectImageReply>) -> Self {
        let is_whole = image.is_some() || container.has_entrypoint;
        let image = image.cloned().unwrap_or_default();
        let given = |own: Option<&String>, image: String| own.filter(|own| !own.is_empty()).cloned().unwrap_or(image);
        // An entrypoint of the user's drops the image's command too: it was meant for the other one.
        let (entrypoint, image_cmd) = match container.has_entrypoint {
            true => (container.entrypoint.clone(), Vec::new()),
            false => (image.entrypoint, image.cmd),
        };
        let mut env: Vec<String> = container.env.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let key = |entry: &String| entry.split('=').next().unwrap_or_default().to_owned();
        env.extend(image.env.into_iter().filter(|entry| !container.env.contains_key(&key(entry))));
        let mut labels: BTreeMap<String, String> = image.labels.into_iter().collect();
        labels.extend(container.labels.clone());
        Self {
            entrypoint,
            cmd: if container.args.is_empty() { image_cmd } else { container.args.clone() },
            env,
            user: given(container.user.as_ref(), image.user),
            workdir: given(container.workdir.as_ref(), image.workdir),
            labels,
            exposed_ports: image.exposed_ports,
            health: health(container.health.clone().unwrap_or_default(), image.health.unwrap_or_default()),
            stop_signal: given(Some(&container.stop_signal), image.stop_signal),
            is_whole,
        }
    }

    /// What runs, as far as it is known.
    pub(crate) fn command(&self) -> impl Iterator<Item = &String> {
        self.entrypoint.iter().chain(&self.cmd)
    }
}

/// Each part by itself: whoever changes only the interval keeps the image's test.
fn health(own: pb::HealthCheck, image: pb::HealthCheck) -> pb::HealthCheck {
    let given = |own: u64, image| if own == 0 { image } else { own };
    pb::HealthCheck {
        test: if own.test.is_empty() { image.test } else { own.test },
        interval_ms: given(own.interval_ms, image.interval_ms),
        timeout_ms: given(own.timeout_ms, image.timeout_ms),
        start_period_ms: given(own.start_period_ms, image.start_period_ms),
        start_interval_ms: given(own.start_interval_ms, image.start_interval_ms),
        retries: if own.retries == 0 { image.retries } else { own.retries },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &str) -> Vec<String> {
        words.split_whitespace().map(str::to_owned).collect()
    }

    fn image() -> pb::InspectImageReply {
        pb::InspectImageReply {
            entrypoint: words("/entry -v"),
            cmd: words("serve"),
            env: words("PATH=/bin MODE=image"),
            user: "app".to_owned(),
            workdir: "/srv".to_owned(),
            labels: [("from", "image"), ("both", "image")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            stop_signal: "SIGQUIT".to_owned(),
            health: Some(pb::HealthCheck { test: words("CMD probe"), retries: 2, ..Default::default() }),
            ..Default::default()
        }
    }

    #[test]
    fn the_image_says_what_the_user_leaves_open() {
        let made = Made::of(&pb::ContainerSpec::default(), Some(&image()));
        assert_eq!(made.command().cloned().collect::<Vec<_>>(), words("/entry -v serve"));
        assert_eq!((made.env, made.user.as_str(), made.workdir.as_str()), (image().env, "app", "/srv"));
        assert_eq!((made.stop_signal.as_str(), made.health.test), ("SIGQUIT", words("CMD probe")));
    }

    #[test]
    fn the_user_overrules_the_image_part_by_part() {
        let own = pb::ContainerSpec {
            args: words("mine"),
            env: [("MODE".to_owned(), "own".to_owned())].into(),
            user: Some("root".to_owned()),
            labels: [("both".to_owned(), "own".to_owned())].into(),
            health: Some(pb::HealthCheck { interval_ms: 5, ..Default::default() }),
            ..Default::default()
        };
        let made = Made::of(&own, Some(&image()));
        assert_eq!((made.entrypoint, made.cmd), (words("/entry -v"), words("mine")));
        assert_eq!((made.env, made.user.as_str()), (words("MODE=own PATH=/bin"), "root"));
        let labels: Vec<(&str, &str)> = made.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(labels, [("both", "own"), ("from", "image")]);
        let health = made.health;
        assert_eq!((health.test, health.interval_ms, health.retries), (words("CMD probe"), 5, 2));
    }

    #[test]
    fn an_entrypoint_of_the_users_drops_the_images_command() {
        let own = pb::ContainerSpec { entrypoint: words("/other"), has_entrypoint: true, ..Default::default() };
        let made = Made::of(&own, Some(&image()));
        assert_eq!(made.command().cloned().collect::<Vec<_>>(), words("/other"));
        assert!(Made::of(&own, None).is_whole);
        assert!(!Made::of(&pb::ContainerSpec::default(), None).is_whole, "who knows what its image would have run");
    }
}
