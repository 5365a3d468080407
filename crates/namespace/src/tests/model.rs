//! What the namespace should do, said as simply as possible: maps in maps, every question answered by
//! looking at everything.

use std::collections::BTreeMap;

use base::Timestamp;

use crate::{
    AccountQuota, Condition, Container, Created, Entry, Error, ListQuery, Metadata, MetadataChange,
    MetadataLimits, Missing, ObjectEntry, Subdirs, Usage, hash,
};

#[derive(Default)]
pub(crate) struct Model {
    pub(crate) accounts: BTreeMap<String, AccountModel>,
    /// Time, for everybody.
    pub(crate) now: Timestamp,
    /// Makes every container and every change of its metadata another one.
    changes: u64,
}

#[derive(Default)]
pub(crate) struct AccountModel {
    pub(crate) metadata: Metadata,
    pub(crate) containers: BTreeMap<String, ContainerModel>,
}

pub(crate) struct ContainerModel {
    pub(crate) metadata: Metadata,
    pub(crate) objects: BTreeMap<String, ObjectModel>,
    pub(crate) id: u64,
    pub(crate) changed: u64,
    pub(crate) created: Timestamp,
    pub(crate) modified: Timestamp,
}

#[derive(Clone)]
pub(crate) struct ObjectModel {
    pub(crate) body: Vec<u8>,
    pub(crate) content_type: String,
    pub(crate) metadata: Metadata,
    pub(crate) delete_at: Option<u64>,
    pub(crate) created: Timestamp,
    pub(crate) modified: Timestamp,
}

impl ObjectModel {
    pub(crate) fn is_expired(&self, now: Timestamp) -> bool {
        self.delete_at.is_some_and(|at| at <= now.secs())
    }

    pub(crate) fn entry(&self, name: &str) -> ObjectEntry {
        ObjectEntry {
            name: name.to_owned(),
            bytes: self.body.len() as u64,
            md5: hash::md5(&self.body),
            content_type: self.content_type.clone(),
            modified: self.modified,
        }
    }
}

impl ContainerModel {
    pub(crate) fn bytes(&self) -> u64 {
        let objects = self.objects.values();
        objects.map(|object| object.body.len() as u64).sum()
    }
}

/// A container as someone looked it up, perhaps long ago.
#[derive(Clone)]
pub(crate) struct Handle {
    pub(crate) container: Container,
    pub(crate) id: u64,
    pub(crate) changed: u64,
}

fn merge(
    metadata: &Metadata,
    change: &MetadataChange,
    limits: &MetadataLimits,
) -> Result<Metadata, Error> {
    let mut merged = metadata.clone();
    for (name, value) in &change.0 {
        match value {
            Some(value) => merged.insert(name.clone(), value.clone()),
            None => merged.remove(name),
        };
    }
    let counted: Vec<_> = merged
        .iter()
        .filter(|(name, _)| name.starts_with(&*limits.prefix))
        .collect();
    let len =
        |(name, value): &(&String, &bytes::Bytes)| name.len() - limits.prefix.len() + value.len();
    if change.0.values().any(Option::is_some) {
        if counted.len() > limits.count_max {
            return Err(Error::Limit(format!(
                "Too many metadata items; max {}",
                limits.count_max
            )));
        }
        if counted.iter().map(len).sum::<usize>() > limits.bytes_max {
            return Err(Error::Limit(format!(
                "Total metadata too large; max {}",
                limits.bytes_max
            )));
        }
    }
    Ok(merged)
}

fn quota(metadata: &Metadata, name: &str) -> u64 {
    let value = metadata
        .get(name)
        .and_then(|value| std::str::from_utf8(value).ok());
    value
        .and_then(|value| value.parse().ok())
        .unwrap_or(u64::MAX)
}

impl Model {
    pub(crate) fn container(&self, account: &str, name: &str) -> Result<&ContainerModel, Error> {
        let account = self.accounts.get(account);
        let container = account.and_then(|account| account.containers.get(name));
        container.ok_or(Error::NotFound(Missing::Container))
    }

    pub(crate) fn container_mut(&mut self, account: &str, name: &str) -> &mut ContainerModel {
        let account = self.accounts.get_mut(account).unwrap();
        account.containers.get_mut(name).unwrap()
    }

    /// The container that a write meets.
    fn writable(&self, handle: &Handle) -> Result<&ContainerModel, Error> {
        let container = self.container(&handle.container.account, &handle.container.name)?;
        if (container.id, container.changed) == (handle.id, handle.changed) {
            Ok(container)
        } else {
            Err(Error::Changed)
        }
    }

    pub(crate) fn usage(&self, account: &str) -> Usage {
        let account = self.accounts.get(account);
        let containers = account
            .into_iter()
            .flat_map(|account| account.containers.values());
        containers.fold(Usage::default(), |sum, container| Usage {
            containers: sum.containers + 1,
            objects: sum.objects + container.objects.len() as u64,
            bytes: sum.bytes + container.bytes(),
        })
    }

    pub(crate) fn update_account(
        &mut self,
        account: &str,
        change: &MetadataChange,
        limits: &MetadataLimits,
    ) -> Result<Created, Error> {
        let before = self.accounts.get(account);
        let metadata = before.map(|account| account.metadata.clone());
        let merged = merge(&metadata.unwrap_or_default(), change, limits)?;
        let created = if before.is_some() {
            Created::Existed
        } else {
            Created::New
        };
        self.accounts
            .entry(account.to_owned())
            .or_default()
            .metadata = merged;
        Ok(created)
    }

    pub(crate) fn delete_account(&mut self, account: &str) -> Result<(), Error> {
        match self.accounts.get(account) {
            Some(found) if !found.containers.is_empty() => Err(Error::NotEmpty),
            Some(_) => {
                self.accounts.remove(account);
                Ok(())
            }
            None => Err(Error::NotFound(Missing::Account)),
        }
    }

    pub(crate) fn put_container(
        &mut self,
        account: &str,
        name: &str,
        change: &MetadataChange,
        limits: &MetadataLimits,
    ) -> Result<Created, Error> {
        self.changes += 1;
        if let Ok(container) = self.container(account, name) {
            let merged = merge(&container.metadata, change, limits)?;
            let changes = self.changes;
            let container = self.container_mut(account, name);
            if container.metadata != merged {
                container.metadata = merged;
                container.changed = changes;
            }
            return Ok(Created::Existed);
        }
        let container = ContainerModel {
            metadata: merge(&Metadata::new(), change, limits)?,
            objects: BTreeMap::new(),
            id: self.changes,
            changed: self.changes,
            created: Timestamp::default(),
            modified: Timestamp::default(),
        };
        let account = self.accounts.entry(account.to_owned()).or_default();
        account.containers.insert(name.to_owned(), container);
        Ok(Created::New)
    }

    pub(crate) fn delete_container(&mut self, account: &str, name: &str) -> Result<(), Error> {
        let container = self.container(account, name)?;
        if container
            .objects
            .values()
            .any(|object| !object.is_expired(self.now))
        {
            return Err(Error::NotEmpty);
        }
        let account = self.accounts.get_mut(account).unwrap();
        account.containers.remove(name);
        Ok(())
    }

    /// Whether a PUT is refused, and what it replaces.
    pub(crate) fn may_put(
        &self,
        handle: &Handle,
        name: &str,
        bytes: u64,
        condition: &Condition,
        account_quota: AccountQuota,
    ) -> Result<Created, Error> {
        let account = &handle.container.account;
        if account_quota == AccountQuota::Enforced
            && let Some(found) = self.accounts.get(account)
        {
            let usage = self.usage(account);
            if usage.bytes + bytes > quota(&found.metadata, "x-account-quota-bytes")
                || usage.objects + 1 > quota(&found.metadata, "x-account-quota-count")
            {
                return Err(Error::QuotaExceeded);
            }
        }
        let container = self.writable(handle)?;
        let live = container
            .objects
            .get(name)
            .filter(|object| !object.is_expired(self.now));
        check(condition, live)?;
        let (metadata, objects) = (&container.metadata, container.objects.len() as u64);
        if container.bytes() + bytes > quota(metadata, "x-container-meta-quota-bytes")
            || objects + 1 > quota(metadata, "x-container-meta-quota-count")
        {
            return Err(Error::QuotaExceeded);
        }
        Ok(if live.is_some() {
            Created::Existed
        } else {
            Created::New
        })
    }

    /// The object that a POST or a DELETE meets.
    pub(crate) fn writable_object(
        &self,
        handle: &Handle,
        name: &str,
    ) -> Result<&ObjectModel, Error> {
        let container = self.writable(handle)?;
        let object = container.objects.get(name);
        object.ok_or(Error::NotFound(Missing::Object))
    }

    pub(crate) fn delete_object(
        &mut self,
        handle: &Handle,
        name: &str,
        condition: &Condition,
        if_delete_at: Option<u64>,
    ) -> Result<(), Error> {
        let object = self.writable_object(handle, name)?;
        if if_delete_at.is_some() && object.delete_at != if_delete_at {
            return Err(Error::Precondition);
        }
        let is_expired = object.is_expired(self.now);
        if !is_expired {
            check(condition, Some(object))?;
        }
        let Container {
            account,
            name: container,
            ..
        } = &handle.container;
        self.container_mut(account, container).objects.remove(name);
        if is_expired {
            Err(Error::NotFound(Missing::Object))
        } else {
            Ok(())
        }
    }

    /// What the expirer does.
    pub(crate) fn expire(&mut self, delay: u64) {
        let end = self.now.secs().saturating_sub(delay);
        for account in self.accounts.values_mut() {
            for container in account.containers.values_mut() {
                let stays = |object: &ObjectModel| object.delete_at.is_none_or(|at| at > end);
                container.objects.retain(|_, object| stays(object));
            }
        }
    }
}

fn check(condition: &Condition, object: Option<&ObjectModel>) -> Result<(), Error> {
    let md5 = object.map(|object| hash::md5(&object.body));
    let holds = match condition {
        Condition::None => true,
        Condition::Absent => md5.is_none(),
        Condition::Present => md5.is_some(),
        Condition::Matches(any) => md5.is_some_and(|md5| any.contains(&md5)),
        Condition::Differs(none) => !md5.is_some_and(|md5| none.contains(&md5)),
    };
    if holds {
        Ok(())
    } else {
        Err(Error::Precondition)
    }
}

/// What a listing shows of these rows, which are in order.
pub(crate) fn list<T: Clone + PartialEq>(rows: &[(String, T)], query: &ListQuery) -> Vec<Entry<T>> {
    let (lower, upper) = match query.reverse {
        false => (&query.marker, &query.end_marker),
        true => (&query.end_marker, &query.marker),
    };
    let mut entries: Vec<Entry<T>> = Vec::new();
    for (name, row) in rows {
        let is_between = name > lower && (upper.is_empty() || name < upper);
        if !is_between || !name.starts_with(&query.prefix) {
            continue;
        }
        let rest = &name[query.prefix.len()..];
        let parts = match &*query.delimiter {
            "" => None,
            delimiter => rest.split_once(delimiter),
        };
        let entry = match (query.subdirs, parts) {
            (Subdirs::Show, Some((first, _))) => {
                let subdir = format!("{}{first}{}", query.prefix, query.delimiter);
                if subdir == *lower {
                    continue;
                }
                Entry::Subdir(subdir)
            }
            (Subdirs::Hide, Some((_, more))) if !more.is_empty() => continue,
            (Subdirs::Hide, None) if rest.is_empty() => continue,
            _ => Entry::Row(row.clone()),
        };
        if entries.last() != Some(&entry) {
            entries.push(entry);
        }
    }
    if query.reverse {
        entries.reverse();
    }
    entries.truncate(query.limit);
    entries
}
