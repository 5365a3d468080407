use super::*;

fn users() -> Users {
    let (env, ..) = testkit::env(1, 1 << 20);
    let shards = Arc::new(Shards::volatile(&env, 2));
    Users::new(env, shards, Life::Endless)
}

async fn add(users: &Users, name: &str, password: &str) -> Result<Created, Error> {
    let groups = vec!["blue".to_owned()];
    users
        .put("test", name, Role::Member, groups, password)
        .await
}

#[tokio::test(start_paused = true)]
async fn a_password_is_right_or_wrong() {
    let users = users();
    assert!(users.is_empty().await.unwrap());
    assert_eq!(add(&users, "tester", "secret").await, Ok(Created::New));
    assert!(!users.is_empty().await.unwrap());
    assert_eq!(add(&users, "tester", "testing").await, Ok(Created::Existed));

    let right = users.verify("test", "tester", "testing").await.unwrap();
    let known = users.get("test", "tester").await.unwrap();
    assert_eq!(right.as_ref(), known.as_deref());
    assert_eq!(right.unwrap().groups, ["blue"]);
    for (account, name, password) in [
        ("test", "tester", "secret"),
        ("test", "tester", ""),
        ("test", "nobody", "testing"),
        ("none", "tester", "testing"),
        (&"x".repeat(70_000), "tester", "testing"),
    ] {
        let wrong = users.verify(account, name, password).await;
        assert_eq!(wrong, Ok(None), "{name} {password}");
    }
}

#[tokio::test]
async fn a_changed_password_makes_another_generation() {
    let users = users();
    add(&users, "tester", "one").await.unwrap();
    let before = users.get("test", "tester").await.unwrap().unwrap();
    users.set_password("test", "tester", "two").await.unwrap();
    let after = users.get("test", "tester").await.unwrap().unwrap();
    assert_ne!(before.generation, after.generation);
    assert_eq!(
        (after.role, &*after.groups),
        (Role::Member, &["blue".to_owned()][..])
    );
    let verified = users.verify("test", "tester", "two").await.unwrap();
    assert_eq!(verified.as_ref(), Some(&*after));

    users.remove("test", "tester").await.unwrap();
    assert_eq!(users.get("test", "tester").await.unwrap(), None);
    add(&users, "tester", "one").await.unwrap();
    let again = users.get("test", "tester").await.unwrap().unwrap();
    assert_ne!(again.generation, before.generation);
}

#[tokio::test]
async fn what_is_not_there_cannot_be_changed() {
    let users = users();
    let missing = Err(Error::NotFound(Missing::User));
    assert_eq!(users.set_password("test", "tester", "x").await, missing);
    assert_eq!(users.remove("test", "tester").await, missing);
    assert!(matches!(
        add(&users, "tester", "").await,
        Err(Error::Limit(_))
    ));
    assert!(matches!(add(&users, "", "x").await, Err(Error::Limit(_))));
    assert!(users.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn users_are_listed_by_account_and_name() {
    let users = users();
    for (account, name) in [
        ("test2", "a"),
        ("test", "b"),
        ("test", "a"),
        ("longer", "z"),
    ] {
        let role = Role::Owner;
        users
            .put(account, name, role, Vec::new(), "x")
            .await
            .unwrap();
    }
    let list = users.list().await.unwrap();
    let names: Vec<_> = list
        .iter()
        .map(|user| (&*user.account, &*user.name))
        .collect();
    let expected = [
        ("longer", "z"),
        ("test", "a"),
        ("test", "b"),
        ("test2", "a"),
    ];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn a_secret_stays_and_differs_by_purpose() {
    let users = users();
    let first = users.secret("tokens").await.unwrap();
    assert_eq!(users.secret("tokens").await.unwrap(), first);
    assert_ne!(users.secret("cookies").await.unwrap(), first);
}
