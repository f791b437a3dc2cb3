//! Who is answered names: whom the host's resolver serves, brought in line with which containers there are.

use shoal_common::{TaskId, assignment::Assignment};
use shoal_dns::Scope;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::sync::watch;

use crate::{
    chain,
    resolver::{Client, Error},
};

const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub(super) struct Names {
    resolver: Client,
    /// Rises with every resolver process that has ended.
    pub(super) ended: watch::Receiver<u64>,
    /// Whom the resolver may serve; all others it is told to stop serving.
    kept: watch::Sender<BTreeSet<TaskId>>,
}

/// A container's resolver listens, unless its process has ended since.
#[derive(Debug)]
pub(super) struct Serving {
    ended: watch::Receiver<u64>,
    at: u64,
    scope: Scope,
}

impl Serving {
    /// For a container that may see this.
    pub(super) fn is_alive(&self, scope: &Scope) -> bool {
        *self.ended.borrow() == self.at && self.scope == *scope
    }
}

impl Names {
    pub(super) fn new(resolver: Client) -> Self {
        Self { ended: resolver.ended(), resolver, kept: watch::Sender::default() }
    }

    /// Keeps the resolver there, told and in line. Never ends by itself.
    pub(super) async fn run(self) {
        tokio::join!(self.resolver.run(), self.keep());
    }

    /// From now on every answer is made from this.
    pub(super) fn tell(&self, assignment: &Arc<Assignment>) {
        self.resolver.tell(Arc::clone(assignment));
    }

    pub(super) async fn host_resolv_conf(&self) -> Option<String> {
        let path = self.resolver.resolv_conf();
        match tokio::fs::read_to_string(path).await {
            Ok(text) => Some(text),
            Err(error) => {
                tracing::debug!(%error, path = %path.display(), "cannot read the host's resolv.conf");
                None
            }
        }
    }

    /// It listens when this returns.
    pub(super) async fn serve(&self, task: TaskId, scope: Scope) -> Result<Serving, Error> {
        let ended = self.resolver.ended();
        let at = *ended.borrow();
        self.resolver.serve(task, scope.clone()).await?;
        Ok(Serving { ended, at, scope })
    }

    /// Nobody else is served from now on.
    pub(super) fn retain(&self, kept: BTreeSet<TaskId>) {
        self.kept.send_if_modified(|before| {
            let news = *before != kept;
            *before = kept;
            news
        });
    }

    async fn keep(&self) {
        let mut kept = self.kept.subscribe();
        while kept.changed().await.is_ok() {
            let now = kept.borrow_and_update().clone();
            let stopped = async {
                for task in self.resolver.serving().await?.difference(&now) {
                    self.resolver.stop(*task).await?;
                }
                Ok::<_, Error>(())
            };
            if let Err(error) = stopped.await {
                tracing::warn!(error = chain(&error), "containers that have ended may still be answered names");
                tokio::time::sleep(RETRY).await;
                kept.mark_changed();
            }
        }
    }
}
