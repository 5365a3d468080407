//! DELETE of an object.

use base::Timestamp;
use serde::{Deserialize, Serialize};
use shard::{Batch, Execution, Latch, Procedure, View};

use super::Target;
use crate::row::{self, ObjectRead};
use crate::{Condition, Container, Error, Missing, Namespace};

#[derive(Serialize, Deserialize)]
pub(crate) struct Plan {
    target: Target,
    condition: Condition,
    if_delete_at: Option<u64>,
}

/// What was removed.
#[derive(Serialize, Deserialize)]
pub(crate) enum Deleted {
    Object,
    /// Nobody could see it any more.
    Expired,
}

impl Procedure for Plan {
    const NAME: &'static str = "object.delete";

    type Output = Deleted;
    type Error = Error;

    fn latches(&self) -> Vec<Latch> {
        self.target.latches()
    }

    fn plan(&self, now: Timestamp, view: &View) -> Result<(Batch, Deleted), Execution<Error>> {
        let bytes = self.target.read_present(view)?;
        let old: ObjectRead<'_> = row::decode(&bytes)?;
        if self.if_delete_at.is_some() && self.if_delete_at != old.head.delete_at {
            return Err(Error::Precondition.into());
        }
        let mut deleted = Deleted::Expired;
        if !self.target.is_expired(&old.head) {
            self.condition.check(Some(&old.head.md5))?;
            deleted = Deleted::Object;
        }
        let mut batch = Batch::new();
        self.target.remove(&mut batch, now, &old);
        Ok((batch, deleted))
    }
}

impl Namespace {
    /// Deletes; `if_delete_at` is the expirer's guard: [`Error::Precondition`] if it differs from the
    /// object's. An expired object is removed and [`Error::NotFound`] returned.
    pub async fn delete_object(
        &self,
        container: &Container,
        name: &str,
        condition: Condition,
        if_delete_at: Option<u64>,
    ) -> Result<(), Error> {
        let plan = Plan {
            target: Target::new(container, name.to_owned(), self.now()),
            condition,
            if_delete_at,
        };
        match self.execute(container.shard(), plan).await? {
            Deleted::Object => Ok(()),
            Deleted::Expired => Err(Error::NotFound(Missing::Object)),
        }
    }
}
