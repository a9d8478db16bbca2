//! Subscriptions to resources: what tells of updates, and what ends with it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::connection::Connection;
use super::{Inner, OnConnection, Session};
use crate::error::Error;
use crate::middleware::Unsubscribe;

/// How often a subscription looks whether its connection still stands.
const LOOK: Duration = Duration::from_secs(1);

/// A subscription to a resource. It ends with [`Subscription::end`], when it is dropped, or with the connection.
pub struct Subscription {
    pub(super) session: Session,
    pub(super) connection: Arc<Connection>,
    pub(super) uri: Option<String>,
    pub(super) updates: broadcast::Receiver<String>,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("uri", &self.uri).finish_non_exhaustive()
    }
}

impl Subscription {
    /// Waits until the resource is updated; `None` when the connection has ended. Updates that come faster than they are taken may be
    /// told as one.
    pub async fn next(&mut self) -> Option<()> {
        loop {
            match tokio::time::timeout(LOOK, self.updates.recv()).await {
                Ok(Ok(uri)) if self.uri.as_deref() == Some(&uri) => return Some(()),
                Ok(Err(RecvError::Lagged(_))) => return Some(()),
                Ok(Ok(_)) => {}
                Err(_) if self.uri.as_ref().is_some_and(|uri| self.connection.tells_of(uri)) => {}
                Ok(Err(RecvError::Closed)) | Err(_) => return None,
            }
        }
    }

    /// Ends the subscription, and waits until the server knows.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn end(mut self) -> Result<(), Error> {
        match self.uri.take() {
            Some(uri) => unsubscribe(&self.session.inner, &self.connection, uri).await,
            None => Ok(()),
        }
    }
}

/// Tells the server, if this was the last subscription to the resource.
async fn unsubscribe(inner: &Inner, connection: &Connection, uri: String) -> Result<(), Error> {
    let mut subscribed = connection.subscribed.lock().await;
    let count = subscribed.entry(uri.clone()).or_default();
    *count = count.saturating_sub(1);
    if *count > 0 {
        return Ok(());
    }
    subscribed.remove(&uri);
    if !connection.is_open() {
        return Ok(());
    }
    let end = OnConnection { inner, connection };
    inner.settings.middleware.run::<Unsubscribe>(&inner.name, inner.transport(), uri, &end).await
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let (Some(uri), Ok(runtime)) = (self.uri.take(), tokio::runtime::Handle::try_current()) else { return };
        if !self.connection.is_open() {
            return;
        }
        // Not the session and its connection themselves, which would outlive their client for it.
        let (session, connection) = (Arc::downgrade(&self.session.inner), Arc::downgrade(&self.connection));
        runtime.spawn(async move {
            if let (Some(inner), Some(connection)) = (session.upgrade(), connection.upgrade()) {
                let _ = unsubscribe(&inner, &connection, uri).await;
            }
        });
    }
}
