//! The store as its users meet it: first start, restart, a wrong key, a second process, a writer that is behind.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so by a panic")]

use daypass_core::{
    chain::{self, Head},
    event::{Actor, Entry, Event},
    ids::*,
    secret::Secret,
    time::Time,
};
use daypass_store::{Change, MasterKey, Store, StoreError};
use std::{os::unix::fs::PermissionsExt, path::PathBuf};
use uuid::Uuid;

/// A directory of its own, gone afterwards.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("daypass-store-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn entry(seq: u64) -> Entry {
    let event = Event::ProjectAdded { project: ProjectId::new(Uuid::from_u128(seq.into())), name: format!("p{seq}").parse().unwrap() };
    Entry { seq, at: Time::from_micros(1_800_000_000_000_000), by: Actor::System, event }
}

fn put(id: &str, secret: &str) -> Change {
    Change::Put { id: id.to_owned(), secret: Secret::new(secret) }
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let home = Directory::new("restart");
    let head = {
        let store = Store::open(&home.0, None).await.unwrap();
        let head = store.log.append(Head::EMPTY, &[entry(1), entry(2)], &[put("a", "first"), put("b", "second")]).await.unwrap();
        store.log.append(head, &[entry(3)], &[Change::Erase { id: "a".to_owned() }]).await.unwrap()
    };
    let store = Store::open(&home.0, None).await.unwrap();
    let lines = store.log.read(0, 10).await.unwrap();
    let export = format!("{}\n{}", lines.join("\n"), head.line());
    assert_eq!(chain::verify(export.lines(), None).unwrap().1, head);
    assert_eq!(store.log.secret("b").await.unwrap().unwrap().expose(), "second");
    assert!(store.log.secret("a").await.unwrap().is_none(), "what ended is erased");
    assert_eq!(store.log.read(1, 1).await.unwrap(), lines[1..2]);
}

#[tokio::test]
async fn a_second_process_a_wrong_key_and_an_open_key_file_are_refused() {
    let home = Directory::new("refused");
    let key = |text: &str| Some(MasterKey::from_hex(&text.repeat(64)).unwrap());
    let first = Store::open(&home.0, key("a")).await.unwrap();
    assert!(matches!(Store::open(&home.0, key("a")).await, Err(StoreError::InUse(_))));
    drop(first);
    assert!(matches!(Store::open(&home.0, key("b")).await, Err(StoreError::WrongKey)));
    assert!(matches!(Store::open(&home.0, None).await, Err(StoreError::WrongKey)), "no new key is made for an old store");
    assert!(Store::open(&home.0, key("a")).await.is_ok());
    assert!(matches!(MasterKey::from_hex("abc"), Err(StoreError::MalformedKey)));

    let open = Directory::new("open");
    drop(Store::open(&open.0, None).await.unwrap());
    std::fs::set_permissions(open.0.join("master.key"), PermissionsExt::from_mode(0o644)).unwrap();
    assert!(matches!(Store::open(&open.0, None).await, Err(StoreError::OpenToOthers(..))));
}

#[tokio::test]
async fn a_writer_that_is_behind_writes_nothing() {
    let home = Directory::new("behind");
    let store = Store::open(&home.0, None).await.unwrap();
    let head = store.log.append(Head::EMPTY, &[entry(1)], &[]).await.unwrap();
    let late = store.log.append(Head::EMPTY, &[entry(1)], &[put("late", "never")]).await;
    assert!(matches!(late, Err(StoreError::Behind(1))));
    assert!(store.log.secret("late").await.unwrap().is_none(), "all or nothing");
    store.log.append(head, &[entry(2)], &[]).await.unwrap();
}

#[tokio::test]
async fn a_secret_is_bound_to_its_name_and_stands_nowhere_in_clear() {
    let home = Directory::new("sealed");
    let store = Store::open(&home.0, None).await.unwrap();
    store.log.append(Head::EMPTY, &[], &[put("pass:one", "canary-in-a-coal-mine")]).await.unwrap();
    drop(store);
    for file in std::fs::read_dir(&home.0).unwrap() {
        let content = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!content.windows(6).any(|part| part == b"canary"));
    }
    // somebody with the file but without the key gives one record's value to another
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", home.0.join("log.db").display())).await.unwrap();
    sqlx::query("INSERT INTO secrets (id, sealed) SELECT 'pass:two', sealed FROM secrets WHERE id = 'pass:one'").execute(&pool).await.unwrap();
    pool.close().await;
    let store = Store::open(&home.0, None).await.unwrap();
    assert!(matches!(store.log.secret("pass:two").await, Err(StoreError::Damaged(_))));
}
