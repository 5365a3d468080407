//! What an operator may set, and the limits that clients are told.

use serde::Deserialize;

/// Settings of the Swift API.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where clients reach this API, such as `https://storage.example.com`. Empty: where the
    /// request for the token was sent to, by plain HTTP.
    pub public_url: String,
    /// How long a token is good for, at most; at least half of it when it is given.
    pub token_lifetime_s: u64,
    /// How many verified tokens are remembered.
    pub tokens_cached_max: usize,
    /// Whether `X-Open-Expired` shows objects that are past their time but not yet removed.
    pub allow_open_expired: bool,
    /// Whether resellers may make and delete accounts.
    pub allow_account_management: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            public_url: String::new(),
            token_lifetime_s: 86_400,
            tokens_cached_max: 10_000,
            allow_open_expired: true,
            allow_account_management: true,
        }
    }
}

/// The name of the policy that every cluster has; quotas can be set for it.
pub(crate) const POLICY: &str = "default";

// The limits of `/info`. All but the first are Swift's own defaults, on which clients rely.

/// An object may be of any size: this is the largest number that every JSON reader takes exactly
/// (2^53 - 1), and more than any client will send.
pub(crate) const OBJECT_BYTES_MAX: u64 = 9_007_199_254_740_991;
pub(crate) const META_NAME_BYTES_MAX: usize = 128;
pub(crate) const META_VALUE_BYTES_MAX: usize = 256;
pub(crate) const META_COUNT_MAX: usize = 90;
pub(crate) const META_BYTES_MAX: usize = 4096;
pub(crate) const HEADER_BYTES_MAX: usize = 8192;
pub(crate) const OBJECT_NAME_BYTES_MAX: usize = 1024;
pub(crate) const CONTAINER_NAME_BYTES_MAX: usize = 256;
pub(crate) const ACCOUNT_NAME_BYTES_MAX: usize = 256;
pub(crate) const LISTING_ENTRIES_MAX: usize = 10_000;
