//! Accounts, containers, objects, users: what the protocols share.

mod account;
mod body;
mod container;
mod error;
mod listing;
mod metadata;
mod object;
mod users;

pub use account::{Account, ContainerEntry, Usage};
pub use body::{BodyReader, Stored, Upload};
pub use container::{Container, Created};
pub use error::{Error, Missing};
pub use listing::{Entry, ListQuery, Subdirs};
pub use metadata::{Metadata, MetadataChange, MetadataLimits};
pub use object::{
    AccountQuota, Condition, Expired, Fetch, Found, Object, ObjectEntry, PostObject, PutObject,
    Written,
};
pub use users::{Role, User, Users};

/// The namespace of the cluster. Cheap to clone.
#[derive(Clone)]
pub struct Namespace {}
