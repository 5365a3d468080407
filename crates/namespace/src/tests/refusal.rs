//! Requests that cannot be served change nothing and leave nothing behind.

use bytes::Bytes;

use super::world::{LIMITS, World};
use crate::{
    AccountQuota, Condition, Error, Expired, Fetch, MetadataChange, MetadataLimits, Missing,
    PutObject,
};

static LARGE: [u8; 50_000] = [7; 50_000];

fn set(name: &str, value: &'static str) -> MetadataChange {
    let value = Some(Bytes::from_static(value.as_bytes()));
    MetadataChange([(name.to_owned(), value)].into())
}

#[tokio::test]
async fn a_refused_body_is_deleted() {
    let world = World::new(1).await;
    let container = world.container("c").await;
    let present = |put: &mut PutObject| put.condition = Condition::Present;
    let refused = world.put_with(&container, "o", &LARGE, present).await;
    assert_eq!(refused, Err(Error::Precondition));
    let long = "n".repeat(1025);
    assert!(matches!(
        world.put(&container, &long, &LARGE).await,
        Err(Error::Limit(_))
    ));
    world.namespace.chunks().settle().await;
    assert_eq!(world.chunks(), 0);
    assert_eq!(world.namespace.usage("a").await.unwrap().objects, 0);
}

#[tokio::test]
async fn devices_that_fail_or_are_full_are_told_apart() {
    let world = World::new(1).await;
    let container = world.container("c").await;
    for device in &world.devices {
        device.set_free_bytes(Some(0));
    }
    assert_eq!(
        world.put(&container, "o", &LARGE).await,
        Err(Error::OutOfSpace)
    );
    for device in &world.devices {
        device.set_free_bytes(None);
    }
    let refused = world.put(&container, "o", &LARGE).await;
    assert!(
        matches!(refused, Err(Error::Unavailable { .. })),
        "{refused:?}"
    );
    // A small body needs no chunk.
    world.put(&container, "o", b"small").await.unwrap();
}

#[tokio::test]
async fn damage_is_an_error_and_not_an_end() {
    let world = World::new(1).await;
    let container = world.container("c").await;
    world.put(&container, "o", &LARGE).await.unwrap();
    for device in &world.devices {
        device.fail_reads(Some(device::Error::Damaged("bad frame".into())));
    }
    let read = world.get(&container, "o").await;
    assert!(matches!(read, Err(Error::Damaged(_))), "{read:?}");
}

#[tokio::test]
async fn a_small_body_that_was_not_fetched_may_be_replaced_meanwhile() {
    let world = World::new(1).await;
    let container = world.container("c").await;
    let namespace = &world.namespace;
    world.put(&container, "o", b"one").await.unwrap();
    let found = namespace
        .find("a", "c", "o", Expired::Hide, Fetch::Head)
        .await
        .unwrap();
    let object = found.object.unwrap();
    let read = async || {
        namespace
            .read(&container, &object, 0..3)
            .await
            .map(|body| body.inline())
    };
    assert_eq!(read().await.unwrap(), Some("one".into()));
    world.put(&container, "o", b"two").await.unwrap();
    assert_eq!(read().await.unwrap_err(), Error::Changed);
    world.put(&container, "o", &LARGE).await.unwrap();
    assert_eq!(read().await.unwrap_err(), Error::Changed);
    namespace
        .delete_object(&container, "o", Condition::None, None)
        .await
        .unwrap();
    assert_eq!(read().await.unwrap_err(), Error::NotFound(Missing::Object));
}

#[tokio::test]
async fn names_that_are_no_keys_are_refused() {
    let world = World::new(1).await;
    let put = async |account: &str, container: &str| {
        let change = MetadataChange::default();
        world
            .namespace
            .put_container(
                account,
                container,
                change,
                LIMITS,
                crate::PolicyChoice::default(),
            )
            .await
    };
    let long = "n".repeat(257);
    for (account, container) in [
        ("a", ""),
        ("", "c"),
        ("a", &*long),
        (&*long, "c"),
        ("a", "\0"),
    ] {
        let refused = put(account, container).await;
        assert!(matches!(refused, Err(Error::Limit(_))), "{refused:?}");
    }
    let longest = "n".repeat(256);
    put(&longest, &longest).await.unwrap();
    let container = world.namespace.container(&longest, &longest).await.unwrap();
    let name = "ü".repeat(512);
    world.put(&container, &name, &LARGE).await.unwrap();
    assert!(world.get(&container, &name).await.unwrap() == LARGE);
}

#[tokio::test]
async fn a_refused_container_is_not_listed() {
    let world = World::new(1).await;
    let limits = MetadataLimits {
        count_max: 0,
        ..LIMITS
    };
    let change = set("x-container-meta-one", "1");
    let put = world
        .namespace
        .put_container("a", "c", change, limits, crate::PolicyChoice::default())
        .await;
    assert_eq!(
        put,
        Err(Error::Limit("Too many metadata items; max 0".into()))
    );
    let report = world.check().await;
    assert_eq!((report.accounts, report.leftover_lines), (0, 0));
}

#[tokio::test]
async fn an_accounts_quota_binds_all_but_resellers() {
    let world = World::new(1).await;
    let container = world.container("c").await;
    let limits = MetadataLimits {
        prefix: "x-account-meta-".into(),
        ..LIMITS
    };
    let quota = set("x-account-quota-bytes", "100");
    world
        .namespace
        .update_account("a", quota, limits.clone())
        .await
        .unwrap();
    let admit = async |bytes, quota| world.namespace.admit(&container, bytes, quota).await;
    assert_eq!(admit(Some(100), AccountQuota::Enforced).await, Ok(()));
    assert_eq!(
        admit(Some(101), AccountQuota::Enforced).await,
        Err(Error::QuotaExceeded)
    );
    assert_eq!(admit(Some(101), AccountQuota::Exempt).await, Ok(()));
    assert_eq!(admit(None, AccountQuota::Enforced).await, Ok(()));

    world.put(&container, "o", &[0; 60]).await.unwrap();
    // An overwrite is not credited for what it replaces.
    assert_eq!(
        world.put(&container, "o", &[0; 41]).await,
        Err(Error::QuotaExceeded)
    );
    let exempt = |put: &mut PutObject| put.account_quota = AccountQuota::Exempt;
    world
        .put_with(&container, "o", &[0; 41], exempt)
        .await
        .unwrap();

    let removed = MetadataChange([("x-account-quota-bytes".to_owned(), None)].into());
    world
        .namespace
        .update_account("a", removed, limits)
        .await
        .unwrap();
    world.put(&container, "o", &[0; 1000]).await.unwrap();
}
