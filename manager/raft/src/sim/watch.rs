//! As `tokio::sync::watch`, as far as this crate uses it, but who waits is woken in the order of waiting. Tokio's wakes
//! in an order drawn by chance, so that one seed would run in many ways.

use openraft::async_runtime::{RecvError, Watch as _, WatchReceiver as _, WatchSender as _};
use openraft_rt_sim::{SimWatch, SimWatchReceiver, SimWatchRef, SimWatchSender};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
};

pub struct Sender<T> {
    sender: SimWatchSender<T>,
    /// Held by every receiver.
    receivers: Arc<Mutex<Weak<()>>>,
}

pub struct Receiver<T> {
    receiver: SimWatchReceiver<T>,
    _held: Arc<()>,
}

pub(crate) fn channel<T: Send + Sync>(value: T) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = SimWatch::channel(value);
    let held = Arc::new(());
    let receivers = Arc::new(Mutex::new(Arc::downgrade(&held)));
    (Sender { sender, receivers }, Receiver { receiver, _held: held })
}

impl<T: Send + Sync> Sender<T> {
    pub(crate) fn new(value: T) -> Self {
        channel(value).0
    }

    pub(crate) fn subscribe(&self) -> Receiver<T> {
        let mut receivers = self.receivers.lock().unwrap_or_else(PoisonError::into_inner);
        let held = receivers.upgrade().unwrap_or_default();
        *receivers = Arc::downgrade(&held);
        Receiver { receiver: self.sender.subscribe(), _held: held }
    }

    pub(crate) fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        self.sender.send_if_modified(modify)
    }

    pub(crate) fn send_modify(&self, modify: impl FnOnce(&mut T)) {
        self.sender.send_if_modified(|shown| {
            modify(shown);
            true
        });
    }

    pub(crate) fn send_replace(&self, mut value: T) -> T {
        self.send_modify(|shown| std::mem::swap(shown, &mut value));
        value
    }

    pub(crate) fn borrow(&self) -> SimWatchRef<'_, T> {
        self.sender.borrow_watched()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.receivers.lock().unwrap_or_else(PoisonError::into_inner).strong_count() == 0
    }

    /// Never: whoever waits for it in this crate ends by other means too, when Raft ends.
    pub(crate) async fn closed(&self) {
        std::future::pending().await
    }
}

impl<T: Send + Sync> Receiver<T> {
    pub fn borrow(&self) -> SimWatchRef<'_, T> {
        self.receiver.borrow_watched()
    }

    pub fn borrow_and_update(&mut self) -> SimWatchRef<'_, T> {
        self.receiver.borrow_and_update()
    }

    pub async fn changed(&mut self) -> Result<(), RecvError> {
        self.receiver.changed().await
    }

    pub async fn wait_for(&mut self, mut holds: impl FnMut(&T) -> bool + Send) -> Result<(), RecvError> {
        while !holds(&self.receiver.borrow_and_update()) {
            self.receiver.changed().await?;
        }
        Ok(())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), receivers: Arc::clone(&self.receivers) }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self { receiver: self.receiver.clone(), _held: Arc::clone(&self._held) }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}
