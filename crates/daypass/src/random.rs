//! Randomness, ids and passwords: made in this shell, handed to the core.

/// Fills with random bytes. Without randomness there is no security: the process ends.
pub fn fill(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the system gives random numbers");
}

pub fn number() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// A password of 33 letters and digits, without the ones that look alike: over 160 random bits, safe in every connection string.
pub fn password() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0; 33];
    fill(&mut bytes);
    bytes.iter().map(|byte| LETTERS[usize::from(byte & 31)] as char).collect()
}

/// An API token: 256 random bits, recognisable in a leak.
pub fn token() -> String {
    let mut bytes = [0; 32];
    fill(&mut bytes);
    format!("dpt_{}", daypass_core::secret::hex(&bytes))
}

pub fn id() -> uuid::Uuid {
    uuid::Uuid::now_v7()
}

/// The id for an idempotency key: the same key from the same person gives the same id, so a repeated call makes nothing twice.
pub fn id_for(key: Option<&str>, person: uuid::Uuid) -> uuid::Uuid {
    match key {
        Some(key) => uuid::Uuid::new_v5(&person, key.as_bytes()),
        None => id(),
    }
}
