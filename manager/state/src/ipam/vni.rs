//! VNIs: next-fit, so that a removed network's number rests before a host could mistake the new one for the old.

use shoal_common::Vni;

use crate::{reply::Rejection, state::State};

impl State {
    pub(crate) fn take_vni(&mut self) -> Result<Vni, Rejection> {
        let in_use: std::collections::BTreeSet<Vni> = self.networks.values().filter_map(|n| n.vni).collect();
        let start = match self.last_vni {
            Some(last) if last < Vni::LAST => last.get() + 1,
            Some(_) | None => Vni::FIRST.get(),
        };
        let vni = (start..=Vni::LAST.get())
            .chain(Vni::FIRST.get()..start)
            .filter_map(|n| Vni::try_from(n).ok())
            .find(|vni| !in_use.contains(vni))
            .ok_or(Rejection::VniExhausted)?;
        self.last_vni = Some(vni);
        Ok(vni)
    }
}
