//! Sealing secrets at rest: AES-256-GCM with a random nonce, the record's id as associated data. A data key does the sealing;
//! the master key seals only the data key, so that it can be changed without touching every record.

use crate::{StoreError, files};
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    rand,
};
use std::path::Path;
use zeroize::Zeroizing;

/// 32 bytes that open the store.
pub struct MasterKey(Zeroizing<[u8; 32]>);

impl MasterKey {
    /// From 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Result<Self, StoreError> {
        daypass_core::secret::unhex(text.trim()).map(|bytes| MasterKey(Zeroizing::new(bytes))).ok_or(StoreError::MalformedKey)
    }
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

/// The key in `master.key`, which is made at the first start. A store without its key file is not given a new one.
pub fn key_file(directory: &Path) -> Result<MasterKey, StoreError> {
    let path = directory.join("master.key");
    if !path.exists() {
        if directory.join("log.db").exists() {
            return Err(StoreError::WrongKey);
        }
        let text = Zeroizing::new(daypass_core::secret::hex(random()?.as_ref()));
        files::write_private(&path, text.as_bytes())?;
    }
    MasterKey::from_hex(&Zeroizing::new(files::read_private(&path)?))
}

fn random() -> Result<Zeroizing<[u8; 32]>, StoreError> {
    let mut bytes = Zeroizing::new([0; 32]);
    rand::fill(bytes.as_mut()).map_err(|_| StoreError::CannotWrite("the system gives no random numbers".to_owned()))?;
    Ok(bytes)
}

/// Seals and opens records.
pub struct Sealer(RandomizedNonceKey);

impl Sealer {
    fn of(key: &[u8; 32]) -> Sealer {
        Sealer(RandomizedNonceKey::new(&AES_256_GCM, key).unwrap_or_else(|_| unreachable!("AES-256 takes 32 bytes")))
    }

    /// A new data key, sealed under the master key.
    pub fn create(master: &MasterKey) -> Result<(Sealer, Vec<u8>), StoreError> {
        let data_key = random()?;
        let sealed = Sealer::of(&master.0).seal("data key", data_key.as_ref())?;
        Ok((Sealer::of(&data_key), sealed))
    }

    /// The data key of a store, if the master key is the right one.
    pub fn unlock(master: &MasterKey, sealed: &[u8]) -> Result<Sealer, StoreError> {
        let data_key = Sealer::of(&master.0).open("data key", sealed).map_err(|_| StoreError::WrongKey)?;
        let data_key: Zeroizing<[u8; 32]> = Zeroizing::new(data_key.as_slice().try_into().map_err(|_| StoreError::WrongKey)?);
        Ok(Sealer::of(&data_key))
    }

    /// `nonce + ciphertext + tag`
    pub fn seal(&self, id: &str, clear: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut data = clear.to_vec();
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(id.as_bytes()), &mut data)
            .map_err(|_| StoreError::CannotWrite("a secret could not be sealed".to_owned()))?;
        Ok([&nonce.as_ref()[..], &data].concat())
    }

    pub fn open(&self, id: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let damaged = || StoreError::Damaged(format!("the sealed secret {id} cannot be opened"));
        let (nonce, data) = sealed.split_at_checked(NONCE_LEN).ok_or_else(damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| damaged())?;
        let mut data = Zeroizing::new(data.to_vec());
        let length = self.0.open_in_place(nonce, Aad::from(id.as_bytes()), &mut data).map_err(|_| damaged())?.len();
        data.truncate(length);
        Ok(data)
    }
}
