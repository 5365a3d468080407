//! Requests to an account.

use gateway::{Body, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use namespace::{Account, ContainerEntry, Created, Usage};

use crate::accept::{self, Chosen};
use crate::authorise::Operation;
use crate::call::{Call, check_names};
use crate::config::POLICY;
use crate::headers::{X_TIMESTAMP, number, value};
use crate::listing;
use crate::metadata::{self, ACCOUNT};
use crate::path::Place;
use crate::render::{self, ContainerLine};
use crate::respond::{Refusal, done};
use crate::service::{methods, not_allowed};

impl Call<'_> {
    pub(crate) async fn account(&mut self, method: &Method) -> Result<Response, Refusal> {
        match *method {
            Method::GET | Method::HEAD => self.get_account(method).await,
            Method::POST => self.post_account().await,
            Method::PUT | Method::DELETE => self.manage_account(method).await,
            _ => Ok(not_allowed(methods(Place::Account))),
        }
    }

    async fn get_account(&self, method: &Method) -> Result<Response, Refusal> {
        let path = &self.path;
        let standing = self.authorise(Operation::ReadAccount, path, None).await?;
        let chosen = accept::choose(self.query.bytes("format"), &self.request.headers)?;
        let query = listing::parse(&self.query)?;
        let namespace = &self.swift.namespace;
        let account = namespace.account(path.account).await?;
        let usage = namespace.usage(path.account).await?;
        let mut response = if *method == Method::HEAD {
            listing_answer(String::new(), chosen)
        } else {
            let policies = namespace.policies();
            let line = |entry: ContainerEntry| ContainerLine {
                policy: policies.name(entry.policy),
                entry,
            };
            let entries = namespace.list_containers(path.account, &query).await?;
            let entries: Vec<_> = entries.into_iter().map(|one| one.map(line)).collect();
            let text = render::listing(path.account, &entries, chosen.format);
            listing_answer(text, chosen)
        };
        let headers = response.headers_mut();
        show_usage(&usage, namespace.policies().list.len() == 1, headers);
        if let Some(account) = account.as_deref() {
            let Account {
                created, metadata, ..
            } = account;
            headers.insert(X_TIMESTAMP.clone(), value(created.to_string()));
            metadata::show(metadata, standing, headers);
        } else {
            let never = HeaderValue::from_static("0000000000.00000");
            headers.insert(X_TIMESTAMP.clone(), never);
        }
        Ok(response)
    }

    async fn post_account(&self) -> Result<Response, Refusal> {
        self.change_account(Operation::WriteAccount).await?;
        Ok(done(StatusCode::NO_CONTENT))
    }

    async fn change_account(&self, operation: Operation) -> Result<Created, Refusal> {
        let standing = self.authorise(operation, &self.path, None).await?;
        check_names(&self.path)?;
        let change = metadata::account_change(&self.request.headers, standing)?;
        let namespace = &self.swift.namespace;
        let account = self.path.account;
        Ok(namespace
            .update_account(account, change, ACCOUNT.limits())
            .await?)
    }

    async fn manage_account(&self, method: &Method) -> Result<Response, Refusal> {
        if !self.swift.config.allow_account_management {
            return Ok(not_allowed("GET, HEAD, POST, OPTIONS"));
        }
        if *method == Method::PUT {
            return Ok(done(
                match self.change_account(Operation::ManageAccount).await? {
                    Created::New => StatusCode::CREATED,
                    Created::Existed => StatusCode::ACCEPTED,
                },
            ));
        }
        self.authorise(Operation::ManageAccount, &self.path, None)
            .await?;
        if !self.query.is_empty() {
            // Perhaps a bulk delete whose middleware a client expected.
            return Err(Refusal::bad("Account DELETE takes no query"));
        }
        self.swift
            .namespace
            .delete_account(self.path.account)
            .await?;
        Ok(done(StatusCode::NO_CONTENT))
    }
}

/// What containers of one policy hold is known only if there is one.
fn show_usage(usage: &Usage, is_of_one_policy: bool, to: &mut HeaderMap) {
    let policy = POLICY.to_ascii_lowercase();
    for (what, count) in [
        ("container-count", usage.containers),
        ("object-count", usage.objects),
        ("bytes-used", usage.bytes),
    ] {
        let all = format!("x-account-{what}");
        let of_policy = format!("x-account-storage-policy-{policy}-{what}");
        for name in [Some(all), is_of_one_policy.then_some(of_policy)] {
            let Some(name) = name else { continue };
            let name = HeaderName::try_from(name).expect("a policy's name is a word");
            to.insert(name, number(count));
        }
    }
}

/// A listing, with the status and the headers that it has whatever it lists.
pub(crate) fn listing_answer(text: String, chosen: Chosen) -> Response {
    let mut response = if text.is_empty() {
        done(StatusCode::NO_CONTENT)
    } else {
        Response::new(Body::from(text))
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, chosen.format.content_type());
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if chosen.by_accept {
        headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    }
    response
}
