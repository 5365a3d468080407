//! Requests to a container.

use gateway::Response;
use http::{HeaderMap, Method, StatusCode, header};
use namespace::{Container, Created, Held, Namespace, PolicyChoice};

use crate::accept;
use crate::account::listing_answer;
use crate::authorise::Operation;
use crate::call::{Call, check_names};
use crate::headers::{X_STORAGE_POLICY, X_TIMESTAMP, number, value};
use crate::metadata::{self, CONTAINER};
use crate::respond::{Refusal, done};
use crate::service::{methods, not_allowed};
use crate::{listing, render};

impl Call<'_> {
    pub(crate) async fn container(&mut self, method: &Method) -> Result<Response, Refusal> {
        match *method {
            Method::GET | Method::HEAD => self.get_container(method).await,
            Method::PUT => self.put_container().await,
            Method::POST => self.post_container().await,
            Method::DELETE => self.delete_container().await,
            _ => Ok(not_allowed(methods(self.path.place))),
        }
    }

    async fn get_container(&self, method: &Method) -> Result<Response, Refusal> {
        let (container, held, standing) =
            self.open_held(Operation::ReadContainer, &self.path).await?;
        let chosen = accept::choose(self.query.bytes("format"), &self.request.headers)?;
        let query = listing::parse(&self.query)?;
        let mut response = if *method == Method::HEAD {
            listing_answer(String::new(), chosen)
        } else {
            let entries = self
                .swift
                .namespace
                .list_objects(&container, &query)
                .await?;
            let text = render::listing(&container.name, &entries, chosen.format);
            listing_answer(text, chosen)
        };
        let headers = response.headers_mut();
        show(&container, held, headers);
        let policy = self.swift.namespace.policies().name(container.policy);
        headers.insert(X_STORAGE_POLICY.clone(), value(policy));
        metadata::show(&container.metadata, standing, headers);
        Ok(response)
    }

    async fn put_container(&self) -> Result<Response, Refusal> {
        let operation = Operation::WriteContainer;
        let standing = self.authorise(operation, &self.path, None).await?;
        check_names(&self.path)?;
        let policy = policy_choice(&self.swift.namespace, &self.request.headers).await?;
        let change = metadata::container_change(&self.request.headers, standing)?;
        let name = self.path.container().unwrap_or_default();
        let namespace = &self.swift.namespace;
        let account = self.path.account;
        let created = namespace.put_container(account, name, change, CONTAINER.limits(), policy);
        Ok(done(match created.await? {
            Created::New => StatusCode::CREATED,
            Created::Existed => StatusCode::ACCEPTED,
        }))
    }

    async fn post_container(&self) -> Result<Response, Refusal> {
        let (container, standing) = self.open(Operation::WriteContainer, &self.path).await?;
        let change = metadata::container_change(&self.request.headers, standing)?;
        let namespace = &self.swift.namespace;
        let (account, name) = (&container.account, &container.name);
        namespace
            .post_container(account, name, change, CONTAINER.limits())
            .await?;
        Ok(done(StatusCode::NO_CONTENT))
    }

    async fn delete_container(&self) -> Result<Response, Refusal> {
        let (container, _) = self.open(Operation::WriteContainer, &self.path).await?;
        let namespace = &self.swift.namespace;
        namespace
            .delete_container(&container.account, &container.name)
            .await?;
        Ok(done(StatusCode::NO_CONTENT))
    }
}

fn show(container: &Container, held: Held, to: &mut HeaderMap) {
    let names = [
        ("x-container-object-count", held.objects),
        ("x-container-bytes-used", held.bytes),
    ];
    for (name, count) in names {
        to.insert(name, number(count));
    }
    to.insert(X_TIMESTAMP.clone(), value(container.created.to_string()));
    let modified = gateway::date::header(container.modified.secs_ceil());
    to.insert(header::LAST_MODIFIED, modified);
}

/// A container is born with a policy and keeps it.
async fn policy_choice(
    namespace: &Namespace,
    headers: &HeaderMap,
) -> Result<PolicyChoice, Refusal> {
    let given = headers.get(&X_STORAGE_POLICY);
    let Some(given) = given.filter(|given| !given.is_empty()) else {
        return Ok(PolicyChoice {
            place: namespace.policies().default,
            is_demanded: false,
        });
    };
    let given = String::from_utf8_lossy(given.as_bytes());
    match namespace.find_policy(&given).await {
        Some(place) => Ok(PolicyChoice {
            place,
            is_demanded: true,
        }),
        None => Err(Refusal::bad(format!("Invalid X-Storage-Policy '{given}'"))),
    }
}
