//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677; channel binding `tls-server-end-point`, RFC 5929), both halves.
//!
//! HMAC, SHA-256 and PBKDF2 come from RustCrypto; what stands here is the exchange. The crates that have it draw their own
//! nonces, bring a runtime along or compare in varying time. Passwords are ASCII that Daypass made, so SASLprep has nothing to do.

use crate::limits;
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

pub const SCRAM: &str = "SCRAM-SHA-256";
pub const SCRAM_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// Iterations of the passwords that people get: PostgreSQL's own default, and the least that RFC 7677 allows.
pub const ITERATIONS: u32 = 4_096;

/// Why an exchange failed. Whoever sees it beyond the log gets the same words as for a wrong password.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    #[error("the message is not one of SCRAM")]
    Malformed,
    #[error("the channel binding does not fit: somebody stands between, or the client is broken")]
    ChannelBinding,
    #[error("the nonce is not the one of this exchange")]
    Nonce,
    #[error("the proof is wrong")]
    Proof,
    #[error("the target asks for more iterations than {}", limits::SCRAM_ITERATIONS)]
    Iterations,
}

fn hmac(key: &[u8], data: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
    mac.update(data);
    mac.finalize().into_bytes().into()
}

fn sha(data: &[u8]) -> [u8; 32] {
    Sha256::digest(data).into()
}

fn xor(a: &[u8; 32], b: &[u8; 32]) -> [u8; 32] {
    std::array::from_fn(|i| a[i] ^ b[i])
}

/// `Hi(password, salt, iterations)` of RFC 5802: the slow part, worth keeping for an account.
#[derive(Clone)]
pub struct SaltedPassword {
    salt: Vec<u8>,
    iterations: u32,
    key: Zeroizing<[u8; 32]>,
}

impl SaltedPassword {
    pub fn derive(password: &str, salt: &[u8], iterations: u32) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), salt, iterations, key.as_mut());
        SaltedPassword { salt: salt.to_vec(), iterations, key }
    }

    /// What a server keeps of it.
    pub fn verifier(&self) -> Verifier {
        Verifier { iterations: self.iterations, salt: self.salt.clone(), stored_key: sha(&self.client_key()), server_key: self.server_key() }
    }

    fn fits(&self, salt: &[u8], iterations: u32) -> bool {
        self.salt == salt && self.iterations == iterations
    }

    fn client_key(&self) -> [u8; 32] {
        hmac(self.key.as_ref(), b"Client Key")
    }

    fn server_key(&self) -> [u8; 32] {
        hmac(self.key.as_ref(), b"Server Key")
    }
}

/// What a server keeps of a password: enough to check a proof, not enough to give one.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: [u8; 32],
    server_key: [u8; 32],
}

impl Verifier {
    /// The verifier of a password; `salt` is random.
    pub fn of(password: &str, salt: &[u8; 16], iterations: u32) -> Verifier {
        SaltedPassword::derive(password, salt, iterations).verifier()
    }

    /// Whether this is the verifier of a password that came in the clear (inside TLS, in protocols that know no proof).
    pub fn fits(&self, password: &str) -> bool {
        let salted = SaltedPassword::derive(password, &self.salt, self.iterations);
        sha(&salted.client_key()).ct_eq(&self.stored_key).into()
    }

    /// A verifier that no password fits, the same for the same name: probing for names learns nothing.
    pub fn mock(secret: &[u8; 32], name: &str) -> Verifier {
        let salt = hmac(secret, format!("salt {name}").as_bytes())[..16].to_vec();
        // no preimage of this stored key is known to anybody, the holder of `secret` included
        let stored_key = hmac(secret, format!("key {name}").as_bytes());
        Verifier { iterations: ITERATIONS, salt, stored_key, server_key: stored_key }
    }
}

impl std::fmt::Display for Verifier {
    /// PostgreSQL's form: `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Verifier { iterations, salt, stored_key, server_key } = self;
        write!(f, "{SCRAM}${iterations}:{}${}:{}", STANDARD.encode(salt), STANDARD.encode(stored_key), STANDARD.encode(server_key))
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier(…)")
    }
}

impl std::str::FromStr for Verifier {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let read = || {
            let rest = text.strip_prefix(SCRAM)?.strip_prefix('$')?;
            let (head, keys) = rest.split_once('$')?;
            let (iterations, salt) = head.split_once(':')?;
            let (stored, server) = keys.split_once(':')?;
            Some(Verifier {
                iterations: iterations.parse().ok().filter(|n| *n > 0)?,
                salt: STANDARD.decode(salt).ok()?,
                stored_key: STANDARD.decode(stored).ok()?.try_into().ok()?,
                server_key: STANDARD.decode(server).ok()?.try_into().ok()?,
            })
        };
        read().ok_or(Fault::Malformed)
    }
}

/// The server's half, between its first message and its last.
pub struct Server {
    verifier: Verifier,
    nonce: String,
    /// `client-first-bare,server-first`
    transcript: String,
    /// What the client's `c=` must be, before base64.
    binding: Vec<u8>,
}

impl Server {
    /// Takes the client's first message and gives the server's.
    ///
    /// `plus` says which mechanism the client chose; `certificate` is the hash of our certificate when PLUS was offered.
    pub fn begin(client_first: &[u8], plus: bool, certificate: Option<&[u8]>, server_nonce: &str, verifier: Verifier) -> Result<(Server, Vec<u8>), Fault> {
        let text = std::str::from_utf8(client_first).map_err(|_| Fault::Malformed)?;
        let (flag, rest) = text.split_once(',').ok_or(Fault::Malformed)?;
        let (authzid, bare) = rest.split_once(',').ok_or(Fault::Malformed)?;
        if !authzid.is_empty() {
            return Err(Fault::Malformed);
        }
        let gs2 = &text[..flag.len() + 1 + authzid.len() + 1];
        let binding = match (flag, plus, certificate) {
            ("p=tls-server-end-point", true, Some(hash)) => [gs2.as_bytes(), hash].concat(),
            // "n": the client cannot; "y": it can, and believes that we cannot. If we offered PLUS, somebody hid the offer
            ("n", false, _) | ("y", false, None) => gs2.as_bytes().to_vec(),
            _ => return Err(Fault::ChannelBinding),
        };
        let client_nonce = bare
            .strip_prefix("n=")
            .and_then(|named| named.split_once(",r="))
            .map(|(_, nonce)| nonce)
            .filter(|nonce| (8..=256).contains(&nonce.len()) && nonce.bytes().all(|b| matches!(b, 0x21..=0x7e) && b != b','))
            .ok_or(Fault::Malformed)?;
        let nonce = format!("{client_nonce}{server_nonce}");
        let server_first = format!("r={nonce},s={},i={}", STANDARD.encode(&verifier.salt), verifier.iterations);
        let transcript = format!("{bare},{server_first}");
        Ok((Server { verifier, nonce, transcript, binding }, server_first.into_bytes()))
    }

    /// Takes the client's last message; gives the server's last when the proof is right.
    pub fn finish(self, client_final: &[u8]) -> Result<Vec<u8>, Fault> {
        let text = std::str::from_utf8(client_final).map_err(|_| Fault::Malformed)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(Fault::Malformed)?;
        let (binding, nonce) = without_proof.strip_prefix("c=").and_then(|rest| rest.split_once(",r=")).ok_or(Fault::Malformed)?;
        let proof: [u8; 32] = STANDARD.decode(proof).ok().and_then(|p| p.try_into().ok()).ok_or(Fault::Malformed)?;
        let binding = STANDARD.decode(binding).map_err(|_| Fault::Malformed)?;
        if !bool::from(binding.ct_eq(&self.binding)) {
            return Err(Fault::ChannelBinding);
        }
        if nonce != self.nonce {
            return Err(Fault::Nonce);
        }
        let message = format!("{},{without_proof}", self.transcript);
        let client_key = xor(&proof, &hmac(&self.verifier.stored_key, message.as_bytes()));
        if !bool::from(sha(&client_key).ct_eq(&self.verifier.stored_key)) {
            return Err(Fault::Proof);
        }
        Ok(format!("v={}", STANDARD.encode(hmac(&self.verifier.server_key, message.as_bytes()))).into_bytes())
    }
}

/// The client's half, towards a target.
pub struct Client {
    gs2: &'static str,
    binding: Vec<u8>,
    bare: String,
    nonce: String,
}

/// The client's half between its last message and the server's.
pub struct ClientProved {
    server_signature: [u8; 32],
}

impl Client {
    /// Begins an exchange; `certificate` is the hash of the target's certificate when PLUS is chosen.
    pub fn begin(nonce: &str, certificate: Option<&[u8]>) -> (Client, Vec<u8>) {
        let gs2 = if certificate.is_some() { "p=tls-server-end-point,," } else { "n,," };
        // PostgreSQL ignores the name here and takes the one of the start-up message
        let bare = format!("n=,r={nonce}");
        let first = format!("{gs2}{bare}").into_bytes();
        (Client { gs2, binding: certificate.unwrap_or_default().to_vec(), bare, nonce: nonce.to_owned() }, first)
    }

    /// Answers the server's first message. `cached` is used when it fits, and replaced when it does not.
    pub fn prove(self, server_first: &[u8], password: &str, cached: &mut Option<SaltedPassword>) -> Result<(ClientProved, Vec<u8>), Fault> {
        let text = std::str::from_utf8(server_first).map_err(|_| Fault::Malformed)?;
        let (nonce, rest) = text.strip_prefix("r=").and_then(|rest| rest.split_once(",s=")).ok_or(Fault::Malformed)?;
        let (salt, iterations) = rest.split_once(",i=").ok_or(Fault::Malformed)?;
        let salt = STANDARD.decode(salt).map_err(|_| Fault::Malformed)?;
        let iterations: u32 = iterations.parse().map_err(|_| Fault::Malformed)?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(Fault::Nonce);
        }
        if iterations == 0 || iterations > limits::SCRAM_ITERATIONS {
            return Err(Fault::Iterations);
        }
        let salted = match cached.take().filter(|salted| salted.fits(&salt, iterations)) {
            Some(salted) => salted,
            None => SaltedPassword::derive(password, &salt, iterations),
        };
        let salted = cached.insert(salted);
        let without_proof = format!("c={},r={nonce}", STANDARD.encode([self.gs2.as_bytes(), &self.binding].concat()));
        let message = format!("{},{text},{without_proof}", self.bare);
        let client_key = salted.client_key();
        let proof = xor(&client_key, &hmac(&sha(&client_key), message.as_bytes()));
        let proved = ClientProved { server_signature: hmac(&salted.server_key(), message.as_bytes()) };
        Ok((proved, format!("{without_proof},p={}", STANDARD.encode(proof)).into_bytes()))
    }
}

impl ClientProved {
    /// Checks that the server knows the password as well.
    pub fn check(self, server_final: &[u8]) -> Result<(), Fault> {
        let signature = server_final.strip_prefix(b"v=").and_then(|v| STANDARD.decode(v).ok()).ok_or(Fault::Malformed)?;
        if bool::from(signature.as_slice().ct_eq(&self.server_signature)) { Ok(()) } else { Err(Fault::Proof) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

    fn verifier(password: &str) -> Verifier {
        Verifier::of(password, b"0123456789abcdef", ITERATIONS)
    }

    /// Runs the exchange with rust-postgres' client as the other side.
    fn with_a_foreign_client(password: &str, verifier: Verifier, certificate: Option<&[u8]>) -> Result<(), Fault> {
        let binding = match certificate {
            Some(hash) => ChannelBinding::tls_server_end_point(hash.to_vec()),
            None => ChannelBinding::unsupported(),
        };
        let mut client = ScramSha256::new(password.as_bytes(), binding);
        let (server, first) = Server::begin(client.message(), certificate.is_some(), certificate, "server-nonce", verifier)?;
        client.update(&first).unwrap();
        let last = server.finish(client.message())?;
        client.finish(&last).expect("the client accepts our signature");
        Ok(())
    }

    #[test]
    fn a_foreign_client_proves_its_password() {
        with_a_foreign_client("secret", verifier("secret"), None).unwrap();
        with_a_foreign_client("secret", verifier("secret"), Some(&[7; 32])).unwrap();
        assert_eq!(with_a_foreign_client("wrong", verifier("secret"), None), Err(Fault::Proof));
        assert_eq!(with_a_foreign_client("secret", Verifier::mock(&[1; 32], "jit_x"), None), Err(Fault::Proof));
        assert!(verifier("secret").fits("secret") && !verifier("secret").fits("wrong") && !Verifier::mock(&[1; 32], "jit_x").fits(""));
    }

    #[test]
    fn a_verifier_is_the_one_that_postgresql_would_make() {
        let theirs = postgres_protocol::password::scram_sha_256(b"secret").parse::<Verifier>().unwrap();
        with_a_foreign_client("secret", theirs.clone(), None).unwrap();
        assert_eq!(theirs.to_string().parse::<Verifier>().unwrap(), theirs);
        for wrong in ["", "md5abc", "SCRAM-SHA-256$0:AA==$AA==:AA==", "SCRAM-SHA-256$4096:AA==$AA==:AA=="] {
            assert!(wrong.parse::<Verifier>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn our_two_halves_agree_and_the_slow_part_is_done_once() {
        let mut cache = None;
        for _ in 0..2 {
            let (client, first) = Client::begin("client-nonce-0123", None);
            let (server, server_first) = Server::begin(&first, false, None, "server-nonce", verifier("secret")).unwrap();
            let (proved, last) = client.prove(&server_first, "secret", &mut cache).unwrap();
            proved.check(&server.finish(&last).unwrap()).unwrap();
            assert!(cache.is_some());
        }
    }

    #[test]
    fn a_hidden_offer_of_channel_binding_is_noticed() {
        let begin = |first: &[u8], plus, cert: Option<&[u8]>| Server::begin(first, plus, cert, "s", verifier("x")).map(|_| ());
        assert_eq!(begin(b"y,,n=,r=0123456789", false, Some(&[1; 32])), Err(Fault::ChannelBinding));
        assert_eq!(begin(b"p=tls-unique,,n=,r=0123456789", true, Some(&[1; 32])), Err(Fault::ChannelBinding));
        assert_eq!(begin(b"p=tls-server-end-point,,n=,r=0123456789", false, Some(&[1; 32])), Err(Fault::ChannelBinding));
        assert_eq!(begin(b"y,,n=,r=0123456789", false, None), Ok(()));
        for wrong in [&b""[..], b"n", b"n,,", b"n,,n=,r=", b"n,a=admin,n=,r=0123456789", b"\xff,,n=,r=0123456789", b"n,,n=,r=01234567\x00"] {
            assert_eq!(begin(wrong, false, None), Err(Fault::Malformed));
        }
    }

    #[test]
    fn another_certificate_in_between_is_noticed() {
        let mut client = ScramSha256::new(b"secret", ChannelBinding::tls_server_end_point(vec![9; 32]));
        let (server, first) = Server::begin(client.message(), true, Some(&[7; 32]), "s", verifier("secret")).unwrap();
        client.update(&first).unwrap();
        assert_eq!(server.finish(client.message()), Err(Fault::ChannelBinding));
    }

    #[test]
    fn a_target_cannot_make_us_compute_for_ever_or_skip_its_own_proof() {
        let (client, _) = Client::begin("abc", None);
        assert!(matches!(client.prove(b"r=abcdef,s=AAAA,i=4000000000", "x", &mut None), Err(Fault::Iterations)));
        let (client, _) = Client::begin("abc", None);
        assert!(matches!(client.prove(b"r=abc,s=AAAA,i=1", "x", &mut None), Err(Fault::Nonce)));
        let (client, _) = Client::begin("abc", None);
        let (proved, _) = client.prove(b"r=abcdef,s=AAAA,i=1", "x", &mut None).unwrap();
        assert_eq!(proved.check(b"v=AAAA"), Err(Fault::Proof));
    }
}
