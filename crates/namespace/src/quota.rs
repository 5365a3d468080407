//! Quotas: how much a container or an account may hold.
//!
//! A quota counts what is there when a write commits, plus the new body; an overwrite is not
//! credited for what it replaces (Swift's rule). A container with a quota takes one write at a time,
//! so its quota is never exceeded. An account's quota is compared with a sum over all shards that is
//! taken just before the commit, so it can be exceeded by the writes that are under way at once.

use serde::{Deserialize, Serialize};

use crate::{Account, AccountQuota, Container, Error, Metadata, Namespace};

/// The upper bounds of what is held; `None`: as much as fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Quota {
    pub(crate) bytes: Option<u64>,
    pub(crate) objects: Option<u64>,
}

impl Quota {
    pub(crate) fn of_container(metadata: &Metadata) -> Self {
        Self {
            bytes: number(metadata, "x-container-meta-quota-bytes"),
            objects: number(metadata, "x-container-meta-quota-count"),
        }
    }

    fn of_account(account: &Account) -> Self {
        let metadata = &account.metadata;
        let legacy = || number(metadata, "x-account-meta-quota-bytes");
        let bytes = number(metadata, "x-account-quota-bytes").or_else(legacy);
        let objects = number(metadata, "x-account-quota-count");
        // What containers of one policy hold is not counted, so the quota of one is the account's.
        let least = |of_all: Option<u64>, prefix: &str| {
            let begins = metadata.range(prefix.to_owned()..);
            let of_policy = begins.take_while(|(name, _)| name.starts_with(prefix));
            let numbers = of_policy.filter_map(|(name, _)| number(metadata, name));
            numbers.chain(of_all).min()
        };
        Self {
            bytes: least(bytes, "x-account-quota-bytes-policy-"),
            objects: least(objects, "x-account-quota-count-policy-"),
        }
    }

    pub(crate) fn is_none(self) -> bool {
        self == Self::default()
    }

    /// Whether one more object of so many bytes fits.
    pub(crate) fn admit(self, objects: u64, bytes: u64, body_bytes: u64) -> Result<(), Error> {
        let fits = |quota: Option<u64>, held: u64, more: u64| {
            quota.is_none_or(|quota| held.saturating_add(more) <= quota)
        };
        if fits(self.objects, objects, 1) && fits(self.bytes, bytes, body_bytes) {
            Ok(())
        } else {
            Err(Error::QuotaExceeded)
        }
    }
}

/// A value that is not a number is no quota: front doors refuse to set one.
fn number(metadata: &Metadata, name: &str) -> Option<u64> {
    str::from_utf8(metadata.get(name)?)
        .ok()?
        .trim()
        .parse()
        .ok()
}

impl Namespace {
    /// Whether a body of so many bytes (`None`: not known yet) would be refused for a quota now. For
    /// an early refusal, before the body is read; [`Namespace::put_object`] decides.
    pub async fn admit(
        &self,
        container: &Container,
        body_bytes: Option<u64>,
        account_quota: AccountQuota,
    ) -> Result<(), Error> {
        let body_bytes = body_bytes.unwrap_or(0);
        let quota = Quota::of_container(&container.metadata);
        if !quota.is_none() {
            let (_, held) = self
                .container_held(&container.account, &container.name)
                .await?;
            quota.admit(held.objects, held.bytes, body_bytes)?;
        }
        self.admit_to_account(&container.account, body_bytes, account_quota)
            .await
    }

    /// Whether the account's quota admits another object.
    pub(crate) async fn admit_to_account(
        &self,
        account: &str,
        body_bytes: u64,
        account_quota: AccountQuota,
    ) -> Result<(), Error> {
        if account_quota == AccountQuota::Exempt {
            return Ok(());
        }
        let quota = match self.account(account).await? {
            Some(account) => Quota::of_account(&account),
            None => Quota::default(),
        };
        if quota.is_none() {
            return Ok(());
        }
        let usage = self.usage(account).await?;
        quota.admit(usage.objects, usage.bytes, body_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(pairs: &[(&str, &'static str)]) -> Metadata {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| ((*name).to_owned(), value.as_bytes().into()))
            .collect()
    }

    #[test]
    fn a_quota_is_what_still_fits() {
        let quota = Quota {
            bytes: Some(100),
            objects: Some(2),
        };
        assert_eq!(quota.admit(1, 60, 40), Ok(()));
        assert_eq!(quota.admit(1, 60, 41), Err(Error::QuotaExceeded));
        assert_eq!(quota.admit(2, 60, 1), Err(Error::QuotaExceeded));
        assert_eq!(Quota::default().admit(9, 9, u64::MAX), Ok(()));
        assert_eq!(quota.admit(0, 1, u64::MAX), Err(Error::QuotaExceeded));
    }

    #[test]
    fn quotas_are_metadata() {
        let container = metadata(&[
            ("x-container-meta-quota-bytes", "100"),
            ("x-container-meta-quota-count", "many"),
        ]);
        let quota = Quota::of_container(&container);
        assert_eq!((quota.bytes, quota.objects), (Some(100), None));
    }

    #[test]
    fn the_older_name_of_an_account_quota_counts_if_the_newer_is_absent() {
        let of = |pairs: &[_]| {
            Quota::of_account(&Account {
                name: "a".into(),
                created: base::Timestamp::default(),
                metadata: metadata(pairs),
            })
        };
        let (old, new) = ("x-account-meta-quota-bytes", "x-account-quota-bytes");
        assert_eq!(of(&[(old, "1")]).bytes, Some(1));
        assert_eq!(of(&[(old, "1"), (new, "2")]).bytes, Some(2));
        assert_eq!(of(&[("x-account-quota-count", "3")]).objects, Some(3));
        assert!(of(&[]).is_none());
    }

    #[test]
    fn the_least_of_an_accounts_quotas_binds() {
        let quota = Quota::of_account(&Account {
            name: "a".into(),
            created: base::Timestamp::default(),
            metadata: metadata(&[
                ("x-account-quota-bytes", "5"),
                ("x-account-quota-bytes-policy-one", "3"),
                ("x-account-quota-bytes-policy-two", "4"),
                ("x-account-quota-count-policy-one", "2"),
            ]),
        });
        assert_eq!((quota.bytes, quota.objects), (Some(3), Some(2)));
    }
}
