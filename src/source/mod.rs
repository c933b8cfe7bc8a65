//! Where models come from. [`uri`] says what a `storageUri` means, a [`Source`] lists and reads it, [`fetch`] brings
//! it to a local directory. A local directory is served in place.

pub mod fetch;
pub mod memory;
pub mod s3;
pub mod uri;

use std::ops::Range;

use bytes::Bytes;

use crate::error::Result;

/// A store of model files.
pub trait Source: Send + Sync + 'static {
    /// Everything below the URI, in a stable order. Costs requests, reads no content.
    fn manifest(&self) -> impl Future<Output = Result<Vec<RemoteFile>>> + Send;

    /// The bytes of `range` of a file, exactly as they were when the manifest was made.
    ///
    /// # Errors
    /// Also when the file has changed since.
    fn read(&self, file: &RemoteFile, range: Range<u64>) -> impl Future<Output = Result<Bytes>> + Send;
}

/// One file of a [`Source`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RemoteFile {
    /// Where it goes below the model directory: relative, `/` between components, no `..`.
    pub path: String,
    /// What the source calls it.
    pub key: String,
    pub bytes: u64,
    /// Changes when the content does; S3's `ETag`.
    pub tag: String,
}
