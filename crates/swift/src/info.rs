//! `/info`: what this server can do, and its limits.

use namespace::Policies;
use serde_json::json;

use crate::config::{
    ACCOUNT_NAME_BYTES_MAX, CONTAINER_NAME_BYTES_MAX, Config, HEADER_BYTES_MAX,
    LISTING_ENTRIES_MAX, META_BYTES_MAX, META_COUNT_MAX, META_NAME_BYTES_MAX, META_VALUE_BYTES_MAX,
    OBJECT_BYTES_MAX, OBJECT_NAME_BYTES_MAX,
};

/// The whole answer; it changes only with the configuration and with the policies.
pub(crate) fn render(config: &Config, policies: &Policies) -> String {
    let policies = policies.list.iter().enumerate().map(|(place, named)| {
        let mut policy = json!({"name": named.name, "aliases": named.name});
        if place == usize::from(policies.default) {
            policy["default"] = json!(true);
        }
        policy
    });
    let swift = json!({
        "version": concat!("martlet ", env!("CARGO_PKG_VERSION")),
        "strict_cors_mode": true,
        "account_autocreate": true,
        "allow_account_management": config.allow_account_management,
        "allow_open_expired": config.allow_open_expired,
        "max_file_size": OBJECT_BYTES_MAX,
        "max_meta_name_length": META_NAME_BYTES_MAX,
        "max_meta_value_length": META_VALUE_BYTES_MAX,
        "max_meta_count": META_COUNT_MAX,
        "max_meta_overall_size": META_BYTES_MAX,
        "max_header_size": HEADER_BYTES_MAX,
        "max_object_name_length": OBJECT_NAME_BYTES_MAX,
        "max_container_name_length": CONTAINER_NAME_BYTES_MAX,
        "max_account_name_length": ACCOUNT_NAME_BYTES_MAX,
        "container_listing_limit": LISTING_ENTRIES_MAX,
        "account_listing_limit": LISTING_ENTRIES_MAX,
        "extra_header_count": 0,
        "policies": policies.collect::<Vec<_>>(),
    });
    json!({
        "swift": swift,
        "tempauth": {"account_acls": true},
        "account_quotas": {},
        "container_quotas": {},
    })
    .to_string()
}
