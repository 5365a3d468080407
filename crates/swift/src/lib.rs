//! Swift API v1: parse, authorise, render. No storage decisions.
//!
//! [`Swift`] is a front door of the gateway over a [`namespace::Namespace`]. One request goes down
//! this list: its path is cut ([`path`]), its token read ([`token`], [`identity`]), the entity looked up,
//! the caller authorised ([`mod@authorise`]), headers and parameters checked ([`metadata`], [`expiry`],
//! [`listing`], ...), the namespace asked, and the answer rendered. Every error on the way is a
//! [`respond::Refusal`], and one function there says what each error of the namespace is in Swift's
//! words.
//!
//! **Invariant:** what nothing grants is denied, and whoever is denied does not learn whether there
//! is anything.
//!
//! **Invariant:** a body is never held: it goes from the socket to the namespace piece by piece, and
//! back.
//!
//! Sketch of a 4 KiB GET of an owner: a token from the cache, one trip to the namespace for
//! container, object and body, some 15 headers of which 6 are allocated.

mod config;
mod path;

mod headers;
mod json;
mod respond;

mod auth;
mod identity;
mod token;

mod account_acl;
mod acl;
mod authorise;

mod content_type;
mod expiry;
mod metadata;
mod quota;

mod accept;
mod listing;
mod render;

mod call;
mod service;

mod account;
mod container;
mod copy;
mod cors;
mod dlo;
mod info;
mod object_get;
mod object_post;
mod object_put;
mod parts;

pub use config::Config;
pub use content_type::guess as guess_content_type;
pub use service::Swift;
