//! Recordings on their way into the catalogue, after their seal.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use super::Lifecycle;
use crate::session::SessionId;

/// Why a recording is not in the catalogue; for the log.
type Why = Box<dyn std::error::Error + Send + Sync>;

impl Lifecycle {
    /// Indexes what is sealed and not indexed yet, and then what will be.
    pub(super) fn index_recordings(self: &Arc<Self>) {
        let Some(mut sealed) = self.to_index.begin() else { return };
        let this = Arc::downgrade(self);
        tokio::spawn(async move {
            match this.upgrade() {
                Some(this) => this.index_missed().await,
                None => return,
            }
            while let Some(id) = sealed.recv().await {
                let Some(this) = this.upgrade() else { return };
                this.index(&id).await;
                if this.to_index.missed() {
                    this.index_missed().await;
                }
            }
        });
    }

    /// What an earlier process or a full queue left out, oldest first.
    async fn index_missed(&self) {
        match self.not_indexed().await {
            Ok(missed) => {
                for id in missed {
                    self.index(&id).await;
                }
            }
            Err(_) if self.rooms.catalogue.is_closed() => {}
            Err(error) => tracing::error!(%error, "recordings are not indexed"),
        }
    }

    async fn not_indexed(&self) -> Result<Vec<SessionId>, Why> {
        let known = self.rooms.catalogue.known().await?;
        let mut here = self.in_spool().await?;
        let in_spool: HashSet<String> = here.iter().map(|found| found.id.to_string()).collect();
        here.retain(|found| found.sealed && !known.contains(found.id.as_str()));
        here.sort_by_key(|found| found.modified);
        // What has left the spool is older than what is in it.
        let mut missed = Vec::new();
        if self.rooms.archive.is_some() {
            let archived = self.rooms.registry.all_archived().await?;
            let gone = archived.iter().filter(|id| !known.contains(*id) && !in_spool.contains(*id));
            missed.extend(gone.filter_map(|id| SessionId::parse(id).ok()));
        }
        missed.extend(here.into_iter().map(|found| found.id));
        Ok(missed)
    }

    async fn index(&self, id: &SessionId) {
        // The gateway stops: whoever starts next finds what is left.
        if self.rooms.catalogue.is_closed() {
            return;
        }
        let alone = self.indexing_or_deleting.lock().await;
        let done = self.add_to_catalogue(id).await;
        drop(alone);
        if done.is_err() && self.rooms.catalogue.is_closed() {
            return;
        }
        let result = if done.is_ok() { "indexed" } else { "failed" };
        self.rooms.metrics.catalogued.with_label_values(&[result]).inc();
        if let Err(error) = done {
            tracing::error!(session = %id, %error, "the recording cannot be searched");
        } else {
            self.keep_no_longer(id).await;
        }
    }

    async fn add_to_catalogue(&self, id: &SessionId) -> Result<(), Why> {
        if let Some(found) = self.rooms.store.find(id)? {
            return Ok(self.rooms.catalogue.add(id, &found.path).await?);
        }
        let Some(archive) = &self.rooms.archive else { return Ok(()) };
        let Some(reading) = archive.read(id, &self.rooms.recorder.known_keys()).await? else { return Ok(()) };
        let path = self.rooms.recorder.spool().scratch_path(id);
        let copied = async {
            let mut file = private(&path)?;
            reading.copy(&mut file).await?;
            Ok::<_, Why>(self.rooms.catalogue.add(id, &path).await?)
        };
        let copied = copied.await;
        let removed = std::fs::remove_file(&path);
        copied.and(Ok(removed?))
    }
}

fn private(path: &Path) -> std::io::Result<File> {
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
}
