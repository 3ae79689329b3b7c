//! The corpus of the fuzz targets, played again in every test run; each input whole, cut short at each byte, and with each byte changed.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so by a panic")]

mod drive;

#[expect(clippy::disallowed_methods, reason = "the corpus lies in files")]
fn replay(name: &str, drive: fn(&[u8])) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let data = std::fs::read(entry.unwrap().path()).unwrap();
        drive(&data);
        for at in 0..data.len().min(400) {
            drive(&data[..at]);
            let mut changed = data.clone();
            changed[at] ^= 0xff;
            drive(&changed);
        }
        count += 1;
    }
    assert!(count > 0, "the corpus of {name} is empty");
}

#[test]
fn startup_survives_its_corpus() {
    replay("pg_startup", drive::startup);
}

#[test]
fn upstream_survives_its_corpus() {
    replay("pg_upstream", drive::upstream);
}

#[test]
fn observation_survives_its_corpus() {
    replay("pg_observe", drive::observe);
}

#[test]
fn the_startup_of_sql_server_survives_its_corpus() {
    replay("tds_startup", drive::tds_startup);
}

#[test]
fn the_login_at_a_sql_server_survives_its_corpus() {
    replay("tds_upstream", drive::tds_upstream);
}

#[test]
fn observation_of_sql_server_survives_its_corpus() {
    replay("tds_observe", drive::tds_observe);
}
