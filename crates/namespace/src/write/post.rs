//! POST to an object.

use std::borrow::Cow;

use base::Timestamp;
use serde::{Deserialize, Serialize};
use shard::{Batch, Execution, Latch, Procedure, View};

use super::Target;
use crate::row::{self, ObjectHead, ObjectRead, ObjectRow};
use crate::{Container, Error, Expired, Missing, Namespace, PostObject};

#[derive(Serialize, Deserialize)]
pub(crate) struct Plan {
    target: Target,
    post: PostObject,
}

impl Procedure for Plan {
    const NAME: &'static str = "object.post";

    type Output = ();
    type Error = Error;

    fn latches(&self) -> Vec<Latch> {
        self.target.latches()
    }

    fn plan(&self, now: Timestamp, view: &View) -> Result<(Batch, ()), Execution<Error>> {
        let bytes = self.target.read_present(view)?;
        let old: ObjectRead<'_> = row::decode(&bytes)?;
        if self.post.expired == Expired::Hide && self.target.is_expired(&old.head) {
            return Err(Error::NotFound(Missing::Object).into());
        }
        let content_type = match &self.post.content_type {
            Some(content_type) => Cow::Borrowed(content_type.as_str()),
            None => old.head.content_type,
        };
        let row = ObjectRow {
            head: ObjectHead {
                modified: now.max(old.head.modified.next()),
                content_type,
                delete_at: self.post.delete_at,
                ..old.head
            },
            metadata: &self.post.metadata,
            body: old.body,
        };
        let mut batch = Batch::new();
        batch.put(self.target.key.clone(), row::encode(&row));
        self.target
            .expire(&mut batch, old.head.delete_at, self.post.delete_at);
        Ok((batch, ()))
    }
}

impl Namespace {
    pub async fn post_object(&self, container: &Container, post: PostObject) -> Result<(), Error> {
        let target = Target::new(container, post.name.clone(), self.now());
        self.execute(container.shard(), Plan { target, post }).await
    }
}
