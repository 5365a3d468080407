//! One request to the API on its way through the handlers.

use gateway::query::Query;
use gateway::{Request, State};
use http::StatusCode;
use namespace::{Container, Held, Metadata};

use crate::authorise::{self, Operation, Standing};
use crate::config::{ACCOUNT_NAME_BYTES_MAX, CONTAINER_NAME_BYTES_MAX, OBJECT_NAME_BYTES_MAX};
use crate::identity::Caller;
use crate::path::{Path, Place};
use crate::respond::Refusal;
use crate::service::Swift;

pub(crate) struct Call<'a> {
    pub(crate) swift: &'a Swift,
    pub(crate) request: &'a mut Request,
    pub(crate) path: Path<'a>,
    pub(crate) query: Query<'a>,
    pub(crate) caller: Caller,
}

impl Call<'_> {
    /// Whether the caller may do it; `container` is the one of `path`, if there is one. The account's
    /// ACL is looked up only for users whose own role does not grant it.
    pub(crate) async fn authorise(
        &self,
        operation: Operation,
        path: &Path<'_>,
        container: Option<&Metadata>,
    ) -> Result<Standing, Refusal> {
        if let Some(standing) = authorise::by_role(operation, path.account, &self.caller) {
            return Ok(standing);
        }
        let referrer = authorise::referrer(&self.request.headers);
        let granted = container.and_then(|metadata| {
            authorise::by_container(operation, metadata, referrer, &self.caller)
        });
        if let Some(standing) = self.by_account(operation, path).await?.max(granted) {
            return Ok(standing);
        }
        Err(authorise::denied(&self.caller, Some(path)))
    }

    async fn by_account(
        &self,
        operation: Operation,
        path: &Path<'_>,
    ) -> Result<Option<Standing>, Refusal> {
        if self.caller.user.is_none() {
            return Ok(None);
        }
        let account = self.swift.namespace.account(path.account).await?;
        let granted = account
            .and_then(|account| authorise::by_account(operation, &account.metadata, &self.caller));
        Ok(granted)
    }

    /// The container of a path, if there is one. Names that cannot be stored are not even looked for.
    pub(crate) async fn find_container(
        &self,
        path: &Path<'_>,
    ) -> Result<Option<Container>, Refusal> {
        match path.container() {
            Some(name) if check_names(path).is_ok() => {
                found_or_none(self.swift.namespace.container(path.account, name).await)
            }
            _ => Ok(None),
        }
    }

    /// As [`Call::open`], with what the container holds at the same moment.
    pub(crate) async fn open_held(
        &self,
        operation: Operation,
        path: &Path<'_>,
    ) -> Result<(Container, Held, Standing), Refusal> {
        self.request.progress.enter(State::Authorising);
        let found = match path.container() {
            Some(name) if check_names(path).is_ok() => {
                let namespace = &self.swift.namespace;
                found_or_none(namespace.container_held(path.account, name).await)?
            }
            _ => None,
        };
        let metadata = found.as_ref().map(|(container, _)| &container.metadata);
        let standing = self.authorise(operation, path, metadata).await?;
        match found {
            Some((container, held)) => Ok((container, held, standing)),
            None => Err(Refusal::new(StatusCode::NOT_FOUND)),
        }
    }

    /// The container of a path, for a caller who may do `operation` in it. Whether there is one is
    /// told only to them.
    pub(crate) async fn open(
        &self,
        operation: Operation,
        path: &Path<'_>,
    ) -> Result<(Container, Standing), Refusal> {
        self.request.progress.enter(State::Authorising);
        let container = self.find_container(path).await?;
        let metadata = container.as_ref().map(|container| &container.metadata);
        let standing = self.authorise(operation, path, metadata).await?;
        match container {
            Some(container) => Ok((container, standing)),
            None => Err(Refusal::new(StatusCode::NOT_FOUND)),
        }
    }
}

/// What is missing is nothing; other errors stay errors.
pub(crate) fn found_or_none<T>(found: Result<T, namespace::Error>) -> Result<Option<T>, Refusal> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(namespace::Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Refuses names that are too long to be stored.
pub(crate) fn check_names(path: &Path<'_>) -> Result<(), Refusal> {
    check_name("Account", path.account, ACCOUNT_NAME_BYTES_MAX)?;
    if let Some(container) = path.container() {
        check_name("Container", container, CONTAINER_NAME_BYTES_MAX)?;
    }
    if let Place::Object(_, object) = path.place {
        check_name("Object", object, OBJECT_NAME_BYTES_MAX)?;
    }
    Ok(())
}

fn check_name(what: &str, name: &str, bytes_max: usize) -> Result<(), Refusal> {
    if name.len() <= bytes_max {
        return Ok(());
    }
    let length = name.len();
    let sentence = format!("{what} name length of {length} longer than {bytes_max}");
    Err(Refusal::bad(sentence))
}
