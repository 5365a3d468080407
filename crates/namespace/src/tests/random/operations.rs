//! The operations, each on the namespace and on the model.

use super::super::model::{self, Handle, ObjectModel};
use super::{EXPIRY_DELAY, LIMITS, Run};
use crate::{
    AccountQuota, ContainerEntry, Error, Expired, Fetch, ListQuery, Missing, Object, PostObject,
    Usage,
};

impl Run {
    pub(super) async fn put_container(&mut self) {
        let (account, name) = (self.account(), self.container_name());
        let change = self.change("x-container-meta-", "x-container-meta-quota");
        let namespace = &self.world.namespace;
        let put = namespace
            .put_container(
                &account,
                &name,
                change.clone(),
                LIMITS,
                crate::PolicyChoice::default(),
            )
            .await;
        let expected = self.model.put_container(&account, &name, &change, &LIMITS);
        assert_eq!(put, expected, "put {account}/{name} {change:?}");
        if put.is_ok() {
            self.container_is_newer(&account, &name).await;
        }
    }

    pub(super) async fn post_container(&mut self) {
        let (account, name) = (self.account(), self.container_name());
        let change = self.change("x-container-meta-", "x-container-meta-quota");
        let namespace = &self.world.namespace;
        let post = namespace
            .post_container(&account, &name, change.clone(), LIMITS)
            .await;
        let expected = match self.model.container(&account, &name) {
            Ok(_) => self
                .model
                .put_container(&account, &name, &change, &LIMITS)
                .map(drop),
            Err(error) => Err(error),
        };
        assert_eq!(post, expected, "post {account}/{name} {change:?}");
        if post.is_ok() {
            self.container_is_newer(&account, &name).await;
        }
    }

    /// Learns the times of a container that has just been changed.
    async fn container_is_newer(&mut self, account: &str, name: &str) {
        let container = self.world.namespace.container(account, name).await.unwrap();
        let model = self.model.container_mut(account, name);
        assert!(container.modified > model.modified);
        if model.created.ticks() == 0 {
            model.created = container.created;
        }
        model.modified = container.modified;
        self.compare_container(account, name).await;
    }

    async fn compare_container(&self, account: &str, name: &str) {
        let namespace = &self.world.namespace;
        let container = namespace.container(account, name).await;
        let counted = namespace.container_held(account, name).await;
        let expected = match self.model.container(account, name) {
            Ok(expected) => expected,
            Err(error) => {
                assert_eq!(container, Err(error.clone()));
                return assert_eq!(counted, Err(error));
            }
        };
        let (container, (same, held)) = (container.unwrap(), counted.unwrap());
        assert_eq!(container, same);
        assert_eq!((&*container.account, &*container.name), (account, name));
        assert_eq!(container.metadata, expected.metadata);
        assert_eq!(held.objects, expected.objects.len() as u64);
        assert_eq!(held.bytes, expected.bytes());
        assert_eq!(container.created, expected.created);
        assert_eq!(container.modified, expected.modified);
    }

    pub(super) async fn look_container_up(&mut self) {
        let (account, name) = (self.account(), self.container_name());
        self.compare_container(&account, &name).await;
    }

    pub(super) async fn delete_container(&mut self) {
        let (account, name) = (self.account(), self.container_name());
        let deleted = self.world.namespace.delete_container(&account, &name).await;
        assert_eq!(deleted, self.model.delete_container(&account, &name));
    }

    pub(super) async fn put_object(&mut self) {
        if let Some(handle) = self.handle().await {
            let (name, body) = (self.name(), self.body());
            self.put_this(&handle, &name, body).await;
        }
    }

    async fn put_this(&mut self, handle: &Handle, name: &str, body: Vec<u8>) {
        let (condition, delete_at) = (self.condition(), self.delete_at());
        let metadata = self.metadata("x-object-meta-");
        let content_type = self.pick(&["text/plain", "image/png", ""]).to_owned();
        let quota = self.pick(&[AccountQuota::Enforced, AccountQuota::Exempt]);
        let bytes = body.len() as u64;
        let expected = self.model.may_put(handle, name, bytes, &condition, quota);
        let put = self.world.put_with(&handle.container, name, &body, |put| {
            put.content_type.clone_from(&content_type);
            put.metadata.clone_from(&metadata);
            put.delete_at = delete_at;
            put.condition = condition;
            put.account_quota = quota;
        });
        let put = put.await;
        assert_eq!(put.clone().map(|put| put.created), expected, "put {name}");
        let Ok(written) = put else { return };
        let crate::Container {
            account,
            name: container,
            ..
        } = &handle.container;
        let container = self.model.container_mut(account, container);
        let object = ObjectModel {
            body,
            content_type,
            metadata,
            delete_at,
            created: written.modified,
            modified: written.modified,
        };
        let before = container.objects.insert(name.to_owned(), object);
        assert!(before.is_none_or(|before| before.modified < written.modified));
    }

    /// What a front door makes of a COPY.
    pub(super) async fn copy_object(&mut self) {
        let (Some(from), Some(to)) = (self.handle().await, self.handle().await) else {
            return;
        };
        let (source, target) = (self.name(), self.name());
        if let Ok(body) = self.world.get(&from.container, &source).await {
            self.put_this(&to, &target, body).await;
        }
    }

    pub(super) async fn post_object(&mut self) {
        let Some(handle) = self.handle().await else {
            return;
        };
        let post = |run: &mut Self| PostObject {
            name: run.name(),
            content_type: run.random.chance(1, 2).then(|| "text/new".to_owned()),
            metadata: run.metadata("x-object-meta-"),
            delete_at: run.delete_at(),
            expired: run.pick(&[Expired::Hide, Expired::Hide, Expired::Show]),
        };
        let PostObject {
            name,
            content_type,
            metadata,
            delete_at,
            expired,
        } = post(self);
        let missing = Error::NotFound(Missing::Object);
        let expected = match self.model.writable_object(&handle, &name) {
            Ok(old) if expired == Expired::Hide && old.is_expired(self.model.now) => Err(missing),
            other => other.cloned(),
        };
        let post = PostObject {
            name: name.clone(),
            content_type: content_type.clone(),
            metadata: metadata.clone(),
            delete_at,
            expired,
        };
        let posted = self
            .world
            .namespace
            .post_object(&handle.container, post)
            .await;
        assert_eq!(
            posted,
            expected.as_ref().map(drop).map_err(Clone::clone),
            "post {name}"
        );
        let Ok(old) = expected else { return };
        let object = self
            .world
            .namespace
            .object(&handle.container, &name, Expired::Show)
            .await;
        let object = object.unwrap();
        assert!(object.modified > old.modified);
        let new = ObjectModel {
            content_type: content_type.unwrap_or(old.content_type),
            metadata,
            delete_at,
            modified: object.modified,
            ..old
        };
        let crate::Container {
            account,
            name: container,
            ..
        } = &handle.container;
        let container = self.model.container_mut(account, container);
        container.objects.insert(name, new);
    }

    pub(super) async fn delete_object(&mut self) {
        let Some(handle) = self.handle().await else {
            return;
        };
        let (name, condition) = (self.name(), self.condition());
        let guard = if self.random.chance(1, 6) {
            self.delete_at()
        } else {
            None
        };
        let namespace = &self.world.namespace;
        let deleted = namespace.delete_object(&handle.container, &name, condition.clone(), guard);
        let deleted = deleted.await;
        let expected = self.model.delete_object(&handle, &name, &condition, guard);
        assert_eq!(deleted, expected, "delete {name}");
    }

    pub(super) async fn get_object(&mut self) {
        let (account, container, name) = (self.account(), self.container_name(), self.name());
        let expired = self.pick(&[Expired::Hide, Expired::Hide, Expired::Show]);
        let fetch = self.pick(&[Fetch::Head, Fetch::Body]);
        let namespace = self.world.namespace.clone();
        let found = namespace
            .find(&account, &container, &name, expired, fetch)
            .await;
        let expected = match self.model.container(&account, &container) {
            Ok(expected) => expected,
            Err(error) => return assert_eq!(found.err(), Some(error)),
        };
        let is_seen =
            |object: &&ObjectModel| expired == Expired::Show || !object.is_expired(self.model.now);
        let expected = expected.objects.get(&name).filter(is_seen).cloned();
        let found = found.unwrap();
        let again = namespace.object(&found.container, &name, expired).await;
        assert_eq!(found.object.is_some(), expected.is_some(), "get {name}");
        let (Some(object), Some(expected)) = (found.object, expected) else {
            return assert_eq!(again.err(), Some(Error::NotFound(Missing::Object)));
        };
        let again = again.unwrap();
        compare_object(&object, &name, &expected);
        compare_object(&again, &name, &expected);
        let end = self.random.below(object.bytes + 1);
        let range = self.random.below(end + 1)..end;
        for object in [object, again] {
            let mut reader = namespace
                .read(&found.container, &object, range.clone())
                .await
                .unwrap();
            let mut body = Vec::new();
            while let Some(piece) = reader.next().await {
                body.extend_from_slice(&piece.unwrap());
            }
            let at = |at: u64| usize::try_from(at).unwrap();
            assert!(
                body == expected.body[at(range.start)..at(range.end)],
                "get {name} {range:?}"
            );
        }
    }

    pub(super) async fn list_objects(&mut self) {
        let Some(handle) = self.handle().await else {
            return;
        };
        let crate::Container { account, name, .. } = &handle.container;
        let is_current = |found: &&model::ContainerModel| found.id == handle.id;
        let found = self.model.container(account, name).ok();
        let rows = found.filter(is_current).into_iter().flat_map(|found| {
            let live = found.objects.iter();
            let live = live.filter(|(_, object)| !object.is_expired(self.model.now));
            live.map(|(name, object)| (name.clone(), object.entry(name)))
        });
        let rows: Vec<_> = rows.collect();
        let query = self.query();
        let listed = self
            .world
            .namespace
            .list_objects(&handle.container, &query)
            .await;
        assert_eq!(listed, Ok(model::list(&rows, &query)), "{query:?}");
    }

    pub(super) async fn list_containers(&mut self) {
        let account = self.account();
        let query = ListQuery {
            delimiter: self.pick(&["", "-", "a", "é"]).to_owned(),
            ..self.query()
        };
        let found = self.model.accounts.get(&account);
        let rows = found.into_iter().flat_map(|found| {
            found.containers.iter().map(|(name, container)| {
                let entry = ContainerEntry {
                    policy: 0,
                    name: name.clone(),
                    objects: container.objects.len() as u64,
                    bytes: container.bytes(),
                    modified: container.modified,
                };
                (name.clone(), entry)
            })
        });
        let rows: Vec<_> = rows.collect();
        let listed = self.world.namespace.list_containers(&account, &query).await;
        assert_eq!(listed, Ok(model::list(&rows, &query)), "{query:?}");
    }

    pub(super) async fn update_account(&mut self) {
        let account = self.account();
        let change = self.change("x-account-meta-", "x-account-quota");
        let updated = self
            .world
            .namespace
            .update_account(&account, change.clone(), LIMITS)
            .await;
        let expected = self.model.update_account(&account, &change, &LIMITS);
        assert_eq!(updated, expected, "update {account} {change:?}");
    }

    pub(super) async fn delete_account(&mut self) {
        let account = self.account();
        let deleted = self.world.namespace.delete_account(&account).await;
        assert_eq!(deleted, self.model.delete_account(&account));
    }

    pub(super) async fn look_account_up(&mut self) {
        let account = self.account();
        let found = self.world.namespace.account(&account).await.unwrap();
        let metadata = found.map(|found| found.metadata.clone());
        let expected = self.model.accounts.get(&account);
        assert_eq!(
            metadata.as_ref(),
            expected.map(|expected| &expected.metadata)
        );
        let usage = self.world.namespace.usage(&account).await;
        assert_eq!(usage, Ok(self.model.usage(&account)));
    }

    pub(super) async fn expire(&mut self) {
        self.world.expire().await;
        self.model.expire(EXPIRY_DELAY);
    }

    /// A client that goes away.
    pub(super) async fn abandon_upload(&mut self) {
        if let Some(handle) = self.handle().await {
            let body = self.body();
            let mut upload = self.world.namespace.upload(&handle.container, "gone");
            upload.write(body.into()).await.unwrap();
            if self.random.chance(1, 2) {
                upload.finish().await.unwrap();
            }
        }
    }

    /// Everything fits together, and is what the model has.
    pub(super) async fn check_all(&mut self) {
        self.world.namespace.chunks().settle().await;
        let report = self.world.check_stopped().await;
        assert_eq!(report.problems, []);
        assert_eq!(report.leftover_lines, 0);
        assert!(report.leftover_records == 0 || self.left_chunks);
        assert_eq!(report.accounts, self.model.accounts.len() as u64);
        let mut sum = Usage::default();
        for account in self.model.accounts.keys() {
            let usage = self.model.usage(account);
            sum.containers += usage.containers;
            sum.objects += usage.objects;
            sum.bytes += usage.bytes;
        }
        let found = Usage {
            containers: report.containers,
            objects: report.objects,
            bytes: report.bytes,
        };
        assert_eq!(found, sum);
    }

    /// Deletes everything, and then nothing is left.
    pub(super) async fn empty(&mut self) {
        let namespace = self.world.namespace.clone();
        for (account, found) in std::mem::take(&mut self.model.accounts) {
            for (name, found) in found.containers {
                let container = namespace.container(&account, &name).await.unwrap();
                for object in found.objects.into_keys() {
                    let deleted =
                        namespace.delete_object(&container, &object, Default::default(), None);
                    let missing = Error::NotFound(Missing::Object);
                    let deleted = deleted.await;
                    assert!(deleted.is_ok() || deleted == Err(missing));
                }
                namespace.delete_container(&account, &name).await.unwrap();
            }
            namespace.delete_account(&account).await.unwrap();
        }
        self.world.clock.advance(std::time::Duration::from_secs(60));
        self.world.collect().await;
        assert_eq!(namespace.backlog().await.unwrap(), Default::default());
        drop(namespace);
        self.check_all().await;
        assert_eq!(self.world.chunks(), 0);
    }
}

fn compare_object(object: &Object, name: &str, expected: &ObjectModel) {
    assert_eq!(object.name, name);
    assert_eq!(object.created, expected.created);
    assert_eq!(object.modified, expected.modified);
    assert_eq!(object.content_type, expected.content_type);
    assert_eq!(object.md5, expected.entry(name).md5);
    assert_eq!(object.bytes, expected.body.len() as u64);
    assert_eq!(object.delete_at, expected.delete_at);
    assert_eq!(object.metadata, expected.metadata);
}
