//! Who a container runs as: `USER[:GROUP]`, numbers or names out of the image's own files.

use crate::ids::Ids;

/// Ids as the kernel knows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The group itself, as with Docker, and those of which `/etc/group` says that the user is a member.
    pub(crate) groups: Vec<u32>,
    /// As `/etc/passwd` has it; empty if that does not know the user.
    pub(crate) home: String,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnknownUser {
    #[error("there is no user {0} in /etc/passwd of the image")]
    User(String),
    #[error("there is no group {0} in /etc/group of the image")]
    Group(String),
}

/// An id that the image knows, and this host's kernel does not.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is to run as user {uid} and group {gid}, and on this host there are only those of its user namespace (it is of a \
     lab without root, say): run it as root (--user 0), who is nobody special there, or on a host that has them"
)]
pub(crate) struct Absent {
    uid: u32,
    gid: u32,
}

impl User {
    /// A process's environment, with `HOME` unless it has one.
    pub(crate) fn environment(&self, mut env: Vec<String>) -> Vec<String> {
        if !env.iter().any(|one| one.starts_with("HOME=")) {
            env.push(format!("HOME={}", if self.home.is_empty() { "/" } else { &self.home }));
        }
        env
    }

    /// The same, as far as this host allows.
    pub(crate) fn on(self, ids: &Ids) -> Result<Self, Absent> {
        if !ids.have_user(self.uid) || !ids.have_group(self.gid) {
            return Err(Absent { uid: self.uid, gid: self.gid });
        }
        Ok(Self { groups: if ids.allow_setgroups() { self.groups } else { Vec::new() }, ..self })
    }
}

/// `passwd` and `group` are the texts of those files; empty if the image has none.
pub(crate) fn resolve(wanted: &str, passwd: &str, group: &str) -> Result<User, UnknownUser> {
    let (user, wanted_group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|g| !g.is_empty())),
        None => (wanted, None),
    };
    let user = if user.is_empty() { "0" } else { user };

    // name:password:uid:gid:comment:home:…  A name wins over a number, as with Docker.
    let entries = || passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(|f| f.len() >= 4);
    let number = user.parse::<u32>().ok();
    let entry = entries()
        .find(|f| f[0] == user)
        .or_else(|| entries().find(|f| number.is_some() && f[2].parse().ok() == number));
    let home = entry.as_ref().and_then(|f| f.get(5)).map_or_else(String::new, |home| (*home).to_owned());
    let (name, uid, own_gid) = match (&entry, number) {
        (Some(f), _) => match (f[2].parse(), f[3].parse()) {
            (Ok(uid), Ok(gid)) => (Some(f[0]), uid, gid),
            _ => return Err(UnknownUser::User(user.to_owned())),
        },
        (None, Some(uid)) => (None, uid, 0),
        (None, None) => return Err(UnknownUser::User(user.to_owned())),
    };

    // name:password:gid:member,member
    let groups = || group.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(|f| f.len() >= 3);
    let Some(wanted_group) = wanted_group else {
        let member = |f: &Vec<&str>| f.get(3).is_some_and(|m| m.split(',').any(|m| Some(m) == name));
        let more = groups().filter(member).filter_map(|f| f[2].parse().ok()).filter(|gid| *gid != own_gid);
        return Ok(User { uid, gid: own_gid, groups: [own_gid].into_iter().chain(more).collect(), home });
    };
    let gid = groups()
        .find(|f| f[0] == wanted_group)
        .and_then(|f| f[2].parse().ok())
        .or_else(|| wanted_group.parse().ok())
        .ok_or_else(|| UnknownUser::Group(wanted_group.to_owned()))?;
    Ok(User { uid, gid, groups: vec![gid], home })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,web\nweb:x:34:web\nlogs:x:70:web\n";

    #[test]
    fn users_are_found_by_name_and_by_number() {
        let user =
            |uid, gid, groups: &[u32], home: &str| User { uid, gid, groups: groups.into(), home: home.to_owned() };
        let web = user(33, 34, &[34, 10, 70], "/srv");
        let table = [
            ("", user(0, 0, &[0, 10], "/root")),
            ("web", web.clone()),
            ("33", web),
            ("web:logs", user(33, 70, &[70], "/srv")),
            ("1000", user(1000, 0, &[0], "")),
            ("1000:1001", user(1000, 1001, &[1001], "")),
        ];
        for (wanted, user) in table {
            assert_eq!(resolve(wanted, PASSWD, GROUP), Ok(user), "{wanted}");
        }
        assert_eq!(resolve("nobody", PASSWD, GROUP), Err(UnknownUser::User("nobody".into())));
        assert_eq!(resolve("web:nogroup", PASSWD, GROUP), Err(UnknownUser::Group("nogroup".into())));
    }

    #[test]
    fn a_user_has_a_home_unless_it_was_given_another() {
        for (wanted, env, home) in [
            ("", vec![], "HOME=/root"),
            ("web", vec![], "HOME=/srv"),
            ("1000", vec![], "HOME=/"),
            ("web", vec!["HOME=/else".to_owned()], "HOME=/else"),
        ] {
            assert_eq!(resolve(wanted, PASSWD, GROUP).unwrap().environment(env), [home], "{wanted}");
        }
    }

    #[test]
    fn who_is_not_on_the_host_is_named_and_groups_that_cannot_be_had_are_let_go() {
        let root = resolve("", PASSWD, GROUP).unwrap();
        assert_eq!(root.clone().on(&Ids::all()), Ok(root.clone()));
        assert_eq!(root.clone().on(&Ids::roots_alone()), Ok(User { groups: vec![], ..root }));
        let web = resolve("web", PASSWD, GROUP).unwrap();
        assert_eq!(web.clone().on(&Ids::all()), Ok(web.clone()));
        assert_eq!(web.on(&Ids::roots_alone()), Err(Absent { uid: 33, gid: 34 }));
    }

    #[test]
    fn an_image_without_files_knows_numbers_only() {
        assert_eq!(resolve("7:8", "", ""), Ok(User { uid: 7, gid: 8, groups: vec![8], ..User::default() }));
        assert_eq!(resolve("root", "", ""), Err(UnknownUser::User("root".into())));
    }
}
