//! A log that cannot be gone on with, for who sets it aside: what is wrong with it, and all that it says.

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;

use secretfs_wire::ChainId;
use secretfs_wire::audit::CaBundle;

use super::reading::Reader;
use super::{Audit, Kept, patrol};
use crate::store::StoreError;

/// Why a log was not written out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteOutError {
    #[error("it cannot be read")]
    Read(#[from] StoreError),
    #[error("a file cannot be written")]
    Write(#[from] io::Error),
}

impl Audit {
    /// What is wrong with all that is kept, if something is. It takes as long as there are records.
    pub(crate) async fn examine(&self, authority: CaBundle) -> Option<String> {
        if let (None, Some(Kept { chain, log })) = (self.status.broken_reason(), &self.kept) {
            patrol::look(Arc::clone(log), *chain, authority, self.status.clone()).await;
        }
        self.status.broken_reason()
    }

    /// Writes each chain, as far as it can be read, into a file of its own, as `audit export` has it.
    pub(crate) async fn write_out(
        &self,
        create: impl Fn(ChainId) -> io::Result<File>,
    ) -> Result<(), WriteOutError> {
        let Some(Kept { log, .. }) = &self.kept else { return Ok(()) };
        for chain in log.chains().await? {
            let mut file = create(chain.id)?;
            let mut reader = Reader::begin(Arc::clone(log), chain.id, 1).await?;
            while let Some(items) = reader.some().await? {
                let mut text = String::new();
                items.iter().for_each(|item| item.write(&mut text));
                file.write_all(text.as_bytes())?;
            }
            file.sync_all()?;
        }
        Ok(())
    }
}
